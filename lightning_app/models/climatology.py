r"""Climatology: the mean of the training targets of a series at the same time of the year, the week or the day.

.. math:: \hat y_t = \mathrm{mean} \{ y_u : u \text{ in training}, \ k(u) = k(t) \}

where k are the time features of the configuration as whole numbers: the day of the year, or the hour of the day and
the day of the week. Where a series has no such target, its mean by the first feature alone; else its mean; and where
it has none at all, that of all series.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lightning_app.batch import Batch, BatchShape, by_series
from lightning_app.models.base import TaskModel
from zstore import UsageError


class Climatology(TaskModel):
    """The mean of each series at each time. Nothing to fit: its table is made from the training rows where it is used.

    Parameters
    ----------
    shape
        Lengths and widths of the batches; linked from the data by the command line.
    options
        See `TaskModel`.

    Notes
    -----
    Cost: one pass over the training rows. Memory: a number for each series, time and target.
    """

    only_forecasts = True
    fitted = False

    def __init__(self, shape: BatchShape, **options: Any) -> None:
        super().__init__(shape, **options)
        if not shape.time_sizes:
            raise UsageError(
                "Climatology without time features as whole numbers",
                expected="--data.time_features, such as [day_of_year], and --data.time_encoding index",
                fix="add them",
            )
        self._table: Tensor | None = None

    def forward(self, batch: Batch) -> Tensor:
        """(batch, horizon, target)."""
        if self._table is None or self._table.device != batch["y"].device:
            self._table = self._means().to(batch["y"].device)
        return self._table[batch["series"][:, None], self._slots(batch["y_time"])]

    def _slots(self, times: Tensor) -> Tensor:
        """(batch, horizon, feature) to (batch, horizon): one number for each combination."""
        slot = torch.zeros_like(times[..., 0])
        for feature, size in enumerate(self.shape.time_sizes):
            slot = slot * size + times[..., feature]
        return slot

    def _means(self) -> Tensor:
        """(series, slot, target) float32, scaled."""
        n_slots = math.prod(self.shape.time_sizes)
        shape = (self.data.n_series, n_slots, self.shape.n_targets)
        sums, counts = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
        for rows in self.data.training_rows():
            batch = by_series(rows) if self.shape.n_nodes else rows
            slots, mask = self._slots(batch["y_time"])[:, 0].cpu(), batch["mask"][:, 0].cpu()
            where = (batch["series"].cpu(), slots)
            sums.index_put_(where, torch.where(mask, batch["y"][:, 0].cpu(), 0.0).double(), accumulate=True)
            counts.index_put_(where, mask.double(), accumulate=True)
        first, rest = self.shape.time_sizes[0], n_slots // self.shape.time_sizes[0]
        by_first = _ratio(*(part.view(len(part), first, rest, -1).sum(2) for part in (sums, counts)))
        of_series = _ratio(sums.sum(1, keepdim=True), counts.sum(1, keepdim=True))
        of_all = _ratio(sums.sum((0, 1), keepdim=True), counts.sum((0, 1), keepdim=True)).nan_to_num(0.0)
        means = _ratio(sums, counts)
        for wider in (by_first.repeat_interleave(rest, dim=1), of_series, of_all):
            means = torch.where(means.isnan(), wider, means)
        return means.float()


def _ratio(sums: Tensor, counts: Tensor) -> Tensor:
    return torch.where(counts > 0, sums / counts.clamp(min=1), torch.nan)
