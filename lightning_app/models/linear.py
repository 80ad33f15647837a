r"""Linear: one linear map over time.

.. math:: \hat y = W x + b

Zeng, Chen, Zhang & Xu 2023, "Are Transformers Effective for Time Series Forecasting?", AAAI.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lightning_app.batch import Batch, BatchShape
from lightning_app.models.base import TaskModel, require_input_targets


class Linear(TaskModel):
    """One linear map from lookback to horizon, shared by all channels.

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
        require_input_targets(shape, "Linear")
        self.linear = nn.Linear(shape.lookback, shape.horizon)

    def forward(self, batch: Batch) -> Tensor:
        """(batch, horizon, target)."""
        x = self.shape.targets_among(batch["x"]).transpose(1, 2)  # (batch, target, lookback)
        ahead: Tensor = self.linear(x)  # (batch, target, horizon)
        return ahead.transpose(1, 2)
