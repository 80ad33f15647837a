"""Times of rows: the ways people write them, and int64 in the units of the store's time axis."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zstore.writing.sources.arrow import RefusedError, as_numpy
from zstore.writing.sources.formats import read_formatted, read_one
from zstore.writing.sources.parts import seconds_of_parts

Int64 = NDArray[np.int64]
Kind = Literal["iso", "format", "steps", "epoch", "parts", "rows"]

EPOCH_UNITS = {"d": ("s", 86_400), "h": ("s", 3_600), "min": ("s", 60), **{u: (u, 1) for u in ("s", "ms", "us", "ns")}}

_ISO = re.compile(
    r"(?P<clock>\d{4}-\d\d-\d\d([ T]\d\d(:\d\d(:\d\d(\.(?P<fraction>\d+))?)?)?)?)(?P<zone>Z|[+-]\d\d(:?\d\d)?)?",
    re.ASCII,
)
_WHOLE = re.compile(r"-?\d{1,18}", re.ASCII)
_FRACTION_DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}


@dataclass(frozen=True)
class TimeSpec:
    """How the time of a row is written, decided once for all files.

    Parameters
    ----------
    kind
        ``iso``: ISO dates, or dates and times. ``format``: as `format` says. ``steps``: whole numbers that count
        steps. ``epoch``: whole numbers of `factor` units since 1970. ``parts``: year, month, day … in columns of
        their own. ``rows``: not written at all; the rows of a series follow each other.
    columns
        The columns that hold it.
    unit
        Unit of the axis: ``s``, ``ms``, ``us`` or ``ns`` since 1970-01-01; None for plain steps.
    zone
        Whether times carry an offset from UTC. All do, or none.
    format
        For ``format``, as `strptime` has it.
    factor
        For ``epoch``, units of the axis per number.
    start, step
        For ``rows``, the first time and the step, in units of the axis.
    """

    kind: Kind
    columns: tuple[str, ...]
    unit: str | None
    zone: bool = False
    format: str | None = None
    factor: int = 1
    start: int = 0
    step: int = 1

    def arrow_types(self) -> dict[str, Any]:
        """What Arrow is to parse each column as."""
        if self.kind == "format":
            return {self.columns[0]: pa.dictionary(pa.int32(), pa.string())}
        if self.kind == "iso":
            return {self.columns[0]: pa.timestamp(str(self.unit), tz="UTC" if self.zone else None)}
        return dict.fromkeys(self.columns, pa.int64())

    def read(self, table: Any, n_rows: int) -> Int64:
        """(row,) times of a parsed table; zeros for ``rows``, which are numbered once all blocks are known.

        Raises
        ------
        RefusedError
            If a time is missing or does not exist.
        """
        if self.kind == "rows":
            return np.zeros(n_rows, np.int64)
        if any(table[name].null_count for name in self.columns):
            raise RefusedError("a time is missing")
        if self.kind == "format":
            return _formatted(table[self.columns[0]], str(self.format))
        columns = [as_numpy(table[name], "int64") for name in self.columns]  # timestamps are int64 underneath
        if self.kind == "parts":
            times, wrong = seconds_of_parts(columns)
            if wrong.any():
                raise RefusedError("a time does not exist")
            return times
        return columns[0] * self.factor if self.factor != 1 else columns[0]

    def judge(self, cells: Mapping[str, str]) -> tuple[str, str] | None:
        """What is wrong with the time of one record and what was expected, or None."""
        for name in self.columns:
            if not self._readable(cells[name]):
                return f"unreadable time {cells[name][:200]!r} in column {name!r}", self.expected
        if self.kind == "parts" and bool(seconds_of_parts([np.array([int(cells[n])]) for n in self.columns])[1][0]):
            text = "-".join(cells[name] for name in self.columns)
            return f"time that does not exist {text!r} in columns {', '.join(self.columns)}", self.expected
        return None

    @property
    def expected(self) -> str:
        """What a time should look like."""
        if self.kind == "iso":
            return f"an ISO date or date and time {'with' if self.zone else 'without'} zone, as in the first rows"
        return f"a time written as {self.format}" if self.kind == "format" else "a whole number"

    def _readable(self, text: str) -> bool:
        if self.kind == "format":
            return read_one(text, str(self.format)) is not None
        if self.kind != "iso":
            return _WHOLE.fullmatch(text.strip(" \t")) is not None
        match = _ISO.fullmatch(text)
        if match is None or (match["zone"] is not None) != self.zone:
            return False
        if len(match["fraction"] or "") > _FRACTION_DIGITS[str(self.unit)]:
            return False
        try:
            np.array(match["clock"].replace(" ", "T"), f"datetime64[{self.unit}]")
        except ValueError:
            return False
        return True


def sniff_iso(column: str, texts: Sequence[str]) -> TimeSpec | None:
    """The spec of a column of ISO times or whole numbers from its first texts, or None if it is neither.

    The unit is the coarsest that holds the fractions of seconds seen.
    """
    if not texts:
        return TimeSpec("iso", (column,), "s")
    if all(_WHOLE.fullmatch(text.strip()) for text in texts):
        return TimeSpec("steps", (column,), None)
    matches = [match for match in map(_ISO.fullmatch, texts) if match is not None]
    if not matches or _ISO.fullmatch(texts[0]) is None:
        return None
    digits = max(len((match["fraction"] or "").rstrip("0")) for match in matches)
    unit = {0: "s", 1: "ms", 2: "us", 3: "ns"}[min(-(-digits // 3), 3)]
    return TimeSpec("iso", (column,), unit, zone=matches[0]["zone"] is not None)


def _formatted(column: Any, form: str) -> Int64:
    array = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if isinstance(array, pa.ChunkedArray):  # no chunk at all
        return np.zeros(0, np.int64)
    times, wrong = read_formatted(array.dictionary, form)
    if wrong.any():
        raise RefusedError("a time does not exist")
    found: Int64 = times[as_numpy(array.indices, "int32")]
    return found
