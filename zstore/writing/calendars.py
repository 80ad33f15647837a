"""Which calendar rule rows may follow: from the most frequent steps, and from the days and times of day of rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from zstore.format.ordinals import month_lengths
from zstore.format.rule_text import LAST_DAY, UNITS_PER_SECOND
from zstore.format.timesteps import TimeStepRule

Int64 = NDArray[np.int64]

_DAY_S = 86_400
_MONTH_DAYS = 30.436875  # 400 years of the calendar have 4,800 months and 146,097 days
_SHORTEST = 28
_MOST_TALLIED = 1 << 16
_MOST_CLOCKS = 16
_WEEKENDS = 10  # a step in so many, at least, is one over a weekend where rows are those of weekdays


@dataclass(frozen=True)
class CalendarTally:
    """On which days, and at which times of day, rows lie.

    Parameters
    ----------
    clock, count
        (clock,) the most frequent times of day, in units of the axis, and how often each occurs.
    days
        (day, 2) rows by day of the month, 1 to 31 (0 is unused), and by whether it is the month's last.
    """

    clock: Int64
    count: Int64
    days: Int64

    @classmethod
    def of(cls, times: Int64, unit: str) -> CalendarTally:
        """Tally some 65,536 rows of a stretch, evenly chosen."""
        stride = max(len(times) // _MOST_TALLIED, 1)
        while stride > 1 and (stride % 2 == 0 or stride % 3 == 0):
            stride += 1  # else it would meet the same months of every year
        days, clocks = np.divmod(times[::stride], _DAY_S * UNITS_PER_SECOND[unit])
        clock, count = np.unique(clocks, return_counts=True)
        kept = np.argsort(-count, kind="stable")[:_MOST_CLOCKS]
        dates = days.astype("datetime64[D]")
        months = dates.astype("datetime64[M]")
        day = (dates - months.astype("datetime64[D]")).astype(np.int64) + 1
        last = (dates + np.timedelta64(1, "D")).astype("datetime64[M]") != months
        table = np.bincount(day * 2 + last, minlength=2 * (LAST_DAY + 1)).reshape(-1, 2)
        return cls(clock[kept], count[kept].astype(np.int64), table)

    @property
    def usual_clock(self) -> int:
        """The most frequent time of day; the earliest of several."""
        return int(self.clock[np.argmax(self.count)])

    @property
    def usual_day(self) -> int:
        """The day of the month that fits most rows, where it is the last one in months that are shorter.

        Of several the first of the month, else the latest.
        """
        fitting = [0] * (LAST_DAY + 1)
        for day in range(1, LAST_DAY + 1):
            fitting[day] = int(self.days[day].sum() + self.days[:day, 1].sum())
        return max(range(1, LAST_DAY + 1), key=lambda day: (fitting[day], day == 1, day))


def sum_tallies(tallies: Iterable[CalendarTally | None]) -> CalendarTally | None:
    """Tallies of several stretches as one; None if there are none."""
    known = [tally for tally in tallies if tally is not None and len(tally.clock)]
    if not known:
        return None
    clock, inverse = np.unique(np.concatenate([tally.clock for tally in known]), return_inverse=True)
    weights = np.concatenate([tally.count for tally in known])
    count = np.bincount(inverse, weights=weights, minlength=len(clock)).astype(np.int64)
    return CalendarTally(clock, count, np.sum([tally.days for tally in known], axis=0))


def calendar_steps(step: Int64, count: Int64, unit: str) -> list[tuple[TimeStepRule, int]]:
    """Calendar rules that some steps may be those of, and how many steps at most.

    Parameters
    ----------
    step, count
        (step,) steps in units of the axis, and how often each occurs.
    unit
        Of the axis.

    Returns
    -------
    Open rules whose bound exceeds what any one of the steps has: else a fixed step is as good.
    """
    per_day = _DAY_S * UNITS_PER_SECOND[unit]
    days = {int(s) // per_day: int(n) for s, n in zip(step, count, strict=True) if s > 0 and s % per_day == 0}
    bounds: dict[tuple[str, int], int] = {}
    for n in range(1, 5):  # weekdays in a step, which is two days longer over a weekend; five are a week
        if days.get(n + 2, 0) * _WEEKENDS >= days.get(n, 0) > 0:
            bounds["weekday", n] = days[n] + days[n + 2]
    for day, n in days.items():
        months = round(day / _MONTH_DAYS)
        if day >= _SHORTEST and _lengths(months)[0] <= day <= _lengths(months)[1]:
            bounds["month", months] = bounds.get(("month", months), 0) + n
    most = int(count.max(initial=0))
    rules = []
    for (kind, size), bound in bounds.items():
        if bound > most:
            rules.append((TimeStepRule(kind, unit, size, day=None if kind == "month" else 1, clock=None), bound))  # type: ignore[arg-type]
    return rules


def completed(rule: TimeStepRule, tally: CalendarTally | None) -> TimeStepRule:
    """A rule with the day and the time of day that most rows have; its anchor stays open, as a period of 1."""
    clock = tally.usual_clock if tally is not None else 0
    day = tally.usual_day if tally is not None else 1
    if rule.anchor is None:
        rule = replace(rule, period=1, anchor=0)
    return replace(rule, day=day if rule.day is None else rule.day, clock=clock if rule.clock is None else rule.clock)


def anchored(rule: TimeStepRule, asked: TimeStepRule | None, months: int) -> TimeStepRule:
    """A rule of quarters or years with its anchor, if all rows that follow each other have the same.

    Parameters
    ----------
    rule
        Without an anchor.
    asked
        What the user asked for, if anything.
    months
        Bits of the months of the year, from January on, that rows lie in which follow the rule.
    """
    if rule.kind != "month" or not months:
        return rule
    if asked is not None and asked.anchor is not None:
        return rule
    period = asked.period if asked is not None else 12 if rule.count % 12 == 0 else 3 if rule.count == 3 else 1
    remainders = {month % period for month in range(12) if months >> month & 1}
    return replace(rule, period=period, anchor=remainders.pop()) if len(remainders) == 1 else rule


@cache
def _lengths(months: int) -> tuple[int, int]:
    return month_lengths(months)
