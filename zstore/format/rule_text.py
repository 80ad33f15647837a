"""Time step rules as people write them: ``15min``, ``W-WED``, ``2MS``, ``YE-JUN``, ``B``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from zstore.format.ordinals import EPOCH_WEEKDAY

Kind = Literal["fixed", "month", "weekday", "rows", "irregular"]

UNITS_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
DAY_S = 86_400
LAST_DAY = 31
"""The day of the month that is its last one, however many days it has."""

_SECONDS = {"d": DAY_S, "h": 3_600, "min": 60, "s": 1}
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
_PERIODS = {"M": 1, "Q": 3, "Y": 12}
_TEXT = re.compile(r"(\d*)[ ]?([A-Za-z]*)(?:-([A-Z]{3}))?", re.ASCII)
_DIGITS = 18


@dataclass(frozen=True)
class RuleFields:
    """What a rule says, as :class:`zstore.format.timesteps.TimeStepRule` has it, but for the unit of the axis."""

    kind: Kind
    count: int = 1
    period: int = 1
    anchor: int | None = 0
    day: int | None = 1
    clock: int | None = 0


def text_of_rule(rule: RuleFields, unit: str | None) -> str:
    """A regular rule as :func:`parse_rule` reads it, but for what only the rows say."""
    if rule.kind == "weekday":
        return _counted(rule.count, "B")
    if rule.kind == "month":
        return _text_of_months(rule)
    if rule.period > 1:
        days = (rule.anchor or 0) // (DAY_S * UNITS_PER_SECOND[unit or "s"])
        return f"{_counted(rule.count // rule.period, 'W')}-{_WEEKDAYS[(days + EPOCH_WEEKDAY) % 7]}"
    if unit is None:
        return f"{rule.count} steps" if rule.count != 1 else "1 step"
    per_second = UNITS_PER_SECOND[unit]
    for name, seconds in _SECONDS.items():
        if rule.count % (seconds * per_second) == 0:
            return f"{rule.count // (seconds * per_second)}{name}"
    return f"{rule.count}{unit}"


def _text_of_months(rule: RuleFields) -> str:
    letter = next(name for name, period in _PERIODS.items() if period == rule.period)
    last = rule.day == LAST_DAY
    text = _counted(rule.count // rule.period, letter + ("E" if last else "S"))
    usual = rule.period - 1 if last else 0
    if rule.anchor in (None, usual):
        return text
    return f"{text}-{_MONTHS[9 + int(rule.anchor or 0) if last and rule.period == 3 else int(rule.anchor or 0)]}"


def _counted(count: int, name: str) -> str:
    return name if count == 1 else f"{count}{name}"


def parse_rule(text: str, unit: str | None) -> RuleFields | None:
    """The fields of a rule as a person writes it, on an axis in `unit`; None if it is no rule of that axis."""
    match = _TEXT.fullmatch(text)
    if match is None or len(match[1]) > _DIGITS:
        return None
    count, name, anchor = int(match[1] or 1), match[2], match[3]
    if count < 1:
        return None
    if unit is None:
        plain = anchor is None and name in ("", "step", "steps") and bool(match[1])
        return RuleFields("fixed", count) if plain else None
    if name == "W":
        return _parse_weeks(count, anchor, unit)
    if anchor is None and name == "B":
        return RuleFields("weekday", count, clock=None)
    if len(name) == 2 and name[0] in _PERIODS and name[1] in "SE":
        return _parse_months(count, name, anchor)
    step = _parse_fixed(count, name, unit) if anchor is None else 0
    return RuleFields("fixed", step) if step else None


def _parse_weeks(count: int, anchor: str | None, unit: str) -> RuleFields | None:
    per_day = DAY_S * UNITS_PER_SECOND[unit]
    if anchor is None:
        return RuleFields("fixed", count * 7 * per_day)
    if anchor not in _WEEKDAYS:
        return None
    day = (_WEEKDAYS.index(anchor) - EPOCH_WEEKDAY) % 7
    return RuleFields("fixed", count * 7 * per_day, 7 * per_day, day * per_day, clock=None)


def _parse_months(count: int, name: str, anchor: str | None) -> RuleFields | None:
    period, day = _PERIODS[name[0]], None if name[1] == "S" else LAST_DAY
    if anchor is None:
        return RuleFields("month", count * period, period, 0 if period == 1 else None, day, None)
    if anchor not in _MONTHS or period == 1:
        return None
    return RuleFields("month", count * period, period, _MONTHS.index(anchor) % period, day, None)


def _parse_fixed(count: int, name: str, unit: str) -> int:
    """Units of the axis in `count` days, hours … nanoseconds; 0 where that is no whole number of them."""
    if name in UNITS_PER_SECOND:  # ms is not MS
        step, rest = divmod(count * UNITS_PER_SECOND[unit], UNITS_PER_SECOND[name])
        return 0 if rest else step
    return count * _SECONDS.get(name.lower(), 0) * UNITS_PER_SECOND[unit]
