"""A look at a file before it is ingested: what it is, the command that would ingest it, and what a person must say."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zstore.errors import SourceError, ZstoreError
from zstore.inspection.column import ColumnLook, look_at
from zstore.inspection.command import command_of, frame_flags
from zstore.inspection.frame import Frame, find_frame
from zstore.inspection.roles import (
    Layout,
    counted_years,
    date_and_clock,
    find_ids,
    format_of_parts,
    is_year,
    layout_of,
    months_in_a_row,
    ranked_times,
    series_id,
    time_parts,
    unread_time,
    year_and_part,
)
from zstore.reading.store import open_store
from zstore.writing.ingest import ingest
from zstore.writing.sources.cells import NumberStyle
from zstore.writing.sources.files import find
from zstore.writing.sources.inflate import head
from zstore.writing.sources.kinds import source_of
from zstore.writing.sources.times.candidates import time_flags

_BYTES = 1 << 20
_LINES = 20_000
_SHOWN = 40  # columns
_WIDEST = 40  # characters of names that are written below each other


@dataclass(frozen=True)
class Inspection:
    """What the first rows of a file say.

    Parameters
    ----------
    path
        The file.
    encoding
        Of its text.
    n_lines
        Lines that were looked at.
    skip_lines, comment, header, units, n_below
        Lines above the header; what comments begin with; whether there is a header; units of columns; further lines
        below that are no rows.
    delimiter
        Between fields.
    layout
        ``long``, ``wide`` or ``series`` (a row per series).
    columns
        In the order of the file.
    ids, times
        Columns that may hold ids and times, the likeliest first.
    step
        The time step rule of the sample, if it could be ingested.
    command
        What would ingest the file.
    questions
        What only a person can say; the command is a guess as long as there are some.
    """

    path: str
    encoding: str
    n_lines: int
    skip_lines: int
    comment: str | None
    header: bool
    units: tuple[str, ...]
    n_below: int
    delimiter: str
    layout: Layout
    columns: tuple[ColumnLook, ...]
    ids: tuple[str, ...]
    times: tuple[str, ...]
    step: str
    command: str
    questions: tuple[str, ...]

    def __str__(self) -> str:
        below = ", units" * bool(self.units) + f", {self.n_below} further lines" * bool(self.n_below)
        skipped = f"{self.skip_lines} line{'s' * (self.skip_lines != 1)} to skip"
        lines = [
            f"{self.path}: {self.encoding}, {self.layout}, {len(self.columns)} columns, {self.n_lines:,} lines read",
            f"  above: {skipped}, comments {self.comment or 'none'}, "
            + ("a header" if self.header else "no header")
            + below,
            f"  delimiter {self.delimiter!r}; ids {', '.join(self.ids) or 'none'}; "
            f"times {', '.join(self.times) or 'none'}" + (f"; step {self.step}" if self.step else ""),
        ]
        width = min(max([20, *(len(column.name) for column in self.columns[:_SHOWN])]), _WIDEST)
        for column in self.columns[:_SHOWN]:
            odd = f"; odd: {', '.join(column.odd)}" if column.odd else ""
            lines.append(f"  {column.name:<{width}} {column.kind:<6} {', '.join(column.examples)}{odd}")
        if len(self.columns) > _SHOWN:
            lines.append(f"  … and {len(self.columns) - _SHOWN} more columns")
        lines += [f"ask: {question}" for question in self.questions]
        return "\n".join([*lines, self.command])


@dataclass
class _Guess:
    """What is made of a frame, step by step."""

    flags: dict[str, Any]
    questions: list[str]
    layout: Layout = "long"
    times: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()


def inspect(path: str | Path, *, storage_options: Mapping[str, str] | None = None) -> Inspection:
    """Look at the first rows of a CSV file: what they are, and how they could be ingested.

    Parameters
    ----------
    path
        CSV or the like (also ``.gz``, ``.zst``), or ``s3://…``.
    storage_options
        For object storage, see :func:`zstore.ingest`.

    Raises
    ------
    SourceError
        If there is no such file, or it holds no table of text.

    Notes
    -----
    Reads 1 MiB and ingests it, as the command says, into a temporary folder. Nothing is guessed silently: what reads in
    two ways is among the questions.
    """
    file = find(path, "SRC", storage_options)
    if source_of([file]).typed:
        raise SourceError(
            f"{file.path.suffix} file", expected="a file of text", where=str(path), fix="its types say what it holds"
        )
    sample = head(file, _BYTES)
    text, encoding, questions = _decoded(sample.plain)
    if b"\0" in sample.plain[:1024] and encoding == "latin-1":
        raise SourceError("no text", expected="a file of text", where=str(path), fix="export it as CSV")
    lines = text.split("\n")
    lines = [line.removesuffix("\r") for line in (lines if sample.whole else lines[:-1])][:_LINES]
    frame = find_frame(lines, str(path))
    frame, columns = _without_first(frame, _columns(frame))
    guess = _Guess(frame_flags(frame, encoding), [*questions, *frame.questions], layout_of(frame, columns))
    _see_roles(frame, columns, guess)
    if frame.units and not frame.units_row:
        named = zip(frame.names, frame.units, strict=True)
        guess.flags["units"] = {name: unit for name, unit in named if unit and name not in guess.roles}
    _see_cells(frame, columns, guess)
    step, problem = _try(text, sample.whole, Path(str(path)), guess.flags, encoding)
    if problem:
        guess.questions.append(f"the sample is refused so: {problem}")
    return Inspection(
        path=str(path),
        encoding=encoding,
        n_lines=len(lines),
        skip_lines=frame.skip_lines,
        comment=frame.comment,
        header=frame.header,
        units=frame.units,
        n_below=frame.n_below,
        delimiter=frame.delimiter,
        layout=guess.layout,
        columns=columns,
        ids=guess.ids,
        times=guess.times,
        step=step,
        command=command_of(str(path), guess.flags),
        questions=tuple(guess.questions),
    )


def _decoded(content: bytes) -> tuple[str, str, list[str]]:
    """Text, its encoding, and what to ask about it."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", "ignore"), "utf-16", []
    cut = content[: content.rfind(b"\n") + 1] or content
    try:
        return cut.removeprefix(b"\xef\xbb\xbf").decode(), "utf-8", []
    except UnicodeDecodeError:
        asked = "bytes that are not UTF-8: is it --encoding latin-1, cp1252 or another one?"
        return content.decode("latin-1"), "latin-1", [asked]


def _columns(frame: Frame) -> tuple[ColumnLook, ...]:
    return tuple(look_at(name, [row[n] for row in frame.rows]) for n, name in enumerate(frame.names))


def _without_first(frame: Frame, columns: tuple[ColumnLook, ...]) -> tuple[Frame, tuple[ColumnLook, ...]]:
    """A frame without the first rows, and its columns, where times are missing in these and in no other row."""
    for column in columns:
        if column.kind != "time" or not column.n_missing or not frame.header:
            continue
        place = frame.names.index(column.name)
        empty = [row[place] == "" for row in frame.rows]
        n_first = empty.index(False)
        if n_first and not any(empty[n_first:]):
            asked = f"{column.name} is empty in the first {n_first} rows alone: are these no rows?"
            frame = replace(
                frame,
                rows=frame.rows[n_first:],
                n_below=frame.n_below + n_first,
                questions=(*frame.questions, asked),
            )
            return frame, _columns(frame)
    return frame, columns


def _see_roles(frame: Frame, columns: Sequence[ColumnLook], guess: _Guess) -> None:
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
    ids, needed = find_ids(frame, columns, guess.roles)
    guess.ids = tuple(ids)
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


def _see_series(frame: Frame, columns: Sequence[ColumnLook], guess: _Guess) -> None:
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


def _see_times(frame: Frame, columns: Sequence[ColumnLook], guess: _Guess) -> None:
    """The column of times, or the several that they are put together of."""
    parts = time_parts(columns)
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
        months = months_in_a_row(frame.names)
        if months:
            guess.questions.append(
                f"{months[0]} to {months[-1]} are the months of a year, side by side, and become channels: for a "
                "series of months, write a row for each, with its year and month (--time-format '%Y %b' reads those)"
            )
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


def _say_way(name: str, example: str, ways: Sequence[str], guess: _Guess) -> None:
    """How times are read, and a question where there are several ways."""
    if len(ways) > 1:
        shown = " or ".join(ways[:4])
        guess.questions.append(f"{name}, such as {example!r}, reads in {len(ways)} ways: {shown}?")
    if ways[0]:
        flag, value = shlex.split(ways[0])
        guess.flags[flag.removeprefix("--").replace("-", "_")] = value


def _see_cells(frame: Frame, columns: Sequence[ColumnLook], guess: _Guess) -> None:
    """How numbers are written, and what means missing."""
    missing: list[str] = []
    for column in columns:
        if column.name in guess.roles:
            continue
        for name, value in column.flags:
            if name == "percent":
                guess.flags["percent"] = [*guess.flags.get("percent", []), column.name]
            else:
                guess.flags.setdefault(name, value)
        if column.advice and "percent" not in dict(column.flags):
            guess.questions.append(f"column {column.name}: {column.advice}")
        if column.odd:
            entries = ",".join(f"{column.name}={text}" for text in column.odd)
            asked = f"column {column.name}: does {' or '.join(column.odd)} mean missing? --missing {entries}"
            guess.questions.append(asked)
            missing += [f"{column.name}={text}" for text in column.odd if NumberStyle().read(text) is None]
    if missing:
        guess.flags["missing"] = missing


def _try(text: str, whole: bool, path: Path, flags: Mapping[str, Any], encoding: str) -> tuple[str, str]:
    """The step of the sample, ingested as the flags say; or why it is refused."""
    options = {name: value for name, value in flags.items() if name != "encoding"}
    with tempfile.TemporaryDirectory(prefix="zstore-") as folder:
        sample = Path(folder) / "sample.csv"
        sample.write_bytes((text if whole else text[: text.rfind("\n") + 1]).encode())
        try:
            ingest(sample, Path(folder) / "s.zarr", workers=1, **options)
        except ZstoreError as error:
            return "", str(error).replace(str(sample), str(path))
        return str(open_store(Path(folder) / "s.zarr").schema.time.rule), ""
