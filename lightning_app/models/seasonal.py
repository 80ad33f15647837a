r"""Seasonal persistence: the last season of the input, repeated over the horizon.

.. math:: \hat y_{T+h} = x_{T+h-ms}, \quad m \text{ the smallest whole number for which the row is an input}
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_app.batch import Batch, BatchShape
from lightning_app.models.base import TaskModel, require_input_targets
from zstore import UsageError


class SeasonalRepeat(TaskModel):
    """Repeat the last season over the horizon. Nothing to fit.

    Parameters
    ----------
    shape
        Lengths and widths of the batches; linked from the data by the command line.
    season
        Rows of a season: 24 for a day of hours.
    options
        See `TaskModel`.
    """

    only_forecasts = True
    fitted = False
    places: Tensor

    def __init__(self, shape: BatchShape, season: int = 24, **options: Any) -> None:
        super().__init__(shape, **options)
        require_input_targets(shape, "SeasonalRepeat")
        if not 1 <= season <= shape.lookback:
            raise UsageError(
                f"season of {season} rows", expected=f"1 to {shape.lookback}, the lookback", fix="a longer lookback"
            )
        if shape.delay < 0:
            raise UsageError(
                f"SeasonalRepeat with delay {shape.delay}", expected="0 or more: it would copy the target itself"
            )
        ahead = shape.delay + torch.arange(shape.horizon) * shape.target_stride
        self.register_buffer("places", shape.lookback - season + ahead % season, persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        """(batch, horizon, target)."""
        return self.shape.targets_among(batch["x"][:, self.places])
