"""Where the rows of a text are: what stands above them, how they are cut, and what names their columns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from zstore.errors import SourceError
from zstore.inspection.column import says
from zstore.writing.sources.csv.framing import SPACES, Framing
from zstore.writing.sources.csv.records import split_fields
from zstore.writing.sources.options import MISSING

_COMMENTS = ("#", "%", "!", "//")
_DELIMITERS = ("\t", ";", "|", ",", SPACES)  # German files have commas within numbers, and times have spaces
_TYPE = re.compile(r"\d+[sdn]")
_MANY = 10  # columns whose names may well be numbers
_MOST = 0.6  # of the cells below a name that are numbers or times


@dataclass(frozen=True)
class Frame:
    """How a text is cut into rows.

    Parameters
    ----------
    skip_lines, comment, delimiter
        Lines above the table, what comments begin with, and what stands between fields.
    header
        Whether a line of the table names its columns.
    names, units
        Of the columns; units are empty where no row has any.
    units_row
        Whether units stand in a row below the header.
    n_below
        Further lines below the header that are no rows.
    nameless
        Columns that the header has no name of their own for.
    rows
        Cells of each row.
    questions
        What only a person can say.
    """

    skip_lines: int
    comment: str | None
    delimiter: str
    header: bool
    names: tuple[str, ...]
    units: tuple[str, ...] = ()
    units_row: bool = False
    n_below: int = 0
    nameless: tuple[str, ...] = ()
    rows: list[list[str]] = field(default_factory=list)
    questions: tuple[str, ...] = ()


def find_frame(lines: Sequence[str], path: str) -> Frame:
    """Where the rows are, and how they are cut.

    Raises
    ------
    SourceError
        If there is no table of several columns.
    """
    comment = next((mark for mark in _COMMENTS if any(line.startswith(mark) for line in lines)), None)
    known = [(n, line) for n, line in enumerate(lines) if line.strip() and not (comment and line.startswith(comment))]
    if not known:
        raise SourceError(
            "no text in its first lines", expected="a header line and rows", where=path, fix="check the file"
        )
    delimiter, start, stop = _table(known)
    if not delimiter:
        raise SourceError(
            "no table of several columns in its first lines",
            expected="rows with as many fields each",
            where=path,
            fix="say how columns are told apart with --delimiter or --widths; of one column, how far apart its "
            f"values are: zstore ingest {path} STORE --freq STEP --start T",
        )
    questions = []
    if stop < len(known):
        questions.append(f"line {known[stop][0] + 1} and further ones are no rows: leave them out of the file")
    records = [_fields(line, delimiter) for _, line in known[start:stop]]
    skip_lines = known[start - 1][0] + 1 if start else 0
    frame = Frame(skip_lines, comment, delimiter, False, _numbered(records[0]), rows=records)
    if _is_header(records):
        frame = _below(replace(frame, header=True, names=tuple(records[0]), rows=records[1:]))
        if len(set(frame.names)) < len(frame.names) or "" in frame.names:
            frame = _named_anew(frame, known[start][0] + 1)
    elif start and (names := _names_above(_fields(known[start - 1][1], delimiter), records)):
        nameless = tuple(name for name in names if name not in known[start - 1][1])
        frame = replace(frame, names=names, nameless=nameless)
    elif comment is not None:
        frame = _named_by_comments(frame, lines[: known[start][0]], comment)
    if not frame.header and not frame.nameless and frame.names == _numbered(frame.names):
        questions.append(f"no line names the columns: {', '.join(frame.names[:8])} stand for --names")
    if frame.nameless:
        questions.append(f"columns without a name of their own: {', '.join(frame.nameless)} stand for those")
    return replace(frame, questions=tuple(questions))


def _names_above(above: Sequence[str], records: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Names of columns from the line above rows, where that alone ends in a delimiter, or they do; else empty.

    Rows that begin with a number or name of their own, for which the line above has no name, are told too.
    """
    n_columns = len(records[0])
    if len(above) == n_columns + 1 and above[-1] == "":
        names = [*above[:-1]]
    elif len(above) == n_columns - 1 and all(row[-1] == "" for row in records):
        names = [*above, f"c{n_columns}"]
    elif len(above) == n_columns - 1 and len({row[0] for row in records}) == len(records):
        names = ["c1", *above]
    else:
        return ()
    told = [name for name in names if name]
    return tuple(names) if len(set(told)) == len(names) and not any(map(says, told)) else ()


def _table(known: Sequence[tuple[int, str]]) -> tuple[str, int, int]:
    """The delimiter that makes the longest stretch of lines with as many fields each, and where that is."""
    best, length = ("", 0, 0), 0.0
    for delimiter in _DELIMITERS:
        counts = [len(_fields(line, delimiter)) for _, line in known]
        start = 0
        for stop in range(1, len(counts) + 1):
            if stop < len(counts) and counts[stop] == counts[start]:
                continue
            if counts[start] > 1 and stop - start > max(1.2 * length, 1):
                best, length = (delimiter, start, stop), stop - start
            start = stop
        if best[0] == delimiter:
            length = best[2] - best[1]
    return best


def _fields(line: str, delimiter: str) -> list[str]:
    fields, _ = (
        Framing(spaces=True).fields(line.encode()) if delimiter == SPACES else split_fields(line.encode(), delimiter)
    )
    return fields or []


def _numbered(cells: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"c{n + 1}" for n in range(len(cells)))


def _is_header(records: Sequence[Sequence[str]]) -> bool:
    """Whether the first record names the columns: words above numbers or times, numbers of sensors, or years."""
    first, below = records[0], records[1:][2:] or records[1:]
    for n, name in enumerate(first):
        cells = [row[n] for row in below if row[n].strip() not in MISSING]
        if name != "" and not says(name) and cells and sum(map(says, cells)) >= _MOST * len(cells):
            return True
    return len(records) > 1 and (_are_sensors(records) or (_are_counted(first) and not _are_counted(records[1])))


def _are_sensors(records: Sequence[Sequence[str]]) -> bool:
    """Whether the first record has whole numbers alone, and most columns below it fractions."""
    first = records[0]
    whole = len(first) >= _MANY and all(re.fullmatch(r"\d+", cell) for cell in first[1:])
    broken = [any("." in row[n] for row in records[1:]) for n in range(len(first))]
    return whole and sum(broken) > len(first) / 2


def _are_counted(cells: Sequence[str]) -> bool:
    """Whether words come first, and then years, or other whole numbers that follow each other."""
    numbers = [int(cell) for cell in cells if re.fullmatch(r"\d{1,6}", cell)]
    return len(numbers) >= _MANY and numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def _below(frame: Frame) -> Frame:
    """A frame without the lines below its header that are no rows: types, units, how values were made."""
    rows = frame.rows
    if len(rows) > 1 and all(_TYPE.fullmatch(cell) for cell in rows[0]):
        return replace(frame, rows=rows[1:], n_below=1)

    def names_numbers(rows: Sequence[Sequence[str]]) -> bool:
        """Whether the first row has words where all behind it have numbers."""
        if len(rows) <= 2 or any(map(says, rows[0])) or not any(map(says, rows[-1])):
            return False
        numbers = [n for n in range(len(frame.names)) if all(says(row[n]) for row in rows[2:] if row[n])]
        told = [rows[0][n] for n in numbers if rows[0][n]]
        return bool(told) and not all(text in MISSING for text in told)

    if not names_numbers(rows):
        return frame
    frame = replace(frame, units=tuple(rows[0]), units_row=True, rows=rows[1:])
    return replace(frame, rows=rows[2:], n_below=1) if names_numbers(rows[1:]) else frame


def _named_anew(frame: Frame, n_above: int) -> Frame:
    """A frame whose header has empty names, or one twice: read without it, and with names in its place."""
    names: list[str] = []
    for n, name in enumerate(frame.names):
        names.append(f"c{n + 1}" if name == "" or name in names else name)
    nameless = tuple(new for new, old in zip(names, frame.names, strict=True) if new != old)
    skipped = n_above + frame.n_below + frame.units_row
    return replace(frame, skip_lines=skipped, header=False, names=tuple(names), nameless=nameless, n_below=0, units=())


def _named_by_comments(frame: Frame, above: Sequence[str], comment: str) -> Frame:
    """A frame whose columns, and their units, the last comments above it name."""
    lines = [line for line in above if line.strip()][-2:]
    if not lines or not all(line.startswith(comment) for line in lines):
        return frame
    cut = [[cell.strip() for cell in _fields(line.lstrip(comment).strip(), frame.delimiter)] for line in lines]
    fits = [len(set(cells)) == len(frame.names) and not any(map(says, cells)) for cells in cut]
    if len(lines) > 1 and len(cut[0]) == len(cut[1]) == len(frame.names) and fits[0]:
        return replace(frame, names=tuple(cut[0]), units=tuple(cut[1]))
    return replace(frame, names=tuple(cut[-1])) if fits[-1] else frame
