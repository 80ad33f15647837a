"""What the first texts of a column of times are: ISO times, dates without a separator, epochs, or counted steps."""

from __future__ import annotations

import re
from collections.abc import Sequence

from zstore.writing.sources.times.formats import read_one
from zstore.writing.sources.times.iso import ISO, UNITS
from zstore.writing.sources.times.spec import WHOLE, TimeSpec

_SHARE = 0.9
_SHORT_DATE = "%y%m%d"
_DATES = {
    "%Y%m": r"[12]\d{5}",
    "%Y%m%d": r"[12]\d{7}",
    "%Y%m%d%H": r"[12]\d{9}",
    "%Y%m%d%H%M": r"[12]\d{11}",
    "%Y%m%d%H%M%S": r"[12]\d{13}",
    "%Y%j": r"(?:19|20)\d{5}",
    _SHORT_DATE: r"\d{6}",
}
"""Dates without a separator, and what they look like. Short ones are told from counters by days of several months."""

_EPOCHS = (315_532_800, 7_258_118_400)  # seconds from 1980 to 2200


def sniff_iso(column: str, texts: Sequence[str]) -> TimeSpec | None:
    """The spec of a column of ISO times or whole numbers from its first texts, or None if most are neither.

    The unit is the coarsest that holds the fractions of seconds seen.
    """
    if not texts:
        return TimeSpec("iso", (column,), "s")
    if 2 * sum(WHOLE.fullmatch(text) is not None for text in texts) > len(texts):
        return TimeSpec("steps", (column,), None)
    matches = [match for match in map(ISO.fullmatch, texts) if match is not None]
    if 2 * len(matches) <= len(texts):
        return None
    fractions = [match["fraction"] or "" for match in matches]
    unit = _unit_of(max(len(fraction.rstrip("0")) for fraction in fractions))
    written = _unit_of(max(map(len, fractions)))
    return TimeSpec(
        "iso", (column,), unit, matches[0]["zone"] is not None, written=None if written == unit else written
    )


def first_unreadable(texts: Sequence[str]) -> int:
    """Which of some texts is the first that is neither an ISO time nor a whole number; 0 if all are."""
    return next((n for n, text in enumerate(texts) if not (ISO.fullmatch(text) or WHOLE.fullmatch(text))), 0)


def dates_or_epochs(texts: Sequence[str]) -> list[str]:
    """What whole numbers are, if they hardly count steps, as flags that read them so.

    Parameters
    ----------
    texts
        The first cells of the column.

    Returns
    -------
    Such as ``["--time-format %Y%m%d"]`` where nearly all are dates, or ``["--time-unit s"]`` where nearly all are at
    least as large as the epoch of 1980 in that unit; empty where they may well count steps. A few that are not, such as
    0 for an unknown day, make no counter of the others.
    """
    numbers = [text.strip(" \t") for text in texts if WHOLE.fullmatch(text)]
    most = _SHARE * len(numbers)
    flags = []
    for form, pattern in _DATES.items():
        likely = [number for number in numbers if re.fullmatch(pattern, number, re.ASCII)]
        dates = [date for date in (read_one(number, form, "s") for number in likely) if date is not None]
        if dates and len(dates) >= most and (form != _SHORT_DATE or len({number[:4] for number in likely}) > 1):
            flags.append(f"--time-format {form}")
    values = [int(number) for number in numbers]
    for unit, power in zip(UNITS, (0, 3, 6, 9), strict=True):
        low, high = _EPOCHS[0] * 10**power, _EPOCHS[1] * 10**power
        if values and sum(low <= value < high for value in values) >= most:
            flags.append(f"--time-unit {unit}")
    return flags


def _unit_of(digits: int) -> str:
    """The coarsest unit that holds so many digits of a second; the finest if none does."""
    return UNITS[min(-(-digits // 3), 3)]
