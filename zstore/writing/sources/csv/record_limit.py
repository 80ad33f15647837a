"""The most bytes of a CSV record: none is read that may be longer, whatever its quotes and line ends say."""

from __future__ import annotations

from zstore.errors import SourceError
from zstore.writing.sources.csv.records import line_end, record_end
from zstore.writing.sources.csv.table import CsvFile
from zstore.writing.sources.files import read_source, source_pieces

MOST_RECORD_BYTES = 1 << 26
"""Bytes of a record with its line break, of a comment, and of all lines above the rows.

A record has to lie in memory as a whole, and parsing makes some copies of it. A header of a million columns is shorter;
what is longer is a field that somebody forgot to close, or no table at all.
"""

_PIECE_BYTES = 1 << 22
_SHOWN_BYTES = 60


def lines_before(source: CsvFile, byte: int) -> int:
    """Line breaks before a byte of the file. Reads all before it: only for headers and for errors."""
    return sum(piece.count(b"\n") for piece in source_pieces(source.file, 0, byte, _PIECE_BYTES))


def long_record(content: bytes, most: int) -> int | None:
    """Where the first record of more than `most` bytes begins; None if there is none.

    Parameters
    ----------
    content
        Record-aligned CSV, all of it strict.
    most
        Bytes of a record, with its line break.

    Notes
    -----
    Cost: one count of the quotes. From where a record begins it goes `most` bytes ahead, and from there back to where
    any record ends.
    """
    position = 0
    while len(content) - position > most:
        stop = position + most
        inside = content.count(b'"', position, stop) % 2
        while True:
            newline = -1 if inside else content.rfind(b"\n", position, stop)
            if newline < 0 and not inside:
                return position
            quote = content.rfind(b'"', max(newline, position), stop)
            if quote < 0:
                break
            inside, stop = 1 - inside, quote
        position = newline + 1
    return None


def first_long(source: CsvFile, start: int, stop: int, delimiter: str) -> int | None:
    """Where a record, or a comment, of more than :data:`MOST_RECORD_BYTES` begins; None if there is none.

    Parameters
    ----------
    source
        The file.
    start, stop
        Bytes where it may begin, of which the first begins a record.
    delimiter
        Between fields.

    Notes
    -----
    Slow: goes from record to record. It has at most that many bytes in memory.
    """
    while start < stop:
        content = read_source(source.file, start, start + MOST_RECORD_BYTES + 1)
        position = 0
        while position < len(content):
            end = line_end(content, position)
            lines = source.framing.literal or source.framing.is_comment(content, position)
            if not lines and content.find(b'"', position, end) >= 0:
                end = record_end(content, position, delimiter)
            if end - position > MOST_RECORD_BYTES or (end == len(content) and start + end < source.file.n_bytes):
                break
            position = end
        if position == 0:
            return start
        start += position
    return None


def long_record_error(source: CsvFile, start: int) -> SourceError:
    """The error that refuses the record at a byte of a file."""
    head = read_source(source.file, start, min(start + MOST_RECORD_BYTES, source.file.n_bytes))
    return long_error(
        head, source.framing.is_comment(head, 0), f"{source.name} line {lines_before(source, start) + 1:,}"
    )


def long_error(head: bytes, comment: bool, where: str) -> SourceError:
    """The error that refuses a record, or a comment, by its first bytes and where it begins."""
    if comment:
        what, fix = "comment", "shorten the comment, or drop --comment if it is a row"
    elif b"\0" in head:
        what, fix = "record", "fetch the file again if zeros fill it up, or name its encoding with --encoding"
    elif b"\n" not in head and b"\r" in head:
        what, fix = "record", "write the file with line feeds: its lines end in carriage returns alone"
    elif b'"' in head:
        what, fix = "record", "close the quote that is open there"
    else:
        what, fix = "record", "check that it is a table, and break the line where a row ends"
    shown = head[:_SHOWN_BYTES].decode("utf-8", "backslashreplace")
    return SourceError(
        f"a {what} of more than {MOST_RECORD_BYTES:,} bytes",
        expected="a line break outside quotes before that",
        where=f"{where}: {shown!r}",
        fix=fix,
    )
