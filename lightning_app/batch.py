"""The batch: the one place where data and models meet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, TypedDict, cast

from torch import Tensor


class OptionalParts(TypedDict, total=False):
    """What a batch has beside the rest where it is asked for: whole numbers of times, padding, targets as stored."""

    x_time: Tensor
    """(batch, lookback, time feature) int64 steps, hours or days of the input rows."""
    y_time: Tensor
    """(batch, horizon, time feature) int64 steps, hours or days of the target rows."""
    x_pad: Tensor
    """(batch, lookback) bool, with padding: True where an input row is padded. Steps of fields are padded alike."""
    y_pad: Tensor
    """(batch, horizon) bool, with padding: True where a target is padded; `mask` is False there."""
    y_source: Tensor
    """(batch, horizon, target) the bits of float64 targets in source units as int64, in evaluation for models that
    measure in source units: bits, so that no precision of Lightning's rounds them. Anything where `mask` is False."""


class Batch(OptionalParts):
    """What a loader yields and a model reads.

    In a panel, `x`, `y`, `mask` and `x_future` have an axis `node` before the last one, and `series` and `x_static`
    one behind the first: (batch, lookback, node, channel) and so on.

    Values of `x`, `y`, `x_static` and `x_future` are scaled; missing ones are 0, the training mean. Fields, such as
    images, stand under their own names, (batch, step, …), as they are stored: most as uint8. Where some row of the
    store has no value of a field ``camera``, its values are 0, and ``camera_observed``, (batch, step) bool, is False.
    Vectors on steps of their own do so too: (batch, step, channel) float32, scaled.
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


BATCH_KEYS = Batch.__required_keys__ | Batch.__optional_keys__
"""What a batch has, or may have, beside its fields."""


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
    n_nodes
        Series of a panel; 0 for windows of single series.
    fields
        By name of a field, its steps and the lengths of its other axes.
    vectors
        By name of a vector that batches have on its own, its steps and its channels.
    target_stride
        Rows from one target to the next.
    classes
        By target, its classes: words, whose codes are their positions, or numbers; empty for a target that is a number.
        Empty where none is a class.
    field_axes, field_dtypes
        By name of a field, the names of its own axes, such as ``y``, ``x``, ``colour``, and its dtype, such as
        ``uint8``.
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
    n_nodes: int = 0
    fields: dict[str, list[int]] = field(default_factory=dict)
    target_stride: int = 1
    field_axes: dict[str, list[str]] = field(default_factory=dict)
    field_dtypes: dict[str, str] = field(default_factory=dict)
    vectors: dict[str, list[int]] = field(default_factory=dict)
    classes: list[list[Any]] = field(default_factory=list)

    @property
    def target_span(self) -> int:
        """Rows from the first to the last target, both included."""
        return (self.horizon - 1) * self.target_stride + 1

    def targets_among(self, inputs: Tensor) -> Tensor:
        """(…, target) of (…, channel) inputs those that are targets too."""
        return picked(inputs, self.target_inputs)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return asdict(self)


_BY_NODE = ("x", "y", "mask", "x_future")


def picked(values: Tensor, columns: Sequence[int]) -> Tensor:
    """(…, column) some columns of the last axis: a view where they lie beside each other.

    A list of columns would be copied to a GPU for each batch, and waited for.
    """
    first, n = columns[0] if columns else 0, len(columns)
    beside = first >= 0 and list(columns) == list(range(first, first + n))
    return values.narrow(-1, first, n) if beside else values[..., columns]


def by_series(batch: Batch) -> Batch:
    """A batch of panels as windows of single series: those of the first panel, then those of the second, and so on."""
    n_nodes = batch["series"].shape[1]
    parts = {name: part_by_series(batch[name]) for name in _BY_NODE}  # type: ignore[literal-required]
    if "y_source" in batch:
        parts["y_source"] = part_by_series(batch["y_source"])
    parts |= {"series": batch["series"].flatten(0, 1), "x_static": batch["x_static"].flatten(0, 1)}
    for name in ("time", "x_time", "y_time", "x_pad", "y_pad"):
        if name in batch:
            parts[name] = batch[name].repeat_interleave(n_nodes, dim=0)
    return cast(Batch, parts)


def part_by_series(part: Tensor) -> Tensor:
    """(batch, step, node, channel) as (batch * node, step, channel)."""
    return part.transpose(1, 2).flatten(0, 1)


def part_by_panel(part: Tensor, n_nodes: int) -> Tensor:
    """(batch * node, step, channel) as (batch, step, node, channel)."""
    return part.reshape(-1, n_nodes, *part.shape[1:]).transpose(1, 2)


class DataOfModels(Protocol):
    """What a model asks of the data module beside batches."""

    @property
    def n_series(self) -> int:
        """Series that `series` of a batch counts."""

    @property
    def where(self) -> str:
        """The store, for messages."""

    @property
    def infinite_channels(self) -> list[str]:
        """Channels in use that have infinite values somewhere in the store."""

    @property
    def target_std(self) -> Tensor:
        """(series, target) float32 standard deviation of the scaled training targets."""

    @property
    def source_std(self) -> Tensor:
        """(series, target) float64 standard deviation of the training targets in source units."""

    def seasonal_errors(self, season: int) -> tuple[Tensor, Tensor]:
        """(series, target) float64 mean absolute and squared difference of training targets `season` rows apart."""

    def to_source(self, scaled: Tensor, series: Tensor, floored: bool = False) -> Tensor:
        """Scaled targets, (batch, horizon, target), of some series, (batch,), in source units, float64.

        Forecasts are `floored`: no less than what was asked for, if anything was.
        """

    def last_inputs(self, names: Sequence[str | None], x: Tensor, series: Tensor) -> Tensor:
        """(batch, target) some inputs of `x` at the last input row, in the scaled units of targets; 0 for None."""

    @property
    def node_positions(self) -> Tensor:
        """(node, 2) float64 latitude and longitude of the series of a panel."""

    def training_rows(self) -> Iterable[Batch]:
        """Every training target once, in windows of one row that are input and target."""
