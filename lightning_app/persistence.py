"""The baseline beside each test of a forecast: what the last input row, repeated, would have got."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from lightning_app.batch import Batch, BatchShape, DataOfModels
from lightning_app.metrics import MaskedErrors, reported
from lightning_app.tasks import Forecast, ProbabilisticForecast, Task
from lightning_app.tasks.base import Report


class Persistence(nn.Module):
    """Errors of persistence on the windows of a test: the numbers that the model `Repeat` gets on them.

    A missing value of that row reads as the training mean, as models read it. Exact over batches and processes, as the
    errors of the model are. Memory: eight numbers for each step of each target.

    Parameters
    ----------
    shape
        Of the batches; every target must be among their inputs.
    units
        ``scaled`` or ``source``, those of the errors of the task.
    """

    listed: ClassVar = ("mse", "mae", "rmse", "smape", "r2")
    by_step: ClassVar = ("mse", "mae", "rmse")

    def __init__(self, shape: BatchShape, units: str) -> None:
        super().__init__()
        self.horizon, self.target_inputs, self.units = shape.horizon, shape.target_inputs, units
        self._errors = MaskedErrors(shape.horizon, shape.n_targets)

    def update(self, windows: Batch, data: DataOfModels) -> None:
        """Add a batch of windows of single series."""
        last = windows["x"][:, -1:, self.target_inputs].float().expand(-1, self.horizon, -1)
        if self.units == "source":
            observed = windows["y_source"].view(torch.float64)
            self._errors.update(data.to_source(last, windows["series"]), observed, windows["mask"])
        else:
            self._errors.update(last, windows["y"], windows["mask"])

    def measured(self) -> Report:
        """Errors over everything in `persistence`, by horizon step in `persistence_by_step`; then they are reset."""
        found = reported(self._errors.compute(), self.units)
        self._errors.reset()
        return {
            "persistence": {name: found["all"][name] for name in self.listed if name in found["all"]},
            "persistence_by_step": {name: found["by_step"][name] for name in self.by_step},
        }


def persistence_of(task: Task, shape: BatchShape) -> Persistence | None:
    """The baseline of a task; None where there is none: no forecast of numbers, or targets that are no inputs.

    Targets that lie among the inputs (a delay below 0) have none either: it would copy them.
    """
    if not isinstance(task, Forecast | ProbabilisticForecast) or any(shape.classes):
        return None
    known = shape.delay >= 0 and -1 not in shape.target_inputs
    return Persistence(shape, task.units) if known else None
