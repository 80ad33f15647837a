"""Arrow IPC files as messages: where each lies and what it says of itself, none of it believed before it was compared.

Both formats are read: files with a footer, which Feather is since its version 2, and streams.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from zstore.storage.file import File
from zstore.writing.sources.files import read_source

_MAGIC = b"ARROW1"
_TAIL = struct.Struct("<i6s")
_PREFIX = struct.Struct("<ii")
_CONTINUATION = -1
_MOST_METADATA = 1 << 28  # of a message: a schema of a million columns is smaller
_GROWTH = {0: 1 << 8, 1: 1 << 16}  # LZ4 and zstd make at most so many bytes of one
_SPARE_ROWS = 1 << 20  # that a batch without any buffer may have
_BLOCK = struct.Struct("<qi4xq")
_PAIR = struct.Struct("<qq")
_SCHEMA, _DICTIONARY, _ROWS = 1, 2, 3


@dataclass(frozen=True)
class Frame:
    """One message.

    Parameters
    ----------
    start, body, stop
        Bytes of the file where it begins, where its body does, and where it ends.
    n_rows
        Rows of a record batch, or values of a dictionary; 0 of a schema.
    buffers
        Byte in the body, and length, of each of its buffers.
    codec
        How buffers are compressed: 0 for LZ4, 1 for zstd, None for not at all.
    dictionary
        Number of the dictionary that it holds; None where it is none.
    delta
        Whether it adds to the dictionary of that number, instead of taking its place.
    """

    start: int
    body: int
    stop: int
    n_rows: int = 0
    buffers: tuple[tuple[int, int], ...] = ()
    codec: int | None = None
    dictionary: int | None = None
    delta: bool = False

    def check(self, read: Callable[[int, int], bytes]) -> int:
        """Compare what the buffers claim to be with what they can be; before anything is inflated.

        Parameters
        ----------
        read
            Bytes ``[start, stop)`` of the file.

        Returns
        -------
        Bytes of all buffers, inflated.

        Raises
        ------
        pyarrow.ArrowInvalid
            If a buffer cannot hold what it claims, or the batch has more rows than bits.
        """
        n_bytes = 0
        for offset, length in self.buffers:
            claimed = length
            if self.codec is not None and length:
                first, inner = self.body + offset, length - 8
                claimed = int.from_bytes(read(first, first + 8), "little", signed=True) if inner >= 0 else -2
                if not -1 <= claimed <= inner * _GROWTH[self.codec]:
                    raise pa.ArrowInvalid(f"a buffer of {length:,} bytes that claims to hold {claimed:,}")
                claimed = inner if claimed == -1 else claimed
            n_bytes += claimed
        if self.n_rows > 8 * n_bytes + _SPARE_ROWS:
            raise pa.ArrowInvalid(f"{self.n_rows:,} rows in {n_bytes:,} bytes")
        return n_bytes


@dataclass(frozen=True)
class Frames:
    """All messages of a file.

    Parameters
    ----------
    schema
        The message that says what columns there are.
    batches
        Record batches, in order.
    dictionaries
        Per record batch, the dictionaries that it needs, in order.
    """

    schema: bytes
    batches: tuple[Frame, ...]
    dictionaries: tuple[tuple[Frame, ...], ...]


def read_frames(file: File) -> Frames:
    """Find the messages of a file. Reads what they say of themselves, and no body.

    Raises
    ------
    pyarrow.ArrowInvalid
        If it is no Arrow file, or damaged.
    SourceError
        If it cannot be read.
    """
    try:
        head = read_source(file, 0, min(8, file.n_bytes))
        return _with_footer(file) if head.startswith(_MAGIC) else _stream(file)
    except (struct.error, KeyError, IndexError) as error:
        raise pa.ArrowInvalid(f"a message that cannot be read ({error})") from error


def _with_footer(file: File) -> Frames:
    """A file with a footer, which says where messages are; all dictionaries are there for all batches."""
    end = file.n_bytes - _TAIL.size
    length, magic = _TAIL.unpack(read_source(file, max(end, 0), file.n_bytes))
    if magic != _MAGIC or not 0 < length <= min(end - 8, _MOST_METADATA):
        raise pa.ArrowInvalid("no footer at its end")
    footer = _root(read_source(file, end - length, end))
    listed = []
    for field, kind in ((2, _DICTIONARY), (3, _ROWS)):
        frames = []
        for offset, _, body in footer.structs(field, _BLOCK):
            frame, other = _frame(file, offset)
            if other != kind or frame.stop - frame.body != body:
                raise pa.ArrowInvalid(f"a footer that tells of another message at byte {offset:,}")
            frames.append(frame)
        listed.append(tuple(frames))
    dictionaries, batches = listed
    return Frames(_schema_message(footer), batches, (dictionaries,) * len(batches))


def _schema_message(footer: _Table) -> bytes:
    """The schema of a footer as a message of its own, with the numbers of dictionaries that it has.

    Notes
    -----
    Offsets of flatbuffers lead forward, so a table in front of the footer's bytes can lead to the schema in them. The
    schema at the beginning of a file is not looked at: polars writes it without its length.
    """
    octets, schema = footer.bytes_of(1)
    offsets = struct.pack("<5H", 10, 12, 8, 10, 4)  # bytes of them and of the table, and where its three fields are
    table = struct.pack("<iIhBx", 12, 32 + schema - 20, footer.number(0, "h"), _SCHEMA)
    message = struct.pack("<I", 16) + offsets + b"\0\0" + table + b"\0" * 4 + octets
    message += b"\0" * (-len(message) % 8)
    return _PREFIX.pack(_CONTINUATION, len(message)) + message


def _stream(file: File) -> Frames:
    """A stream: messages until its end. Each batch has the dictionaries before it that nothing has replaced since."""
    schema, kind = _frame(file, 0)
    if kind != _SCHEMA:
        raise pa.ArrowInvalid("no schema at its beginning")
    start, known = schema.stop, dict[int, tuple[Frame, ...]]()
    batches: list[Frame] = []
    dictionaries: list[tuple[Frame, ...]] = []
    while (length := _metadata(file, start)[1]) > 0:
        frame, kind = _frame(file, start)
        if kind == _DICTIONARY and frame.dictionary is not None:
            before = known.pop(frame.dictionary, ()) if frame.delta else ()
            known[frame.dictionary] = (*before, frame)
        elif kind == _ROWS:
            batches.append(frame)
            needed = sorted((one for some in known.values() for one in some), key=lambda one: one.start)
            dictionaries.append(tuple(needed))
        else:
            raise pa.ArrowInvalid(f"a message of kind {kind} at byte {start:,}")
        start = frame.stop
    if length < 0:
        raise pa.ArrowInvalid("a stream without the mark at its end: it was cut, or its writer not closed")
    rest = file.n_bytes - _metadata(file, start)[0]
    if rest:
        raise pa.ArrowInvalid(f"{rest:,} bytes behind the end of the stream")
    return Frames(read_source(file, 0, schema.stop), tuple(batches), tuple(dictionaries))


def _metadata(file: File, start: int) -> tuple[int, int]:
    """Where the metadata of a message begin, and their bytes: 0 at the end of a stream, -1 where the file ends.

    Before Arrow 0.15, lengths had no mark before them.
    """
    octets = read_source(file, start, min(start + _PREFIX.size, file.n_bytes))
    if not octets:
        return start, -1
    mark, length = _PREFIX.unpack(octets.ljust(_PREFIX.size, b"\0"))
    first = start + (_PREFIX.size if mark == _CONTINUATION else 4)
    length = length if mark == _CONTINUATION else mark
    if not 0 <= length <= min(file.n_bytes - first, _MOST_METADATA):
        raise pa.ArrowInvalid(f"a message of {length:,} bytes at byte {start:,}, and {file.n_bytes - start:,} are left")
    return first, length


def _frame(file: File, start: int) -> tuple[Frame, int]:
    """The message at a byte, and its kind."""
    if not 0 <= start < file.n_bytes:
        raise pa.ArrowInvalid(f"a message at byte {start:,} of {file.n_bytes:,}")
    first, length = _metadata(file, start)
    if length <= 0:
        raise pa.ArrowInvalid(f"no message at byte {start:,}")
    message = _root(read_source(file, first, first + length))
    kind, n_body = message.number(1, "B"), message.number(3, "q")
    body = first + length
    if not 0 <= n_body <= file.n_bytes - body:
        raise pa.ArrowInvalid(f"a body of {n_body:,} bytes at byte {body:,}, and {file.n_bytes - body:,} are left")
    frame = Frame(start, body, body + n_body)
    if kind not in (_DICTIONARY, _ROWS):
        return frame, kind
    header = message.table(2)
    number, delta, rows = None, False, header
    if kind == _DICTIONARY:
        number, delta, rows = header.number(0, "q"), bool(header.number(2, "B")), header.table(1)
    n_rows, buffers = rows.number(0, "q"), rows.structs(2, _PAIR)
    codec = rows.table(3).number(0, "b") if rows.has(3) else None
    if n_rows < 0 or any(offset < 0 or size < 0 or offset + size > n_body for offset, size in buffers):
        raise pa.ArrowInvalid(f"buffers that lead out of the message at byte {start:,}")
    if codec not in (None, *_GROWTH):
        raise pa.ArrowInvalid(f"unknown compression {codec} at byte {start:,}")
    return Frame(
        start, body, body + n_body, n_rows, tuple((offset, size) for offset, size in buffers), codec, number, delta
    ), kind


class _Table:
    """A table of a flatbuffer: fields by number. What leads out of its bytes raises `struct.error`."""

    def __init__(self, octets: bytes, start: int) -> None:
        self._octets, self._start = octets, start
        self._offsets = start - self._read("<i", start)
        self._n_fields = (self._read("<H", self._offsets) - 4) // 2

    def _read(self, form: str, position: int) -> Any:
        if position < 0:
            raise struct.error("an offset before its beginning")
        return struct.unpack_from(form, self._octets, position)[0]

    def _at(self, field: int) -> int:
        """Where a field is; 0 where it has its default."""
        offset = self._read("<H", self._offsets + 4 + 2 * field) if field < self._n_fields else 0
        return self._start + offset if offset else 0

    def has(self, field: int) -> bool:
        """Whether a field is there."""
        return bool(self._at(field))

    def number(self, field: int, form: str) -> int:
        """A number, as `struct` has its type; 0 where it is not there."""
        position = self._at(field)
        return int(self._read("<" + form, position)) if position else 0

    def table(self, field: int) -> _Table:
        """A table that a field leads to."""
        position = self._at(field)
        if not position:
            raise struct.error(f"field {field} is missing")
        return _Table(self._octets, position + self._read("<I", position))

    def bytes_of(self, field: int) -> tuple[bytes, int]:
        """All bytes of the flatbuffer, and where in them the table is that a field leads to."""
        return self._octets, self.table(field)._start

    def structs(self, field: int, form: struct.Struct) -> list[tuple[int, ...]]:
        """A list of numbers that belong together."""
        position = self._at(field)
        if not position:
            return []
        first = position + self._read("<I", position)
        n_bytes = self._read("<I", first) * form.size
        if first + 4 + n_bytes > len(self._octets):
            raise struct.error("a list that leads out of its message")
        return list(form.iter_unpack(self._octets[first + 4 : first + 4 + n_bytes]))


def _root(octets: bytes) -> _Table:
    return _Table(octets, struct.unpack_from("<I", octets)[0])
