"""What batches have of the times of their rows: calendar features, as cycles or as whole numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lightning_app.data.batches.located import PositionTimes
from lightning_app.data.batches.padding import Reach
from lightning_app.data.columns.calendar import cycles_along, time_cycles, time_index
from lightning_app.data.columns.roles import Columns
from zstore import WindowShape


@dataclass(frozen=True)
class RowTimes:
    """Times of some rows of each window, counted from its first target.

    Parameters
    ----------
    columns
        Which calendar features there are, and how far it is from one row to the next.
    time
        (batch,) int64 times of the first targets, on the device of the batch.
    first
        (batch,) int64 positions of the first targets in the rows of the source.
    steps
        Which rows.
    reach
        Which of them may be read; None for all.
    given
        Times by position, where they are irregular; else None.
    """

    columns: Columns
    time: Tensor
    first: Tensor
    steps: range
    reach: Reach | None
    given: PositionTimes | None

    @classmethod
    def both(
        cls,
        columns: Columns,
        shape: WindowShape,
        time: Tensor,
        first: Tensor,
        reach: tuple[Reach | None, Reach | None],
        given: PositionTimes | None,
    ) -> tuple[RowTimes, RowTimes]:
        """Those of the inputs and of the targets of windows, whose `reach` counts from the first row of each."""
        ahead_of = shape.target_offset
        inputs = None if reach[0] is None else reach[0].moved(-ahead_of)
        past, ahead = range(-ahead_of, shape.lookback - ahead_of), range(0, shape.target_span, shape.target_stride)
        return cls(columns, time, first, past, inputs, given), cls(columns, time, first, ahead, reach[1], given)

    def index(self) -> Tensor:
        """(batch, step, feature) int64: whole steps, hours or days."""
        columns, times = self.columns, self._times()
        found = [time_index(times, feature, columns.unit, columns.step) for feature in columns.calendar]
        return torch.stack(found, dim=-1)

    def cycles(self) -> list[Tensor]:
        """(batch, step, 2) sine and cosine of each feature."""
        columns = self.columns
        if columns.step:
            own = self.time, self.steps, columns.step
            return [cycles_along(*own, feature, columns.unit) for feature in columns.calendar]
        times = self._times()
        return [time_cycles(times, feature, columns.unit) for feature in columns.calendar]

    def _times(self) -> Tensor:
        """(batch, step) times of the rows."""
        device, steps = self.time.device, self.steps
        if self.given is not None:
            return self.given.along(self.first, steps, self.reach).to(device, non_blocking=True)
        if self.columns.step:
            places = torch.arange(steps.start, steps.stop, steps.step, device=device)
            return self.time[:, None] + places * self.columns.step
        times = self.columns.rule.times(np.array(steps), self.time.cpu().numpy()[:, None])
        return torch.from_numpy(times).to(device, non_blocking=True)
