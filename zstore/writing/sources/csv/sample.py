"""The first records of a CSV file, as a file of their own: what a dry run ingests."""

from __future__ import annotations

from zstore.storage.file import File
from zstore.writing.sources.csv.header import endless_head, framing_of, rows_begin
from zstore.writing.sources.csv.record_limit import MOST_RECORD_BYTES, long_error
from zstore.writing.sources.csv.records import line_end, record_end
from zstore.writing.sources.inflate import head, is_plain_text
from zstore.writing.sources.options import TableOptions

_MORE_BYTES = (1 << 16, 1 << 20, 1 << 24)  # in which the last record mostly ends


def first_records(file: File, encoding: str, n_bytes: int, options: TableOptions) -> tuple[bytes, float]:
    """The first records of a file as plain UTF-8.

    Parameters
    ----------
    file, encoding, options
        What it is, and what the user says about it.
    n_bytes
        Plain bytes in which they begin.

    Returns
    -------
    The text, whose last record is whole, and plain bytes for each byte of the file.

    Raises
    ------
    SourceError
        If the file is damaged, or a record, or the lines above the first one, are longer than an ingest takes.
    """
    for more in (*_MORE_BYTES, MOST_RECORD_BYTES + 1):
        first = head(file, n_bytes + more)
        text = first.plain if is_plain_text(encoding) else first.plain.decode(encoding, "ignore").encode()
        growth = len(text) / max(first.n_read, 1)
        if first.whole:
            return text, growth
        stop = _end_of_records(text, len(text) * n_bytes // (n_bytes + more), file, options)
        if stop is not None:
            return text[:stop], growth
    raise endless_head(file, MOST_RECORD_BYTES)


def _end_of_records(text: bytes, least: int, file: File, options: TableOptions) -> int | None:
    """Where the record ends that the byte before `least` is in; None if the text ends before that.

    Raises
    ------
    SourceError
        If a record is too long.
    """
    begun = rows_begin(text, file, options)
    if begun is None:
        return None
    position, delimiter = begun
    framing, quoted = framing_of(options), b'"' in text
    if framing.literal or not quoted:
        position = max(position, text.rfind(b"\n", 0, least) + 1)
    while position < least:
        lines = framing.literal or not quoted or framing.is_comment(text, position)
        end = line_end(text, position) if lines else record_end(text, position, delimiter)
        if end - position > MOST_RECORD_BYTES:
            line = text.count(b"\n", 0, position) + 1
            raise long_error(text[position:end], framing.is_comment(text, position), f"{file} line {line:,}")
        if end == len(text) and (position == end or not lines or not text.endswith(b"\n")):
            return None
        position = end
    return position
