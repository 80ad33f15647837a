"""CSV: cut files into record-aligned blocks, and parse a block with pyarrow."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv as pacsv

from zstore.errors import SourceError
from zstore.format.storage import File
from zstore.format.urls import is_remote
from zstore.writing.sources.arrow import RefusedError, as_numpy, text_array
from zstore.writing.sources.files import read_source, source_pieces
from zstore.writing.sources.records import is_strict, judge, shorten, split_records
from zstore.writing.sources.table import BadRow, Block, Categories, Columns, Source, TableSpec

SINGLE_ID = "0"
_LOOK_BYTES = 1 << 16
_READERS = 16
_PIECE_BYTES = 1 << 22


def count_quotes(file: File, start: int, stop: int) -> int:
    """Quote characters in a byte range; their parity tells whether a border lies inside a quoted field."""
    return read_source(file, start, stop).count(b'"')


def nominal_ranges(source: Source, blocksize: int) -> list[tuple[int, int]]:
    """Byte ranges of `blocksize` after the header, not yet aligned to records."""
    size = source.file.n_bytes
    return [(start, min(start + blocksize, size)) for start in range(source.body, size, blocksize)]


def align(source: Source, ranges: Sequence[tuple[int, int]], quotes: Sequence[int]) -> list[Block]:
    """Move every border forward to the next record.

    Parameters
    ----------
    source
        The file.
    ranges
        From :func:`nominal_ranges`.
    quotes
        Quote characters in each range.
    """
    inside = np.cumsum(quotes) % 2
    stops = [(stop, int(odd)) for (_, stop), odd in zip(ranges, inside, strict=True)]
    with ThreadPoolExecutor(_READERS) as pool:  # many short reads, each waiting for a bucket
        run = pool.map if is_remote(str(source.file)) else map
        borders = [source.body, *run(partial(_next_record, source.file), stops)]
    return [Block(source, a, b) for a, b in pairwise(borders) if b > a]


class UncountedQuotesError(Exception):
    """A block has quotes, though its borders were found as if there were none."""


def read_block(
    block: Block, spec: TableSpec, keep_bad: bool, quotes_counted: bool = True, judge_all: bool = False
) -> Columns:
    """Parse one block into typed columns.

    Parameters
    ----------
    block
        What to read.
    spec
        What the columns mean.
    keep_bad
        Leave bad rows out and return them, instead of raising on the first.
    quotes_counted
        Whether the quotes before the block are known, so that its borders are right.
    judge_all
        Judge every record, also where Arrow finds nothing wrong: it takes a number that is too large for infinity.

    Raises
    ------
    UncountedQuotesError
        If they are not, and the block has quotes.
    SourceError
        On a bad row, naming file and line.
    """
    content = read_bytes(block)
    if not quotes_counted and b'"' in content:
        raise UncountedQuotesError
    try:
        if judge_all and _part(content, block, spec)[1]:
            raise RefusedError("a number is too large")
        table = _parse(content, block.source.header, spec)
        if spec.time.whole and (b"0x" in content or b"0X" in content):  # Arrow takes hexadecimal numbers
            table = _with_times_as_words(table, content, block.source.header, spec)
        return _columns(table, block, spec, ())
    except (pa.ArrowInvalid, RefusedError) as error:
        good, bad = _part(content, block, spec)
        if bad and not keep_bad:
            raise bad_row_error(bad[0]) from None
        try:
            # Times one by one: the strict reader takes some that Arrow does not, such as those with more zeros.
            return _columns(_parse(good, block.source.header, spec, times_as_words=True), block, spec, tuple(bad))
        except (pa.ArrowInvalid, RefusedError):
            raise SourceError(
                f"cannot parse ({error})",
                expected="a CSV record",
                where=f"{block.source.name} from byte {block.start:,}",
            ) from error


def read_bytes(block: Block) -> bytes:
    """The bytes of a block."""
    return read_source(block.source.file, block.start, block.stop)


def line_of(source: Source, byte: int) -> int:
    """Line of a byte of the file, counted from 1. Reads everything before it."""
    return 1 + sum(piece.count(b"\n") for piece in source_pieces(source.file, 0, byte, _PIECE_BYTES))


def bad_row_error(bad: BadRow) -> SourceError:
    """A bad row as the error that refuses the ingest."""
    return SourceError(
        bad.reason,
        expected=bad.expected,
        where=f"{bad.source} line {bad.line:,}: {shorten(bad.raw)!r}",
        fix="--on-bad-row quarantine to set such rows aside, or clean the file",
    )


def find_rows(blocks: Sequence[Block], spec: TableSpec, id_: str, time: int, limit: int) -> list[str]:
    """Places, as ``file line n``, of the rows of one id at one time. A slow look for error messages."""
    places: list[str] = []
    for block in blocks:
        columns = read_block(block, spec, keep_bad=True)
        code = pc.index(columns.ids, id_).as_py()
        rows = np.flatnonzero((columns.codes == code) & (columns.times == time))
        if not len(rows):
            continue
        n_good = columns.n_records - len(columns.bad)
        wanted = set((rows % n_good).tolist())  # a wide table has its rows series by series
        skipped = {bad.byte for bad in columns.bad}
        records = split_records(read_bytes(block), spec.delimiter, block.start, line_of(block.source, block.start))
        good = (record for record in records if record.byte not in skipped)
        places += [f"{block.source.name} line {r.line:,}" for n, r in enumerate(good) if n in wanted]
        if len(places) >= limit:
            break
    return places[:limit]


def _with_times_as_words(table: pa.Table, content: bytes, header: tuple[str, ...], spec: TableSpec) -> pa.Table:
    words = _parse(content, header, spec, times_as_words=True)
    for name in spec.time.columns:
        table = table.set_column(table.column_names.index(name), name, words[name])
    return table


def _parse(content: bytes, header: tuple[str, ...], spec: TableSpec, times_as_words: bool = False) -> pa.Table:
    words = pa.dictionary(pa.int32(), pa.string())
    types: dict[str, pa.DataType] = dict.fromkeys(spec.numbers, pa.float64())
    types.update(dict.fromkeys([*spec.texts, *([spec.id] if spec.id is not None else [])], words))
    types.update(spec.time.arrow_types(times_as_words))
    needed = [name for name in spec.needed if name in header]
    quoted = b'"' in content
    if not is_strict(content, spec.delimiter):
        raise RefusedError("a quote or a carriage return stands where none may")
    if not content:
        return pa.schema([(name, types[name]) for name in needed]).empty_table()
    return pacsv.read_csv(
        pa.BufferReader(content),
        pacsv.ReadOptions(use_threads=False, column_names=header, block_size=len(content) + 1),
        pacsv.ParseOptions(
            delimiter=spec.delimiter,
            quote_char='"' if quoted else False,
            newlines_in_values=quoted,
            ignore_empty_lines=False,
        ),
        pacsv.ConvertOptions(
            column_types=types,
            include_columns=needed,
            null_values=list(spec.missing),
            strings_can_be_null=False,
            decimal_point=spec.decimal,
            timestamp_parsers=[pacsv.ISO8601],
        ),
    )


def _columns(table: pa.Table, block: Block, spec: TableSpec, bad: tuple[BadRow, ...]) -> Columns:
    times = spec.time.read(table, table.num_rows)
    n_records = table.num_rows + len(bad)
    if spec.series:
        return _melt(table, times, block.source, spec, bad, n_records)
    channels: list[Any] = []
    for channel in spec.channels:
        if channel.column not in block.source.header:  # a channel that other files add
            channels.append(_all_missing(len(times), channel.text))
            continue
        column = table[channel.column]
        channels.append(_categories(column, spec.missing) if channel.text else as_numpy(column, "float64"))
    if spec.id is None:
        ids = text_array([block.source.id or SINGLE_ID] if len(times) else [])
        return Columns(ids, np.zeros(len(times), np.int32), times, channels, bad, n_records)
    codes, ids = _encoded(table[spec.id])
    if len(ids) and ids[0].as_py() == "":
        raise RefusedError("an id is empty")
    return Columns(ids, codes, times, channels, bad, n_records)


def _all_missing(n_rows: int, text: bool) -> NDArray[np.float64] | Categories:
    return Categories(np.full(n_rows, -1, np.int32), text_array([])) if text else np.full(n_rows, np.nan)


def _encoded(column: Any) -> tuple[NDArray[np.int32], Any]:
    """(row,) codes and the distinct texts they stand for, sorted by their UTF-8 bytes."""
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # no chunk at all
        return np.zeros(0, np.int32), text_array([])
    order = pc.sort_indices(array.dictionary)
    rank = np.empty(len(order), np.int32)
    rank[as_numpy(order, "uint64")] = np.arange(len(order), dtype=np.int32)
    return rank[as_numpy(array.indices, "int32")], array.dictionary.take(order)


def _categories(column: Any, missing: tuple[str, ...]) -> Categories:
    codes, words = _encoded(column)
    absent = as_numpy(pc.is_in(words, value_set=text_array(missing)).cast(pa.int8()), "int8").astype(bool)
    place = np.where(absent, -1, np.cumsum(~absent) - 1).astype(np.int32)
    return Categories(place[codes], words.filter(pc.invert(pc.is_in(words, value_set=text_array(missing)))))


def _melt(
    table: pa.Table,
    times: NDArray[np.int64],
    source: Source,
    spec: TableSpec,
    bad: tuple[BadRow, ...],
    n_records: int,
) -> Columns:
    """A wide table of series: one row per record and column."""
    names = sorted((name for name in spec.series if name in source.header), key=str.encode)
    values = np.concatenate([as_numpy(table[name], "float64") for name in names])
    codes = np.repeat(np.arange(len(names), dtype=np.int32), len(times))
    ids = text_array(names if len(times) else [])
    return Columns(ids, codes, np.tile(times, len(names)), [values], bad, n_records)


def _part(content: bytes, block: Block, spec: TableSpec) -> tuple[bytes, list[BadRow]]:
    """Split a block into its good bytes and its bad rows."""
    good: list[bytes] = []
    bad: list[BadRow] = []
    first_line = line_of(block.source, block.start)
    for record in split_records(content, spec.delimiter, block.start, first_line):
        found = judge(record, block.source.header, spec, block.source.name)
        if found is None:
            good.append(record.raw)
        else:
            bad.append(found)
    return b"".join(good), bad


def _next_record(file: File, border: tuple[int, int]) -> int:
    """First byte after the next line break outside quotes, from a byte that lies inside quotes or not."""
    position, inside = border
    around = read_source(file, position - 1, position - 1 + _LOOK_BYTES)
    if around[:1] == b"\n" and not inside:
        return position
    while piece := around[1:] or read_source(file, position, position + _LOOK_BYTES):
        around = b""
        start = 0
        while (newline := piece.find(b"\n", start)) >= 0:
            inside = (inside + piece.count(b'"', start, newline)) % 2
            if not inside:
                return position + newline + 1
            start = newline + 1
        inside = (inside + piece.count(b'"', start)) % 2
        position += len(piece)
    return position
