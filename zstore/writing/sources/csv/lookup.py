"""CSV: where a row or a word stands, for messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow.compute as pc

from zstore.writing.sources.csv.blocks import read_block, read_bytes
from zstore.writing.sources.csv.record_limit import lines_before
from zstore.writing.sources.csv.records import Record, bad_record, is_blank, split_records
from zstore.writing.sources.csv.table import CsvBlock, CsvSpec
from zstore.writing.sources.table import BadRow, Columns


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
        if spec.offsets:
            n_columns = sum(name in block.source.header for name in spec.series)
            wanted = set((rows // n_columns).tolist())
        records = enumerate(_good_records(block, spec, columns))
        places += [f"{block.source.name} line {record.line:,}" for n, record in records if n in wanted]
        if len(places) >= limit:
            break
    return places[:limit]


def rows_at(blocks: Sequence[CsvBlock], spec: CsvSpec, numbers: Sequence[int]) -> list[BadRow]:
    """Some rows as bad ones, by their numbers among the good ones of some blocks, in tables with a record for each."""
    found: list[BadRow] = []
    first = 0
    for block in blocks:
        columns = read_block(block, spec, keep_bad=True)
        wanted = {number - first for number in numbers}.intersection(range(columns.n_rows))
        if wanted:
            records = enumerate(_good_records(block, spec, columns))
            found += [bad_record(record, block.source.name, "", "") for n, record in records if n in wanted]
        first += columns.n_rows
    return found


def _good_records(block: CsvBlock, spec: CsvSpec, columns: Columns) -> Iterator[Record]:
    """The records of a block that its columns were made of, with their lines in the file."""
    skipped = {bad.place.byte for bad in columns.bad}
    first_line = 1 + lines_before(block.source, block.start)
    records = split_records(read_bytes(block), spec.delimiter, block.start, first_line, block.source.framing)
    return (r for r in records if r.byte not in skipped and not is_blank(r, block.source.header))


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
