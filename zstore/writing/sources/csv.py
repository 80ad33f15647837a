"""CSV: cut files into record-aligned blocks, and parse a block with pyarrow."""

from __future__ import annotations

import glob
import gzip
import os
import zlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as pacsv

from zstore.errors import SourceError
from zstore.writing.sources.records import judge, quotes_are_strict, shorten, split_records
from zstore.writing.sources.table import BadRow, Block, Columns, Source, TableSpec, as_numpy, text_array

SINGLE_ID = "0"
_COPY_BYTES = 1 << 22


def expand(patterns: Sequence[str | Path]) -> list[Path]:
    """Files that the user's paths and globs name, each once, in the order given.

    Raises
    ------
    SourceError
        If a path does not exist, is a folder or is empty, or a glob matches nothing.
    """
    found: dict[Path, None] = {}
    for pattern in map(str, patterns):
        matches = sorted(glob.glob(pattern)) if glob.has_magic(pattern) and not Path(pattern).exists() else [pattern]
        if not matches:
            raise SourceError(f"no file matches {pattern!r}", expected="at least one", fix="check the pattern")
        found.update(dict.fromkeys(map(Path, matches)))
    for path in found:
        if not path.exists():
            raise SourceError(f"no such file ({path})", expected="a CSV file", fix="check the path")
        if not path.is_file():
            raise SourceError(f"not a file ({path})", expected="a CSV file", fix=f"name its files: '{path}/*.csv'")
        if path.stat().st_size == 0:
            raise SourceError(f"empty file ({path})", expected="a header line and rows", fix="leave it out")
    return list(found)


def is_compressed(path: Path) -> bool:
    """Whether a file must be inflated before blocks can be cut from it."""
    return path.suffix == ".gz"


def inflate(path: Path, target: Path) -> Path:
    """Inflate a gzip file into `target`, streaming.

    Raises
    ------
    SourceError
        If the file is cut short or damaged.
    """
    try:
        with gzip.open(path, "rb") as packed, target.open("wb") as plain:
            while piece := packed.read(_COPY_BYTES):
                plain.write(piece)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise SourceError(
            f"damaged gzip file ({path}): {error}", expected="a whole gzip stream", fix="fetch the file again"
        ) from error
    return target


def count_quotes(path: Path, start: int, stop: int) -> int:
    """Quote characters in a byte range; their parity tells whether a border lies inside a quoted field."""
    with path.open("rb") as file:
        file.seek(start)
        return file.read(stop - start).count(b'"')


def nominal_ranges(source: Source, blocksize: int) -> list[tuple[int, int]]:
    """Byte ranges of `blocksize` after the header, not yet aligned to records."""
    size = source.path.stat().st_size
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
    borders, inside = [source.body], 0
    with source.path.open("rb") as file:
        for (_, stop), found in zip(ranges, quotes, strict=True):
            inside = (inside + found) % 2
            borders.append(_next_record(file.fileno(), stop, inside))
    return [Block(source, a, b) for a, b in pairwise(borders) if b > a]


class UncountedQuotesError(Exception):
    """A block has quotes, though its borders were found as if there were none."""


def read_block(block: Block, spec: TableSpec, keep_bad: bool, quotes_counted: bool = True) -> Columns:
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
        table = _parse(content, block.source.header, spec)
        return _columns(table, spec, ())
    except (pa.ArrowInvalid, _RefusedError) as error:
        good, bad = _part(content, block, spec)
        if not bad:
            raise SourceError(
                f"cannot parse ({error})",
                expected="a CSV record",
                where=f"{block.source.name} from byte {block.start:,}",
            ) from error
        if not keep_bad:
            raise bad_row_error(bad[0]) from None
        return _columns(_parse(good, block.source.header, spec), spec, tuple(bad))


def read_bytes(block: Block) -> bytes:
    """The bytes of a block."""
    with block.source.path.open("rb") as file:
        file.seek(block.start)
        return file.read(block.stop - block.start)


def line_of(source: Source, byte: int) -> int:
    """Line of a byte of the file, counted from 1. Reads everything before it."""
    line, left = 1, byte
    with source.path.open("rb") as file:
        while left > 0 and (piece := file.read(min(_COPY_BYTES, left))):
            line += piece.count(b"\n")
            left -= len(piece)
    return line


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
        skipped = {bad.byte for bad in columns.bad}
        records = split_records(read_bytes(block), spec.delimiter, block.start, line_of(block.source, block.start))
        wanted = set(rows.tolist())
        good = (record for record in records if record.byte not in skipped)
        places += [f"{block.source.name} line {r.line:,}" for n, r in enumerate(good) if n in wanted]
        if len(places) >= limit:
            break
    return places[:limit]


class _RefusedError(Exception):
    """A block that pyarrow parses but that holds a row which must not be stored."""


def _parse(content: bytes, header: tuple[str, ...], spec: TableSpec) -> pa.Table:
    types: dict[str, pa.DataType] = dict.fromkeys(spec.channels, pa.float64())
    types[spec.time] = pa.int64() if spec.time_unit is None else pa.timestamp(spec.time_unit)
    if spec.id is not None:
        types[spec.id] = pa.dictionary(pa.int32(), pa.string())
    quoted = b'"' in content
    if quoted and not quotes_are_strict(content, spec.delimiter):
        raise _RefusedError("a quote stands where none may")
    if not content:
        return pa.schema([(name, types[name]) for name in spec.needed]).empty_table()
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
            include_columns=spec.needed,
            null_values=list(spec.missing),
            strings_can_be_null=False,
        ),
    )


def _columns(table: pa.Table, spec: TableSpec, bad: tuple[BadRow, ...]) -> Columns:
    time = table[spec.time]
    if time.null_count:
        raise _RefusedError("a time is missing")
    channels = [as_numpy(table[name], "float64") for name in spec.channels]
    times = as_numpy(time, "int64")  # timestamps are int64 underneath
    if spec.id is None:
        ids = text_array([SINGLE_ID] if len(times) else [])
        return Columns(ids, np.zeros(len(times), np.int32), times, channels, bad)
    column = table[spec.id].chunk(0) if table[spec.id].num_chunks == 1 else table[spec.id].combine_chunks()
    order = pc.sort_indices(column.dictionary)
    ids = column.dictionary.take(order)
    if len(ids) and ids[0].as_py() == "":
        raise _RefusedError("an id is empty")
    rank = np.empty(len(ids), np.int32)
    rank[as_numpy(order, "uint64")] = np.arange(len(ids), dtype=np.int32)
    return Columns(ids, rank[as_numpy(column.indices, "int32")], times, channels, bad)


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


def _next_record(descriptor: int, position: int, inside: int) -> int:
    """First byte after the next line break outside quotes, from a byte that lies inside quotes or not."""
    previous = os.pread(descriptor, 1, position - 1)
    if previous == b"\n" and not inside:
        return position
    while piece := os.pread(descriptor, 1 << 16, position):
        start = 0
        while (newline := piece.find(b"\n", start)) >= 0:
            inside = (inside + piece.count(b'"', start, newline)) % 2
            if not inside:
                return position + newline + 1
            start = newline + 1
        inside = (inside + piece.count(b'"', start)) % 2
        position += len(piece)
    return position
