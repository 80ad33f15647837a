"""Times in a format that the user names, read as Python's `strptime` reads them: strictly.

Arrow's own parser takes the 31st of February for the 3rd of March, so it is not used.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zstore.errors import UsageError
from zstore.writing.sources.parts import PARTS, seconds_of_parts

Int64 = NDArray[np.int64]

_WIDTHS = {"Y": 4, "m": 2, "d": 2, "H": 2, "M": 2, "S": 2}
_PART_OF = dict(zip("YmdHMS", PARTS, strict=True))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def check_format(text: str) -> str:
    """The format, if times can be read with it.

    Raises
    ------
    UsageError
        If it has no year, an unknown directive, or the name of a zone, which Python reads and forgets.
    """
    directives = set(re.findall(r"%(.)", text.replace("%%", "")))
    problem = None
    if not directives & set("Yy"):
        problem = "a year (%Y)"
    elif "Z" in directives:
        problem = "offsets from UTC (%z); names of zones are ambiguous"
    else:
        try:
            datetime.strptime(datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC).strftime(text), text)
        except ValueError as error:
            problem = f"directives of strptime ({error})"
    if problem is not None:
        raise UsageError(f"--time-format {text!r}", expected=problem, fix="as in '%d.%m.%Y %H:%M'")
    return text


def unit_of(text: str) -> str:
    """Unit that holds every time of this format."""
    return "us" if "%f" in text else "s"


def has_zone(text: str) -> bool:
    """Whether times of this format carry an offset from UTC."""
    return "%z" in text


def read_formatted(texts: pa.StringArray, form: str) -> tuple[Int64, NDArray[np.bool_]]:
    """Times of distinct texts.

    Parameters
    ----------
    texts
        (text,) what the source has.
    form
        As `strptime` has it.

    Returns
    -------
    (text,) int64 in :func:`unit_of`, and where there is no such time.

    Notes
    -----
    Numbers padded with zeros are read by numpy, some 40 ns each; whatever else by `strptime`, some 6 us each.
    """
    times, read = _padded(texts, form)
    wrong = np.zeros(len(texts), bool)
    for position in np.flatnonzero(~read).tolist():
        time = read_one(texts[position].as_py(), form)
        wrong[position] = time is None
        times[position] = time or 0
    return times, wrong


def read_one(text: str, form: str) -> int | None:
    """One time in :func:`unit_of`, None where there is no such time."""
    try:
        moment = datetime.strptime(text, form)
    except ValueError:
        return None
    since = moment.replace(tzinfo=moment.tzinfo or UTC) - _EPOCH
    seconds = since.days * 86_400 + since.seconds
    return seconds * 1_000_000 + since.microseconds if unit_of(form) == "us" else seconds


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
