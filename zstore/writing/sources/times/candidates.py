"""Ways in which the times of a sample may be written: those that read all of it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from zstore.writing.sources.times.formats import read_one
from zstore.writing.sources.times.guesses import dates_or_epochs, sniff_iso
from zstore.writing.sources.times.spec import STEPS

_MOST = 200  # distinct texts that are tried
_DAY_OF_YEAR = re.compile(r"\d{4}\D?\d{3}(?!\d)", re.ASCII)
_ORDERS = ("%Y{0}%m{0}%d", "%d{0}%m{0}%Y", "%m{0}%d{0}%Y", "%d{0}%m{0}%y", "%m{0}%d{0}%y", "%y{0}%m{0}%d")
_NAMED = ("%d{0}%b{0}%Y", "%d{0}%B{0}%Y", "%b{0}%d{0}%Y", "%b %d, %Y", "%d{0}%b{0}%y")
_DATES = (
    *(order.format(mark) for mark in "-/." for order in (*_ORDERS, *_NAMED[:3], _NAMED[4])),
    *(name.format(" ") for name in (*_NAMED, *_ORDERS[:3])),
    *("%Y%m%d", "%Y-%m", "%Y/%m", "%m/%Y", "%b %Y", "%b-%Y", "%Y-%j"),
    *("%Y %b", "%Y-%b", "%B %Y", "%Y %B", "%b %y", "%b-%y", "%YM%m", "%Y-M%m"),
    *("%Y-Q%q", "%YQ%q", "%Y Q%q", "Q%q %Y", "Q%q-%Y", "Q%q/%Y", "%G-W%V", "%GW%V", "%G-W%V-%u"),
)
_CLOCKS = (
    *("%H:%M", "%H:%M:%S", "%H:%M:%S.%f"),
    *("%I:%M %p", "%I:%M:%S %p", "%I:%M:%S%p"),
    *("%H.%M", "%H.%M.%S", "%H", "%H%M"),
)
_ENDS = ("", " UTC", " GMT")
_BETWEEN = (" ", "T", ", ")


def time_formats(texts: Sequence[str]) -> list[str]:
    """The formats of `strptime` that read all of some texts as some time, the usual ones first."""
    texts = list(dict.fromkeys(texts))
    some = texts[:_MOST]
    if not some or not any(character.isdigit() for character in some[0]):
        return []
    clocks = [f"{mark}{clock}{end}" for end in _ENDS for mark in _BETWEEN for clock in _CLOCKS]
    ways = (date + clock for date, clock in itertools.product(_DATES, ["", *clocks]))
    if not all(_DAY_OF_YEAR.match(text) for text in some):
        ways = (form for form in ways if "%j" not in form)  # which 2001-01 is none of
    forms = [form for form in ways if all(read_one(text, form) is not None for text in some)]
    if len(forms) > 1:  # a later day, as 13.01., may tell which
        return [form for form in forms if all(read_one(text, form) is not None for text in texts)] or forms
    return forms


def time_flags(texts: Sequence[str]) -> list[str]:
    """Every way to read a column as times: what to add to --time, ``""`` where nothing has to be; none if it is none.

    Where there are several, a person has to say which.
    """
    known = [text for text in texts if text]
    spec = sniff_iso("", known) if known else None
    if spec is not None and spec.kind == "iso" and all(spec.read_cells([text]) is not None for text in known):
        return [""]
    if spec is not None and spec.kind == "steps":
        flags = dates_or_epochs(known)
        return [*flags, f"--time-unit {STEPS}"] if flags else []
    return [f"--time-format '{form}'" for form in time_formats(known)]
