"""Times of columns that have types: timestamps, dates, whole numbers and texts as int64 in units of the time axis."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zstore.writing.sources.times.iso import UNITS
from zstore.writing.sources.times.parts import seconds_of_parts
from zstore.writing.sources.times.spec import TimeSpec
from zstore.writing.sources.typed.cells import Words, is_text, missing_of, raw_values, words_of

Bool = NDArray[np.bool_]
TimeKind = Literal["moment", "whole", "words"]


@dataclass(frozen=True)
class Fault:
    """Rows that cannot be stored, for one reason.

    Parameters
    ----------
    rows
        (row,) whether it is one of them.
    reason
        What is wrong with a row, by its number.
    expected
        What would be right.
    """

    rows: Bool
    reason: Callable[[int], str]
    expected: str


def time_kind(dtype: pa.DataType) -> TimeKind | None:
    """What times of a type are: moments, whole numbers or texts; None where they are none."""
    if pa.types.is_timestamp(dtype) or pa.types.is_date(dtype):
        return "moment"
    inner = dtype.value_type if pa.types.is_dictionary(dtype) else dtype
    if pa.types.is_integer(inner):
        return "whole"
    return "words" if is_text(inner) else None


def unit_of_type(dtype: pa.DataType) -> str:
    """The unit of an axis that holds all moments of a type; dates are whole days."""
    return str(dtype.unit) if pa.types.is_timestamp(dtype) else "s"


def coarsest_unit(array: Any) -> str:
    """The coarsest unit that all moments of a column are whole in; those of dates are whole seconds."""
    if not pa.types.is_timestamp(array.type):
        return "s"
    values, missing, unit = raw_values(array, "int64"), missing_of(array), str(array.type.unit)
    known = values if missing is None else values[~missing]
    for coarser in UNITS[: UNITS.index(unit)]:
        if not np.any(known % 1000 ** (UNITS.index(unit) - UNITS.index(coarser))):
            return coarser
    return unit


def read_times(table: Any, spec: TimeSpec, missing: dict[str, frozenset[str]]) -> tuple[NDArray[np.int64], list[Fault]]:
    """The times of some rows.

    Parameters
    ----------
    table
        Record batch with the columns of `spec`.
    spec
        How times are written. The unit of its axis may be coarser or finer than that of a column of moments.
    missing
        Per column, texts that stand for a missing time.

    Returns
    -------
    (row,) int64 in units of the axis, 0 where there is none; and the rows where there is none.
    """
    n_rows, faults = table.num_rows, list[Fault]()
    if spec.kind == "rows":
        return np.zeros(n_rows, np.int64), faults
    if spec.together or spec.paired:
        return _together([table.column(name) for name in spec.columns], spec, missing, faults), _that_occur(faults)
    columns = [_column(table.column(name), name, spec, missing.get(name, frozenset()), faults) for name in spec.columns]
    if spec.kind == "parts":
        times, wrong = seconds_of_parts(columns)
        texts = [table.column(name) for name in spec.columns]
        faults.append(
            Fault(
                np.asarray(wrong),
                lambda row: (
                    f"time that does not exist '{'-'.join(str(text[row].as_py()) for text in texts)}' in columns "
                    f"{', '.join(spec.columns)}"
                ),
                spec.expected,
            )
        )
        return times, _that_occur(faults)
    return columns[0], _that_occur(faults)


def _together(
    columns: Sequence[Any], spec: TimeSpec, missing: dict[str, frozenset[str]], faults: list[Fault]
) -> NDArray[np.int64]:
    """(row,) times that several columns say together, each distinct one read once."""
    words = [words_of(column) for column in columns]
    known = [[*each.words.to_pylist(), None] for each in words]
    absent = np.zeros(len(words[0].codes), bool)
    for name, each, texts in zip(spec.columns, words, known, strict=True):
        lacking = np.array([text is None or text in missing.get(name, ()) for text in texts])[each.codes]
        reason = f"missing time in column {name!r}"
        faults.append(Fault(lacking & ~absent, partial(_always, reason), _EVERY_ROW))
        absent |= lacking
    which = np.zeros(len(absent), np.int64)
    for each, texts in zip(words, known, strict=True):
        which = np.unique(which * len(texts) + each.codes % len(texts), return_inverse=True)[1]
    first = np.unique(which, return_index=True)[1].tolist()

    def cells(row: int) -> list[str]:
        return [texts[int(each.codes[row])] or "" for each, texts in zip(words, known, strict=True)]

    read = [None if absent[row] else spec.read_cells(cells(row)) for row in first]
    wrong = np.array([time is None for time in read], bool)[which] & ~absent if read else absent

    def why(row: int) -> str:
        judged = spec.judge(dict(zip(spec.columns, cells(row), strict=True)))
        return judged[0] if judged is not None else f"unreadable time {' '.join(cells(row))[:200]!r}"

    faults.append(Fault(wrong, why, spec.expected))
    return np.array([time or 0 for time in read], np.int64)[which]


def _always(reason: str, row: int) -> str:
    return reason


def _that_occur(faults: Sequence[Fault]) -> list[Fault]:
    return [fault for fault in faults if fault.rows.any()]


def _column(array: Any, name: str, spec: TimeSpec, missing: frozenset[str], faults: list[Fault]) -> NDArray[np.int64]:
    if pa.types.is_dictionary(array.type) and pa.types.is_integer(array.type.value_type):
        array = array.dictionary_decode()
    absent = missing_of(array)
    if absent is not None:
        faults.append(Fault(absent, lambda _: f"missing time in column {name!r}", "a time in every row"))
    kind = time_kind(array.type)
    if kind == "moment":
        return _moments(array, absent, name, spec, faults)
    if kind == "whole" and spec.kind != "format" and not any(_WHOLE.fullmatch(text) for text in missing):
        return _whole(array, absent, name, spec, faults)
    return _texts(words_of(array), name, spec, missing, faults)


def _moments(array: Any, absent: Bool | None, name: str, spec: TimeSpec, faults: list[Fault]) -> NDArray[np.int64]:
    """Timestamps and dates, brought to the unit of the axis."""
    dtype, unit = array.type, str(spec.unit)
    if pa.types.is_date32(dtype):
        values, per_unit = raw_values(array, "int32").astype(np.int64), 86_400 * 1000 ** UNITS.index(unit)
        finer = 1
    else:
        values = raw_values(array, "int64")
        own = str(dtype.unit) if pa.types.is_timestamp(dtype) else "ms"
        steps = UNITS.index(unit) - UNITS.index(own)
        per_unit, finer = 1000 ** max(steps, 0), 1000 ** max(-steps, 0)
    known = np.ones(len(values), bool) if absent is None else ~absent
    low, high = spec.bounds
    inside = (values >= -(-low // per_unit) * finer) & (values <= high // per_unit * finer + finer - 1)
    texts = f"from {np.datetime64(low, unit)} to {np.datetime64(high, unit)}"  # type: ignore[call-overload]  # a unit
    shown = _shown(array)
    faults.append(Fault(known & ~inside, lambda row: f"time {shown(row)} in column {name!r} out of range", texts))
    if finer > 1:
        values, rest = np.divmod(values, finer)
        expected = f"whole {_UNIT_NAMES[unit]}, as the time axis has them"
        faults.append(
            Fault(known & inside & (rest != 0), lambda row: f"time {shown(row)} in column {name!r}", expected)
        )
    times = np.where(known & inside, values, 0) if absent is not None or not inside.all() else values
    return times * per_unit if per_unit > 1 else times


def _whole(array: Any, absent: Bool | None, name: str, spec: TimeSpec, faults: list[Fault]) -> NDArray[np.int64]:
    """Whole numbers, times the factor of the axis."""
    raw = raw_values(array, str(array.type))
    low, high = (-(-spec.bounds[0] // spec.factor), spec.bounds[1] // spec.factor)
    if spec.kind == "parts":
        low, high = -_MOST_PART, _MOST_PART
    limits = np.iinfo(raw.dtype)
    wrong = (raw < max(low, limits.min)) | (raw > min(high, limits.max))
    if absent is not None:
        wrong &= ~absent
    expected = f"{spec.expected}, from {low} to {high}"
    faults.append(Fault(wrong, lambda row: f"time {array[row].as_py()} in column {name!r} out of range", expected))
    bad = wrong if absent is None else wrong | absent
    values = np.where(bad, 0, raw).astype(np.int64) if bad.any() else raw.astype(np.int64, copy=False)
    return values * spec.factor if spec.factor != 1 and spec.kind != "parts" else values


def _texts(words: Words, name: str, spec: TimeSpec, missing: frozenset[str], faults: list[Fault]) -> NDArray[np.int64]:
    """Texts, each distinct one read once, as times of CSV are."""
    texts = words.words.to_pylist()
    single = spec.kind != "parts"
    read = [_read(spec, text, single) if text not in missing else None for text in texts]
    values = np.array([0 if value is None else value for value in read] + [0], np.int64)
    wrong = np.array([value is None for value in read] + [False])
    bad = wrong[words.codes]
    if words.broken is not None:
        reason = f"time in column {name!r} that is not UTF-8"
        faults.append(Fault(words.broken, lambda _: reason, spec.expected))

    def why(row: int) -> str:
        text = texts[int(words.codes[row])]
        if text in missing:
            return f"missing time {text!r} in column {name!r}"
        judged = spec.judge({name: text}) if single else None
        return judged[0] if judged is not None else f"unreadable time {text[:200]!r} in column {name!r}"

    faults.append(Fault(bad, why, spec.expected))
    return values[words.codes]


def _read(spec: TimeSpec, text: str, single: bool) -> int | None:
    if single:
        return spec.read_cells([text])
    part = text.strip()
    return int(part) if part.lstrip("-").isdecimal() and part.isascii() and len(part) < _MOST_DIGITS else None


def _shown(array: Any) -> Callable[[int], str]:
    """How a moment is written, by its row."""
    return lambda row: repr(str(array.slice(row, 1).cast(pa.string())[0].as_py()))


_WHOLE = re.compile(r"-?\d+", re.ASCII)
"""Texts that a whole number may have; no other text means a missing one."""
_MOST_PART, _MOST_DIGITS = 10**9, 10
_EVERY_ROW = "a time in every row"
_UNIT_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
