"""Times in a format that the user names, read as Python's `strptime` reads them, but strictly.

Arrow's own parser takes the 31st of February for the 3rd of March, so it is not used.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zstore.errors import UsageError
from zstore.writing.sources.times.parts import PARTS, seconds_of_parts

Int64 = NDArray[np.int64]

_DIGITS = {
    "Y": (4, 4),
    "G": (4, 4),
    "y": (2, 2),
    "j": (1, 3),
    "f": (1, 6),
    "w": (1, 1),
    "u": (1, 1),
    "q": (1, 1),  # quarter, which strptime has not
    **dict.fromkeys("mdHIMSUWV", (1, 2)),
}
"""Directives of numbers: digits that they have at least, and at most."""
YEAR_AND_PART = ("%Y %q", "%Y %m", "%Y %b", "%Y %B", "%Y Q%q", "%Y Q0%q", "%Y M%m", "%Y %j")
"""A year and what it is parted into, in columns of their own."""
_CLOCK = frozenset("HIMSfpz")
_NAME = r"[^\W\d_]+\.?"
_PATTERNS = {
    **dict.fromkeys(_DIGITS, ""),
    **dict.fromkeys("aAbBp", f"(?u:{_NAME})"),
    "z": r"Z|[+-]\d\d:?\d\d",
}
_SAMPLES = [
    datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC),
    datetime(1999, 12, 31, 23, 59, 59, tzinfo=UTC),
    datetime(2024, 2, 29, 12, tzinfo=UTC),
]
_WIDTHS = {"Y": 4, "m": 2, "d": 2, "H": 2, "M": 2, "S": 2}
_PART_OF = dict(zip("YmdHMS", PARTS, strict=True))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def check_format(text: str) -> str:
    """The format, if every time that is read with it says all that the format has.

    Raises
    ------
    UsageError
        If it has no year, leaves the time ambiguous, has a directive that is unknown or stands twice, or the name of a
        zone, which Python reads and forgets.
    """
    problem = _problem(text)
    if problem is not None:
        raise UsageError(f"--time-format {text!r}", expected=problem, fix="as in '%d.%m.%Y %H:%M'")
    return text


def _problem(text: str) -> str | None:
    """What a format lacks."""
    names = re.findall(r"%(.)", text.replace("%%", "")) + (["%"] if text.replace("%%", "").endswith("%") else [])
    directives = set(names)
    unknown = sorted(directives - set(_PATTERNS))
    if not directives & set("YyG"):
        return "a year (%Y)"
    if "Z" in directives:
        return "offsets from UTC (%z); names of zones are ambiguous"
    if unknown:
        return f"directives of strptime among {' '.join('%' + name for name in _PATTERNS)} (no %{unknown[0]})"
    if len(directives) < len(names):
        return "each directive once"
    if ("I" in directives) != ("p" in directives) or {"H", "I"} <= directives:
        return "hours as %H, or as %I with %p"
    if "q" in directives and directives & set("mbBdjUWVuwaA"):
        return "a year beside %q, and nothing else"
    if "d" in directives and not directives & set("mbB"):
        return "a month (%m) beside %d"
    weekday = directives & set("wuaA") and directives & set("UWV")
    if directives & set("HIMSf") and not directives & set("dj") and not weekday:
        return "a day (%d) beside a clock"
    for needs, of in (("H", "M"), ("M", "S"), ("S", "f")):
        if of in directives and not directives & {needs, "I" if needs == "H" else needs}:
            return f"%{needs} beside %{of}"
    for moment in _SAMPLES:
        try:
            written = moment.strftime(text.replace("%q", str((moment.month + 2) // 3)))
            if read_one(written, text) is None:
                return "directives that name one day of the year, such as %m and %d, %j, or %G %V and %u"
        except ValueError as error:
            return f"directives of strptime ({error})"
    return None


def halves(text: str) -> tuple[str, str] | None:
    """A format of a date and a clock in columns of their own, cut at the space between them.

    Returns
    -------
    The date and the clock; None if no space has all of the date before it and all of the clock behind it.
    """
    for match in re.finditer(" ", text):
        date, clock = text[: match.start()], text[match.end() :]
        behind = set(re.findall(r"%(.)", clock))
        if behind and behind <= _CLOCK and not set(re.findall(r"%(.)", date)) & _CLOCK:
            return date, clock
    return None


def check_columns(text: str, columns: Sequence[str]) -> None:
    """Refuse a format that is not one of so many columns.

    Raises
    ------
    UsageError
        If it is neither a date, a space and a clock for two columns, nor a part for each column.
    """
    parts = text.split(" ")
    if len(columns) == 2 and halves(text) is not None:
        return
    if len(parts) != len(columns) or not all("%" in part.replace("%%", "") for part in parts):
        raise UsageError(
            f"--time-format {text!r} of {len(columns)} columns",
            expected="the date, a space, and the clock, or a part for each column with a space between them",
            fix=f"say how each of {', '.join(columns)} is written, as in '%d.%m.%Y %H:%M', '%Y %m' or '%Y %q'",
        )


def unit_of(text: str) -> str:
    """Unit that holds every time of this format."""
    return "us" if "%f" in text else "s"


def has_zone(text: str) -> bool:
    """Whether times of this format carry an offset from UTC."""
    return "%z" in text


def read_formatted(texts: pa.StringArray, form: str, unit: str | None = None) -> tuple[Int64, NDArray[np.bool_]]:
    """Times of distinct texts.

    Parameters
    ----------
    texts
        (text,) what the source has.
    form
        As `strptime` has it.
    unit
        Of the times; None for :func:`unit_of`.

    Returns
    -------
    (text,) int64, and where there is no such time.

    Notes
    -----
    Numbers padded with zeros are read by numpy, some 40 ns each; whatever else by `strptime`, some 20 us each.
    """
    times, read = _padded(texts, form)
    times *= moment_in(_EPOCH.replace(second=1), unit or unit_of(form))
    wrong = np.zeros(len(texts), bool)
    for position in np.flatnonzero(~read).tolist():
        time = read_one(texts[position].as_py(), form, unit)
        wrong[position] = time is None
        times[position] = time or 0
    return times, wrong


def read_one(text: str, form: str, unit: str | None = None) -> int | None:
    """One time.

    Parameters
    ----------
    text
        What the source has.
    form
        As `strptime` has it.
    unit
        Of the result; None for :func:`unit_of`.

    Returns
    -------
    Whole units since 1970, None where there is no such time. `strptime` guesses where numbers without zeros before them
    run together, and leaves out what it cannot use, so each directive must say what the time says: numbers by value,
    names whatever their case. ``%q`` is a quarter, which begins with its first day; a week (``%G``, ``%V``) without a
    weekday begins with its Monday.
    """
    match = _form_pattern(form).fullmatch(text)
    if match is None:
        return None
    if "q" in match.groupdict():
        start, stop = match.span("q")
        month = f"{3 * int(match['q']) - 2:02}" if match["q"] in "1234" else "00"
        return read_one(text[:start] + month + text[stop:], form.replace("%q", "%m"), unit)
    if "V" in match.groupdict() and not set(match.groupdict()) & set("uwaA"):
        return read_one(f"{text} 1", f"{form} %u", unit)
    try:
        moment = datetime.strptime(text, form)
    except ValueError:
        return None
    for name, said in match.groupdict().items():
        if not _agrees(name, said, moment):
            return None
    return moment_in(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC), unit or unit_of(form))


def moment_in(moment: datetime, unit: str) -> int:
    """Whole units since 1970 of a time with a zone."""
    since = moment - _EPOCH
    seconds, microseconds = since.days * 86_400 + since.seconds, since.microseconds
    per_s = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    return seconds * per_s + microseconds * per_s // 10**6


def _agrees(name: str, said: str, moment: datetime) -> bool:
    """Whether a directive of a text says what the time says that was read from it."""
    if name == "z":
        return True  # strptime takes it as it stands
    written = moment.strftime(f"%{name}")
    if name == "f":
        return said.ljust(6, "0") == written
    if name == "Y":
        return int(said) == moment.year
    return int(said) == int(written) if said.isdigit() else said.casefold() == written.casefold()


@cache
def _form_pattern(form: str) -> re.Pattern[str]:
    """What texts of a format look like: numbers that run together have all their digits, others may lack zeros."""
    pieces = re.findall(r"%.|[^%]", form)
    numeric = [piece[0] == "%" and piece[1] in _DIGITS for piece in pieces]
    pattern = ""
    for n, piece in enumerate(pieces):
        if piece[0] != "%":
            pattern += " +" if piece == " " else re.escape(piece)
            continue
        name = piece[1]
        if name == "%":
            pattern += "%"
            continue
        together = (n > 0 and numeric[n - 1]) or (n + 1 < len(pieces) and numeric[n + 1])
        least, most = _DIGITS.get(name, (0, 0))
        digits = rf"\d{{{most if together else least},{most}}}"
        pattern += f"(?P<{name}>{_PATTERNS[name] or digits})"
    return re.compile(pattern, re.ASCII)


def _padded(texts: pa.StringArray, form: str) -> tuple[Int64, NDArray[np.bool_]]:
    """Times of texts that are as wide as the format with padded numbers, and which those are."""
    times, read = np.zeros(len(texts), np.int64), np.zeros(len(texts), bool)
    pieces = re.findall(r"%.|[^%]", form)
    names = [piece[1] for piece in pieces if piece[0] == "%"]
    simple = form.isascii() and set(names) <= set(_WIDTHS) and len(set(names)) == len(names) and "Y" in names
    if not simple or not len(texts):
        return times, read
    _, offsets, content = texts.buffers()
    ends = np.frombuffer(offsets, np.int32, len(texts) + 1, texts.offset * 4)
    width = sum(_WIDTHS[piece[1]] if piece[0] == "%" else 1 for piece in pieces)
    rows = np.flatnonzero(np.diff(ends) == width)
    if not len(rows):
        return times, read
    letters = np.frombuffer(content, np.uint8)[ends[rows, None] + np.arange(width)]
    fits, column = np.ones(len(rows), bool), 0
    parts: dict[str, Any] = {}
    for piece in pieces:
        if piece[0] != "%":
            fits &= letters[:, column] == ord(piece)
            column += 1
            continue
        digits = letters[:, column : column + _WIDTHS[piece[1]]].astype(np.int64) - ord("0")
        fits &= ((digits >= 0) & (digits <= 9)).all(axis=1)
        parts[_PART_OF[piece[1]]] = digits @ 10 ** np.arange(digits.shape[1])[::-1]
        column += digits.shape[1]
    unnamed = {"month": 1, "day": 1}
    seconds, wrong = seconds_of_parts([parts.get(p, np.full(len(rows), unnamed.get(p, 0))) for p in PARTS])
    good = fits & ~wrong
    times[rows[good]], read[rows[good]] = seconds[good], True
    return times, read
