r"""DLinear: a moving average splits the input into trend and remainder, each mapped by a linear layer.

.. math:: \hat y = W_t \, \mathrm{MA}_k(x) + b_t + W_r \, (x - \mathrm{MA}_k(x)) + b_r

The moving average of k rows is padded with the first and the last value.
Zeng, Chen, Zhang & Xu 2023, "Are Transformers Effective for Time Series Forecasting?", AAAI.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_app.batch import Batch, BatchShape
from lightning_app.models.base import TaskModel, require_input_targets
from zstore import UsageError


class DLinear(TaskModel):
    """Two linear maps from lookback to horizon, shared by all channels: one for the trend, one for the rest.

    Parameters
    ----------
    shape
        Lengths and widths of the batches; linked from the data by the command line.
    kernel
        Rows of the moving average; odd.
    options
        See `TaskModel`.
    """

    only_forecasts = True
    of_weights = ("kernel",)

    def __init__(self, shape: BatchShape, kernel: int = 25, **options: Any) -> None:
        super().__init__(shape, **options)
        require_input_targets(shape, "DLinear")
        if kernel < 1 or kernel % 2 == 0:
            raise UsageError(f"kernel {kernel}", expected="an odd number of rows", fix="correct --model.kernel")
        self.kernel = kernel
        self.trend = nn.Linear(shape.lookback, shape.horizon)
        self.rest = nn.Linear(shape.lookback, shape.horizon)

    def forward(self, batch: Batch) -> Tensor:
        """(batch, horizon, target)."""
        x = self.shape.targets_among(batch["x"]).transpose(1, 2)  # (batch, target, lookback)
        half = self.kernel // 2
        padded = torch.cat([x[..., :1].expand(-1, -1, half), x, x[..., -1:].expand(-1, -1, half)], dim=-1)
        trend = nn.functional.avg_pool1d(padded, self.kernel, stride=1)  # (batch, target, lookback)
        ahead: Tensor = self.trend(trend) + self.rest(x - trend)  # (batch, target, horizon)
        return ahead.transpose(1, 2)
