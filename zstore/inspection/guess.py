"""What the columns of a frame are, guessed one after the other; what reads in two ways is a question."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from zstore.inspection.column import ColumnLook, says
from zstore.inspection.command import written
from zstore.inspection.frame import Frame
from zstore.inspection.roles import (
    Layout,
    counted_years,
    date_and_clock,
    find_ids,
    format_of_parts,
    is_year,
    months_in_a_row,
    ranked_times,
    series_id,
    time_parts,
    unread_time,
    year_and_part,
)
from zstore.writing.sources.csv.calendar import offsets_of
from zstore.writing.sources.named_files.reader import KINDS
from zstore.writing.sources.times.candidates import time_flags

_HOUR = re.compile(r"\d\d?:\d\d(:\d\d)?|[Hh]?\d\d?", re.ASCII)
_FEW_HOURS = 2
_GROUPED = re.compile(r"\s*[+-]?\d{1,3}\.\d{3}\s*", re.ASCII)  # a decimal, or thousands
_HAS_OFFSET = re.compile(r":\d\d(\.\d+)?\s*(Z|UTC|GMT|[+-]\d\d:?\d\d)$")  # from UTC: no hour is there twice


@dataclass
class Guess:
    """What is made of a frame, step by step."""

    flags: dict[str, Any]
    questions: list[str]
    layout: Layout = "long"
    times: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()


def see_roles(frame: Frame, columns: Sequence[ColumnLook], guess: Guess) -> None:
    """Which columns are times and ids."""
    if guess.layout == "series":
        _see_series(frame, columns, guess)
        return
    _see_times(frame, columns, guess)
    if guess.layout == "wide":
        guess.flags["layout"] = "wide"
        guess.questions.append(
            f"are the {len(columns) - len(guess.roles)} columns series (--layout wide) or channels of one series?"
        )
        return
    inside = _times_inside(frame, columns, guess)
    others = [column for column in columns if column.name not in inside]
    ids, needed = find_ids(frame, others, guess.roles)
    guess.ids = tuple(ids)
    if inside:
        _see_calendar(inside, [column.name for column in others], guess)
    if not ids:
        return
    keys = [ids[0]] if ids[0] in frame.names else ids[0].split(",")
    guess.flags["id"] = keys
    guess.roles += tuple(keys)
    if len(ids) > 1:
        guess.questions.append(f"ids: {' or '.join(ids)}?")
    if not needed:
        few = len({row[frame.names.index(ids[0])] for row in frame.rows})
        what = (
            "is the same in all rows read" if few == 1 else f"has {few:,} different cells, and no time is there twice"
        )
        guess.questions.append(f"{ids[0]} {what}: is it the id?")


def _times_inside(frame: Frame, columns: Sequence[ColumnLook], guess: Guess) -> list[str]:
    """Columns that are the months of the year, or the hours of the day, of their row; empty if there are none."""
    if len(guess.times) != 1:
        return []
    time = next(column for column in columns if column.name == guess.times[0])
    if is_year(time):
        return months_in_a_row(frame.names)
    hours = [name for name in frame.names if _HOUR.fullmatch(name)]
    months, _ = offsets_of(hours) or (True, ())
    return hours if len(hours) > _FEW_HOURS and not months else []


def _see_calendar(inside: Sequence[str], others: Sequence[str], guess: Guess) -> None:
    """A row per year or day: its columns of months or hours, and what is left out."""
    guess.layout = "calendar"
    guess.flags["layout"] = "calendar"
    if guess.flags.get("time_format") == "%Y":
        del guess.flags["time_format"]
    keys = set(guess.ids[0].split(",")) | {guess.ids[0]} if guess.ids else set()
    left = [name for name in others if name not in guess.roles and name not in keys]
    if left:
        guess.flags["leave_out"] = left
    guess.questions = [asked for asked in guess.questions if not asked.startswith(f"{guess.times[0]}, such as")]
    guess.questions.append(
        f"{inside[0]} to {inside[-1]} are times within each row: a series of them (--layout calendar), or channels?"
    )


def _see_series(frame: Frame, columns: Sequence[ColumnLook], guess: Guess) -> None:
    """A row per series: its id, what is left out, and how far apart its columns are."""
    words = [column for column in columns if column.kind == "word"]
    id_ = series_id(frame, words)
    others = [c.name for c in columns if (c.kind == "word" and c.name != id_) or c.name in frame.nameless]
    guess.ids, guess.roles = (id_,), (id_, *others)
    guess.flags |= {"layout": "series", "id": [id_]}
    if others:
        guess.flags["leave_out"] = others
        guess.questions.append(f"{', '.join(others)} are no values: they are left out")
    year = counted_years(frame.names)
    if year is not None:
        guess.flags |= {"freq": "YS", "start": f"{year}-01-01"}
        guess.questions.append(f"are the columns years from {year} on?")
        return
    guess.flags["freq"] = "rows"
    guess.questions.append("which --freq RULE and --start T do the columns have? --freq rows counts them")


def _see_times(frame: Frame, columns: Sequence[ColumnLook], guess: Guess) -> None:
    """The column of times, or the several that they are put together of."""
    parts, whole = time_parts(columns), ranked_times(columns)[:1]
    if parts and whole and whole[0].kind == "time" and len(whole[0].times) == 1:
        guess.questions.append(f"which has the times: {whole[0].name}, or {', '.join(parts)} together?")
        parts = [] if all(map(_HAS_OFFSET.search, whole[0].examples)) else parts
    if parts:
        guess.flags["time"] = list(parts)
        guess.times = guess.roles = tuple(parts)
        if not frame.header:
            guess.questions.append(f"are {', '.join(parts)} years, months, days and so on?")
        form = format_of_parts(frame, columns, parts)
        if form:
            guess.flags["time_format"] = form
        return
    together, cells = date_and_clock(frame, columns)
    ways = time_flags(cells) if together else []
    if ways:
        guess.flags["time"] = list(together)
        guess.times = guess.roles = tuple(together)
        _say_way(f"{together[0]} and {together[1]}", cells[0], ways, guess)
        return
    times, unread = ranked_times(columns), unread_time(columns)
    if times and (times[0].kind == "time" or unread is None):
        guess.flags["time"] = [times[0].name]
        guess.times, guess.roles = tuple(column.name for column in times), (times[0].name,)
        if len(times) > 1:
            guess.questions.append(f"which column has the times: {' or '.join(guess.times)}?")
        _say_way(times[0].name, times[0].examples[0], times[0].times, guess)
        return
    parts = year_and_part(frame, columns)
    if parts:
        guess.flags |= {"time": parts, "time_format": format_of_parts(frame, columns, parts)}
        guess.times = guess.roles = tuple(parts)
        return
    if unread is not None:
        guess.flags["time"] = [unread.name]
        guess.times = guess.roles = (unread.name,)
        guess.questions.append(
            f"{unread.name}, such as {unread.examples[0]!r}, looks like times, and no format reads them: is it another "
            "column, or --time-format?"
        )
        return
    year = next((column for column in columns if is_year(column)), None)
    if year is not None:
        guess.flags["time"] = [year.name]
        guess.times = guess.roles = (year.name,)
        _say_way(year.name, year.examples[0], ["--time-format %Y", "--time-unit steps"], guess)
        return
    guess.flags["freq"] = "rows"
    first = columns[0]
    if first.kind == "word" and first.n_distinct == len(frame.rows):
        guess.questions.append(
            f"no column has times, and {first.name} is another in each row: are these static attributes "
            "(zstore ingest ROWS STORE --static FILE)?"
        )
    else:
        guess.questions.append(
            "no column reads as times in one way: name it with --time, or say --freq STEP and --start T"
        )


def _say_way(name: str, example: str, ways: Sequence[str], guess: Guess) -> None:
    """How times are read, and a question where there are several ways."""
    if len(ways) > 1:
        shown = " or ".join(ways[:4])
        guess.questions.append(f"{name}, such as {example!r}, reads in {len(ways)} ways: {shown}?")
    if ways[0]:
        flag, value = shlex.split(ways[0])
        guess.flags[flag.removeprefix("--").replace("-", "_")] = value


def see_cells(frame: Frame, columns: Sequence[ColumnLook], guess: Guess) -> None:
    """How numbers are written, and what means missing."""
    missing: list[str] = []
    advised: dict[tuple[tuple[str, str], ...], int] = {}  # the question that says so already
    for column in columns:
        if column.name in guess.roles:
            continue
        for name, value in column.flags:
            if name == "percent":
                guess.flags["percent"] = [*guess.flags.get("percent", []), column.name]
            else:
                guess.flags.setdefault(name, value)
        if column.kind == "word" and all(text.lower().endswith(tuple(KINDS)) for text in column.examples):
            flags = f"--file {column.name}={column.name} --file-root DIR"
            guess.questions.append(
                f"does column {column.name} name files? {flags} stores what is in them, not the names"
            )
        if column.advice and "percent" not in dict(column.flags):
            if column.flags and column.flags in advised:
                guess.questions[advised[column.flags]] += f"; likewise {column.name}"
            else:
                advised[column.flags] = len(guess.questions)
                guess.questions.append(f"column {column.name}: {column.advice}")
        if column.unread and "percent" not in dict(column.flags):
            guess.questions.append(f"column {column.name}: {column.unread}")
        if column.odd:
            entries = shlex.quote(written([f"{column.name}={text}" for text in column.odd]))
            asked = f"column {column.name}: does {' or '.join(column.odd)} mean missing? --missing {entries}"
            guess.questions.append(asked)
            missing += [f"{column.name}={text}" for text in column.odd if not says(text)]
    if missing:
        guess.flags["missing"] = missing
    if guess.flags.get("thousands") == ".":
        _ask_of_points(frame, columns, guess)


def _ask_of_points(frame: Frame, columns: Sequence[ColumnLook], guess: Guess) -> None:
    """Whether points of numbers that read without options are meant as those of thousands, as in another column."""
    for column in columns:
        if column.kind != "number" or column.name in guess.roles:
            continue
        place = frame.names.index(column.name)
        cell = next((row[place] for row in frame.rows if _GROUPED.fullmatch(row[place])), None)
        if cell is not None:
            whole, plain = cell.strip().replace(".", ""), cell.strip()
            guess.questions.append(f"column {column.name}: --thousands . reads {plain!r} as {whole}: is that meant?")
