"""What models share that take the past of each target to its horizon: windows normalised before, restored behind."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from lightning_app.batch import Batch, BatchShape, picked
from lightning_app.models.base import TaskModel, require_input_targets
from lightning_app.models.revin import Level, RevIN, RevINKind
from zstore import UsageError


class ChannelModel(TaskModel):
    """Each target is an input channel, and what is forecast of it is of that channel, normalised by window.

    Parameters
    ----------
    shape
        Lengths and widths of the batches.
    revin
        How the pasts of targets are normalised; see :class:`lightning_app.models.revin.RevIN`. Other inputs are not.
    options
        See `TaskModel`.

    Raises
    ------
    UsageError
        If a target is no input, or the task is none of forecasts, with or without quantiles.
    """

    of_weights: ClassVar[tuple[str, ...]] = ("revin",)

    def __init__(self, shape: BatchShape, revin: RevINKind, **options: Any) -> None:
        super().__init__(shape, **options)
        name = type(self).__name__
        require_input_targets(shape, name)
        if not self.task.roles:
            raise UsageError(
                f"{name} for a {type(self.task).__name__}",
                expected="a Forecast or a ProbabilisticForecast: it takes each channel to its own future",
                fix="another model, such as LSTM",
            )
        self.others = [channel for channel in range(shape.n_inputs) if channel not in shape.target_inputs]
        self.revin = RevIN(shape.n_targets, revin)
        self.n_ahead = shape.horizon * len(self.task.roles)
        """Numbers that say all of one target's horizon: of its first row, then of its second, and so on."""

    def pasts(self, batch: Batch) -> tuple[Tensor, Level]:
        """(batch, target, lookback) normalised pasts of the targets, and what was taken from them."""
        past, level = self.revin(self.shape.targets_among(batch["x"]).transpose(1, 2))
        return past, level

    def other_inputs(self, batch: Batch) -> Tensor:
        """(batch, channel, lookback) inputs that are no targets, as they are."""
        return picked(batch["x"], self.others).transpose(1, 2)

    def restored(self, ahead: Tensor, level: Level) -> Tensor:
        """(batch, target, n_ahead) of normalised windows to (batch, horizon, output)."""
        by_step = ahead.unflatten(-1, (self.shape.horizon, -1))  # type: ignore[no-untyped-call]
        return self.revin.restore(by_step, level, self.task.roles).transpose(1, 2).flatten(2)
