"""Times of rows: the ways people write them, and int64 in the units of the store's time axis.

What a time is stands here once, in :meth:`TimeSpec.read_cells`. The strict reader goes by it, and so do blocks whose
times come as words. Blocks whose times Arrow parses take a short cut to the same numbers. Arrow takes more than this:
years before 1, which :meth:`TimeSpec.read` refuses, and hexadecimal numbers, for which callers look.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zstore.arrow import as_numpy
from zstore.format.timesteps import UNIT_STEPS, TimeStepRule
from zstore.writing.sources.refused import RefusedError
from zstore.writing.sources.times.epochs import number_expected, read_number
from zstore.writing.sources.times.formats import halves, read_formatted, read_one
from zstore.writing.sources.times.iso import DAY, UNITS, read_iso
from zstore.writing.sources.times.parts import seconds_of_parts
from zstore.writing.sources.times.together import distinct_together, text_together
from zstore.writing.sources.times.zones import to_utc

Int64 = NDArray[np.int64]
Kind = Literal["iso", "format", "steps", "epoch", "parts", "rows", "columns", "decimal"]

STEPS = "steps"
EPOCH_UNITS = {"d": ("s", 86_400), "h": ("s", 3_600), "min": ("s", 60), **{u: (u, 1) for u in UNITS}}

WHOLE = re.compile(r"[ \t]*(-?)0*(\d{1,19})[ \t]*", re.ASCII)
_MOST_STEPS = 10**18 - 1
_FIRST_S, _LAST_S = -62_135_596_800, 253_402_300_799  # the years 1 to 9999
_INT64 = np.iinfo(np.int64)
_ROOM = 4 * 86_400 * 10**9


@dataclass(frozen=True)
class TimeSpec:
    """How the time of a row is written, decided once for all files.

    Parameters
    ----------
    kind
        ``iso``: ISO dates, or dates and times. ``format``: as `format` says. Both of one column, or of two with a date
        and a clock; ``format`` also of several columns that are read together. ``steps``: whole numbers that count
        steps. ``epoch``: whole numbers of `factor` units since 1970. ``parts``: year, month, day … in columns of
        their own. ``decimal``: numbers with a fraction, since 1970 or as spreadsheets count days.
        ``rows``: not written at all; the rows of a series follow each other. ``columns``: neither, but the
        rows of a series stand side by side in one record.
    columns
        The columns that hold it.
    unit
        Unit of the axis: ``s``, ``ms``, ``us`` or ``ns`` since 1970-01-01; None for plain steps.
    zone
        Whether times carry an offset from UTC. All do, or none.
    format
        For ``format``, as `strptime` has it; for ``epoch`` and ``decimal`` (an epoch with a fraction, or days as Excel
        counts them) the unit that the numbers have.
    factor
        For ``epoch``, units of the axis per number.
    start, rule
        For ``rows`` and ``columns``, the first time in units of the axis, and how far it is from each row to the next.
    local
        Zone whose clocks the times are of, which become UTC; None where they are taken as they stand.
    written
        For ``iso``, the unit that holds the fractions of seconds as they are written, zeros behind them included; None
        for `unit`. Other rows may be written with more zeros or fewer; this is what is fast.
    """

    kind: Kind
    columns: tuple[str, ...]
    unit: str | None
    zone: bool = False
    format: str | None = None
    factor: int = 1
    start: int = 0
    rule: TimeStepRule = UNIT_STEPS
    written: str | None = None
    local: str | None = None

    def arrow_types(self, as_words: bool = False) -> dict[str, Any]:
        """What Arrow is to parse each column as: words where they are to be read one by one, else as is fast."""
        if self.kind in ("format", "decimal") or self.paired or as_words:
            return dict.fromkeys(self.columns, pa.dictionary(pa.int32(), pa.string()))
        if self.kind == "iso":
            return {self.columns[0]: pa.timestamp(self._written, tz="UTC" if self.zone else None)}
        return dict.fromkeys(self.columns, pa.int64())

    @property
    def in_utc(self) -> bool:
        """Whether times are those of UTC, by their own offsets or by a zone."""
        return self.zone or self.local is not None

    def _of_zone(self, times: Int64) -> tuple[Int64, NDArray[np.int8]]:
        """(row,) local times in units of the axis as UTC, and how often the zone has each."""
        seconds, rest = np.divmod(times, 1000 ** UNITS.index(str(self.unit)))
        utc, n_times = to_utc(seconds, str(self.local))
        return utc * 1000 ** UNITS.index(str(self.unit)) + rest, n_times

    def on_axis(self, unit: str | None) -> TimeSpec:
        """The same times in the unit of an axis that is as fine or finer."""
        if self.kind == "epoch" and unit != self.unit:
            return replace(self, kind="decimal", unit=unit, factor=1)
        return replace(self, unit=unit)

    @property
    def paired(self) -> bool:
        """Whether a date and a clock stand in columns of their own."""
        return self.kind in ("iso", "format") and len(self.columns) == 2 and not self.together

    @cached_property
    def together(self) -> bool:
        """Whether a format is spread over several columns that say a time only together, such as year and month."""
        return self.kind == "format" and len(self.columns) > 1 and (len(self.columns) > 2 or not self._forms)

    @property
    def whole(self) -> bool:
        """Whether times are whole numbers, which Arrow takes in hexadecimal too."""
        return self.kind in ("steps", "epoch", "parts")

    @cached_property
    def bounds(self) -> tuple[int, int]:
        """First and last time of the axis: those of the years 1 to 9999 that int64 holds; 18 digits of plain steps."""
        if self.unit is None:
            return -_MOST_STEPS, _MOST_STEPS
        per_s = 1000 ** UNITS.index(self.unit)
        return max(_FIRST_S * per_s, int(_INT64.min) + 1), min(_LAST_S * per_s + per_s - 1, int(_INT64.max))

    def read(self, table: Any, n_rows: int) -> Int64:
        """(row,) times of a parsed table; zeros for ``rows``, which are numbered once all blocks are known.

        Raises
        ------
        RefusedError
            If a time is missing, does not exist, or lies outside :attr:`bounds`.

        Notes
        -----
        Words are read once for each distinct one, some 5 us; what Arrow has parsed costs a pass or two over the block.
        """
        if self.kind in ("rows", "columns"):
            return np.zeros(n_rows, np.int64)
        if any(table[name].null_count for name in self.columns):
            raise RefusedError("a time is missing")
        if not n_rows:
            return np.zeros(0, np.int64)
        if self.together:
            columns = [self._columns_together([table[name] for name in self.columns])]
        else:
            columns = [self._column(table[name], position) for position, name in enumerate(self.columns)]
        if self.paired:
            columns = [columns[0] + columns[1]]  # neither is beyond half of int64
        if self.kind == "parts":
            times, wrong = seconds_of_parts(columns)
            if wrong.any():
                raise RefusedError("a time does not exist")
            return self._settled(times)
        (times,) = columns
        low, high = self.bounds
        if int(times.min()) < -(-low // self.factor) or int(times.max()) > high // self.factor:
            raise RefusedError("a time is out of range")
        return self._settled(times * self.factor if self.factor != 1 else times)

    def _settled(self, times: Int64) -> Int64:
        """Times as UTC where they are of a zone, if that has each once."""
        if self.local is None:
            return times
        utc, n_times = self._of_zone(times)
        if (n_times != 1).any():
            raise RefusedError("a time that the zone has twice, or not at all")
        return utc

    def judge(self, cells: Mapping[str, str]) -> tuple[str, str] | None:
        """What is wrong with the time of one record and what was expected, or None."""
        for position, name in enumerate(() if self.together else self.columns):
            if self._cell(cells[name], position) is None:
                return f"unreadable time {cells[name][:200]!r} in column {name!r}", self.expected
        if self.kind not in ("rows", "columns") and self.read_cells([cells[name] for name in self.columns]) is None:
            text = "-".join(cells[name][:200] for name in self.columns)
            own = replace(self, local=None).read_cells([cells[name] for name in self.columns])
            if self.local is not None and own is not None:
                often = ("not at all", "", "twice")[int(self._of_zone(np.array([own], np.int64))[1][0])]
                way = "a time that its clocks show once; or all with an offset from UTC, as 02:30+02:00, no --timezone"
                return f"time {text!r} in {self._columns_shown}, which {self.local} has {often}", way
            if self.kind == "parts":
                return f"time that does not exist {text!r} in {self._columns_shown}", self.expected
            if self.together:
                text = " ".join(cells[name][:200] for name in self.columns)
                return f"unreadable time {text!r} in {self._columns_shown}", self.expected
            low, high = self.bounds
            limits = (
                f"from {low} to {high}"
                if self.unit is None
                else f"from {_day(low, self.unit)} to {_day(high, self.unit)}"
            )
            return f"time {text!r} in {self._columns_shown} out of range", f"{self.expected}, {limits}"
        return None

    @property
    def _columns_shown(self) -> str:
        one = len(self.columns) == 1
        return f"column {self.columns[0]!r}" if one else f"columns {', '.join(self.columns)}"

    def read_cells(self, cells: Sequence[str]) -> int | None:
        """The time that the cells of one record say, in units of the axis; None if there is no such time.

        This is what a time is; everything faster must give the same.
        """
        if self.together:
            text = text_together(cells)
            values = [None if text is None else read_one(text, str(self.format), str(self.unit))]
        else:
            values = [self._cell(cell, position) for position, cell in enumerate(cells)]
        if any(value is None for value in values):
            return None
        if self.kind == "parts":
            if any(abs(value or 0) > _MOST_STEPS for value in values):
                return None
            seconds, wrong = seconds_of_parts([np.array([value], np.int64) for value in values])
            return None if wrong[0] else self._once(int(seconds[0]))
        time = ((values[0] or 0) + (values[1] or 0 if self.paired else 0)) * self.factor
        low, high = self.bounds
        return self._once(time) if low <= time <= high else None

    def _once(self, time: int) -> int | None:
        """A time as UTC where it is of a zone; None if that has it twice, or not at all."""
        if self.local is None:
            return time
        utc, n_times = self._of_zone(np.array([time], np.int64))
        return int(utc[0]) if n_times[0] == 1 else None

    @property
    def expected(self) -> str:
        """What a time should look like."""
        if self.kind == "iso":
            digits = 3 * UNITS.index(str(self.unit))
            finest = f"at most {digits} digits of a second" if digits else "whole seconds"
            zone = "with zone" if self.zone else "without zone"
            return f"an ISO date or date and time {zone}, {finest}, as in the first rows"
        if self.kind == "decimal":
            return number_expected(str(self.format), str(self.unit))
        return f"a time written as {self.format}" if self.kind == "format" else "a whole number"

    @property
    def _written(self) -> str:
        """What Arrow reads ISO times in: never coarser than the axis."""
        return max(self.written or "s", str(self.unit), key=UNITS.index)

    @property
    def _finer(self) -> int:
        """Units that Arrow reads ISO times in per unit of the axis; 1 where these are the same."""
        if self.kind != "iso":
            return 1
        return int(1000 ** (UNITS.index(self._written) - UNITS.index(str(self.unit))))

    def _column(self, column: Any, position: int = 0) -> Int64:
        """(row,) what a column says: times in units of the axis, or whole numbers as they are written."""
        if not pa.types.is_dictionary(column.type):
            values = as_numpy(column, "int64")  # timestamps are int64 underneath
            if self._finer == 1:
                return values
            values, rest = np.divmod(values, self._finer)
            if rest.any():
                raise RefusedError("a time is finer than the axis")
            return values
        array = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
        if self.kind == "format" and not self.paired:
            values, wrong = read_formatted(array.dictionary, str(self.format), str(self.unit))
        else:
            values, wrong = self._words(array.dictionary.to_pylist(), position)
        if wrong.any():
            raise RefusedError("a time does not exist")
        return np.take(values, as_numpy(array.indices, "int32"))

    def _columns_together(self, columns: Sequence[Any]) -> Int64:
        """(row,) times in units of the axis of columns of words, each distinct time read once."""
        texts, which = distinct_together(columns)
        times, wrong = read_formatted(
            pa.array([text or "" for text in texts], pa.string()), str(self.format), self.unit
        )
        if wrong.any():
            raise RefusedError("a time does not exist")
        return np.take(times, which)

    def _words(self, words: Sequence[str], column: int = 0) -> tuple[Int64, NDArray[np.bool_]]:
        values, wrong = np.zeros(len(words), np.int64), np.zeros(len(words), bool)
        for position, word in enumerate(words):
            value = self._cell(word, column)
            most = int(_INT64.max) - (_ROOM if self.paired else 0)  # for the sum of both
            if value is None or not -most <= value <= most:
                wrong[position] = True
            else:
                values[position] = value
        return values, wrong

    def _cell(self, text: str, position: int = 0) -> int | None:
        """The number that one cell says, of the column at a position; None if it says none."""
        if self.paired:
            return self._date_or_clock(text, position)
        if self.kind == "format":
            return read_one(text, str(self.format), str(self.unit))
        if self.kind == "iso":
            return read_iso(text, str(self.unit), self.zone)
        if self.kind == "decimal":
            return read_number(text, str(self.format), str(self.unit))
        match = WHOLE.fullmatch(text)
        return None if match is None else int(match[1] + match[2])

    def _date_or_clock(self, text: str, position: int) -> int | None:
        """A date as its midnight, or a clock as the time since then, an offset from UTC taken off."""
        if self.kind == "format":
            date, clock = self._forms or ("", "")
            return read_one(
                text if position == 0 else f"1970-01-01 {text}",
                date if position == 0 else f"%Y-%m-%d {clock}",
                str(self.unit),
            )
        if position == 0:
            return read_iso(text, str(self.unit), False) if DAY.fullmatch(text) else None
        return read_iso(f"1970-01-01 {text}", str(self.unit), self.zone)

    @cached_property
    def _forms(self) -> tuple[str, str] | None:
        return halves(str(self.format))


def _day(time: int, unit: str) -> str:
    return str(np.array(time // (86_400 * 1000 ** UNITS.index(unit)), "datetime64[D]"))
