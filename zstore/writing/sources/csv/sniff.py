"""What the columns of a CSV file mean, from its header and its first rows."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

from zstore.errors import SourceError, UsageError
from zstore.format.schema import TimeAxis
from zstore.writing.sources.cells import NumberStyle, dialect_of, shorten
from zstore.writing.sources.columns import check_channels, choose_columns, series_channel
from zstore.writing.sources.csv.calendar import calendar_options, offsets_of
from zstore.writing.sources.csv.record_limit import lines_before
from zstore.writing.sources.csv.records import Record, split_records
from zstore.writing.sources.csv.table import CsvFile, CsvSpec
from zstore.writing.sources.files import read_source
from zstore.writing.sources.options import CENSORED, TableOptions
from zstore.writing.sources.table import ChannelSpec, MissingTexts
from zstore.writing.sources.time_options import first_time_spec, in_zone, numbered_rows, side_by_side
from zstore.writing.sources.times.guesses import sniff_iso
from zstore.writing.sources.times.spec import TimeSpec

_FIRST_BYTES = 1 << 16
_MORE_BYTES = 1 << 20  # where the first rows leave a column unknown
_LATER_BYTES = 1 << 14
_ENOUGH = 3  # cells of one kind that tell a retyped column from some bad rows
Sample = list[dict[str, str]]


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
    choice = choose_columns(sources, options, others, f"; zstore inspect {sources[0].name} says what it holds")
    missing, wanted, tracked = choice.missing, choice.wanted, choice.tracked
    units = _units_of(sources, options)
    _check_thousands(options)
    samples = [
        _first_sample(first, delimiter, missing.everywhere),
        *(_sample(s, delimiter, _LATER_BYTES) for s in sources[1:]),
    ]
    offsets: tuple[int, ...] = ()
    months = False
    if options.layout == "calendar":
        options = calendar_options(options, wanted)
        months, offsets = offsets_of(wanted) or (False, ())
    if options.layout == "series":
        time = side_by_side(options, len(wanted))
    else:
        time = (
            _time_spec(options, sources, delimiter, samples)
            if axis is None
            else _known_time_spec(options, samples, axis)
        )
    if offsets and time.unit is None:
        raise UsageError(
            "--layout calendar of times that count steps", expected="years or days", fix="say with --time-format how"
        )
    if options.layout != "long":
        common = {units.get(column) for column in wanted}
        if len(common) > 1 and options.value_name not in options.units:
            raise SourceError(
                f"units {', '.join(sorted(unit or 'none' for unit in common))} of one channel",
                expected="the same unit above each series",
                where=first.head,
                fix=f"say which they are: --units {options.value_name}=UNIT",
            )
        channels: tuple[ChannelSpec, ...] = (series_channel(options, common.pop()),)
    else:
        numbers = {*options.percent, *options.censored}  # as the user says, whatever the first rows hold
        channels = tuple(
            ChannelSpec(
                column,
                options.rename.get(column, column),
                column in options.categories
                or (column not in numbers and _holds_text(column, sources, samples, options, missing)),
                options.units.get(column, "%" if column in options.percent else units.get(column)),
            )
            for column in wanted
        )
        channels = tuple(each for channel in channels for each in _with_sides(channel, options))
        check_channels(channels, wanted)
    return CsvSpec(
        delimiter=delimiter,
        decimal=options.decimal,
        id=options.id if options.layout != "wide" else None,
        id_columns=options.id_columns if options.layout != "wide" else (),
        time=time,
        channels=channels,
        series=wanted if options.layout != "long" else (),
        missing=missing,
        largest=options.largest,
        thousands=options.thousands,
        percent=options.percent,
        censored=options.censored,
        tracked=tracked,
        offsets=offsets,
        months=months,
    )


def _with_sides(channel: ChannelSpec, options: TableOptions) -> tuple[ChannelSpec, ...]:
    """A channel, and behind one of numbers that may be limits another that says where they are."""
    if channel.column not in options.censored or channel.text:
        return (channel,)
    return channel, replace(channel, name=f"{channel.name}{CENSORED}", units=None, sides=True)


def _units_of(sources: Sequence[CsvFile], options: TableOptions) -> dict[str, str | None]:
    """Units that files have in a row of their own, by column.

    Raises
    ------
    SourceError
        If files have different ones of a column, and the user does not say which they are.
    """
    units: dict[str, tuple[str | None, str]] = {}
    for source in sources:
        for column, unit in zip(source.header, source.units, strict=False):
            known, where = units.setdefault(column, (unit, source.name))
            if known != unit and column not in options.units:
                raise SourceError(
                    f"unit {unit or 'none'!r} of column {column!r}",
                    expected=f"{known or 'none'!r}, as in {where}",
                    where=source.name,
                    fix=f"ingest files of different units into different stores, or --units {column}=UNIT if all are "
                    "the same",
                )
    return {column: unit for column, (unit, _) in units.items()}


def _check_thousands(options: TableOptions) -> None:
    mark = options.thousands
    if mark is not None and (len(mark) != 1 or mark.isalnum() or mark in '"+-%\r\n' or mark == options.decimal):
        raise UsageError(
            f"--thousands {mark!r}",
            expected=f"one character that is no digit, letter, sign or quote, and not --decimal {options.decimal}",
            fix="as in --decimal , --thousands .",
        )


def _time_spec(
    options: TableOptions, sources: Sequence[CsvFile], delimiter: str, samples: Sequence[Sample]
) -> TimeSpec:
    """How times are written, by the options and the first file that has rows; the other files must agree."""
    if not options.time:
        return numbered_rows(options, sources[0].header)
    known = [(source, sample) for source, sample in zip(sources, samples, strict=True) if sample]
    columns = options.time if len(options.time) == 2 else options.time[:1]
    texts = [" ".join(cells[column] for column in columns) for cells in known[0][1]] if known else []
    first = known[0][0] if known else sources[0]
    spec = in_zone(first_time_spec(options, texts, partial(_place, first, delimiter)), options)
    for source, sample in known[1:]:
        found = [spec.judge(cells) for cells in sample]
        if len(found) >= _ENOUGH and found[0] is not None and all(found):
            raise _retyped(source, *found[0])
    return spec


def _known_time_spec(options: TableOptions, samples: Sequence[Sample], axis: TimeAxis) -> TimeSpec:
    """How times are written that a store has already, whatever the first rows of these files look like."""
    if len(options.time) > 1 or options.time_format is not None or options.time_unit is not None:
        texts = [cells[options.time[0]] for cells in samples[0]] if options.time_unit is not None else []
        spec = first_time_spec(options, texts)
        if spec.factor != 1:  # other files may have had fractions
            spec = replace(spec, kind="decimal", factor=1)
    elif axis.unit is None:
        spec = TimeSpec("steps", options.time, None)
    else:
        seen = sniff_iso(options.time[0], [cells[options.time[0]] for cells in samples[0]])
        spec = seen if seen is not None and seen.kind == "iso" else TimeSpec("iso", options.time, axis.unit)
        spec = replace(spec, written=spec.written or spec.unit)
    spec = in_zone(spec, options)
    return replace(spec.on_axis(axis.unit), zone=axis.zone is not None and spec.local is None)


def _holds_text(
    column: str, sources: Sequence[CsvFile], samples: Sequence[Sample], options: TableOptions, missing: MissingTexts
) -> bool:
    """Whether a column holds categories: nothing that the first file with known cells has in it is a number.

    Raises
    ------
    SourceError
        If it is all numbers in one file and all text in another, or nearly all numbers in another spelling.
    """
    style = NumberStyle(options.decimal, options.thousands, column in options.percent, column in options.censored)
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
    """Cells of the first records that have one for each column."""
    return [dict(zip(source.header, fields, strict=True)) for _, fields in _first_records(source, delimiter, n_bytes)]


def _place(source: CsvFile, delimiter: str, row: int) -> str:
    """File and line of a row of :func:`_sample`, by its number. Reads all before it: only for errors."""
    records = _first_records(source, delimiter, _MORE_BYTES, 1 + lines_before(source, source.body))
    return next((f"{source.name} line {record.line:,}" for record, _ in islice(records, row, None)), source.name)


def _first_records(
    source: CsvFile, delimiter: str, n_bytes: int, line: int = 1
) -> Iterator[tuple[Record, Sequence[str]]]:
    """The first records that have a field for each column, and these fields; `line` is that of the first row."""
    content = read_source(source.file, source.body, source.body + n_bytes)
    if len(content) == n_bytes:
        content = content[: content.rfind(b"\n") + 1]
    for record in split_records(content, delimiter, source.body, line, source.framing, len(source.header)):
        if record.fields and len(record.fields) == len(source.header):
            yield record, record.fields
