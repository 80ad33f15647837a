"""Which columns of a sample may be times, ids, or a series in a row or a column."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Literal

from zstore.inspection.column import ColumnLook, says
from zstore.inspection.frame import Frame
from zstore.writing.sources.time_options import NAMED_LIKE_TIMES
from zstore.writing.sources.times.formats import read_one
from zstore.writing.sources.times.together import text_together

Layout = Literal["long", "wide", "series", "calendar"]

_MANY = 10  # columns of numbers that may well be series
_SHARE = 0.9
_ID = re.compile(
    r"(^|[^a-z])(id|ids|no|nr|code|key|uuid|guid|tag|symbol|ticker|lclid|staid)($|[^a-z])|id$|"
    r"station|site|gauge|sensor|device|meter|store|shop|dept|region|series|patient|subject|user|pump|well",
    re.IGNORECASE,
)
_PARTS = (
    ("year", "yyyy", "yy", "yr", "ano", "jahr", "annee", "anno"),
    ("month", "mm", "mo", "mon", "mes", "monat", "mois", "mese"),
    ("day", "dd", "dy", "dom", "dia", "tag", "jour", "giorno"),
    ("hour", "hh", "hr", "hora", "stunde", "heure", "ora"),
    ("minute", "mm", "mn", "min", "minuto"),
    ("second", "ss", "sec", "segundo", "sekunde"),
)
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_QUARTERS = ("%q", "Q%q", "Q0%q")
_DAYS = ("%j",)
_FORMS_OF_PART = {
    **dict.fromkeys(_PARTS[1], ("%m", "%b", "%B", "M%m")),
    **dict.fromkeys(("quarter", "qtr", "q", "quartal", "trimestre", "trimester"), _QUARTERS),
    **dict.fromkeys(("doy", "yday", "jday", "julian", "day_of_year", "dayofyear"), _DAYS),
    "period": ("Q%q", "Q0%q", "M%m"),
}
"""How what stands beside a year may be written, by the name of its column."""
_RANGES = ((1800, 2100), (1, 12), (1, 31), (0, 23))  # of such parts without names
_MOST_KEYS = 3  # columns that ids are joined of
_MOST_CANDIDATES = 8
_FEW = 0.01  # of rows that may be there twice
_MOST_ROWS = 4_000  # that are looked at for ids of several columns


def layout_of(frame: Frame, columns: Sequence[ColumnLook]) -> Layout:
    """Whether a row is a series at one time, all series at one time, or a series at all times."""
    numbers = [column for column in columns if column.kind in ("number", "whole", "empty")]
    words = list(itertools.takewhile(lambda column: column.kind == "word", columns))
    values = [column.name for column in columns[len(words) :] if column.name not in frame.nameless]
    if series_id(frame, words) and len(values) >= _MANY and _is_counted(values):
        return "series"
    codes = sum(re.fullmatch(r"[^\d]{0,4}\d{2,}", name) is not None for name in frame.names)
    many = len(numbers) >= len(columns) - 1 and (codes >= _SHARE * len(numbers) or len(numbers) > 5 * _MANY)
    named = frame.header or frame.names[0] != "c1"
    return "wide" if named and len(numbers) > 1 and many and not any(c.kind == "word" for c in columns) else "long"


def series_id(frame: Frame, words: Sequence[ColumnLook]) -> str:
    """The column of words that is another in each row; empty if there is none."""
    unique = [column for column in words if column.n_distinct == len(frame.rows)]
    return min(unique, key=lambda column: not _ID.search(column.name)).name if unique else ""


def counted_years(names: Sequence[str]) -> int | None:
    """The first of names that are years in a row; None if they are none."""
    years = [int(name) for name in names if re.fullmatch(r"1[6-9]\d\d|20\d\d|21\d\d", name)]
    return years[0] if len(years) >= _MANY and years == list(range(years[0], years[0] + len(years))) else None


def _is_counted(names: Sequence[str]) -> bool:
    """Whether names end in numbers that follow each other, but for a last one without a name of its own."""
    numbered = [re.fullmatch(r"(.*?[^\d]|)0*(\d+)", name) for name in names]
    if len(names) > _MANY and (numbered[-1] is None or names[-1] == f"c{len(names)}"):
        numbered = numbered[:-1]
    counted = [int(match[2]) for match in numbered if match is not None]
    return len(counted) == len(numbered) and counted[1:] in (
        list(range(counted[0] + 1, counted[0] + len(counted))),
        list(range(counted[1], counted[1] + len(counted) - 1)),
    )


def time_parts(columns: Sequence[ColumnLook]) -> list[str]:
    """Columns of years, months, days and so on: by their names, or, without names, by what their numbers can be."""
    if all(column.name == f"c{n + 1}" for n, column in enumerate(columns)):
        return _unnamed_parts(columns)
    named = [(_plain(column.name), column.name) for column in columns if column.kind in ("whole", "word")]
    parts: list[str] = []
    for words in _PARTS:
        name = next((name for plain, name in named if plain in words and name not in parts), None)
        if name is None:
            break
        parts.append(name)
    return parts if len(parts) > 2 else []


def _unnamed_parts(columns: Sequence[ColumnLook]) -> list[str]:
    parts = []
    for column, (low, high) in zip(columns, _RANGES, strict=False):
        cells = [cell.strip() for cell in column.examples]
        if not cells or not all(cell.isdigit() and low <= int(cell[:9]) <= high for cell in cells):
            break
        parts.append(column.name)
    return parts if len(parts) > 2 else []


def year_and_part(frame: Frame, columns: Sequence[ColumnLook]) -> list[str]:
    """A column of years, and one of its months, quarters or days: by names, where a format reads all rows; or none."""
    years = [column.name for column in columns if is_year(column)]
    parts = [column.name for column in columns if _plain(column.name) in _FORMS_OF_PART]
    pairs = [[year, part] for year in years for part in parts]
    return next((pair for pair in pairs if format_of_parts(frame, columns, pair)), [])


def is_year(column: ColumnLook) -> bool:
    """Whether a column has years, by its name and its cells."""
    years = all(re.fullmatch(r"1[5-9]\d\d|20\d\d", cell.strip(), re.ASCII) for cell in column.examples)
    return column.kind == "whole" and not column.n_missing and _plain(column.name) in _PARTS[0] and years


def format_of_parts(frame: Frame, columns: Sequence[ColumnLook], parts: Sequence[str]) -> str:
    """The format of a year and what else says the time; empty where whole numbers say it, in three columns or more."""
    kinds = {column.name: column.kind for column in columns}
    if len(parts) > 2 and all(kinds[name] == "whole" for name in parts):
        return ""
    if len(parts) == 2:
        ways = [f"%Y {form}" for form in _FORMS_OF_PART[_plain(parts[1])]]
    else:
        ways = [" ".join(["%Y", month, "%d", "%H", "%M", "%S"][: len(parts)]) for month in ("%b", "%B")]
    places = [frame.names.index(name) for name in parts]
    cells = [text_together([row[place] for place in places]) for row in frame.rows]
    distinct = set(cells)
    read = (way for way in ways if all(cell is not None and read_one(cell, way) is not None for cell in distinct))
    return next(read, "")


def months_in_a_row(names: Sequence[str]) -> list[str]:
    """The names of twelve columns that are the months of a year; empty if there are none."""
    months = [_plain(name)[:3] for name in names]
    for first in range(len(names) - 11):
        if months[first : first + 12] == _MONTHS:
            return list(names[first : first + 12])
    return []


def _plain(name: str) -> str:
    letters = unicodedata.normalize("NFKD", name).strip().strip("#%").lower()
    return "".join(character for character in letters if not unicodedata.combining(character))


def date_and_clock(frame: Frame, columns: Sequence[ColumnLook]) -> tuple[list[str], list[str]]:
    """A column of dates and one of clocks, and their cells put together; both empty if there are none."""
    dates = [c for c in columns if c.times and c.kind == "time" and not any(":" in example for example in c.examples)]
    clocks = [c for c in columns if c.kind == "clock"]
    if not dates or not clocks:
        return [], []
    first, second = (frame.names.index(column.name) for column in (dates[0], clocks[0]))
    cells = [f"{row[first]} {row[second]}" for row in frame.rows if row[first] and row[second]]
    return [dates[0].name, clocks[0].name], cells


def ranked_times(columns: Sequence[ColumnLook]) -> list[ColumnLook]:
    """Columns that read as times, the likeliest first: dates before numbers, and what differs from row to row."""
    dates = [column for column in columns if column.kind == "time"]
    times = dates or [column for column in columns if column.times]
    most = max((column.n_distinct for column in times), default=0)
    likely = [column for column in times if 2 * column.n_distinct >= most]
    return sorted(likely, key=lambda column: (-column.n_distinct, NAMED_LIKE_TIMES.search(column.name) is None))


def unread_time(columns: Sequence[ColumnLook]) -> ColumnLook | None:
    """A column of words that are dates in some way that no format reads."""
    like = (c for c in columns if c.kind == "word" and not c.advice and c.examples and all(map(says, c.examples)))
    return next((c for c in like if any(len(re.findall(r"\d+", example)) > 2 for example in c.examples)), None)


def find_ids(frame: Frame, columns: Sequence[ColumnLook], times: Sequence[str]) -> tuple[list[str], bool]:
    """Columns that may hold ids, the likeliest first, and whether they are needed to tell rows apart.

    Ids of several columns are joined by commas; each of three columns at most.
    """
    place = {name: n for n, name in enumerate(frame.names)}
    rows = frame.rows
    when = [tuple(row[place[name]] for name in times) for row in rows]
    counts = {column.name: len({row[place[column.name]] for row in rows}) for column in columns}
    likely = [
        column
        for column in columns
        if column.name not in times and _may_be_id(column, counts[column.name], rows, place)
    ]
    likely.sort(key=lambda column: (not _ID.search(column.name), column.kind != "word"))
    if not times or len(set(when)) == len(when):
        before = place[times[0]] if times else 0
        named = [column for column in likely if _ID.search(column.name)]
        first = [c for c in likely if c.kind == "word" and place[c.name] < before and counts[c.name] > 1]
        return [column.name for column in sorted([*named, *first], key=lambda c: counts[c.name] == 1)][:1], False
    telling: list[tuple[str, ...]] = []
    nearly: list[tuple[str, ...]] = []
    ends = [*range(len(rows))] if len(rows) <= _MOST_ROWS else [*range(_MOST_ROWS // 2), *range(-_MOST_ROWS // 2, 0)]
    for keys in _combinations([column.name for column in likely if counts[column.name] > 1][:_MOST_CANDIDATES]):
        if any(set(found) <= set(keys) for found in telling):
            continue
        some = range(len(rows)) if len(keys) == 1 else ends
        seen = {(*(rows[n][place[name]] for name in keys), when[n]) for n in some}
        if len(seen) == len(some):
            telling.append(keys)
        elif len(keys) == 1 and len(some) - len(seen) <= _FEW * len(some):
            nearly.append(keys)
    if not telling and len(rows) - len(set(when)) > 10 * _FEW * len(rows):
        telling = nearly  # but for a few rows, such as the hour that clocks show twice
    fewest = min(map(len, telling), default=0)
    return [",".join(keys) for keys in telling if len(keys) == fewest], True


def _combinations(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for count in range(1, _MOST_KEYS + 1):
        yield from itertools.combinations(names, count)


def _may_be_id(column: ColumnLook, n_distinct: int, rows: Sequence[Sequence[str]], place: dict[str, int]) -> bool:
    """Whether a column has words or whole numbers, none empty, and most of them in several rows.

    One that is called like an id needs to have but one of them twice, as a list of few visits of each patient does.
    """
    if column.kind not in ("word", "whole") or column.advice or column.odd or column.unread:
        return False
    told = any(any(map(str.isalnum, example)) for example in column.examples)
    whole = column.kind == "word" or not column.n_missing
    named = _ID.search(column.name) is not None
    most = len(rows) - 1 if named and column.kind == "word" else len(rows) / 2
    often = n_distinct <= max(most, 1) and all(row[place[column.name]] for row in rows)
    return told and whole and often and (not column.times or named)
