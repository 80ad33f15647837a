"""CSV: where blocks begin and end, by the number of quotes before a byte, and when that is to be doubted."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise

import numpy as np

from zstore.storage.file import File
from zstore.storage.urls import is_remote
from zstore.writing.sources.csv.record_limit import MOST_RECORD_BYTES
from zstore.writing.sources.csv.table import Borders, CsvBlock, CsvFile
from zstore.writing.sources.files import read_source, source_pieces
from zstore.writing.sources.protocol import RecutError

_LOOK_BYTES = 1 << 16
_PIECE_BYTES = 1 << 22
_READERS = 16


def count_quotes(file: File, start: int, stop: int) -> int:
    """Quote characters in a byte range; their parity tells whether a border lies inside a quoted field."""
    return read_source(file, start, stop).count(b'"')


def nominal_ranges(source: CsvFile, blocksize: int) -> list[tuple[int, int]]:
    """Byte ranges after the header, cut at multiples of `blocksize`, and not yet aligned to records."""
    size, first = source.file.n_bytes, source.body // blocksize * blocksize + blocksize
    return list(pairwise([source.body, *range(first, size, blocksize), size])) if source.body < size else []


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
    following = partial(next_record, source.file, literal=source.framing.literal)
    if is_remote(str(source.file)):  # many short reads, each waiting for a bucket
        with ThreadPoolExecutor(_READERS) as pool:
            starts = [source.body, *pool.map(following, stops)]
    else:
        starts = [source.body, *map(following, stops)]
    return [CsvBlock(source, a, b, borders) for a, b in pairwise(starts) if b > a]


def next_record(file: File, border: tuple[int, int], literal: bool = False) -> int:
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
                return near(position + newline + 1, wanted)
            start = newline + 1
        position = near(position + len(piece), wanted)
    return position


def near(border: int, wanted: int) -> int:
    """A border that is not so far behind the byte where it was wanted that a record must be too long."""
    if border - wanted > MOST_RECORD_BYTES:
        raise RecutError
    return border


def check_borders(blocks: Sequence[CsvBlock]) -> None:
    """Raise a `RecutError` if any of some blocks has plain borders, and quotes before it. Reads up to it."""
    if any(block.borders == "plain" and _has_quotes_before(block.source, block.start) for block in blocks):
        raise RecutError


def _has_quotes_before(source: CsvFile, byte: int) -> bool:
    """Whether a quote stands between the header and a byte of the file. Reads up to it: only for errors."""
    return not source.framing.literal and any(
        b'"' in piece for piece in source_pieces(source.file, source.body, byte, _PIECE_BYTES)
    )
