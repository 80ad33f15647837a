"""CSV: cut files into record-aligned blocks, and parse a block with pyarrow."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv as pacsv

from zstore.arrow import as_numpy, text_array
from zstore.storage.file import File
from zstore.storage.urls import is_remote
from zstore.writing.sources.cells import Missing
from zstore.writing.sources.channels import Categories, ChannelValues, NumberValues
from zstore.writing.sources.csv.record_limit import (
    MOST_RECORD_BYTES,
    first_long,
    lines_before,
    long_record,
    long_record_error,
)
from zstore.writing.sources.csv.records import (
    Record,
    bad_record,
    is_blank,
    is_strict,
    is_utf8,
    judge,
    line_end,
    plain_records,
    record_end,
    split_records,
    without_blank_lines,
)
from zstore.writing.sources.csv.table import Borders, CsvBlock, CsvFile, CsvSpec
from zstore.writing.sources.files import read_source, source_pieces
from zstore.writing.sources.ids import joined_ids
from zstore.writing.sources.numbers import (
    NumberColumn,
    count_lost,
    count_newlines,
    encoded,
    from_arrow,
    from_words,
    is_suspect,
    may_lose_digits,
    reach,
)
from zstore.writing.sources.protocol import RecutError
from zstore.writing.sources.refused import RefusedError
from zstore.writing.sources.table import BadRow, Columns
from zstore.writing.sources.unroll import unrolled

SINGLE_ID = "0"
_LOOK_BYTES = 1 << 16
_MOST_HITS = 100
_READERS = 16
_PIECE_BYTES = 1 << 22


def count_quotes(file: File, start: int, stop: int) -> int:
    """Quote characters in a byte range; their parity tells whether a border lies inside a quoted field."""
    return read_source(file, start, stop).count(b'"')


def nominal_ranges(source: CsvFile, blocksize: int) -> list[tuple[int, int]]:
    """Byte ranges of `blocksize` after the header, not yet aligned to records."""
    size = source.file.n_bytes
    return [(start, min(start + blocksize, size)) for start in range(source.body, size, blocksize)]


def align(
    source: CsvFile, ranges: Sequence[tuple[int, int]], quotes: Sequence[int], borders: Borders = "counted"
) -> list[CsvBlock]:
    """Move every border forward to the next record.

    Parameters
    ----------
    source
        The file.
    ranges
        From :func:`nominal_ranges`.
    quotes
        Quote characters in each range.
    borders
        ``plain`` where they were not counted, and `quotes` are zeros.

    Raises
    ------
    RecutError
        If no record begins within `MOST_RECORD_BYTES` of a border: one is too long, or quotes are no guide to it.
    """
    inside = np.cumsum(quotes) % 2
    stops = [(stop, int(odd)) for (_, stop), odd in zip(ranges, inside, strict=True)]
    following = partial(_next_record, source.file, literal=source.framing.literal)
    if is_remote(str(source.file)):  # many short reads, each waiting for a bucket
        with ThreadPoolExecutor(_READERS) as pool:
            starts = [source.body, *pool.map(following, stops)]
    else:
        starts = [source.body, *map(following, stops)]
    return [CsvBlock(source, a, b, borders) for a, b in pairwise(starts) if b > a]


def exact_blocks(source: CsvFile, blocksize: int, delimiter: str) -> list[CsvBlock]:
    """Blocks as of :func:`nominal_ranges` and :func:`align`, found by reading every quote before a border.

    A quote opens a field only at its beginning. One that stands elsewhere spoils its own record, and the parity that
    :func:`align` goes by from there on. Cost: some 0.3 us a quote, on one thread.

    Raises
    ------
    SourceError
        If a record, or a comment, is too long.
    """
    wanted = [stop for _, stop in nominal_ranges(source, blocksize)]
    borders = [source.body]
    try:
        if source.framing.literal:
            borders += [_next_record(source.file, (stop, 0), literal=True) for stop in wanted]
        else:
            find = _quoted_borders if source.framing.comment is None else _commented_borders
            for border in find(source, wanted[::-1], delimiter):
                borders.append(border)
    except RecutError:
        byte = first_long(source, borders[-1], source.file.n_bytes, delimiter)
        raise long_record_error(source, borders[-1] if byte is None else byte) from None
    return [CsvBlock(source, a, b, "exact") for a, b in pairwise(borders) if b > a]


def _quoted_borders(source: CsvFile, wanted: list[int], delimiter: str) -> Iterator[int]:
    """Where records begin next to the bytes `wanted`, the last first; raises as :func:`align`."""
    edges = (delimiter.encode(), b"\n")
    before, inside = b"\n", False
    start, content = source.body, b""
    for piece in source_pieces(source.file, source.body, source.file.n_bytes, _PIECE_BYTES):
        content += piece
        last = start + len(content) >= source.file.n_bytes
        position, end = 0, len(content) if last else len(content) - 1  # the byte behind a quote says what it is
        while position < end:
            quote = content.find(b'"', position, end)
            if inside:
                if quote >= 0 and content[quote + 1 : quote + 2] == b'"':
                    position = quote + 2
                    continue
                inside, position = quote < 0, quote + 1 if quote >= 0 else end
                continue
            opened = quote
            while opened >= 0 and (content[opened - 1 : opened] if opened else before) not in edges:
                opened = content.find(b'"', opened + 1, end)
            stop = opened if opened >= 0 else end
            while wanted:
                newline = content.find(b"\n", max(position, wanted[-1] - 1 - start), stop)
                if newline < 0:
                    break
                yield _near(start + newline + 1, wanted.pop())
            inside, position = opened >= 0, stop + 1 if opened >= 0 else end
        before = content[position - 1 : position] if position else before
        start, content = start + position, content[position:]
        if wanted:
            _near(start, wanted[-1])
    if wanted:
        yield _near(source.file.n_bytes, wanted[-1])


def _commented_borders(source: CsvFile, wanted: list[int], delimiter: str) -> Iterator[int]:
    """As :func:`_quoted_borders` of a file with comments, whose quotes are none of its fields."""
    start, content = source.body, b""

    def take(first: int, stop: int) -> Iterator[int]:
        """The first records from `wanted` on, among lines without a quote that begin at `first`."""
        while wanted:
            newline = content.find(b"\n", max(first, wanted[-1] - 1 - start), stop)
            if start + first < wanted[-1] and newline < 0:
                break
            yield _near(start + (first if start + first >= wanted[-1] else newline + 1), wanted.pop())

    for piece in source_pieces(source.file, source.body, source.file.n_bytes, _PIECE_BYTES):
        content += piece
        last = start + len(content) >= source.file.n_bytes
        position = 0
        while position < len(content):
            quote = content.find(b'"', position)
            stop = content.rfind(b"\n", position, len(content) if quote < 0 else quote) + 1
            yield from take(position, max(stop, position))
            position = max(stop, position)
            if quote < 0:
                break
            comment = source.framing.is_comment(content, position)
            end = line_end(content, position) if comment else record_end(content, position, delimiter)
            if end == len(content) and not last:
                break  # it may go on in the next piece
            position = end
        yield from take(position, position)
        start, content = start + position, content[position:]
        if wanted:
            _near(start + len(content), wanted[-1])
            _near(len(content), 0)  # it begins with a record, which has not ended yet
    if wanted:
        yield _near(source.file.n_bytes, wanted[-1])


def _near(border: int, wanted: int) -> int:
    """A border that is not so far behind the byte where it was wanted that a record must be too long."""
    if border - wanted > MOST_RECORD_BYTES:
        raise RecutError
    return border


def read_block(block: CsvBlock, spec: CsvSpec, keep_bad: bool) -> Columns:
    """Parse one block into typed columns.

    Parameters
    ----------
    block
        What to read.
    spec
        What the columns mean.
    keep_bad
        Leave bad rows out and return them, with their lines in the block, instead of raising on the first.

    Raises
    ------
    RecutError
        If its borders are plain ones, and it has quotes, or seems to have a bad row and there are quotes before it.
    SourceError
        On a bad row, naming file and line; on a record that is too long.
    """
    content, framing = read_bytes(block), block.source.framing
    if block.borders == "plain" and b'"' in content and not framing.literal:
        raise RecutError
    try:
        plain = plain_records(content, spec.delimiter, framing)
        if not is_strict(plain, spec.delimiter):
            raise RefusedError("a quote or a carriage return stands where none may")
        if not is_utf8(content):  # Arrow looks at the columns that are read
            raise RefusedError("a byte is not UTF-8")
        _check_lengths(content, block, spec, strict=framing.comment is None)
        plain, n_blank = _fewer_lines(plain, block.source.header)
        columns = _columns(plain, block.source, spec)
        columns = replace(columns, n_blank=columns.n_blank + n_blank)
    except (pa.ArrowInvalid, RefusedError):
        _check_lengths(content, block, spec, strict=False)
        columns = _read_judged(content, block, spec, keep_bad)
    if columns.bad and not keep_bad:
        doubt([block])
        raise below(columns.bad[0], lines_before(block.source, block.start)).error()
    return replace(columns, tallies=(count_newlines(content),)) if keep_bad else columns


def doubt(blocks: Sequence[CsvBlock]) -> None:
    """Raise a `RecutError` if any of some blocks has plain borders, and quotes before it. Reads up to it."""
    if any(block.borders == "plain" and has_quotes_before(block.source, block.start) for block in blocks):
        raise RecutError


def below(row: BadRow, n_lines: int) -> BadRow:
    """A bad row of a block, as one of the file that has `n_lines` before the block."""
    return replace(row, place=replace(row.place, line=row.place.line + n_lines))


def _check_lengths(content: bytes, block: CsvBlock, spec: CsvSpec, strict: bool) -> None:
    """Refuse a record that is too long. `strict` if quotes are as RFC 4180 has them, and there are no comments."""
    if block.n_bytes <= MOST_RECORD_BYTES or (strict and long_record(content, MOST_RECORD_BYTES) is None):
        return
    byte = first_long(block.source, block.start, block.stop, spec.delimiter)
    if byte is not None:
        doubt([block])
        raise long_record_error(block.source, byte)


def _fewer_lines(content: bytes, header: tuple[str, ...]) -> tuple[bytes, int]:
    """Strict CSV without its blank lines, and how many they were, if it has more lines than rows fit into it.

    Arrow makes a row of each, which takes many times the memory of a line break.
    """
    n_lines = count_newlines(content)
    if len(header) == 1 or n_lines * (len(header) + 1) <= len(content):
        return content, 0
    fewer = without_blank_lines(content)
    return fewer, n_lines - count_newlines(fewer)


def _read_judged(content: bytes, block: CsvBlock, spec: CsvSpec, keep_bad: bool) -> Columns:
    """Parse the records of a block that are good one by one; what Arrow refuses of those is bad as well.

    Unless `keep_bad`, nothing is read behind the first bad one.
    """
    good, bad, n_blank = _part(content, block, spec, keep_bad)
    try:
        columns = _columns(_joined(good, block.source, spec), block.source, spec, judged=True)
    except (pa.ArrowInvalid, RefusedError):
        unread = _refused(good, block.source, spec)
        bad = sorted([*bad, *unread], key=lambda row: row.place.byte)
        refused = {row.place.byte for row in unread}
        rest = [record for record in good if record.byte not in refused]
        columns = _columns(_joined(rest, block.source, spec), block.source, spec, judged=True)
    return replace(columns, bad=tuple(bad), n_records=columns.n_records + len(bad), n_blank=n_blank)


def _refused(records: list[Record], source: CsvFile, spec: CsvSpec) -> list[BadRow]:
    """The records that Arrow cannot read, found by halving; each is named with its line."""
    try:
        _columns(_joined(records, source, spec), source, spec, judged=True)
        return []
    except (pa.ArrowInvalid, RefusedError) as error:
        if len(records) > 1:
            middle = len(records) // 2
            return _refused(records[:middle], source, spec) + _refused(records[middle:], source, spec)
        reason = f"a cell that cannot be stored ({str(error).splitlines()[0]})"
        return [bad_record(records[0], source.name, reason, "cells as in the other rows")]


def _joined(records: Sequence[Record], source: CsvFile, spec: CsvSpec) -> bytes:
    """Records as plain CSV."""
    return plain_records(b"".join(record.raw for record in records), spec.delimiter, source.framing)


def read_bytes(block: CsvBlock) -> bytes:
    """The bytes of a block."""
    return read_source(block.source.file, block.start, block.stop)


def has_quotes_before(source: CsvFile, byte: int) -> bool:
    """Whether a quote stands between the header and a byte of the file. Reads up to it: only for errors."""
    return not source.framing.literal and any(
        b'"' in piece for piece in source_pieces(source.file, source.body, byte, _PIECE_BYTES)
    )


def find_rows(blocks: Sequence[CsvBlock], spec: CsvSpec, id_: str, time: int, limit: int) -> list[str]:
    """Places, as ``file line n``, of the rows of one id at one time. A slow look for error messages."""
    places: list[str] = []
    for block in blocks:
        columns = read_block(block, spec, keep_bad=True)
        code = pc.index(columns.ids, id_).as_py()
        rows = np.flatnonzero((columns.codes == code) & (columns.times == time))
        if not len(rows):
            continue
        n_good = columns.n_records - len(columns.bad)
        wanted = set((rows % max(n_good, 1)).tolist())  # a wide table has its rows series by series
        if spec.across:
            wanted = set((np.cumsum(columns.times == spec.time.start) - 1)[rows].tolist())
        skipped = {bad.place.byte for bad in columns.bad}
        first_line = 1 + lines_before(block.source, block.start)
        records = split_records(read_bytes(block), spec.delimiter, block.start, first_line, block.source.framing)
        good = (r for r in records if r.byte not in skipped and not is_blank(r, block.source.header))
        places += [f"{block.source.name} line {r.line:,}" for n, r in enumerate(good) if n in wanted]
        if len(places) >= limit:
            break
    return places[:limit]


def find_word(blocks: Sequence[CsvBlock], spec: CsvSpec, column: str, word: str) -> str:
    """Where a word first stands in a column, as ``file line n``. A slow look for error messages."""
    for block in blocks:
        content, header = read_bytes(block), block.source.header
        if column not in header or word.encode() not in content.replace(b'""', b'"'):
            continue
        position = header.index(column)
        first = 1 + lines_before(block.source, block.start)
        for record in split_records(content, spec.delimiter, block.start, first, block.source.framing):
            if record.fields and len(record.fields) == len(header) and record.fields[position] == word:
                return f"{block.source.name} line {record.line:,}"
    return blocks[0].source.name


def _parse(
    content: bytes,
    header: tuple[str, ...],
    spec: CsvSpec,
    as_words: Collection[str],
    judged: bool,
    once: bool = True,
    skip_blank: bool = True,
) -> Any:
    """The needed columns of a block, or only those `as_words`; these, and with `judged` numbers and times, as texts.

    Texts are dictionary-encoded if `once`, so that each is looked at once. Unless `skip_blank`, a blank line is a row
    of empty cells; under a single column it always is, since it may be a missing value there.
    """
    words = pa.dictionary(pa.int32(), pa.string()) if once else pa.string()
    types: dict[str, pa.DataType] = {
        name: words if judged or name in as_words or not _is_plain(name, spec) else pa.float64()
        for name in spec.numbers
    }
    types.update(dict.fromkeys([*spec.texts, *spec.id_names], words))
    as_texts = judged or spec.has_own_missing_times or not set(spec.time.columns).isdisjoint(as_words)
    types.update(spec.time.arrow_types(as_texts))
    needed = [name for name in spec.needed if name in header]
    if as_words:
        needed = [name for name in needed if name in as_words]
    quoted = b'"' in content
    if not content:
        return pa.schema([(name, types[name]) for name in needed]).empty_table()
    return pacsv.read_csv(
        pa.BufferReader(content),
        pacsv.ReadOptions(use_threads=False, column_names=header, block_size=len(content) + 1),
        pacsv.ParseOptions(
            delimiter=spec.delimiter,
            quote_char='"' if quoted else False,
            newlines_in_values=quoted,
            ignore_empty_lines=skip_blank and len(header) > 1,
        ),
        pacsv.ConvertOptions(
            column_types=types,
            include_columns=needed,
            null_values=[] if judged else sorted(spec.null_texts),
            strings_can_be_null=False,
            decimal_point=spec.decimal,
            timestamp_parsers=[pacsv.ISO8601],
        ),
    )


def _with_times_as_words(table: Any, content: bytes, header: tuple[str, ...], spec: CsvSpec) -> Any:
    words = _parse(content, header, spec, spec.time.columns, judged=False)
    for name in spec.time.columns:
        table = table.set_column(table.column_names.index(name), name, words[name])
    return table


def _is_plain(column: str, spec: CsvSpec) -> bool:
    """Whether Arrow reads a column of numbers itself: so it does unless groups, signs or texts of its own are in it."""
    style, missing = spec.styles[column]
    return style.plain and missing.texts.keys() == spec.null_texts


def _columns(content: bytes, source: CsvFile, spec: CsvSpec, judged: bool = False) -> Columns:
    """The columns of a block, if all of its rows are good.

    With `judged`, every record was judged before, and numbers are read as the judge reads them. Else a cell of which
    Arrow and the judge may think differently raises `RefusedError`.
    """
    table = _parse(content, source.header, spec, (), judged, skip_blank=judged)
    n_blank = 0
    if not judged and _may_have_blank(table, content):
        table = _parse(content, source.header, spec, (), judged)
        n_blank = _count_blank(content, source, table.num_rows)
    if spec.time.whole and not judged and _has_hexadecimal(content):  # which Arrow takes for a number
        table = _with_times_as_words(table, content, source.header, spec)
    times = _times(table, spec)
    numbers = _numbers(table, content, source, spec)
    seen = frozenset[str]().union(*(column.seen for column in numbers.values()))
    if not judged:
        seen |= _seen_texts(content, table, source, spec, seen)
    if spec.across:
        codes, ids = _ids(table, spec)
        return replace(
            unrolled(codes, ids, [numbers[n] for n in spec.series if n in numbers], spec, seen), n_blank=n_blank
        )
    if spec.series:
        return replace(_melt(table, times, source, spec, numbers, seen), n_blank=n_blank)
    channels: list[ChannelValues] = []
    for channel in spec.channels:
        if channel.column not in source.header:  # a channel that other files add
            channels.append((Categories if channel.text else NumberValues).missing(len(times)))
        elif channel.text:
            column, named = _categories(table[channel.column], spec.missing.of_words(channel.column))
            channels.append(column)
            seen |= named
        else:
            numbered = numbers[channel.column]
            channels.append(
                NumberValues(numbered.values if numbered.sides is None or not channel.sides else numbered.sides)
            )
    lost = [numbers[c.column].n_lost if c.column in numbers and not c.sides else 0 for c in spec.channels]
    if spec.id is None:
        ids = text_array([source.id or SINGLE_ID] if len(times) else [])
        codes = np.zeros(len(times), np.int32)
    else:
        codes, ids = _ids(table, spec)
    return Columns(ids, codes, times, channels, (), len(times), n_blank, tuple(lost), seen)


def _ids(table: Any, spec: CsvSpec) -> tuple[NDArray[np.int32], Any]:
    """(row,) codes and the distinct ids that they stand for, sorted by their UTF-8 bytes."""
    parts = [_encoded(table[name]) for name in spec.id_names]
    if any(len(words) and words[0].as_py() == "" for _, words in parts):
        raise RefusedError("an id is empty")
    return parts[0] if len(parts) == 1 else joined_ids(parts)


def _times(table: Any, spec: CsvSpec) -> NDArray[np.int64]:
    times = spec.time.read(table, table.num_rows)
    for name, missing in spec.missing_times.items():
        if pa.types.is_dictionary(table[name].type):
            _, texts = encoded(table[name])
            if pc.any(pc.is_in(texts, value_set=text_array(sorted(missing)))).as_py():
                raise RefusedError("a time is missing")
    return times


def _numbers(table: Any, content: bytes, source: CsvFile, spec: CsvSpec) -> dict[str, NumberColumn]:
    """The columns of numbers that a file has, by name."""
    names = [name for name in spec.styles if name in source.header]
    parsed = {name: table[name] for name in names if pa.types.is_floating(table[name].type)}
    farthest = {name: reach(column) for name, column in parsed.items()}
    suspects = {name for name in parsed if is_suspect(farthest[name], spec.largest)}
    again = _parse(content, source.header, spec, suspects, judged=False) if suspects else table
    numbers = {}
    for name in names:
        style, missing = spec.styles[name]
        if name in parsed and name not in suspects:
            numbers[name] = from_arrow(parsed[name], missing)
        else:
            numbers[name] = from_words(again[name], style, missing, spec.largest, spec.dtype)
    clear = [name for name in parsed if name not in suspects]
    far = max((farthest[name] for name in clear), default=0.0)
    if clear and may_lose_digits(content, spec.decimal, [parsed[name] for name in clear], far, spec.dtype):
        again = _parse(content, source.header, spec, clear, judged=False, once=False)
        for name in clear:
            lost = count_lost(again[name], numbers[name].values, spec.styles[name][0], spec.dtype)
            numbers[name] = replace(numbers[name], n_lost=lost)
    return numbers


def _seen_texts(content: bytes, table: Any, source: CsvFile, spec: CsvSpec, seen: frozenset[str]) -> frozenset[str]:
    """Which of the texts that the user named for every column, and Arrow has taken for missing, are in a block."""
    columns = [name for name in spec.styles if name in source.header and table[name].null_count]
    if not columns:
        return frozenset()
    sure = {
        text: _stands_in(content, text, columns, source.header, spec) for text in spec.tracked & spec.null_texts - seen
    }
    found = {text for text, stands in sure.items() if stands}
    wanted = [text for text, stands in sure.items() if stands is None]
    if wanted:
        again = _parse(content, source.header, spec, columns, judged=False)
        words = [encoded(again[name])[1] for name in columns]
        found |= {w for some in words for w in some.filter(pc.is_in(some, value_set=text_array(wanted))).to_pylist()}
    return frozenset(found)


def _stands_in(
    content: bytes, text: str, columns: Sequence[str], header: tuple[str, ...], spec: CsvSpec
) -> bool | None:
    """Whether a cell of some columns is a text; None where that would take long to say."""
    wanted, delimiter, position = text.encode(), spec.delimiter.encode(), -1
    for _ in range(_MOST_HITS):
        position = content.find(wanted, position + 1)
        if position < 0:
            return None if b'"' in content and wanted in content else False
        start, stop = content.rfind(b"\n", 0, position) + 1, position + len(wanted)
        whole = content[position - 1 : position] in (delimiter, b"\n", b"") and (
            content[stop : stop + 1] in (delimiter, b"\n", b"\r", b"")
        )
        if whole and content.find(b'"', start, position) < 0:
            place = content.count(delimiter, start, position)
            if place < len(header) and header[place] in columns:
                return True
    return None


def _encoded(column: Any) -> tuple[NDArray[np.int32], Any]:
    """(row,) codes and the distinct texts they stand for, sorted by their UTF-8 bytes."""
    codes, words = encoded(column)
    order = pc.sort_indices(words)
    rank = np.empty(len(order), np.int32)
    rank[as_numpy(order, "uint64")] = np.arange(len(order), dtype=np.int32)
    return rank[codes], words.take(order)


def _categories(column: Any, missing: Missing) -> tuple[Categories, frozenset[str]]:
    """A column of words, and what names those of it that are missing."""
    codes, words = _encoded(column)
    is_missing = pc.is_in(words, value_set=text_array(list(missing.texts)))
    absent = as_numpy(is_missing.cast(pa.int8()), "int8").astype(bool)
    place = np.where(absent, -1, np.cumsum(~absent) - 1).astype(np.int32)
    seen = frozenset(missing.texts[word] for word in words.filter(is_missing).to_pylist())
    return Categories(place[codes], words.filter(pc.invert(is_missing))), seen


def _melt(
    table: Any,
    times: NDArray[np.int64],
    source: CsvFile,
    spec: CsvSpec,
    numbers: dict[str, NumberColumn],
    seen: frozenset[str],
) -> Columns:
    """A wide table of series: one row per record and column."""
    names = sorted((name for name in spec.series if name in source.header), key=str.encode)
    values = NumberValues(np.concatenate([np.zeros(0), *(numbers[name].values for name in names)]))
    codes = np.repeat(np.arange(len(names), dtype=np.int32), len(times))
    ids = text_array(names if len(times) else [])
    lost = sum(column.n_lost for column in numbers.values())
    return Columns(ids, codes, np.tile(times, len(names)), [values], (), len(times), n_lost=(lost,), seen=seen)


def _has_hexadecimal(content: bytes) -> bool:
    """Whether a hexadecimal number may stand anywhere. One byte is looked for first, which is many times as fast."""
    return any(mark[1:] in content and mark in content for mark in (b"0x", b"0X"))


def _may_have_blank(table: Any, content: bytes) -> bool:
    """Whether any record of a block may be a blank line: every column has an empty cell, and line breaks follow."""
    if not all(_has_empty(column) for column in table.columns):
        return False
    starts = content.startswith((b"\n", b"\r\n"))
    return starts or b"\n\n" in content or (b"\r" in content and b"\n\r\n" in content)


def _has_empty(column: Any) -> bool:
    """Whether a parsed column has a missing cell, or an empty text."""
    if not pa.types.is_dictionary(column.type):
        return bool(column.null_count)
    return bool(pc.any(pc.is_in(encoded(column)[1], value_set=text_array([""]))).as_py())


def _count_blank(content: bytes, source: CsvFile, n_records: int) -> int:
    """Lines without a byte that Arrow has passed over.

    Raises
    ------
    RefusedError
        If one stands under a single column, where it would be a missing value.
    """
    if b'"' not in content:
        n_lines = count_newlines(content)
    else:
        octets = np.frombuffer(content, np.uint8)
        quotes = np.flatnonzero(octets == ord('"'))
        n_lines = int(np.count_nonzero(np.searchsorted(quotes, np.flatnonzero(octets == ord("\n"))) % 2 == 0))
    n_lines += bool(content) and not content.endswith(b"\n")
    if len(source.header) == 1:
        raise RefusedError("a blank line may be a missing value")
    return n_lines - n_records


def _part(content: bytes, block: CsvBlock, spec: CsvSpec, keep_bad: bool) -> tuple[list[Record], list[BadRow], int]:
    """The good records of a block, its bad rows, and how many lines are blank; lines are those of the block.

    Unless `keep_bad`, up to the first bad one.
    """
    good: list[Record] = []
    bad: list[BadRow] = []
    n_blank = 0
    for record in split_records(content, spec.delimiter, block.start, 1, block.source.framing):
        if is_blank(record, block.source.header):
            n_blank += 1
            continue
        wrong = judge(record, block.source.header, spec, block.source.name)
        if wrong is None:
            good.append(record)
        else:
            bad.append(wrong)
            if not keep_bad:
                break
    return good, bad, n_blank


def _next_record(file: File, border: tuple[int, int], literal: bool = False) -> int:
    """First byte after the next line break outside quotes, from a byte that lies inside quotes or not.

    Where lines are records (`literal`), a quote is nothing but a bad character. Raises as :func:`align`.
    """
    wanted, inside = border
    if wanted >= file.n_bytes:
        return file.n_bytes
    position, around = wanted, read_source(file, wanted - 1, wanted - 1 + _LOOK_BYTES)
    if around[:1] == b"\n" and not inside:
        return position
    while piece := around[1:] or read_source(file, position, position + _LOOK_BYTES):
        around, start = b"", 0
        while True:
            if inside:  # of all that is quoted, only where it ends is looked for
                quote = piece.find(b'"', start)
                if quote < 0:
                    break
                inside, start = 0, quote + 1
            newline = piece.find(b"\n", start)
            stop = len(piece) if newline < 0 else newline
            inside = 0 if literal else piece.count(b'"', start, stop) % 2
            if newline < 0:
                break
            if not inside:
                return _near(position + newline + 1, wanted)
            start = newline + 1
        position = _near(position + len(piece), wanted)
    return position
