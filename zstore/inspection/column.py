"""What a column of a sample looks like."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from zstore.writing.sources.cells import NumberStyle, dialect_of, is_code
from zstore.writing.sources.options import MISSING
from zstore.writing.sources.times.candidates import time_flags

Kind = Literal["number", "whole", "word", "time", "clock", "empty"]

_SHARE = 0.9  # of cells that make a column one of numbers
_HALF = 0.5  # the same, where what is none is a text or two
_MOST_ODD = 2  # such texts
_MOST_EXAMPLES = 3
_SENTINELS = {99.0, 999.0, 9999.0, 99999.0, 99.9, 999.9, 9999.9, 999.99, 6999.0, 7777.0, 8888.0}
_FAR = 3.0  # times the range of the other numbers, from which a single sentinel stands out
_SERIAL = range(20_000, 60_001)  # days of spreadsheets, 1954 to 2064
_NAMED_AS_TIME = re.compile(r"\W*(date|time|day|timestamp|datum|zeit|tag|fecha|jour|serial)\W*", re.IGNORECASE)
_CLOCK = re.compile(r"\s*(?:[01]?\d|2[0-3])([:.])[0-5]\d(?:\1[0-5]\d(?:[.,]\d+)?)?\s*")
_STYLE = NumberStyle()


@dataclass(frozen=True)
class ColumnLook:
    """What a column of a sample looks like.

    Parameters
    ----------
    name
        Its name; ``c1``, ``c2`` … in a file without a header.
    kind
        ``number``, ``whole`` (whole numbers), ``word``, ``time`` (with a date), ``clock`` (without one) or ``empty``.
    examples
        Some of its cells.
    n_missing
        Cells that are empty or a usual text for missing.
    times
        Flags beside --time that read all of its cells as times, ``""`` where none is needed.
    odd
        Cells of a column of numbers that are none, and numbers such as -999 that may mean missing.
    advice
        How its cells could be read as numbers, if they nearly are.
    flags
        Options that read them so, where there is no other way to mean them.
    n_distinct
        Different cells, without what is missing.
    unread
        What to do about cells that are numbers in another way than the others.
    """

    name: str
    kind: Kind
    examples: tuple[str, ...]
    n_missing: int
    times: tuple[str, ...] = ()
    odd: tuple[str, ...] = ()
    advice: str = ""
    flags: tuple[tuple[str, str], ...] = ()
    n_distinct: int = 0
    unread: str = ""


def look_at(name: str, cells: Sequence[str]) -> ColumnLook:
    """What the cells of a column are."""
    known = [cell for cell in cells if cell.strip() not in MISSING]
    distinct = tuple(dict.fromkeys(known))
    n_missing = len(cells) - len(known)

    def column(kind: Kind, times: tuple[str, ...] = (), odd: tuple[str, ...] = ()) -> ColumnLook:
        return ColumnLook(name, kind, distinct[:_MOST_EXAMPLES], n_missing, times, odd, n_distinct=len(distinct))

    if not known:
        return column("empty")
    values = [_STYLE.read(cell) for cell in known]
    others = [cell for cell, value in zip(known, values, strict=True) if value is None]
    if others and all(map(_CLOCK.fullmatch, known)):
        return column("clock")
    share = 1 - len(others) / len(known)
    if share < _HALF:
        times = tuple(time_flags(known))
        if times:
            return column("time", times)
    dialect = dialect_of(others, name, _STYLE) if others else None
    if dialect is None and (share >= _SHARE or (share >= _HALF and len(set(others)) <= _MOST_ODD)):
        whole = all(re.fullmatch(r"\s*[+-]?\d+\s*", cell) for cell in known)
        coded = any(is_code(cell) for cell in known)
        times = tuple(_epochs(name, known)) if whole else ()
        kind: Kind = "word" if coded and not times else "whole" if whole else "number"
        return replace(column(kind, times, _odd(known, values)), unread=_unread(known, values))
    if dialect is None:
        return _among_texts(name, known, n_missing) or column("word")
    flags, values = _read(dialect.fix, known)
    rest = [cell for cell, value in zip(known, values, strict=True) if value is None and says(cell)]
    wider = dialect_of(rest, name, _STYLE) if flags and rest else None
    if wider is not None and not _unread(known, _read(wider.fix, known)[1]):  # 1.234,5 says how 0,5 is meant
        dialect, (flags, values) = wider, _read(wider.fix, known)
    odd, unread = (_odd(known, values), _unread(known, values)) if flags else ((), "")
    advice = f"{dialect.example!r} looks like {dialect.what}: {dialect.fix}"
    return replace(column("word", odd=odd), advice=advice, flags=flags, unread=unread)


def _read(fix: str, known: Sequence[str]) -> tuple[tuple[tuple[str, str], ...], list[float | None]]:
    """The options of an advice that names no other way but to keep words, and what cells are with them."""
    flags = _only_way(fix)
    read = dict(flags)
    style = NumberStyle(read.get("decimal", "."), read.get("thousands"), "percent" in read)
    return flags, [style.read(cell) for cell in known]


def _among_texts(name: str, known: Sequence[str], n_missing: int) -> ColumnLook | None:
    """A column of numbers most of whose cells are one text or two, as ``k.A.``; None if it is none."""
    texts = {cell for cell in known if not any(map(str.isdigit, cell))}
    rest = [cell for cell in known if cell not in texts]
    if not 0 < len(texts) <= _MOST_ODD or len(set(rest)) <= _MOST_EXAMPLES:
        return None
    look = look_at(name, rest)
    if look.kind not in ("number", "whole") and not look.flags:
        return None
    odd = (*dict.fromkeys(cell for cell in known if cell in texts), *look.odd)
    return replace(look, n_missing=n_missing, odd=odd[:_MOST_EXAMPLES], n_distinct=look.n_distinct + len(texts))


def says(cell: str) -> bool:
    """Whether a cell is a number or a time, and no name: it begins with a digit, and has more of them than letters."""
    if _STYLE.read(cell) is not None:
        return True
    digits, letters = (sum(test(character) for character in cell) for test in (str.isdigit, str.isalpha))
    return re.match(r"\s*[-+(]?\s*[.,]?\d", cell) is not None and digits > letters


def _epochs(name: str, known: Sequence[str]) -> list[str]:
    """Ways to read whole numbers as times."""
    cells = [cell.strip() for cell in known]
    flags = time_flags(cells)
    serial = _NAMED_AS_TIME.fullmatch(name) is not None and len(set(cells)) > 1
    if not flags and serial and all(cell.isdigit() and int(cell[:9]) in _SERIAL for cell in cells):
        return ["--time-unit excel", "--time-unit steps"]
    return flags


def _unread(known: Sequence[str], values: Sequence[float | None]) -> str:
    """What to do about cells that are numbers in another way than the others: they do not mean missing."""
    unread = dict.fromkeys(cell for cell, value in zip(known, values, strict=True) if value is None and says(cell))
    shown = " and ".join(map(repr, list(unread)[:_MOST_EXAMPLES]))
    return f"{shown} read in another way: correct the file, or --on-bad-row quarantine" if unread else ""


def _odd(known: Sequence[str], values: Sequence[float | None]) -> tuple[str, ...]:
    """Texts that are no numbers, and numbers at an end of all that stand for missing elsewhere."""
    odd = Counter(cell for cell, value in zip(known, values, strict=True) if value is None and not says(cell))
    numbers = Counter(value for value in values if value is not None)
    for end in {min(numbers, default=0.0), max(numbers, default=0.0)}:
        if abs(end) not in _SENTINELS or len(numbers) == 1:
            continue
        rest = [value for value in numbers if value != end]
        low, high = min(rest), max(rest)
        if numbers[end] > 1 or end < 0 <= low or not low - _FAR * (high - low) <= end <= high + _FAR * (high - low):
            cell = next(cell for cell, value in zip(known, values, strict=True) if value == end)
            odd[cell.strip()] += numbers[end]
    return tuple(odd)[:_MOST_EXAMPLES]


def _only_way(fix: str) -> tuple[tuple[str, str], ...]:
    """The options of an advice that names no other way but to keep words."""
    ways = fix.removesuffix(fix[fix.rfind("--categories") :]) if "--categories" in fix else fix
    if ways.count(" if ") > 1 or "write" in ways:
        return ()
    flags = re.findall(r"--(decimal|thousands|percent) ('.'|\S+)", ways)
    return tuple((name, word if name == "percent" else _unquoted(word.rstrip(",") or ",")) for name, word in flags)


def _unquoted(word: str) -> str:
    """A word as a shell reads it."""
    return shlex.split(word)[0]
