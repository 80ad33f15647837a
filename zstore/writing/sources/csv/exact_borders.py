"""CSV: where blocks begin and end, found by reading every quote before them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from zstore.writing.sources.csv.borders import near, next_record, nominal_ranges
from zstore.writing.sources.csv.record_limit import first_long, long_record_error
from zstore.writing.sources.csv.records import fields_that_end, line_end, record_end
from zstore.writing.sources.csv.table import CsvBlock, CsvFile
from zstore.writing.sources.files import source_pieces
from zstore.writing.sources.protocol import RecutError

_PIECE_BYTES = 1 << 22
_DOUBLED = re.compile(rb'(?:""[^"]*+)++')


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
            borders += [next_record(source.file, (stop, 0), literal=True) for stop in wanted]
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
                    doubled = _DOUBLED.match(content, quote, end)
                    position = quote + 2 if doubled is None else doubled.end()
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
                yield near(start + newline + 1, wanted.pop())
            several = fields_that_end(delimiter).match(content, opened) if opened >= 0 else None
            if several is not None:  # the next field begins behind them
                position = several.end()
            else:
                inside, position = opened >= 0, stop + 1 if opened >= 0 else end
        before = content[position - 1 : position] if position else before
        start, content = start + position, content[position:]
        if wanted:
            near(start, wanted[-1])
    if wanted:
        yield near(source.file.n_bytes, wanted[-1])


def _commented_borders(source: CsvFile, wanted: list[int], delimiter: str) -> Iterator[int]:
    """As :func:`_quoted_borders` of a file with comments, whose quotes are none of its fields."""
    start, content = source.body, b""

    def take(first: int, stop: int) -> Iterator[int]:
        """The first records from `wanted` on, among lines without a quote that begin at `first`."""
        while wanted:
            newline = content.find(b"\n", max(first, wanted[-1] - 1 - start), stop)
            if start + first < wanted[-1] and newline < 0:
                break
            yield near(start + (first if start + first >= wanted[-1] else newline + 1), wanted.pop())

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
            near(start + len(content), wanted[-1])
            near(len(content), 0)  # it begins with a record, which has not ended yet
    if wanted:
        yield near(source.file.n_bytes, wanted[-1])
