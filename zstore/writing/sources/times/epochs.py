"""Times that are numbers with a fraction: seconds since 1970, or days as spreadsheets count them."""

from __future__ import annotations

import re
from collections.abc import Sequence

EXCEL = {"excel": -25_569, "excel1904": -24_107}
"""Serial days of 1970-01-01, with the sign turned: what to add to a serial day."""
_ENOUGH = 6  # digits that tell a second of a day
_FIRST_EXCEL = 61  # before 1900-03-01 spreadsheets count a day that there was not
_SECONDS = {"d": 86_400, "h": 3_600, "min": 60, "s": 1, "ms": 1, "us": 1, "ns": 1}
_PLACES = {"ms": 3, "us": 6, "ns": 9}
_UNITS = ("s", "ms", "us", "ns")
_NUMBER = re.compile(r"[ \t]*(-?)0*(\d{1,19})(?:\.(\d*))?[ \t]*", re.ASCII)
_MOST_PLACES = 30


def read_number(text: str, of: str, unit: str) -> int | None:
    """A time that is a decimal number.

    Parameters
    ----------
    text
        Digits, with a point among them or not.
    of
        What it counts: ``d``, ``h``, ``min``, ``s``, ``ms``, ``us`` or ``ns`` since 1970; ``excel`` or ``excel1904``
        for serial days.
    unit
        ``s``, ``ms``, ``us`` or ``ns``.

    Returns
    -------
    Whole units since 1970; None if it is no number, or not a whole one in that unit. A serial day is rounded to the
    second if it has enough digits to name one and is as near to it as its digits can say; with fewer it is a minute.
    """
    match = _NUMBER.fullmatch(text)
    if match is None or len(match[3] or "") > _MOST_PLACES:
        return None
    fraction = (match[3] or "").rstrip("0")
    number, places = int(match[1] + match[2] + fraction), int(10 ** len(fraction))
    if of in EXCEL:
        return _serial(number, len(fraction), of, unit)
    numerator = number * _SECONDS[of] * int(10 ** (3 * _UNITS.index(unit)))
    whole, rest = divmod(numerator, places * int(10 ** _PLACES.get(of, 0)))
    return whole if rest == 0 else None


def _serial(number: int, n_places: int, of: str, unit: str) -> int | None:
    places = int(10**n_places)
    if number < (_FIRST_EXCEL if of == "excel" else 0) * places:
        return None
    seconds, rest = divmod(number * 86_400, places)
    if rest:
        seconds += int(2 * rest >= places)
        off = abs(number * 86_400 - seconds * places)
        if n_places < _ENOUGH or off > 86_400:  # one of its last digit
            return None
    elif n_places < _ENOUGH and seconds % 60:  # 0.04 may be one o'clock, rounded
        return None
    return (seconds + EXCEL[of] * 86_400) * int(10 ** (3 * _UNITS.index(unit)))


def finest_unit(texts: Sequence[str], of: str) -> str | None:
    """The coarsest unit in which all numbers of some texts are whole; None if all are whole numbers of `of`."""
    known = [match for match in map(_NUMBER.fullmatch, texts) if match is not None]
    if not any((match[3] or "").rstrip("0") for match in known) and of not in EXCEL:
        return "s" if any(match[3] is not None for match in known) and of not in _PLACES else None
    for unit in _UNITS:
        if all(read_number(match[0], of, unit) is not None for match in known):
            return unit
    return "ns" if of not in EXCEL else "s"


def number_expected(of: str, unit: str) -> str:
    """What such a time should look like."""
    if of in EXCEL:
        return "a serial day, from 61 (1900-03-01) on, with six digits of its fraction or more where it has one"
    return f"a number that makes whole {unit} since 1970"
