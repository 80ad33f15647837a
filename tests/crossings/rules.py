"""Time step rules, as the documentation has them, by pandas; nothing of the project is imported."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from .draws import DAY_MS

Array = np.ndarray[Any, Any]
Key = tuple[str, int]

_LAST = 31
_WEEK = 7 * DAY_MS


@dataclass(frozen=True)
class Rule:
    """A rule that counts ms or plain steps, months or weekdays, as docs/format.md says.

    Parameters
    ----------
    kind
        fixed, month, weekday, rows or irregular.
    count, period, anchor, day, clock
        As there, but in ms.
    """

    kind: str
    count: int = 1
    period: int = 1
    anchor: int = 0
    day: int = 1
    clock: int = 0

    @property
    def regular(self) -> bool:
        """Whether it says where a row is missing."""
        return self.kind not in ("rows", "irregular")

    def locate(self, times: Array) -> tuple[Array, Array]:
        """Number of the last month, weekday or ms not after each time; and whether the time fits it."""
        if self.kind == "fixed":
            return times, (times - self.anchor - self.clock) % self.period == 0
        units, anchors = _units(self.kind, self.day, self.clock, *_years(times))
        number = np.searchsorted(units, times, side="right") - 1
        fits = units[number] == times
        return number, fits & (anchors[number] % self.period == self.anchor)

    def between(self, times: Array) -> tuple[Array, Array]:
        """Steps from each time to the next one; and whether they are whole ones."""
        number, fits = self.locate(times)
        steps = np.diff(number)
        return steps // self.count, fits[1:] & fits[:-1] & (steps % self.count == 0)

    def follows(self, times: Array) -> Array:
        """Whether each time but the first one is a step after the one before."""
        steps, whole = self.between(times)
        following: Array = whole & (steps == 1)
        return following

    def number(self, time: int, origin: int) -> int:
        """Whole steps from a time to a later one."""
        first, last = self.locate(np.array([origin, time]))[0].tolist()
        return int((last - first) // self.count)

    def later(self, time: int, n: int) -> int:
        """The time n steps later."""
        if n == 0:
            return time
        if self.kind == "fixed":
            return time + n * self.count
        years = _years(np.array([time]))
        reach = 10 * (abs(n) * self.count // (1200 if self.kind == "month" else 2600) + 1) * 10
        units, _ = _units(self.kind, self.day, self.clock, years[0], years[1] + reach)
        return int(units[np.searchsorted(units, time, side="right") - 1 + n * self.count])

    def grid(self, low: int, high: int) -> Array:
        """All steps from a time to another."""
        if self.kind == "fixed":
            return np.arange(low, high + 1, self.count) if self.locate(np.array([low]))[1].all() else np.zeros(0)
        number, fits = self.locate(np.array([low, high]))
        units, _ = _units(self.kind, self.day, self.clock, *_years(np.array([low, high])))
        return units[number[0] : number[1] + 1 : self.count] if fits[0] else np.zeros(0)


IRREGULAR = Rule("irregular")


def _years(times: Array) -> tuple[int, int]:
    """Decades around some times."""
    years = pd.DatetimeIndex(np.array([times.min(), times.max()]).astype("datetime64[ms]")).year
    return int(years[0]) // 10 * 10 - 10, int(years[1]) // 10 * 10 + 20


@lru_cache(maxsize=256)
def _units(kind: str, day: int, clock: int, first: int, last: int) -> tuple[Array, Array]:
    """Times of all months or weekdays of some years; and the month of the year of each."""
    if kind == "weekday":
        days = pd.date_range(f"{first}-01-01", f"{last}-01-01", freq="D", unit="ms")
        days = days[days.day_of_week < 5]
        return days.asi8 + clock, np.zeros(len(days), int)
    months = pd.date_range(f"{first}-01-01", f"{last}-01-01", freq="MS", unit="ms")
    ends = months + pd.offsets.MonthEnd(1)
    days = months + pd.Timedelta(days=day - 1)
    return days.where(days < ends, ends).as_unit("ms").asi8 + clock, months.month.to_numpy() - 1


def _series(keys: Iterable[Key]) -> list[Array]:
    """Times of each series, ascending."""
    times: dict[str, list[int]] = {}
    for id_, time in keys:
        times.setdefault(id_, []).append(time)
    return [np.array(sorted(some)) for some in times.values()]


def found_rule(rows: Iterable[Key], dated: bool) -> Rule:
    """The rule that more than half of all rows follow, the most of all rules; a fixed step where that is as good."""
    series = _series(rows)
    steps = np.concatenate([np.zeros(0, int), *map(np.diff, series)])
    counts = pd.Series(steps, dtype=np.int64).value_counts()
    rule, most = IRREGULAR, 0
    if len(counts):
        rule, most = Rule("fixed", int(counts.index[0])), int(counts.iloc[0])
    for candidate in _calendars(series, steps) if dated else ():
        n_following = sum(int(candidate.follows(times).sum()) for times in series)
        if n_following > most:
            rule, most = candidate, n_following
    if 2 * most <= len(steps):
        return IRREGULAR
    period = 12 if rule.count % 12 == 0 else 3 if rule.count == 3 else 1
    return _anchored(rule, period, series)


def _calendars(series: list[Array], steps: Array) -> list[Rule]:
    """Rules of weekdays and months that may be those of some rows: the first of the months first, then late days."""
    days = steps[steps % DAY_MS == 0] // DAY_MS
    months = sorted({round(day / 30.436875) for day in days[days >= 28].tolist()})
    every = np.concatenate(series)
    clock = _usual(every % DAY_MS)
    dates = pd.DatetimeIndex(every.astype("datetime64[ms]"))
    places = [_usual_day(dates)] if months else []
    rules = [Rule("month", n, day=place, clock=clock) for n in months for place in places]
    return rules + [Rule("weekday", n, clock=clock) for n in range(1, 5) if (days == n).any() and (days == n + 2).any()]


def _usual(values: Array) -> int:
    """The most frequent of some values; the least of several."""
    distinct, counts = np.unique(values, return_counts=True)
    return int(distinct[counts.argmax()])


def _usual_day(dates: pd.DatetimeIndex) -> int:
    """The day of the month, or the last one of shorter months, that most rows lie on; the first, or the latest."""
    fitting = {day: int((dates.day == np.minimum(day, dates.days_in_month)).sum()) for day in range(1, _LAST + 1)}
    most = [day for day, n in fitting.items() if n == max(fitting.values())]
    return 1 if 1 in most else most[-1]


def _anchored(rule: Rule, period: int, series: list[Array]) -> Rule:
    """A rule of months with the month that all rows which follow each other have in common, if they have one."""
    if rule.kind != "month" or rule.count % 3:
        return rule
    behind = np.concatenate([times[1:][rule.follows(times)] for times in series])
    months = set((pd.DatetimeIndex(behind.astype("datetime64[ms]")).month - 1) % period)
    return replace(rule, period=period, anchor=int(months.pop())) if len(months) == 1 else rule


def asked_rule(text: str, rows: Iterable[Key]) -> Rule:
    """The rule that a user names, with what it leaves open taken from the rows."""
    if text == "rows":
        return Rule("rows")
    series = _series(rows)
    every = np.concatenate(series)
    clock = _usual(every % DAY_MS)
    if text == "B":
        return Rule("weekday", clock=clock)
    if text == "W-WED":
        return Rule("fixed", _WEEK, _WEEK, 6 * DAY_MS, clock=clock)
    if text[-2:] not in ("MS", "ME", "QS", "QE", "YS", "YE") and text != "YE-JUN":
        return Rule("fixed", int(pd.Timedelta(text) / pd.Timedelta("1ms")))
    name = text.partition("-")[0][-2:]
    day = _usual_day(pd.DatetimeIndex(every.astype("datetime64[ms]"))) if name[1] == "S" else _LAST
    period = {"M": 1, "Q": 3, "Y": 12}[name[0]]
    count = period * int(text[: -len(name)] or 1) if text != "YE-JUN" else 12
    if text == "YE-JUN":
        return Rule("month", 12, 12, 5, _LAST, clock)
    return _anchored(Rule("month", count, day=day, clock=clock), period, series)
