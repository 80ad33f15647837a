"""How times are written in CSV, as exact seconds, in plain Python: for the strict reader of `dialects`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from zoneinfo import ZoneInfo

MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ReadTime = Callable[[Sequence[str]], Fraction | None]


def iso(cell: str) -> Fraction | None:
    """An ISO date, or date and time, without an offset."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d)(?:[ T](\d\d)(?::(\d\d)(?::(\d\d)(?:\.(\d+))?)?)?)?", cell, re.A)
    if match is None:
        return None
    day, hour, minute, second, fraction = match.groups()
    try:
        moment = datetime.fromisoformat(day).replace(tzinfo=UTC)
        moment = moment.replace(hour=int(hour or 0), minute=int(minute or 0), second=int(second or 0))
    except ValueError:
        return None
    return seconds_of(moment) + Fraction(int(fraction or 0), 10 ** len(fraction or ""))


def seconds_of(moment: datetime) -> Fraction:
    """Seconds since 1970."""
    return Fraction((moment - EPOCH) // timedelta(seconds=1))


def one(read_cell: Callable[[str], Fraction | None]) -> ReadTime:
    """Times of one column."""
    return lambda cells: read_cell(cells[0])


def date_and_clock(cells: Sequence[str]) -> Fraction | None:
    """An ISO date and an ISO clock."""
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", cells[0], re.A):
        return None
    return iso(f"{cells[0]} {cells[1]}")


def german(cells: Sequence[str]) -> Fraction | None:
    """A date and a clock as %d.%m.%Y and %H:%M have it."""
    day = re.fullmatch(r"(\d\d?)\.(\d\d?)\.(\d{4})", cells[0], re.A)
    clock = re.fullmatch(r"(\d\d?):(\d\d?)", cells[1], re.A)
    if day is None or clock is None:
        return None
    try:
        return seconds_of(datetime(int(day[3]), int(day[2]), int(day[1]), int(clock[1]), int(clock[2]), tzinfo=UTC))
    except ValueError:
        return None


def week(cell: str) -> Fraction | None:
    """The Monday of an ISO week as %G-W%V has it."""
    match = re.fullmatch(r"(\d{4})-W(\d\d?)", cell, re.A)
    try:
        return None if match is None else of_day(date.fromisocalendar(int(match[1]), int(match[2]), 1))
    except ValueError:
        return None


def quarter(cell: str) -> Fraction | None:
    """The first day of a quarter as %Y-Q%q has it."""
    match = re.fullmatch(r"(\d{4})-Q([1-4])", cell, re.A)
    try:
        return None if match is None else of_day(date(int(match[1]), 3 * int(match[2]) - 2, 1))
    except ValueError:
        return None


def parts(cells: Sequence[str]) -> Fraction | None:
    """Year, month, day, hour and minute."""
    if not all(re.fullmatch(r"[ \t]*-?\d{1,18}[ \t]*", cell, re.A) for cell in cells):
        return None
    year, month, day, hour, minute = (int(cell) for cell in cells)
    try:
        return seconds_of(datetime(year, month, day, hour, minute, tzinfo=UTC))
    except (ValueError, OverflowError):
        return None


def of_day(day: date) -> Fraction:
    """Seconds of its midnight since 1970."""
    return Fraction((day.toordinal() - date(1970, 1, 1).toordinal()) * 86_400)


def of_zone(read_time: ReadTime, name: str) -> ReadTime:
    """Times of the clocks of a zone, if these show them once."""
    zone = ZoneInfo(name)

    def read_local(cells: Sequence[str]) -> Fraction | None:
        seconds = read_time(cells)
        if seconds is None:
            return None
        local = EPOCH.replace(tzinfo=None) + timedelta(seconds=math.floor(seconds))
        ways = set()
        for fold in (0, 1):
            try:
                utc = local.replace(tzinfo=zone, fold=fold).astimezone(UTC)
                if utc.astimezone(zone).replace(tzinfo=None) == local:
                    ways.add(seconds_of(utc))
            except OverflowError:
                return None
        return ways.pop() + seconds % 1 if len(ways) == 1 else None

    return read_local


def decimal_number(cell: str) -> tuple[Fraction, str] | None:
    """A plain decimal of at most 19 digits before its point, and the digits behind that without zeros at their end."""
    match = re.fullmatch(r"[ \t]*(-?)0*(\d{1,19})(?:\.(\d*))?[ \t]*", cell, re.A)
    if match is None:
        return None
    digits = (match[3] or "").rstrip("0")
    value = Fraction(int(match[2] + digits), 10 ** len(digits))
    return (-value if match[1] else value), digits


def epoch(cell: str) -> Fraction | None:
    """Seconds since 1970, with a fraction or not, as far as nanoseconds."""
    number = decimal_number(cell)
    if number is None or len(number[1]) > 9 or not -62_135_596_800 <= number[0] < 253_402_300_800:
        return None
    return number[0]


def excel(first: date, least: int) -> Callable[[str], Fraction | None]:
    """Serial days, the first of which is 0: a minute exactly, or the second that six digits or more name."""

    def read_serial(cell: str) -> Fraction | None:
        number = decimal_number(cell)
        if number is None or number[0] < least:
            return None
        seconds, enough = number[0] * 86_400, len(number[1]) >= 6
        nearest = Fraction(math.floor(seconds + Fraction(1, 2)))
        near = abs(seconds - nearest) <= Fraction(86_400, 10 ** len(number[1]))
        if seconds != nearest and not (enough and near):
            return None
        if seconds == nearest and seconds % 60 and not enough:
            return None
        total = nearest + of_day(first)
        return total if total < 253_402_300_800 else None

    return read_serial
