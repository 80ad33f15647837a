"""CSV: one block as typed columns, all at once by Arrow, or record by record where there is a bad one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pyarrow as pa

from zstore.writing.sources.csv.borders import check_borders
from zstore.writing.sources.csv.columns import typed_columns
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
    plain_records,
    record_borders,
    split_records,
    without_blank_lines,
)
from zstore.writing.sources.csv.table import CsvBlock, CsvFile, CsvSpec
from zstore.writing.sources.digests import read_digested
from zstore.writing.sources.files import read_source
from zstore.writing.sources.join import join
from zstore.writing.sources.numbers import count_newlines
from zstore.writing.sources.protocol import RecutError
from zstore.writing.sources.refused import RefusedError
from zstore.writing.sources.table import BadRow, Columns, fix_of_row

_MOST_JUDGED_BYTES = 1 << 16
_PARTS = 16


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
    content, pieces = read_digested(block.source.file, block.start, block.stop)
    if block.borders == "plain" and b'"' in content and not block.source.framing.literal:
        raise RecutError
    columns = _parsed(content, block, spec, keep_bad)
    if columns.bad and not keep_bad:
        check_borders([block])
        raise below(columns.bad[0], lines_before(block.source, block.start)).error(fix_of_row(spec))
    return replace(columns, pieces=pieces, tallies=(count_newlines(content),) if keep_bad else ())


def _parsed(content: bytes, block: CsvBlock, spec: CsvSpec, keep_bad: bool) -> Columns:
    """The rows of a block, or of a part of one; lines are those of the part."""
    framing = block.source.framing
    try:
        plain = plain_records(content, spec.delimiter, framing)
        if not is_strict(plain, spec.delimiter):
            raise RefusedError("a quote or a carriage return stands where none may")
        if not is_utf8(content):  # Arrow looks at the columns that are read
            raise RefusedError("a byte is not UTF-8")
        _check_lengths(content, block, spec, strict=framing.comment is None)
        plain, n_blank = _fewer_lines(plain, block.source.header)
        columns = typed_columns(plain, block.source, spec)
        return replace(columns, n_blank=columns.n_blank + n_blank)
    except (pa.ArrowInvalid, RefusedError):
        _check_lengths(content, block, spec, strict=False)
    borders: list[int] = []
    if len(content) > _MOST_JUDGED_BYTES:
        borders = record_borders(content, spec.delimiter, _PARTS, framing)
    return _in_parts(content, borders, block, spec, keep_bad) if borders else _judged(content, block, spec, keep_bad)


def _in_parts(content: bytes, borders: Sequence[int], block: CsvBlock, spec: CsvSpec, keep_bad: bool) -> Columns:
    """The rows of a block part by part, so that few records are judged one by one for a bad one among them.

    Unless `keep_bad`, nothing is read behind the first part that has a bad row.
    """
    parts: list[Columns] = []
    n_lines = 0
    for start, stop in pairwise([0, *borders, len(content)]):
        some = content[start:stop]
        part = replace(block, start=block.start + start, stop=block.start + stop)
        columns = _parsed(some, part, spec, keep_bad)
        parts.append(replace(columns, bad=tuple(below(row, n_lines) for row in columns.bad)))
        if columns.bad and not keep_bad:
            break
        n_lines += count_newlines(some)
    return join(parts)


def read_bytes(block: CsvBlock) -> bytes:
    """The bytes of a block."""
    return read_source(block.source.file, block.start, block.stop)


def below(row: BadRow, n_lines: int) -> BadRow:
    """A bad row of a block, as one of the file that has `n_lines` before the block."""
    return replace(row, place=replace(row.place, line=row.place.line + n_lines))


def _check_lengths(content: bytes, block: CsvBlock, spec: CsvSpec, strict: bool) -> None:
    """Refuse a record that is too long. `strict` if quotes are as RFC 4180 has them, and there are no comments."""
    if block.n_bytes <= MOST_RECORD_BYTES or (strict and long_record(content, MOST_RECORD_BYTES) is None):
        return
    byte = first_long(block.source, block.start, block.stop, spec.delimiter)
    if byte is not None:
        check_borders([block])
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


def _judged(content: bytes, block: CsvBlock, spec: CsvSpec, keep_bad: bool) -> Columns:
    """Parse the records of a block that are good one by one; what Arrow refuses of those is bad as well.

    Unless `keep_bad`, nothing is read behind the first bad one.
    """
    good, bad, n_blank = _good_and_bad(content, block, spec, keep_bad)
    try:
        columns = typed_columns(_joined(good, block.source, spec), block.source, spec, judged=True)
    except (pa.ArrowInvalid, RefusedError):
        unread = _refused(good, block.source, spec)
        bad = sorted([*bad, *unread], key=lambda row: row.place.byte)
        refused = {row.place.byte for row in unread}
        rest = [record for record in good if record.byte not in refused]
        columns = typed_columns(_joined(rest, block.source, spec), block.source, spec, judged=True)
    return replace(columns, bad=tuple(bad), n_records=columns.n_records + len(bad), n_blank=n_blank)


def _good_and_bad(
    content: bytes, block: CsvBlock, spec: CsvSpec, keep_bad: bool
) -> tuple[list[Record], list[BadRow], int]:
    """The good records of a block, its bad rows, and how many lines are blank; lines are those of the block.

    Unless `keep_bad`, up to the first bad one.
    """
    good: list[Record] = []
    bad: list[BadRow] = []
    n_blank = 0
    n_columns = len(block.source.header)
    for record in split_records(content, spec.delimiter, block.start, 1, block.source.framing, n_columns):
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


def _refused(records: list[Record], source: CsvFile, spec: CsvSpec) -> list[BadRow]:
    """The records that Arrow cannot read, found by halving; each is named with its line."""
    try:
        typed_columns(_joined(records, source, spec), source, spec, judged=True)
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
