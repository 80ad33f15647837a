"""What the columns of a model mean: kept in checkpoints, so that another store is read as the one it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lightning_app.data.columns.calendar import calendar_step
from lightning_app.data.columns.classes import Classes
from lightning_app.data.columns.roles import CategoryEncoding
from lightning_app.data.columns.vectors import VectorUse
from zstore import FieldReader, Padding, Store, UsageError

Unknown = Literal["refuse", "own_column"]

UNITS_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_NAMED = 3  # of what is unknown, in messages
_LACKING = {  # in older checkpoints
    "time_rule": "",
    "category_encoding": "code",
    "fields": {},
    "crops": {},
    "vectors": {},
    "target_stride": 1,
    "classes": {},
    "pad_before": "none",
    "pad_after": "none",
    "time_zone": None,
}


@dataclass(frozen=True)
class StaticMeaning:
    """What the columns of one static attribute mean.

    Parameters
    ----------
    name
        Of the attribute.
    words
        Of categories, one column each; None for numbers.
    mean, std
        That numbers are standardised by.
    """

    name: str
    words: tuple[str, ...] | None = None
    mean: float = 0.0
    std: float = 1.0

    def n_columns(self, unknown: Unknown) -> int:
        """Columns that it becomes."""
        return 1 if self.words is None else len(self.words) + (unknown == "own_column")


@dataclass(frozen=True)
class Meaning:
    """What a model was trained with, by name, word and id.

    Parameters
    ----------
    inputs, targets, future
        Names of channels, in their order.
    observed
        Inputs that have another beside them, which says where they were observed.
    observed_inputs
        Whether such were asked for.
    words
        Of channels of categories, by name: the word of each code.
    statics
        Static attributes, in their order.
    time_unit, time_step
        Of times: ``s``, ``ms``, ``us`` or ``ns``, empty for plain steps; and the step between rows, 0 where it varies.
    time_rule
        Steps of months or weekdays, such as ``3 months``; else empty.
    time_zone
        ``UTC`` where the source wrote zones, empty where it wrote none; None where that is not known.
    calendar, encoding
        Time features, in their order, and what is made of them.
    unknown
        What becomes of words and ids that are none of these.
    series
        Ids that a scaler by series has offsets and scales of, in their order; None for a scaler by channel.
    other_series
        (offset, scale), each by channel, of all other series; None where there are none for them.
    category_encoding
        What became of channels of categories: a column for each word, or their codes.
    nodes
        Ids of the series of a panel, in their order; None without a panel.
    fields
        By name of a field, how many steps a batch has of it, how many rows apart, and the lengths of its other axes.
    crops
        By name of a field that is cropped, the lengths of the part that a batch has, along the first of these axes.
    vectors
        By name of a vector that a batch has on its own, its steps, how many rows apart they are, and its channels.
    classes
        By name of a target that is a class, its words or its numbers.
    target_stride, pad_before, pad_after
        See :class:`zstore.WindowShape`.
    """

    inputs: tuple[str, ...]
    targets: tuple[str, ...]
    future: tuple[str, ...]
    observed: tuple[str, ...]
    observed_inputs: bool
    words: dict[str, tuple[str, ...]]
    statics: tuple[StaticMeaning, ...]
    time_unit: str
    time_step: int
    calendar: tuple[str, ...]
    encoding: str
    unknown: Unknown
    series: tuple[str, ...] | None = None
    other_series: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    nodes: tuple[str, ...] | None = None
    time_rule: str = ""
    time_zone: str | None = None
    category_encoding: CategoryEncoding = "code"
    fields: dict[str, list[int]] = field(default_factory=dict)
    crops: dict[str, list[int]] = field(default_factory=dict)
    vectors: dict[str, list[Any]] = field(default_factory=dict)
    target_stride: int = 1
    pad_before: Padding = "none"
    pad_after: Padding = "none"
    classes: dict[str, Classes] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Any) -> Meaning:
        """Read :meth:`to_json` back.

        Raises
        ------
        UsageError
            If it is nothing of the kind.
        """
        try:
            document = _LACKING | document
            values = {each.name: document[each.name] for each in fields(cls)}
            names = ("inputs", "targets", "future", "observed", "calendar")
            values |= {name: _texts(values[name]) for name in names}
            values |= {name: None if values[name] is None else _texts(values[name]) for name in ("series", "nodes")}
            values["words"] = {str(name): _texts(words) for name, words in values["words"].items()}
            values["statics"] = tuple(
                StaticMeaning(
                    str(static["name"]),
                    None if static["words"] is None else _texts(static["words"]),
                    float(static["mean"]),
                    float(static["std"]),
                )
                for static in values["statics"]
            )
            values["fields"] = {str(name): [int(n) for n in use] for name, use in values["fields"].items()}
            if any(len(use) < 3 or min(use) < 1 for use in values["fields"].values()):
                raise ValueError("fields")
            for name, crop in values["crops"].items():
                rows = values["fields"][name][2:]
                if not 0 < len(crop) <= len(rows) or any(
                    n < 1 or n > size for n, size in zip(crop, rows, strict=False)
                ):
                    raise ValueError("crops")
            for use in values["vectors"].values():
                VectorUse.from_json(use)
            values["classes"] = {str(name): _classes(own) for name, own in values["classes"].items()}
            if type(values["target_stride"]) is not int or values["target_stride"] < 1:
                raise ValueError(f"target_stride {values['target_stride']!r}")
            for name in ("pad_before", "pad_after"):
                if values[name] not in get_args(Padding):
                    raise ValueError(f"{name} {values[name]!r}")
            others = values["other_series"]
            values["other_series"] = None if others is None else tuple(tuple(map(float, part)) for part in others)
            values["time_step"], values["time_rule"] = int(values["time_step"]), str(values["time_rule"])
            if values["time_zone"] not in (None, "", "UTC"):
                raise ValueError(values["time_zone"])
            if values["category_encoding"] not in ("one_hot", "code"):
                raise ValueError(values["category_encoding"])
            if values["unknown"] not in ("refuse", "own_column") or values["encoding"] not in ("cyclic", "index"):
                raise ValueError(values["unknown"])
            return cls(**values)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(
                f"checkpoint that does not say what its columns mean ({error})",
                expected="channels, words, static attributes and times",
                fix="another --ckpt_path, or fit again",
            ) from None

    def require_time(self, store: Store) -> None:
        """Raise UsageError unless a store has the same step between rows, in whatever unit.

        And, where a model reads time features, unless both have zones or neither has: hours of a day would be others.
        """
        axis = store.schema.time
        same_kind = bool(self.time_unit) == (axis.unit is not None)
        ours, theirs = UNITS_PER_SECOND.get(self.time_unit, 1), UNITS_PER_SECOND.get(axis.unit or "", 1)
        same_rule = self.time_rule == calendar_step(axis.rule)
        if not same_kind or not same_rule or self.time_step * theirs != (axis.freq or 0) * ours:
            step = f"a step of {self.time_step} {self.time_unit}".rstrip() if self.time_step else "irregular times"
            recorded = f"steps of {self.time_rule}" if self.time_rule else step
            kind = "dates" if axis.unit else "plain steps"
            raise UsageError(
                f"checkpoint trained on {recorded} of {'dates' if self.time_unit else 'plain steps'}",
                expected=f"that of this store: {axis.show_freq()} of {kind}",
                where=store.path,
                fix="a store with the step that it was trained on, or fit again",
            )
        zones = {"": "without a zone", "UTC": "in UTC"}
        if self.calendar and self.time_zone is not None and self.time_zone != (axis.zone or ""):
            raise UsageError(
                f"checkpoint trained on times {zones[self.time_zone]}, of which it reads {', '.join(self.calendar)}",
                expected=f"those of this store: {zones[axis.zone or '']}",
                where=store.path,
                fix="times written as those that it was trained on, or fit again",
            )

    def require_channels(self, store: Store, columns: Sequence[str]) -> None:
        """Raise UsageError unless a store has channels of the same names, and words where there were words."""
        absent = [name for name in columns if name not in store.channels]
        if absent:
            raise UsageError(
                f"checkpoint trained on channels {', '.join(map(repr, absent))}, which this store does not have",
                expected=f"all of {', '.join(columns)}",
                where=store.path,
                fix="a store that has them, or fit again",
            )
        for name in columns:
            _require_kind(store, f"channel {name!r}", name in self.words, store.channel(name).kind == "category")

    def require_fields(self, store: Store) -> None:
        """Raise UsageError unless a store has fields of the same names and shapes."""
        for name, (_, _, *shape) in self.fields.items():
            own = FieldReader.of(store, name).shape if name in store.fields else None
            if own != tuple(shape):
                raise UsageError(
                    f"checkpoint trained on field {name!r} of shape {tuple(shape)}",
                    expected=f"one of {', '.join(store.fields) or 'none'}" if own is None else f"{own}, as it has here",
                    where=store.path,
                    fix="a store that has it, or fit again",
                )

    def require_statics(self, store: Store) -> None:
        """Raise UsageError unless a store has static attributes of the same names, and words where there were words."""
        known = {static.name: static for static in store.statics}
        absent = [static.name for static in self.statics if static.name not in known]
        if absent:
            raise UsageError(
                f"checkpoint trained on static attributes {', '.join(map(repr, absent))}, which are not in this store",
                expected=f"all of {', '.join(static.name for static in self.statics)}",
                where=store.path,
                fix="a store that has them, or fit again",
            )
        for static in self.statics:
            words = known[static.name].categories is not None
            _require_kind(store, f"static attribute {static.name!r}", static.words is not None, words)


def agreed(option: str, asked: Sequence[str] | None, recorded: Sequence[str]) -> list[str]:
    """What a checkpoint has of some names, in its order; refused if others were asked for."""
    if asked and sorted(asked) != sorted(recorded):
        raise UsageError(
            f"checkpoint trained on {option} {', '.join(recorded) or 'of no name'}",
            expected=f"those of this configuration: {', '.join(asked)}",
            fix=f"the --data.{option} it was trained with, or another --ckpt_path",
        )
    return list(recorded)


def codes_of(words: Sequence[str], known: Sequence[str]) -> NDArray[np.int64]:
    """(word,) the code that a checkpoint has for each word of a store; its number of words for an unknown one."""
    code = {word: number for number, word in enumerate(known)}
    return np.array([code.get(word, len(known)) for word in words], np.int64)


def refuse_unknown(store: Store, what: str, unknown: Sequence[str], rule: Unknown) -> None:
    """Raise UsageError if something in use was never seen by a model; it names the first few."""
    if not unknown:
        return
    named = ", ".join(map(repr, unknown[:_NAMED])) + (", …" if len(unknown) > _NAMED else "")
    fix = "fit again with --data.unknown own_column" if rule == "refuse" else "fit again"
    raise UsageError(
        f"{len(unknown):,} {what} that the model has never seen ({named})",
        expected="those that it was trained with",
        where=store.path,
        fix=f"leave their series out by --data.split or --data.series, or {fix}",
    )


def _require_kind(store: Store, what: str, then: bool, now: bool) -> None:
    if then != now:
        kinds = {True: "words", False: "numbers"}
        raise UsageError(
            f"checkpoint trained on {what} of {kinds[then]}",
            expected=f"{kinds[now]}, as this store has",
            where=store.path,
            fix="ingest the column as it was then, or fit again",
        )


def _classes(values: Any) -> Classes:
    """Words, or numbers that ascend."""
    if all(isinstance(value, str) for value in values):
        return _texts(values)
    numbers = tuple(float(value) for value in values if type(value) in (int, float))
    if len(numbers) != len(values) or list(numbers) != sorted(set(numbers)):
        raise ValueError("classes that are neither words nor numbers that ascend")
    return numbers


def _texts(values: Any) -> tuple[str, ...]:
    if isinstance(values, str):
        raise TypeError("text for names")
    return tuple(str(value) for value in values)
