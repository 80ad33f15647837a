"""What a CSV file holds: delimiter, header, and the kind of each column, from its first bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zstore.errors import SourceError, UsageError
from zstore.writing.sources.records import is_time, record_end, shorten, split_fields, split_records
from zstore.writing.sources.table import Source, TableSpec

MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL")
_HEAD_BYTES = 1 << 18
_BOM = b"\xef\xbb\xbf"
_DELIMITERS = ",;\t|"


def open_source(name: Path, path: Path, delimiter: str | None = None) -> tuple[Source, str]:
    """Read the header of a file.

    Parameters
    ----------
    name
        The file as the user named it.
    path
        Its plain bytes.
    delimiter
        Of the files before this one; None to find it.

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
    return Source(str(name), path, tuple(header), stop, b'"' in head), delimiter


def sniff(
    sources: Sequence[Source],
    delimiter: str,
    id_column: str | None,
    time_column: str,
    channels: Sequence[str] | None,
    missing: Sequence[str] = MISSING,
) -> TableSpec:
    """Decide what the columns mean from the headers and the first rows.

    Raises
    ------
    UsageError
        If a named column does not exist.
    SourceError
        If headers disagree, or a channel or the time column holds text.
    """
    first = sources[0]
    for flag, column in (("--id", id_column), ("--time", time_column), *(("--channels", c) for c in channels or ())):
        if column is not None and column not in first.header:
            raise UsageError(
                f"no column {column!r}",
                expected=f"one of {', '.join(map(repr, first.header))}",
                where=f"{first.name} line 1",
                fix=f"name an existing column with {flag}",
            )
    for source in sources[1:]:
        _same_columns(first, source)
    wanted = tuple(channels or (c for c in first.header if c not in (id_column, time_column)))
    if not wanted:
        raise SourceError("no channel", expected="a column beside id and time", where=f"{first.name} line 1")
    cells = _sample(first, delimiter)
    unit = _time_unit([row[first.header.index(time_column)] for row in cells], first, time_column)
    spec = TableSpec(delimiter, id_column, time_column, unit, wanted, tuple(missing))
    for channel in wanted:
        texts = [row[first.header.index(channel)] for row in cells]
        known = [text for text in texts if text not in missing]
        wrong = [text for text in known if not _is_float(text)]
        if known and len(wrong) == len(known):
            numeric = [c for c in wanted if c != channel]
            raise SourceError(
                f"column {channel!r} holds text ({shorten(wrong[0])!r})",
                expected="numbers in every channel",
                where=first.name,
                fix=f"leave it out by naming the others: --channels {','.join(numeric) or '…'}",
            )
    return spec


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


def _time_unit(texts: list[str], source: Source, column: str) -> str | None:
    """``None`` for integer steps, else the coarsest unit that holds the fractions seen."""
    if not texts:
        return "s"
    if all(text.strip().lstrip("+-").isdigit() for text in texts):
        return None
    digits = max(len(text.partition(".")[2].rstrip("0")) for text in texts)
    unit = {0: "s", 1: "ms", 2: "us", 3: "ns"}[min(-(-digits // 3), 3)]
    if not is_time(texts[0], unit):
        raise SourceError(
            f"unreadable time {shorten(texts[0])!r} in column {column!r}",
            expected="ISO dates or dates and times without zone, or whole numbers",
            where=f"{source.name} line 2",
            fix="name the time column with --time",
        )
    return unit


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
