"""What a CSV file holds: delimiter, header, and the kind of each column, from its first bytes."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from zstore.errors import SourceError, StoreError, UsageError
from zstore.format.schema import TimeAxis
from zstore.format.storage import File
from zstore.format.timesteps import UNIT_STEPS
from zstore.writing.sources.cells import NumberStyle, dialect_of
from zstore.writing.sources.files import read_source
from zstore.writing.sources.formats import check_format, has_zone, unit_of
from zstore.writing.sources.parts import PARTS
from zstore.writing.sources.records import record_end, shorten, split_fields, split_records
from zstore.writing.sources.table import ChannelSpec, MissingTexts, Source, TableSpec
from zstore.writing.sources.times import EPOCH_UNITS, STEPS, TimeSpec, dates_or_epochs, sniff_iso

MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL")
_HEAD_BYTES = 1 << 18
_FIRST_BYTES = 1 << 16
_MORE_BYTES = 1 << 20  # where the first rows leave a column unknown
_LATER_BYTES = 1 << 14
_ENOUGH = 3  # cells of one kind that tell a retyped column from some bad rows
_BOM = b"\xef\xbb\xbf"
_DELIMITERS = ",;\t|"
_NO_TEXT = {
    b"\x1f\x8b": ("gzip", "name it .csv.gz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "name it .csv.zst"),
    b"PK\x03\x04": ("a ZIP archive or Excel sheet", "unpack it, or save it as CSV"),
    b"PAR1": ("Parquet", "write it as CSV"),
    b"\x89HDF\r\n": ("HDF5", "write it as CSV"),
}
"""First bytes of what is no text: what it is, and what to do."""

Sample = list[dict[str, str]]


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
    categories: tuple[str, ...] = ()
    allow_new_channels: bool = False
    rename: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    value_name: str = "value"
    delimiter: str | None = None
    decimal: str = "."
    missing: tuple[str, ...] = MISSING
    missing_by: Literal["column", "text"] = "column"
    thousands: str | None = None
    percent: tuple[str, ...] = ()
    largest: float = sys.float_info.max

    def to_json(self) -> dict[str, Any]:
        """Plain values for the store's own record."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> TableOptions:
        """Read :meth:`to_json` back; what else the document has is left alone.

        A store of before `missing_by` was recorded has one list of texts for columns of every kind.
        """
        document = {"missing_by": "text", **document}
        found = {option.name: document[option.name] for option in fields(cls) if option.name in document}
        known: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}
        for name, value in known.items():
            usual = getattr(_USUAL, name)
            if not (value is None and name in _OPTIONAL) and not _is_like(value, "" if usual is None else usual):
                raise StoreError(
                    f"option {name} {value!r} of the store's record of its sources",
                    expected="an option as zstore ingest records it",
                    fix="do not append to this store: no release of zstore wrote it like this; ingest its sources",
                )
        return cls(**known)

    def with_categories(self, words: Iterable[str]) -> TableOptions:
        """The options under which these channels hold words, whatever those look like."""
        columns = {name: column for column, name in self.rename.items()}
        return replace(self, categories=tuple({*self.categories, *(columns.get(word, word) for word in words)}))

    def named(self) -> set[str]:
        """Columns that the options name and a table need not have any more: static attributes can be replaced."""
        entries = [entry.partition("=")[0] for entry in self.missing if "=" in entry]
        return {*self.categories, *self.percent, *(entries if self.missing_by == "column" else ())} - {""}

    def missing_texts(self, columns: Collection[str]) -> MissingTexts:
        """What `missing` means for a table.

        Parameters
        ----------
        columns
            Those that ``COL=TEXT`` may name.

        Raises
        ------
        UsageError
            If it names another.
        """
        if self.missing_by == "text":
            return MissingTexts(self.missing, as_texts=True)
        everywhere: list[str] = []
        own: dict[str, tuple[str, ...]] = {}
        for entry in self.missing:
            column, sign, text = _split_entry(entry, columns)
            if not sign or not column:
                everywhere.append(entry)
            elif column in columns:
                own[column] = (*own.get(column, ()), text)
            else:
                raise UsageError(
                    f"no column {column!r}",
                    expected=f"one of {', '.join(map(repr, columns))}",
                    fix="name an existing column with --missing COL=TEXT",
                )
        return MissingTexts(tuple(everywhere) if everywhere or not own else MISSING, own)


_USUAL = TableOptions()
_OPTIONAL = frozenset(option.name for option in fields(TableOptions) if getattr(_USUAL, option.name) is None)


def _is_like(value: Any, usual: Any) -> bool:
    """Whether a value from a store is of the kind of the usual one: text, a tuple or mapping of texts, a number."""
    if isinstance(usual, (tuple, Mapping)) or isinstance(value, tuple):
        inner = [*value, *value.values()] if isinstance(value, Mapping) else value
        same = isinstance(value, Mapping) == isinstance(usual, Mapping)
        return same and isinstance(value, (tuple, Mapping)) and all(isinstance(each, str) for each in inner)
    return isinstance(value, (float, int) if isinstance(usual, float) else type(usual))


def _split_entry(entry: str, columns: Collection[str]) -> tuple[str, str, str]:
    """Column, sign and text of ``COL=TEXT``; the name of a column may have a sign of its own."""
    for column in columns:
        if entry.startswith(f"{column}="):
            return column, "=", entry[len(column) + 1 :]
    return entry.partition("=")


def open_source(
    named: File, plain: File, delimiter: str | None = None, id_from_path: str | None = None
) -> tuple[Source, str]:
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
    delimiter = delimiter or max(_DELIMITERS, key=line.count)
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
    return Source(str(named), plain, tuple(header), stop, b'"' in head, id_), delimiter


def _has_whole_header(head: bytes, start: int, delimiter: str | None) -> bool:
    """Whether the first bytes of a file go on behind its header; a wide table may have a long one."""
    return record_end(head, start, delimiter or ",") < len(head) or head.endswith(b"\n")


def sniff(
    sources: Sequence[Source],
    delimiter: str,
    options: TableOptions,
    others: Collection[str] = (),
    axis: TimeAxis | None = None,
) -> TableSpec:
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
    columns = _all_columns(sources, options.allow_new_channels)
    _check_names(options, columns, first, others)
    _check_roles(options)
    _check_thousands(options)
    missing = options.missing_texts(dict.fromkeys([*columns, *others]))
    if options.id in missing.in_column:
        raise UsageError(
            f"--missing {options.id}={missing.in_column[str(options.id)][0]} of the id column",
            expected="a column of numbers, words or times; ids are kept as they are",
            fix="drop it, or leave such rows out of the file",
        )
    given = options.missing if options.missing != MISSING else ()
    elsewhere = [*others, *options.time]  # a row without a time is bad
    tracked = frozenset(
        t
        for t in given
        if t and not t.endswith("=") and not _names(t, elsewhere, [c for c in columns if c not in options.time])
    )
    used = {options.id, *options.time, *options.leave_out}
    wanted = tuple(options.channels or (column for column in columns if column not in used))
    if not wanted:
        raise SourceError(
            "no channel",
            expected="a column beside id and time",
            where=f"{first.name} line 1",
            fix="add a column of values, or leave out fewer with --leave-out",
        )
    if options.layout == "wide" and "" in wanted:
        raise SourceError(
            f"column {columns.index('') + 1} has no name",
            expected="the id of a series above each column",
            where=f"{first.name} line 1",
            fix="name it in the file, or leave it out: --leave-out ''",
        )
    samples = [
        _first_sample(first, delimiter, missing.everywhere),
        *(_sample(s, delimiter, _LATER_BYTES) for s in sources[1:]),
    ]
    time = _time_spec(options, sources, samples) if axis is None else _known_time_spec(options, samples, axis)
    if options.layout == "wide":
        name, units = options.value_name, options.units.get(options.value_name)
        channels: tuple[ChannelSpec, ...] = (ChannelSpec(name, name, units=units),)
        spec = TableSpec(delimiter, options.decimal, None, time, channels, wanted, missing, options.largest)
        return replace(spec, thousands=options.thousands, percent=options.percent, tracked=tracked)
    channels = tuple(
        ChannelSpec(
            column,
            options.rename.get(column, column),
            column in options.categories or _holds_text(column, sources, samples, options, missing),
            options.units.get(column, "%" if column in options.percent else None),
        )
        for column in wanted
    )
    names = [channel.name for channel in channels]
    if len(set(names)) < len(names):
        flag = "--channels" if len(set(wanted)) < len(wanted) else "--rename"
        raise UsageError(f"channels {', '.join(names)}", expected="every name once", fix=f"change {flag}")
    spec = TableSpec(delimiter, options.decimal, options.id, time, channels, (), missing, options.largest)
    return replace(spec, thousands=options.thousands, percent=options.percent, tracked=tracked)


def _names(entry: str, others: Collection[str], columns: Collection[str]) -> bool:
    """Whether ``COL=TEXT`` names a static attribute alone."""
    column, sign, _ = _split_entry(entry, [*columns, *others])
    return bool(sign) and column in others and column not in columns


def _check_thousands(options: TableOptions) -> None:
    mark = options.thousands
    if mark is not None and (len(mark) != 1 or mark.isalnum() or mark in '"+-%\r\n' or mark == options.decimal):
        raise UsageError(
            f"--thousands {mark!r}",
            expected=f"one character that is no digit, letter, sign or quote, and not --decimal {options.decimal}",
            fix="as in --decimal , --thousands .",
        )


def check_options(options: TableOptions) -> None:
    """Refuse options of which one would be passed over.

    Raises
    ------
    UsageError
        Naming both.
    """
    for flag, value, other in (
        ("--start", options.start, "--time" if options.time else ""),
        ("--time-unit", options.time_unit, "--time-format" if options.time_format is not None else ""),
        ("--time-unit", options.time_unit, "--time of several columns" if len(options.time) > 1 else ""),
        ("--time-format", options.time_format, "--time of several columns" if len(options.time) > 1 else ""),
        ("--time-unit", options.time_unit, "no --time" if not options.time else ""),
        ("--time-format", options.time_format, "no --time" if not options.time else ""),
    ):
        if value is not None and other:
            raise UsageError(f"{flag} {value} with {other}", expected="one way to read times", fix=f"drop {flag}")
    for column, name in options.rename.items():
        if not name:
            raise UsageError(f"--rename {column}=", expected="a name", fix=f"as in --rename {column}=level")


def _check_roles(options: TableOptions) -> None:
    """Refuse a column of times that is to be something else as well."""
    twice = [column for column in options.time if options.time.count(column) > 1]
    for column, flag in [
        *((column, "--time, twice") for column in twice),
        *((column, "--channels") for column in options.channels or () if column in options.time),
        *((column, "--id") for column in options.time if column == options.id),
    ]:
        raise UsageError(
            f"column {column!r} in --time and in {flag}"
            if flag != "--time, twice"
            else f"column {column!r} twice in --time",
            expected="one use of a column of times",
            fix=f"drop it from {flag.partition(',')[0]}, or write a copy of it to the file under another name",
        )


def _check_names(options: TableOptions, columns: Sequence[str], first: Source, others: Collection[str]) -> None:
    named = [("--id", options.id), *(("--time", column) for column in options.time)]
    named += [
        (flag, c)
        for flag, group in (
            ("--channels", options.channels),
            ("--leave-out", options.leave_out),
            ("--categories", [column for column in options.categories if column not in others]),
            ("--percent", [column for column in options.percent if column not in others]),
            ("--rename", options.rename),
            ("--units", options.units),
        )
        for c in group or ()
    ]
    made = {options.value_name} if options.layout == "wide" else set()
    for flag, column in named:
        if column is not None and column not in columns and not (flag == "--units" and column in made):
            together = any(mark in name for name in columns for mark in _DELIMITERS)
            raise UsageError(
                f"no column {column!r}",
                expected=f"one of {', '.join(map(repr, columns))}",
                where=f"{first.name} line 1",
                fix=f"name an existing column with {flag}"
                + (", or say what stands between columns with --delimiter" if together else ""),
            )
    for flag, group in (("--rename", options.rename), ("--units", options.units)):
        for column in group:
            if column in (options.id, *options.time):
                raise UsageError(f"{flag} of {column!r}", expected="a channel", fix=f"leave it out of {flag}")
    if options.id is not None and (options.layout == "wide" or options.id_from_path is not None):
        other = "--layout wide" if options.layout == "wide" else "--id-from-path"
        raise UsageError(f"--id with {other}", expected="one place that ids come from", fix=f"drop --id or {other}")


def id_in_path(name: str, pattern: str) -> str:
    """The id of a file's rows: the first group of a pattern, searched in the path as the user named it, with ``/``.

    Raises
    ------
    UsageError
        If that is no regular expression, or finds no id.
    """
    try:
        match = re.search(pattern, name.replace(os.sep, "/"))
    except re.error as error:
        raise UsageError(
            f"--id-from-path {pattern!r} ({error})", expected="a regular expression", fix="mend --id-from-path"
        ) from None
    if match is None or not match.groups() or not match[1]:
        raise UsageError(
            f"no id in the path {name}",
            expected=f"a match of {pattern!r} with a group, as in 'site_(\\w+)\\.csv'",
            fix="mend --id-from-path",
        )
    return match[1]


def _time_spec(options: TableOptions, sources: Sequence[Source], samples: Sequence[Sample]) -> TimeSpec:
    """How times are written, by the options and the first file that has rows; the other files must agree."""
    if not options.time:
        return _numbered_rows(options)
    known = [(source, sample) for source, sample in zip(sources, samples, strict=True) if sample]
    texts = [cells[options.time[0]] for cells in known[0][1]] if known else []
    spec = _first_time_spec(options, texts, known[0][0] if known else sources[0])
    for source, sample in known[1:]:
        found = [spec.judge(cells) for cells in sample]
        if len(found) >= _ENOUGH and found[0] is not None and all(found):
            raise _retyped(source, *found[0])
    return spec


def _known_time_spec(options: TableOptions, samples: Sequence[Sample], axis: TimeAxis) -> TimeSpec:
    """How times are written that a store has already, whatever the first rows of these files look like."""
    if len(options.time) > 1 or options.time_format is not None or options.time_unit is not None:
        spec = _first_time_spec(options, [])
    elif axis.unit is None:
        spec = TimeSpec("steps", options.time, None)
    else:
        seen = sniff_iso(options.time[0], [cells[options.time[0]] for cells in samples[0]])
        spec = seen if seen is not None and seen.kind == "iso" else TimeSpec("iso", options.time, axis.unit)
        spec = replace(spec, written=spec.written or spec.unit)
    return replace(spec, unit=axis.unit, zone=axis.zone is not None)


def _first_time_spec(options: TableOptions, texts: list[str], source: Source | None = None) -> TimeSpec:
    if len(options.time) > 1:
        if len(options.time) > len(PARTS) or len(options.time) < 3:
            raise UsageError(
                f"--time {','.join(options.time)}",
                expected="one column, or three to six: " + ", ".join(PARTS),
                fix="name the columns with --time, in this order",
            )
        return TimeSpec("parts", options.time, "s")
    column = options.time[0]
    if options.time_format is not None:
        form = check_format(options.time_format)
        return TimeSpec("format", options.time, unit_of(form), zone=has_zone(form), format=form)
    if options.time_unit == STEPS:
        return TimeSpec("steps", options.time, None)
    if options.time_unit is not None:
        if options.time_unit not in EPOCH_UNITS:
            raise UsageError(
                f"--time-unit {options.time_unit!r}",
                expected=f"one of {', '.join(EPOCH_UNITS)}, {STEPS}",
                fix="as in --time-unit ms",
            )
        unit, factor = EPOCH_UNITS[options.time_unit]
        return TimeSpec("epoch", options.time, unit, factor=factor)
    spec = sniff_iso(column, texts)
    flags = dates_or_epochs(texts) if spec is not None and spec.kind == "steps" else []
    if flags:
        raise SourceError(
            f"times such as {shorten(texts[len(texts) // 2])!r} in column {column!r}, which may be dates or epochs",
            expected="to be told how to read such numbers",
            where=f"{source.name}, in its first rows" if source is not None else "",
            fix=f"{' or '.join(flags)}; --time-unit {STEPS} if they do count steps",
        )
    if spec is None:
        raise SourceError(
            f"unreadable time {shorten(texts[0])!r} in column {column!r}",
            expected="ISO dates or dates and times, or whole numbers",
            where=f"{source.name} line 2" if source is not None else "",
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
        rule = axis.parse_freq(options.freq)
    except ValueError:
        rule = None
    if rule is None or (rule.kind == "rows" and axis.unit is not None):
        raise UsageError(
            f"--start {options.start} with --freq {options.freq}",
            expected="a date and a step such as 5min or MS, or two whole numbers",
            fix="choose another --start or --freq",
        )
    rule = UNIT_STEPS if rule.kind == "rows" else rule.begun(start)
    if not rule.fits(start):
        raise UsageError(
            f"--start {options.start} with --freq {options.freq}",
            expected=f"a first row that {rule.text} has",
            fix="choose another --start or --freq",
        )
    return TimeSpec("rows", (), axis.unit, start=start, rule=rule)


def _holds_text(
    column: str, sources: Sequence[Source], samples: Sequence[Sample], options: TableOptions, missing: MissingTexts
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


def _retyped(source: Source, problem: str, expected: str) -> SourceError:
    return SourceError(
        problem,
        expected=expected,
        where=f"{source.name}, in all of its first rows",
        fix="ingest files of different kinds into different stores, mend the file, or name columns of words that may "
        "look like numbers with --categories",
    )


def _all_columns(sources: Sequence[Source], allow_new: bool) -> list[str]:
    """The columns of the first file, and, where they are allowed, those that others add."""
    first = sources[0]
    columns = dict.fromkeys(first.header)
    for other in sources[1:]:
        lacking = [(column, "is missing") for column in first.header if column not in other.header]
        extra = [(column, "is not in the files before") for column in other.header if column not in columns]
        for column, problem in lacking + ([] if allow_new else extra):
            new = "--allow-new-channels, " if problem != "is missing" else ""
            raise SourceError(
                f"column {column!r} {problem}",
                expected=f"the columns of {first.name} (in any order): {', '.join(first.header)}",
                where=f"{other.name} line 1",
                fix=f"{new}ingest files of different columns into different stores, or mend the header",
            )
        columns.update(dict.fromkeys(other.header))
    return list(columns)


def _first_sample(source: Source, delimiter: str, missing: Sequence[str]) -> Sample:
    """Rows that hold a known cell of every column, if few have to be read for that."""
    sample = _sample(source, delimiter, _FIRST_BYTES)
    if all(any(row[column] not in missing for row in sample) for column in source.header):
        return sample
    return _sample(source, delimiter, _MORE_BYTES)


def _sample(source: Source, delimiter: str, n_bytes: int) -> Sample:
    content = read_source(source.file, source.body, source.body + n_bytes)
    if len(content) == n_bytes:
        content = content[: content.rfind(b"\n") + 1]
    records = split_records(content, delimiter, 0, 1)
    header = source.header
    return [dict(zip(header, r.fields, strict=True)) for r in records if r.fields and len(r.fields) == len(header)]
