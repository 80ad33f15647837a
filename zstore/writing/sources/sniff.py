"""What a CSV file holds: delimiter, header, and the kind of each column, from its first bytes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from zstore.errors import SourceError, UsageError
from zstore.format.schema import TimeAxis
from zstore.format.storage import File
from zstore.writing.sources.cells import NumberStyle, dialect_of, shorten
from zstore.writing.sources.columns import (
    DELIMITERS,
    check_channels,
    choose_columns,
    first_time_spec,
    numbered_rows,
    series_channel,
)
from zstore.writing.sources.csv_table import CsvFile, CsvSpec
from zstore.writing.sources.files import read_source
from zstore.writing.sources.options import TableOptions, id_in_path
from zstore.writing.sources.records import record_end, split_fields, split_records
from zstore.writing.sources.table import ChannelSpec, MissingTexts
from zstore.writing.sources.times import TimeSpec, sniff_iso

_HEAD_BYTES = 1 << 18
_FIRST_BYTES = 1 << 16
_MORE_BYTES = 1 << 20  # where the first rows leave a column unknown
_LATER_BYTES = 1 << 14
_ENOUGH = 3  # cells of one kind that tell a retyped column from some bad rows
_BOM = b"\xef\xbb\xbf"
_NO_TEXT = {
    b"\x1f\x8b": ("gzip", "name it .csv.gz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "name it .csv.zst"),
    b"PK\x03\x04": ("a ZIP archive or Excel sheet", "unpack it, or save it as CSV"),
    b"PAR1": ("Parquet", "name it .parquet, or write it as CSV"),
    b"\x89HDF\r\n": ("HDF5", "write it as CSV"),
}
"""First bytes of what is no text: what it is, and what to do."""

Sample = list[dict[str, str]]


def open_source(
    named: File, plain: File, delimiter: str | None = None, id_from_path: str | None = None
) -> tuple[CsvFile, str]:
    """Read the header of a file.

    Parameters
    ----------
    named
        The file as the user named it.
    plain
        Its plain bytes.
    delimiter
        Between fields; None to find it.
    id_from_path
        Regular expression whose first group is the id in the file's path, if that has it.

    Returns
    -------
    The source and its delimiter.
    """
    head = read_source(plain, 0, _HEAD_BYTES)
    for magic, (what, fix) in _NO_TEXT.items():
        if head.startswith(magic):
            raise SourceError(f"{what}, and no text", expected="a CSV file", where=str(named), fix=fix)
    start = len(_BOM) if head.startswith(_BOM) else 0
    while len(head) < plain.n_bytes and not _has_whole_header(head, start, delimiter):
        head = read_source(plain, 0, 4 * len(head))
    line = head[start : head.find(b"\n", start) + 1 or None].decode("utf-8", "replace")
    delimiter = delimiter or max(DELIMITERS, key=line.count)
    if len(delimiter.encode()) != 1 or delimiter in '"\r\n':
        raise UsageError(f"delimiter {delimiter!r}", expected="one ASCII character", fix="change --delimiter")
    stop = record_end(head, start, delimiter)
    header, reason = split_fields(head[start:stop], delimiter)
    if header is None:
        other = "name the encoding with --encoding, or " if "UTF-8" in reason else ""
        raise SourceError(
            f"unreadable header ({reason})",
            expected="column names",
            where=f"{named} line 1",
            fix=f"{other}correct the header",
        )
    twice = sorted({column for column in header if header.count(column) > 1})
    if twice:
        raise SourceError(
            f"column {twice[0]!r} stands {header.count(twice[0])} times in the header",
            expected="every column name once",
            where=f"{named} line 1",
            fix="rename one of them in the file",
        )
    id_ = id_in_path(str(named), id_from_path) if id_from_path is not None else None
    return CsvFile(str(named), plain, tuple(header), stop, b'"' in head, id_), delimiter


def _has_whole_header(head: bytes, start: int, delimiter: str | None) -> bool:
    """Whether the first bytes of a file go on behind its header; a wide table may have a long one."""
    return record_end(head, start, delimiter or ",") < len(head) or head.endswith(b"\n")


def sniff(
    sources: Sequence[CsvFile],
    delimiter: str,
    options: TableOptions,
    others: Collection[str] = (),
    axis: TimeAxis | None = None,
) -> CsvSpec:
    """Decide what the columns mean from the headers and the first rows.

    Parameters
    ----------
    sources, delimiter, options
        The files, and what the user said about them.
    others
        Columns of static attributes, which options may name too.
    axis
        Times that the rows are known to have; None to find out.

    Raises
    ------
    UsageError
        If a named column does not exist, or options contradict each other.
    SourceError
        If headers disagree, or times cannot be read.
    """
    first = sources[0]
    choice = choose_columns(sources, options, others)
    missing, wanted, tracked = choice.missing, choice.wanted, choice.tracked
    _check_thousands(options)
    samples = [
        _first_sample(first, delimiter, missing.everywhere),
        *(_sample(s, delimiter, _LATER_BYTES) for s in sources[1:]),
    ]
    time = _time_spec(options, sources, samples) if axis is None else _known_time_spec(options, samples, axis)
    if options.layout == "wide":
        channels: tuple[ChannelSpec, ...] = (series_channel(options),)
    else:
        channels = tuple(
            ChannelSpec(
                column,
                options.rename.get(column, column),
                column in options.categories or _holds_text(column, sources, samples, options, missing),
                options.units.get(column, "%" if column in options.percent else None),
            )
            for column in wanted
        )
        check_channels(channels, wanted)
    return CsvSpec(
        delimiter=delimiter,
        decimal=options.decimal,
        id=options.id if options.layout == "long" else None,
        time=time,
        channels=channels,
        series=wanted if options.layout == "wide" else (),
        missing=missing,
        largest=options.largest,
        thousands=options.thousands,
        percent=options.percent,
        tracked=tracked,
    )


def _check_thousands(options: TableOptions) -> None:
    mark = options.thousands
    if mark is not None and (len(mark) != 1 or mark.isalnum() or mark in '"+-%\r\n' or mark == options.decimal):
        raise UsageError(
            f"--thousands {mark!r}",
            expected=f"one character that is no digit, letter, sign or quote, and not --decimal {options.decimal}",
            fix="as in --decimal , --thousands .",
        )


def _time_spec(options: TableOptions, sources: Sequence[CsvFile], samples: Sequence[Sample]) -> TimeSpec:
    """How times are written, by the options and the first file that has rows; the other files must agree."""
    if not options.time:
        return numbered_rows(options)
    known = [(source, sample) for source, sample in zip(sources, samples, strict=True) if sample]
    texts = [cells[options.time[0]] for cells in known[0][1]] if known else []
    spec = first_time_spec(options, texts, known[0][0] if known else sources[0])
    for source, sample in known[1:]:
        found = [spec.judge(cells) for cells in sample]
        if len(found) >= _ENOUGH and found[0] is not None and all(found):
            raise _retyped(source, *found[0])
    return spec


def _known_time_spec(options: TableOptions, samples: Sequence[Sample], axis: TimeAxis) -> TimeSpec:
    """How times are written that a store has already, whatever the first rows of these files look like."""
    if len(options.time) > 1 or options.time_format is not None or options.time_unit is not None:
        spec = first_time_spec(options, [])
    elif axis.unit is None:
        spec = TimeSpec("steps", options.time, None)
    else:
        seen = sniff_iso(options.time[0], [cells[options.time[0]] for cells in samples[0]])
        spec = seen if seen is not None and seen.kind == "iso" else TimeSpec("iso", options.time, axis.unit)
        spec = replace(spec, written=spec.written or spec.unit)
    return replace(spec, unit=axis.unit, zone=axis.zone is not None)


def _holds_text(
    column: str, sources: Sequence[CsvFile], samples: Sequence[Sample], options: TableOptions, missing: MissingTexts
) -> bool:
    """Whether a column holds categories: nothing that the first file with known cells has in it is a number.

    Raises
    ------
    SourceError
        If it is all numbers in one file and all text in another, or nearly all numbers in another spelling.
    """
    style = NumberStyle(options.decimal, options.thousands, column in options.percent)
    absent = missing.of_numbers(column, style)
    first: tuple[bool, str] | None = None
    for source, sample in zip(sources, samples, strict=True):
        cells: list[str] = []  # known ones, up to the first of the kind that settles it
        settled = False
        for cell in (row.get(column, "") for row in sample):
            value = style.read(cell) if cell else None
            if absent.name(cell, value) is not None:
                continue
            cells.append(cell)
            settled = value is not None if first is None else (value is not None) != first[0]
            if settled:
                break
        if first is None and cells:
            first = not settled, source.name
            if first[0]:
                refuse_dialect(column, cells, style, source.name)
        elif first is not None and len(cells) >= _ENOUGH and not settled:
            kind, other = ("categories", "number") if first[0] else ("numbers", "text")
            text = shorten(cells[0])
            raise _retyped(source, f"{other} {text!r} in column {column!r}", f"{kind} as in {first[1]}")
    return first is not None and first[0]


def refuse_dialect(column: str, cells: Sequence[str], style: NumberStyle, source: str) -> None:
    """Refuse words of which nearly all would be numbers if the user said how they are written.

    Raises
    ------
    SourceError
        If they are; with the flags that read them.
    """
    dialect = dialect_of(cells, column, style)
    if dialect is not None:
        raise SourceError(
            f"column {column!r} holds words such as {shorten(dialect.example)!r} that look like {dialect.what}",
            expected=f"numbers with a decimal {'point' if style.decimal == '.' else 'comma'}, or words",
            where=f"{source}, in its first rows",
            fix=dialect.fix,
        )


def _retyped(source: CsvFile, problem: str, expected: str) -> SourceError:
    return SourceError(
        problem,
        expected=expected,
        where=f"{source.name}, in all of its first rows",
        fix="ingest files of different kinds into different stores, correct the file, or name columns of words that "
        "may look like numbers with --categories",
    )


def _first_sample(source: CsvFile, delimiter: str, missing: Sequence[str]) -> Sample:
    """Rows that hold a known cell of every column, if few have to be read for that."""
    sample = _sample(source, delimiter, _FIRST_BYTES)
    if all(any(row[column] not in missing for row in sample) for column in source.header):
        return sample
    return _sample(source, delimiter, _MORE_BYTES)


def _sample(source: CsvFile, delimiter: str, n_bytes: int) -> Sample:
    content = read_source(source.file, source.body, source.body + n_bytes)
    if len(content) == n_bytes:
        content = content[: content.rfind(b"\n") + 1]
    records = split_records(content, delimiter, 0, 1)
    header = source.header
    return [dict(zip(header, r.fields, strict=True)) for r in records if r.fields and len(r.fields) == len(header)]
