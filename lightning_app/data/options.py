"""What was asked of the data module, checked as far as that can be without a store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any, Literal, TypeVar

from lightning_app.data.batches.fields import FieldOptions
from lightning_app.data.columns.calendar import TimeEncoding, TimeFeature
from lightning_app.data.columns.meaning import Unknown
from lightning_app.data.columns.roles import CategoryEncoding
from lightning_app.data.columns.vectors import VectorOptions
from lightning_app.data.rows.residency import Residency, parse_budget
from lightning_app.data.rows.views import Panel
from lightning_app.data.scaling.scaler import ScaledBy, ScalerKind
from lightning_app.data.windows.splits import Split, SplitName
from lightning_app.data.windows.subset import SeriesSubset
from zstore import Cache, UsageError, WindowShape

T = TypeVar("T")
Gaps = Literal["refuse", "fill"]


@dataclass(frozen=True)
class DataOptions:
    """The arguments of :class:`lightning_app.data.datamodule.WindowDataModule`, which explains them.

    Parameters
    ----------
    store, ingest, storage_options, version
        Where rows come from.
    window, evaluation_stride
        Rows and padding of a window and the stride of training windows; the stride of all others.
    jitter
        Rows that training windows are moved by at most.
    one_forecast
        Whether test has one window a series.
    whole_targets
        Whether windows that lack a target are left out.
    channels
        Names, as asked for; None where the store decides.
    targets, future, statics, time_features
        Likewise; targets are empty where the store decides.
    classes
        Targets that are classes.
    fields
        By name of a field, which rows of a window a batch has, and where they live.
    vectors
        By name of a vector, which rows of a window a batch has of it beside the inputs.
    series
        Which series of the store; None for all.
    time_encoding, category_encoding, observed_inputs, unknown, panel
        What is made of them.
    split, predict_on, predict_from, future_values, future_gaps, scaler, scale_by, scale_floor, target_floor
        Which rows are trained on, and how they are scaled, there and back.
    batch_size, seed
        Of batches and their order.
    residency, memory_budget, lanes, cache, row_cache
        Where decoded rows live.

    Raises
    ------
    UsageError
        If an option cannot be meant, whatever the store holds.
    """

    store: str
    window: WindowShape
    evaluation_stride: int
    jitter: int
    one_forecast: bool
    whole_targets: bool
    channels: tuple[str, ...] | None
    targets: tuple[str, ...]
    future: tuple[str, ...]
    statics: tuple[str, ...]
    classes: tuple[str, ...]
    fields: Mapping[str, FieldOptions]
    vectors: Mapping[str, VectorOptions]
    time_features: tuple[TimeFeature, ...]
    time_encoding: TimeEncoding
    category_encoding: CategoryEncoding
    observed_inputs: bool
    unknown: Unknown
    series: SeriesSubset | None
    panel: Panel | None
    split: Split
    predict_on: SplitName | Literal["future"]
    predict_from: str | None
    future_values: str | None
    future_gaps: Gaps
    scaler: ScalerKind | Mapping[str, ScalerKind]
    scale_by: ScaledBy
    scale_floor: float | Mapping[str, float]
    target_floor: float | Mapping[str, float] | None
    batch_size: int
    seed: int
    residency: Residency
    memory_budget: float | str
    lanes: int | None
    cache: Path
    row_cache: Cache
    ingest: Mapping[str, Any] | str | None
    storage_options: Mapping[str, str] | None
    version: int | None

    def __post_init__(self) -> None:
        for option in ("predict_from", "future_values"):
            if getattr(self, option) is not None and self.predict_on != "future":
                raise UsageError(
                    f"--data.{option} with --data.predict_on {self.predict_on}",
                    expected="future, that they are about",
                    fix="--data.predict_on future",
                )
        if self.one_forecast and self.split.by != "time":
            raise UsageError(
                f"--data.one_forecast with a split by {self.split.by}",
                expected="by time: forecasts go on from where test begins",
                fix="--data.split.by time, or --data.one_forecast false",
            )
        if self.one_forecast and self.split.context == "forbid":
            raise UsageError(
                "--data.one_forecast with a split whose context is forbid",
                expected="allow: a forecast reads what lies before it",
                fix="--data.split.context allow",
            )
        for option, least in (("batch_size", 1), ("evaluation_stride", 1), ("jitter", 0), ("lanes", 1)):
            given = getattr(self, option)
            if given is not None and given < least:
                raise UsageError(f"{option} {given}", expected=f"at least {least}", fix=f"change --data.{option}")
        for option in ("channels", "targets", "classes", "future", "statics", "time_features"):
            refuse_repeated(option, getattr(self, option) or ())
        panel = self.panel
        if self.series is not None and panel is not None and (panel.ids is not None or panel.attribute is not None):
            raise UsageError(
                "series named by --data.series and by --data.panel",
                expected="one of them",
                fix="drop --data.panel.ids, or --data.panel.attribute and --data.panel.values",
            )
        parse_budget(self.memory_budget, 1)


def options_by_name(
    option: str, kind: type[T], given: Mapping[str, int | T | Mapping[str, Any]] | None
) -> dict[str, T]:
    """What `--data.fields` or `--data.vectors` name: each a number of steps, or more than that, as a dictionary too.

    Raises
    ------
    UsageError
        If a dictionary has what is no option.
    """
    found: dict[str, T] = {}
    known = list(signature(kind).parameters)
    for name, own in (given or {}).items():
        if isinstance(own, kind):
            found[name] = own
            continue
        asked = own if isinstance(own, Mapping) else {known[0]: own}
        strange = next((key for key in asked if key not in known), None)
        if strange is not None:
            raise UsageError(
                f"{name} of --data.{option} with {strange!r}",
                expected=f"some of {', '.join(known)}",
                fix=f"correct --data.{option}",
            )
        found[name] = kind(**{key: tuple(each) if isinstance(each, list) else each for key, each in asked.items()})
    return found


def refuse_repeated(option: str, names: Sequence[str]) -> None:
    """Raise UsageError if a name is there twice."""
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise UsageError(
            f"--data.{option} with {', '.join(map(repr, repeated))} more than once",
            expected="each name once",
            fix=f"--data.{option} [{', '.join(dict.fromkeys(names))}]",
        )
