"""A look at a file before it is ingested: what it is, the command that would ingest it, and what a person must say."""

from __future__ import annotations

import itertools
import re
import shlex
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from zstore.errors import SourceError, ZstoreError
from zstore.reading.store import open_store
from zstore.writing.ingest import ingest
from zstore.writing.sources.candidates import time_flags
from zstore.writing.sources.cells import NumberStyle, dialect_of, is_code
from zstore.writing.sources.files import find
from zstore.writing.sources.framing import SPACES, Framing
from zstore.writing.sources.inflate import head
from zstore.writing.sources.options import MISSING
from zstore.writing.sources.parts import PARTS
from zstore.writing.sources.records import split_fields

_BYTES = 1 << 20
_LINES = 20_000
_SHOWN = 40  # columns
_COMMENTS = ("#", "%", "!", "//")
_DELIMITERS = ("\t", ";", "|", ",", SPACES)  # German files have commas within numbers, and times have spaces
_TYPE = re.compile(r"\d+[sdn]")
_CLOCK = re.compile(r"(?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:\.\d+)?)?")
_SENTINELS = {"-99", "-99.9", "-999", "-999.9", "-9999", "-99999", "999", "9999", "99999", "-6999", "-7777", "-8888"}
_MOST_EXAMPLES = 3
_MANY = 10  # columns of numbers that may well be series
_SHARE = 0.9

Layout = Literal["long", "wide", "series"]


@dataclass(frozen=True)
class ColumnLook:
    """What a column of a sample looks like.

    Parameters
    ----------
    name
        Its name; ``c1``, ``c2`` … in a file without a header.
    kind
        ``number``, ``whole`` (whole numbers), ``word``, ``time`` or ``empty``.
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
    """

    name: str
    kind: Literal["number", "whole", "word", "time", "empty"]
    examples: tuple[str, ...]
    n_missing: int
    times: tuple[str, ...] = ()
    odd: tuple[str, ...] = ()
    advice: str = ""


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
        Lines above the header; what comments begin with; whether there is a header, and units below it; further lines
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
        lines = [
            f"{self.path}: {self.encoding}, {self.layout}, {len(self.columns)} columns, {self.n_lines:,} lines read",
            f"  above: {self.skip_lines} lines to skip, comments {self.comment or 'none'}, "
            + ("a header" if self.header else "no header")
            + below,
            f"  delimiter {self.delimiter!r}; ids {', '.join(self.ids) or 'none'}; "
            f"times {', '.join(self.times) or 'none'}" + (f"; step {self.step}" if self.step else ""),
        ]
        for column in self.columns[:_SHOWN]:
            odd = f"; odd: {', '.join(column.odd)}" if column.odd else ""
            lines.append(f"  {column.name:<20} {column.kind:<6} {', '.join(column.examples)}{odd}")
        if len(self.columns) > _SHOWN:
            lines.append(f"  … and {len(self.columns) - _SHOWN} more columns")
        lines += [f"ask: {question}" for question in self.questions]
        return "\n".join([*lines, self.command])


@dataclass(frozen=True)
class _Frame:
    skip_lines: int
    comment: str | None
    delimiter: str
    header: bool
    names: tuple[str, ...]
    units: tuple[str, ...]
    n_below: int
    rows: list[list[str]]
    questions: list[str]


def inspect(path: str | Path, *, storage_options: Mapping[str, str] | None = None) -> Inspection:
    """Look at the first rows of a CSV file: what they are, and how they could be ingested.

    Parameters
    ----------
    path
        CSV, plain or compressed; also ``s3://…``.
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
    if file.path.suffix in (".parquet", ".pq", ".arrow", ".arrows", ".feather", ".ipc", ".h5", ".hdf5"):
        raise SourceError(
            f"{file.path.suffix} file", expected="a file of text", where=str(path), fix="its types say what it holds"
        )
    sample = head(file, _BYTES)
    text, encoding, questions = _decoded(sample.plain)
    if b"\0" in sample.plain[:1024] and encoding == "latin-1":
        raise SourceError("no text", expected="a file of text", where=str(path), fix="export it as CSV")
    lines = text.split("\n")
    lines = [line.removesuffix("\r") for line in (lines if sample.whole else lines[:-1])][:_LINES]
    frame = _frame(lines, str(path))
    columns = tuple(_look(name, [row[n] for row in frame.rows]) for n, name in enumerate(frame.names))
    questions += frame.questions
    layout = _layout(frame, columns)
    times = [column for column in columns if column.times]
    together = _parts(columns) or _date_and_clock(columns)
    flags: dict[str, Any] = _frame_flags(frame, encoding)
    if layout == "series":
        flags |= {"layout": layout, "id": columns[0].name, "freq": "rows"}
        questions.append("which --freq RULE and --start T do the columns have? --freq rows counts them")
        times, together = [], []
    elif together:
        flags["time"] = together
        times = []
    elif not times and layout == "long" and len({row[0] for row in frame.rows}) == len(frame.rows):
        flags |= {"id": columns[0].name, "freq": "1"}
        questions.append(
            f"no column has times, and {columns[0].name} is another in each row: are these static attributes "
            "(zstore ingest ROWS STORE --static FILE)?"
        )
    elif not times:
        flags |= {"freq": "rows"} | ({"layout": "wide"} if layout == "wide" else {})
        questions.append("no column reads as times in one way: name it with --time, or say --freq STEP and --start T")
    else:
        flags["time"] = times[0].name
        flags |= _time_options(times, questions)
        if layout == "wide":
            flags["layout"] = layout
            questions.append(f"are the {len(columns) - 1} columns series (--layout wide) or channels of one series?")
    when = together or [column.name for column in times[:1]]
    ids = _ids(frame, columns, when) if layout == "long" else []
    constant = next((c.name for c in columns if c.kind == "word" and len(c.examples) == 1 and not c.n_missing), None)
    if layout == "long" and when and not ids and constant is not None:
        ids = [constant]
        questions.append(f"{constant} is the same in all rows read: is it the id?")
    if layout == "long" and ids and "id" not in flags:
        flags["id"] = ids[0] if ids[0] in frame.names else ids[0].split(",")
        if when and len(ids) > 1:
            questions.append(f"ids: {' or '.join(ids)}?")
    if layout == "series":
        ids = [columns[0].name]
    flags |= _cell_flags(columns, {*when, *(part for id_ in ids for part in id_.split(","))}, questions)
    step, problem = _try(text, sample.whole, Path(str(path)), flags, encoding)
    if problem:
        questions.append(f"the sample is refused so: {problem}")
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
        layout=layout,
        columns=columns,
        ids=tuple(ids),
        times=tuple(together) or tuple(column.name for column in times),
        step=step,
        command=command_of(str(path), flags),
        questions=tuple(questions),
    )


def command_of(path: str, flags: Mapping[str, Any]) -> str:
    """The command line of an ingest."""
    store = re.sub(r"(\.(csv|tsv|txt|dat|gz|zst|zstd))+$", "", Path(path).name, flags=re.IGNORECASE) + ".zarr"
    words = ["zstore", "ingest", path, store]
    for name, value in flags.items():
        flag = f"--{name.replace('_', '-')}"
        words += [flag] if value is True else [flag, ",".join(value) if isinstance(value, list) else str(value)]
    return shlex.join(words)


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


def _fields(line: str, delimiter: str) -> list[str]:
    fields, _ = (
        Framing(spaces=True).fields(line.encode()) if delimiter == SPACES else split_fields(line.encode(), delimiter)
    )
    return fields or []


def _frame(lines: Sequence[str], path: str) -> _Frame:
    """Where the rows are, and how they are cut."""
    comment = next((mark for mark in _COMMENTS if any(line.startswith(mark) for line in lines)), None)
    known = [(n, line) for n, line in enumerate(lines) if line.strip() and not (comment and line.startswith(comment))]
    if not known:
        raise SourceError(
            "no text in its first lines", expected="a header line and rows", where=path, fix="check the file"
        )
    best: tuple[str, int, int] = ("", 0, 0)
    for delimiter in _DELIMITERS:
        counts = [len(_fields(line, delimiter)) for _, line in known]
        width, length = counts[-1] if counts else 0, 0
        while length < len(counts) and counts[-1 - length] == width:
            length += 1
        if width > 1 and length > max(1.2 * best[1], 1):
            best = delimiter, length, width
    delimiter, length, _ = best
    if not delimiter:
        raise SourceError(
            "no table of several columns in its first lines",
            expected="rows with as many fields each",
            where=path,
            fix="say how columns are told apart with --delimiter or --widths",
        )
    table = known[-length:]
    before = [n for n, _ in known[:-length]]
    records = [_fields(line, delimiter) for _, line in table]
    below = records[1:] or records
    header = any(
        not _says(records[0][n]) and records[0][n] != "" and all(_says(row[n]) for row in below[2:] or below if row[n])
        for n in range(len(records[0]))
    )
    header = (header or _numbers_are_names(records)) and len(set(records[0])) == len(records[0])
    names = tuple(records[0]) if header else tuple(f"c{n + 1}" for n in range(len(records[0])))
    units: tuple[str, ...] = ()
    rows, n_below = records[1:] if header else records, 0
    if header and len(rows) > 1 and all(_TYPE.fullmatch(cell) for cell in rows[0]):
        rows, n_below = rows[1:], 1
    elif header and len(rows) > 2 and not any(_says(cell) for cell in rows[0]) and any(map(_says, rows[-1])):
        numbers = [n for n in range(len(names)) if all(_says(row[n]) for row in rows[2:] if row[n])]
        if numbers and any(rows[0][n] for n in numbers) and not all(rows[0][n] in MISSING for n in numbers):
            units, rows = tuple(rows[0]), rows[1:]
            if len(rows) > 2 and not any(_says(cell) for cell in rows[0]) and any(rows[0][n] for n in numbers):
                rows, n_below = rows[1:], 1
    questions = [f"no line names the columns: {', '.join(names[:8])} stand for --names"] if not header else []
    return _Frame(before[-1] + 1 if before else 0, comment, delimiter, header, names, units, n_below, rows, questions)


def _numbers_are_names(records: Sequence[Sequence[str]]) -> bool:
    """Whether the first record has whole numbers alone, and most columns below it fractions: numbers of sensors."""
    first = records[0]
    whole = len(first) >= _MANY and all(re.fullmatch(r"\d+", cell) for cell in first[1:])
    broken = [any("." in row[n] for row in records[1:]) for n in range(len(first))]
    return whole and sum(broken) > len(first) / 2


def _says(cell: str) -> bool:
    """Whether a cell is a number or a time, and no name."""
    return NumberStyle().read(cell) is not None or re.fullmatch(r"[\d.,/:+ TZ%-]*\d[\d.,/:+ TZ%-]*", cell) is not None


def _frame_flags(frame: _Frame, encoding: str) -> dict[str, Any]:
    flags: dict[str, Any] = {}
    if encoding != "utf-8":
        flags["encoding"] = encoding
    if frame.skip_lines:
        flags["skip_lines"] = frame.skip_lines
    if frame.comment is not None:
        flags["comment"] = frame.comment
    if not frame.header:
        flags |= {"no_header": True, "names": list(frame.names)}
    if frame.units:
        flags["units_row"] = True
    if frame.n_below:
        flags["skip_below_header"] = frame.n_below
    if frame.delimiter == SPACES or (not frame.header and frame.delimiter != ","):
        flags["delimiter"] = frame.delimiter
    return flags


def _look(name: str, cells: Sequence[str]) -> ColumnLook:
    known = [cell for cell in cells if cell not in MISSING]
    examples, n_missing = tuple(dict.fromkeys(known))[:_MOST_EXAMPLES], len(cells) - len(known)
    if not known:
        return ColumnLook(name, "empty", (), n_missing)
    values = [NumberStyle().read(cell) for cell in known]
    n_numbers = sum(value is not None for value in values)
    times = tuple(time_flags(known))
    if n_numbers < _SHARE * len(known) and times:
        return ColumnLook(name, "time", examples, n_missing, times)
    if n_numbers >= _SHARE * len(known):
        odd = Counter(cell for cell, value in zip(known, values, strict=True) if value is None)
        ends = {min(v for v in values if v is not None), max(v for v in values if v is not None)}
        odd.update(
            c for c, v in zip(known, values, strict=True) if v in ends and c.rstrip("0").rstrip(".") in _SENTINELS
        )
        repeated = [cell for cell, n in odd.items() if n > 1 or NumberStyle().read(cell) is None]
        kind = "whole" if all(re.fullmatch(r"[+-]?\d+", cell) for cell in known) else "number"
        kind = "word" if any(is_code(cell) for cell in known) and not times else kind
        return ColumnLook(name, kind, examples, n_missing, times, tuple(repeated[:_MOST_EXAMPLES]))  # type: ignore[arg-type]
    dialect = dialect_of(known, name, NumberStyle())
    advice = f"{dialect.example!r} looks like {dialect.what}: {dialect.fix}" if dialect is not None else ""
    return ColumnLook(name, "word", examples, n_missing, advice=advice)


def _layout(frame: _Frame, columns: Sequence[ColumnLook]) -> Layout:
    numbers = [column for column in columns if column.kind in ("number", "whole", "empty")]
    first = [row[0] for row in frame.rows]
    numbered = [re.fullmatch(r"([^\d]*)0*(\d+)", name) for name in frame.names[1:]]
    counted = [int(match[2]) for match in numbered if match is not None]
    follows = len(counted) == len(numbered) and counted == list(range(counted[0], counted[0] + len(counted)))
    if len(numbers) >= _MANY and columns[0].kind == "word" and len(set(first)) == len(first) and follows:
        return "series"
    codes = sum(re.fullmatch(r"[^\d]{0,4}\d{2,}", name) is not None for name in frame.names)
    many = len(numbers) >= len(columns) - 1 and (codes >= _SHARE * len(numbers) or len(numbers) > 5 * _MANY)
    return "wide" if len(numbers) > 1 and many and not any(c.kind == "word" for c in columns) else "long"


def _time_options(times: Sequence[ColumnLook], questions: list[str]) -> dict[str, Any]:
    """Options beside the first column of times, and questions where it reads in several ways."""
    if len(times) > 1:
        questions.append(f"which column has the times: {' or '.join(column.name for column in times)}?")
    ways = times[0].times
    if len(ways) > 1:
        shown = " or ".join(ways[:4])
        questions.append(f"{times[0].name}, such as {times[0].examples[0]!r}, reads in {len(ways)} ways: {shown}?")
    if not ways[0]:
        return {}
    flag, value = shlex.split(ways[0])
    return {flag.removeprefix("--").replace("-", "_"): value}


def _parts(columns: Sequence[ColumnLook]) -> list[str]:
    """Columns of years, months, days and so on."""
    named = {column.name.strip().lower(): column.name for column in columns if column.kind == "whole"}
    parts = list(itertools.takewhile(lambda part: part in named, PARTS))
    return [named[part] for part in parts] if len(parts) > 2 else []


def _date_and_clock(columns: Sequence[ColumnLook]) -> list[str]:
    """A column of ISO dates, and one of clocks."""
    dates = [c.name for c in columns if "" in c.times and all(len(example) == 10 for example in c.examples)]
    clocks = [c.name for c in columns if c.examples and all(map(_CLOCK.fullmatch, c.examples))]
    return [dates[0], clocks[0]] if dates and clocks else []


def _ids(frame: _Frame, columns: Sequence[ColumnLook], times: Sequence[str]) -> list[str]:
    """Columns that may hold ids: with the times they tell rows apart, or have few words."""
    place = {name: n for n, name in enumerate(frame.names)}
    likely = [c.name for c in columns if c.kind in ("word", "whole") and not c.times and not c.n_missing]
    words = {c.name for c in columns if c.kind == "word"}
    if not times:
        return [name for name in likely if name in words][:1]
    when = [tuple(row[place[name]] for name in times) for row in frame.rows]
    likely = [name for name in likely if name not in times]
    if len(set(when)) == len(when):
        return []
    telling = []
    for name in likely:
        pairs = {(row[place[name]], time) for row, time in zip(frame.rows, when, strict=True)}
        if len(pairs) == len(when) and len({row[place[name]] for row in frame.rows}) < len(when):
            telling.append(name)
    for pair in itertools.combinations(likely if not telling else [], 2):
        keys = {(*(row[place[name]] for name in pair), time) for row, time in zip(frame.rows, when, strict=True)}
        if len(keys) == len(when) and words.issuperset(pair):
            return [",".join(pair)]
    return telling


def _cell_flags(columns: Sequence[ColumnLook], roles: set[str], questions: list[str]) -> dict[str, Any]:
    missing: list[str] = []
    for column in columns:
        if column.name in roles:
            continue
        if column.advice:
            questions.append(f"column {column.name}: {column.advice}")
        if column.odd:
            entries = ",".join(f"{column.name}={text}" for text in column.odd)
            questions.append(f"column {column.name}: does {' or '.join(column.odd)} mean missing? --missing {entries}")
            missing += [f"{column.name}={text}" for text in column.odd if NumberStyle().read(text) is None]
    return {"missing": missing} if missing else {}


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
