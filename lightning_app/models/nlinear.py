r"""NLinear: one linear map over time after subtracting the last value.

.. math:: \hat y = W (x - x_T) + b + x_T

Zeng, Chen, Zhang & Xu 2023, "Are Transformers Effective for Time Series Forecasting?", AAAI.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lightning_app.batch import Batch, BatchShape
from lightning_app.models.base import TaskModel, require_input_targets


class NLinear(TaskModel):
    """One linear map from lookback to horizon, shared by all channels, on values less the last one.

    Parameters
    ----------
    shape
        Lengths and widths of the batches; linked from the data by the command line.
    options
        See `TaskModel`.
    """

    only_forecasts = True

    def __init__(self, shape: BatchShape, **options: Any) -> None:
        super().__init__(shape, **options)
        require_input_targets(shape, "NLinear")
        self.linear = nn.Linear(shape.lookback, shape.horizon)

    def forward(self, batch: Batch) -> Tensor:
        """(batch, horizon, target)."""
        x = self.shape.targets_among(batch["x"])  # (batch, lookback, target)
        last = x[:, -1:]
        ahead: Tensor = self.linear((x - last).transpose(1, 2))  # (batch, target, horizon)
        return ahead.transpose(1, 2) + last
