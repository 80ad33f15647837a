r"""Persistence: the last input row, repeated over the horizon.

.. math:: \hat y_{t+h} = x_t \quad \text{for every } h
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lightning_app.batch import Batch, BatchShape
from lightning_app.models.base import TaskModel
from zstore import UsageError


class Repeat(TaskModel):
    """Repeat the last input row over the horizon. Nothing to fit; the baseline every model has to beat.

    A missing value of that row reads as the training mean, as for every model.

    Parameters
    ----------
    shape
        Lengths and widths of the batches; linked from the data by the command line.
    options
        See `TaskModel`.

    Raises
    ------
    UsageError
        If a target is no input channel, or targets lie among the inputs.
    """

    only_forecasts = True
    fitted = False

    def __init__(self, shape: BatchShape, **options: Any) -> None:
        super().__init__(shape, **options)
        if -1 in shape.target_inputs:
            raise UsageError("Repeat with a target that is no input", expected="targets among --data.channels")
        if shape.delay < 0:
            raise UsageError(f"Repeat with delay {shape.delay}", expected="0 or more: it would copy the target itself")

    def forward(self, batch: Batch) -> Tensor:
        """(batch, horizon, target)."""
        last = self.shape.targets_among(batch["x"][:, -1:])  # (batch, 1, target)
        return last.expand(-1, self.shape.horizon, -1)
