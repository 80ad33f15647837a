"""Records of a year or a day whose columns are its months or hours, as rows below each other."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.errors import UsageError
from zstore.writing.sources.channels import NumberValues
from zstore.writing.sources.numbers import NumberColumn
from zstore.writing.sources.options import TableOptions
from zstore.writing.sources.refused import RefusedError
from zstore.writing.sources.table import Columns, TableSpec
from zstore.writing.sources.times.iso import UNITS

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_LONG = (
    "january",
    "february",
    "march",
    "april",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)
_CLOCK = re.compile(r"(\d\d?):([0-5]\d)(?::([0-5]\d))?", re.ASCII)
_HOUR = re.compile(r"[Hh]?(\d\d?)", re.ASCII)
_MONTH = re.compile(r"[Mm]?(\d\d?)", re.ASCII)
_DAY_S = 86_400


def offsets_of(names: Sequence[str]) -> tuple[bool, tuple[int, ...]] | None:
    """How far the time of each column is from that of its record, by its name.

    Returns
    -------
    Whether they are months, and the months or seconds; None where the names do not say it.
    """
    if not names:
        return None
    plain = [name.strip().lower() for name in names]
    if all(name in _MONTHS or name in _LONG for name in plain):
        return _rising(True, [_MONTHS.index(name[:3]) for name in plain])
    clocks = [_CLOCK.fullmatch(name) for name in plain]
    if all(clocks):
        parts = [[int(part or 0) for part in match.groups()] for match in clocks if match is not None]
        return _rising(False, [hour * 3600 + minute * 60 + second for hour, minute, second in parts])
    numbers = [_MONTH.fullmatch(name) for name in names]
    if len(names) == 12 and [int(match[1]) for match in numbers if match is not None] == list(range(1, 13)):
        return True, tuple(range(12))
    hours = [int(match[1]) for match in map(_HOUR.fullmatch, names) if match is not None]
    if len(hours) == len(names) and hours[:1] == [0]:
        return _rising(False, [hour * 3600 for hour in hours])
    return None


def _rising(months: bool, offsets: list[int]) -> tuple[bool, tuple[int, ...]] | None:
    """Offsets that rise, within a year or a day; midnight at its end is that of the next day."""
    rising = all(first < second for first, second in pairwise(offsets))
    return (months, tuple(offsets)) if rising and offsets[-1] <= _DAY_S else None


def calendar_options(options: TableOptions, wanted: Sequence[str]) -> TableOptions:
    """The options of records of years or days, checked; a column of years is one that a format names.

    Raises
    ------
    UsageError
        If columns do not say which months or hours they are, or nothing says of which year or day.
    """
    flag = "--layout calendar"
    if not options.time or options.timezone is not None or options.freq == "rows":
        other = "--timezone" if options.timezone is not None else "--freq rows" if options.time else "no --time"
        fix = "name the column of years or days with --time" if not options.time else f"drop {other}"
        raise UsageError(f"{flag} with {other}", expected="the year or day of each row", fix=fix)
    found = offsets_of(wanted)
    if found is None:
        alone = [name for name in wanted if offsets_of([name]) is None]
        odd = ", ".join(repr(name) for name in alone[:4])
        raise UsageError(
            f"{flag} with columns {odd or ', '.join(wanted[:4])}",
            expected="months from JAN to DEC (or 1 to 12, M1 to M12), clocks such as 00:00, or hours from 0 or H0 on, "
            "in their order and no other column",
            fix=f"--leave-out {','.join(alone[:4])}"
            if alone and len(alone) < len(wanted)
            else "name the columns so, with --skip-lines and --no-header --names",
        )
    if found[0] and len(options.time) == 1 and options.time_format is None and options.time_unit is None:
        return replace(options, time_format="%Y")
    return options


def no_start(time: int, spec: TableSpec) -> bool:
    """Whether a time is not the beginning of a year, or of a day, as columns of months or hours need it."""
    return bool(_no_starts(np.array([time], np.int64), spec)[0])


def _no_starts(times: NDArray[np.int64], spec: TableSpec) -> NDArray[np.bool_]:
    seconds, rest = np.divmod(times, units_per_second(spec))
    wrong = (rest != 0) | (seconds % _DAY_S != 0)
    if spec.months:
        days = seconds.astype("datetime64[s]").astype("datetime64[D]")
        wrong |= days.astype("datetime64[Y]").astype("datetime64[D]") != days
    return np.asarray(wrong)


def units_per_second(spec: TableSpec) -> int:
    """Units of the time axis in a second."""
    return int(1000 ** UNITS.index(str(spec.time.unit)))


def laid_out(
    codes: NDArray[np.int32], ids: Any, times: NDArray[np.int64], columns: dict[str, NumberColumn], spec: TableSpec
) -> Columns:
    """The rows of a block whose records are years or days: of each record, one for every column.

    Parameters
    ----------
    codes, ids
        (record,) codes of ids, and the distinct ids.
    times
        (record,) times of the records.
    columns
        The values of the columns that the file has.
    spec
        Which columns there are, and how far each is from the time of its record.

    Raises
    ------
    RefusedError
        If a record does not begin a year, or a day.
    """
    present = [(name, offset) for name, offset in zip(spec.series, spec.offsets, strict=True) if name in columns]
    offsets = np.array([offset for _, offset in present], np.int64)
    per_s = units_per_second(spec)
    if _no_starts(times, spec).any():
        raise RefusedError("a time is no year, or no day")
    if spec.months:
        months = (times // per_s).astype("datetime64[s]").astype("datetime64[M]")
        moments = (months[:, None] + offsets).astype("datetime64[s]").astype(np.int64) * per_s
    else:
        moments = times[:, None] + offsets * per_s
    values = np.array([columns[name].values for name, _ in present]).reshape(len(present), len(times)).T
    n_lost = sum(columns[name].n_lost for name, _ in present)
    rows = np.repeat(codes, len(present)).astype(np.int32)
    return Columns(ids, rows, moments.ravel(), [NumberValues(values.ravel())], (), moments.size, n_lost=(n_lost,))
