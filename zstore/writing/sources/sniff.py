"""What a CSV file holds: delimiter, header, and the kind of each column, from its first bytes."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from zstore.errors import SourceError, UsageError
from zstore.format.schema import TimeAxis
from zstore.writing.sources.records import record_end, shorten, split_fields, split_records
from zstore.writing.sources.table import ChannelSpec, Source, TableSpec
from zstore.writing.sources.times import EPOCH_UNITS, PARTS, TimeSpec, sniff_iso

MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL")
_HEAD_BYTES = 1 << 18
_BOM = b"\xef\xbb\xbf"
_DELIMITERS = ",;\t|"


@dataclass(frozen=True)
class TableOptions:
    """What the user said about the tables; see :func:`zstore.ingest` for each."""

    id: str | None = None
    time: tuple[str, ...] = ()
    time_format: str | None = None
    time_unit: str | None = None
    freq: str | None = None
    start: str | None = None
    layout: Literal["long", "wide"] = "long"
    id_from_path: str | None = None
    channels: tuple[str, ...] | None = None
    leave_out: tuple[str, ...] = ()
    rename: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    value_name: str = "value"
    delimiter: str | None = None
    decimal: str = "."
    missing: tuple[str, ...] = MISSING
    largest: float = sys.float_info.max

    def to_json(self) -> dict[str, Any]:
        """Plain values for the store's own record."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> TableOptions:
        """Read :meth:`to_json` back."""
        known: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in document.items()}
        return cls(**known)


def open_source(
    name: Path, path: Path, delimiter: str | None = None, id_from_path: str | None = None
) -> tuple[Source, str]:
    """Read the header of a file.

    Parameters
    ----------
    name
        The file as the user named it.
    path
        Its plain bytes.
    delimiter
        Between fields; None to find it.
    id_from_path
        Regular expression whose first group is the id in the file's path, if that has it.

    Returns
    -------
    The source and its delimiter.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    start = len(_BOM) if head.startswith(_BOM) else 0
    line = head[start : head.find(b"\n", start) + 1 or None].decode("utf-8", "replace")
    delimiter = delimiter or max(_DELIMITERS, key=line.count)
    stop = record_end(head, start, delimiter)
    header, reason = split_fields(head[start:stop], delimiter)
    if header is None:
        raise SourceError(f"unreadable header ({reason})", expected="column names", where=f"{name} line 1")
    twice = sorted({column for column in header if header.count(column) > 1})
    if twice:
        raise SourceError(
            f"column {twice[0]!r} stands {header.count(twice[0])} times in the header",
            expected="every column name once",
            where=f"{name} line 1",
            fix="rename one of them in the file",
        )
    id_ = _id_in_path(name, id_from_path) if id_from_path is not None else None
    return Source(str(name), path, tuple(header), stop, b'"' in head, id_), delimiter


def sniff(sources: Sequence[Source], delimiter: str, options: TableOptions) -> TableSpec:
    """Decide what the columns mean from the headers and the first rows.

    Raises
    ------
    UsageError
        If a named column does not exist, or options contradict each other.
    SourceError
        If headers disagree, or times cannot be read.
    """
    first = sources[0]
    named = [("--id", options.id), *(("--time", column) for column in options.time)]
    named += [
        (flag, c)
        for flag, group in (
            ("--channels", options.channels),
            ("--leave-out", options.leave_out),
            ("--rename", options.rename),
            ("--units", options.units),
        )
        for c in group or ()
    ]
    for flag, column in named:
        if column is not None and column not in first.header:
            raise UsageError(
                f"no column {column!r}",
                expected=f"one of {', '.join(map(repr, first.header))}",
                where=f"{first.name} line 1",
                fix=f"name an existing column with {flag}",
            )
    if options.id is not None and (options.layout == "wide" or options.id_from_path is not None):
        other = "--layout wide" if options.layout == "wide" else "--id-from-path"
        raise UsageError(f"--id with {other}", expected="one place that ids come from", fix=f"drop --id or {other}")
    for source in sources[1:]:
        _same_columns(first, source)
    used = {options.id, *options.time, *options.leave_out}
    wanted = tuple(options.channels or (column for column in first.header if column not in used))
    if not wanted:
        raise SourceError("no channel", expected="a column beside id and time", where=f"{first.name} line 1")
    cells = _sample(first, delimiter)
    texts = {column: [row[position] for row in cells] for position, column in enumerate(first.header)}
    time = _time_spec(options, first, texts)
    missing = options.missing
    if options.layout == "wide":
        channels: tuple[ChannelSpec, ...] = (ChannelSpec(options.value_name, options.value_name),)
        return TableSpec(delimiter, options.decimal, None, time, channels, wanted, missing, options.largest)
    channels = tuple(
        ChannelSpec(
            column,
            options.rename.get(column, column),
            _holds_text(texts[column], missing, options.decimal),
            options.units.get(column),
        )
        for column in wanted
    )
    names = [channel.name for channel in channels]
    if len(set(names)) < len(names):
        raise UsageError(f"channels {', '.join(names)}", expected="every name once", fix="mend --rename")
    return TableSpec(delimiter, options.decimal, options.id, time, channels, (), missing, options.largest)


def _id_in_path(name: Path, pattern: str) -> str:
    try:
        match = re.search(pattern, str(name))
    except re.error as error:
        raise UsageError(f"--id-from-path {pattern!r} ({error})", expected="a regular expression") from None
    if match is None or not match.groups() or not match[1]:
        raise UsageError(
            f"no id in the path {name}",
            expected=f"a match of {pattern!r} with a group, as in 'site_(\\w+)\\.csv'",
            fix="mend --id-from-path",
        )
    return match[1]


def _time_spec(options: TableOptions, source: Source, texts: Mapping[str, list[str]]) -> TimeSpec:
    if not options.time:
        return _numbered_rows(options)
    if len(options.time) > 1:
        if len(options.time) > len(PARTS) or len(options.time) < 3:
            raise UsageError(
                f"--time {','.join(options.time)}", expected="one column, or three to six: " + ", ".join(PARTS)
            )
        return TimeSpec("parts", options.time, "s")
    column = options.time[0]
    if options.time_format is not None:
        return TimeSpec("format", options.time, "s", format=options.time_format)
    if options.time_unit is not None:
        if options.time_unit not in EPOCH_UNITS:
            raise UsageError(f"--time-unit {options.time_unit!r}", expected=f"one of {', '.join(EPOCH_UNITS)}")
        unit, factor = EPOCH_UNITS[options.time_unit]
        return TimeSpec("epoch", options.time, unit, factor=factor)
    spec = sniff_iso(column, texts[column])
    if spec is None:
        raise SourceError(
            f"unreadable time {shorten(texts[column][0])!r} in column {column!r}",
            expected="ISO dates or dates and times, or whole numbers",
            where=f"{source.name} line 2",
            fix="say how it is written with --time-format, or name another column with --time",
        )
    return spec


def _numbered_rows(options: TableOptions) -> TimeSpec:
    if options.freq is None:
        raise UsageError(
            "no time column",
            expected="--time COL, or --freq STEP (and --start T) for rows that follow each other",
            fix="name the time column with --time",
        )
    axis = TimeAxis("s" if options.start is not None and not options.start.lstrip("-").isdigit() else None)
    try:
        start = axis.parse(options.start) if options.start is not None else 0
        return TimeSpec("rows", (), axis.unit, start=start, step=axis.parse_freq(options.freq))
    except ValueError:
        raise UsageError(
            f"--start {options.start} with --freq {options.freq}",
            expected="a date and a step such as 5min, or two whole numbers",
        ) from None


def _holds_text(texts: Sequence[str], missing: Sequence[str], decimal: str) -> bool:
    """Whether what is known of a column is text, so that it holds categories."""
    known = [text for text in texts if text not in missing]
    return bool(known) and not any(_is_float(text.replace(decimal, ".")) for text in known)


def _same_columns(first: Source, other: Source) -> None:
    for column, problem in [(c, "is missing") for c in first.header if c not in other.header] + [
        (c, "is not in the files before") for c in other.header if c not in first.header
    ]:
        raise SourceError(
            f"column {column!r} {problem}",
            expected=f"the columns of {first.name} (in any order): {', '.join(first.header)}",
            where=f"{other.name} line 1",
            fix="ingest files of different columns into different stores, or mend the header",
        )


def _sample(source: Source, delimiter: str) -> list[list[str]]:
    with source.path.open("rb") as file:
        file.seek(source.body)
        content = file.read(_HEAD_BYTES)
    if len(content) == _HEAD_BYTES:
        content = content[: content.rfind(b"\n") + 1]
    records = split_records(content, delimiter, 0, 1)
    return [r.fields for r in records if r.fields is not None and len(r.fields) == len(source.header)]


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
