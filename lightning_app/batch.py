"""The batch: the one place where data and models meet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, TypedDict

from torch import Tensor


class TimeIndices(TypedDict, total=False):
    """What a batch has beside the rest, if the configuration asks for time features as whole numbers."""

    x_time: Tensor
    """(batch, lookback, time feature) int64 hours or days of the input rows."""
    y_time: Tensor
    """(batch, horizon, time feature) int64 hours or days of the target rows."""


class Batch(TimeIndices):
    """What a loader yields and a model reads.

    Values of `x`, `y`, `x_static` and `x_future` are scaled; missing ones are 0, the training mean.
    """

    x: Tensor
    """(batch, lookback, channel) float32 inputs."""
    y: Tensor
    """(batch, horizon, target) float32 targets."""
    mask: Tensor
    """(batch, horizon, target) bool; True where the target was observed."""
    x_static: Tensor
    """(batch, attribute) float32 static attributes."""
    x_future: Tensor
    """(batch, horizon, known channel) float32 channels known in advance."""
    series: Tensor
    """(batch,) int64 position of the series in the store's ids."""
    time: Tensor
    """(batch,) int64 time of the first target."""


@dataclass(frozen=True)
class BatchShape:
    """Everything a model must know about its batches to be built.

    Parameters
    ----------
    lookback
        Input rows.
    horizon
        Target rows.
    delay
        Rows between the last input and the first target.
    n_inputs
        Input channels.
    n_targets
        Target channels.
    target_inputs
        Position of each target among the inputs, -1 where it is no input.
    n_static
        Columns of `x_static`.
    n_future
        Channels of `x_future`.
    time_sizes
        How many values each time feature of `x_time` and `y_time` has; empty without these.
    """

    lookback: int
    horizon: int
    delay: int
    n_inputs: int
    n_targets: int
    target_inputs: list[int]
    n_static: int = 0
    n_future: int = 0
    time_sizes: list[int] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return asdict(self)


class TargetsOfSeries(Protocol):
    """What a model asks of the data module beside batches."""

    @property
    def n_series(self) -> int:
        """Series that `series` of a batch counts."""

    @property
    def target_std(self) -> Tensor:
        """(series, target) float32 standard deviation of the scaled training targets."""

    def to_source(self, scaled: Tensor, series: Tensor) -> Tensor:
        """Scaled targets, (batch, horizon, target), of some series, (batch,), in source units, float32."""

    def training_rows(self) -> Iterable[Batch]:
        """Every training target once, in windows of one row that are input and target."""
