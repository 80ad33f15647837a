"""Arrow IPC files, opened: their columns by type, and their record batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from zstore.errors import SourceError
from zstore.storage.file import File
from zstore.writing.sources.files import read_source
from zstore.writing.sources.protocol import Place
from zstore.writing.sources.typed.arrow_frames import Frame, Frames, read_frames
from zstore.writing.sources.typed.cells import is_text
from zstore.writing.sources.typed.damage import FileState, damage_told, state_of
from zstore.writing.sources.typed.file import FileLayout, TableFile

KIND = "Arrow file"
_FIRST_VERSION = b"FEA1"
_END = b"\xff\xff\xff\xff\0\0\0\0"


@dataclass(frozen=True)
class BatchRow:
    """Where a row of an Arrow file stands; both numbers count from 0."""

    record_batch: int
    row: int

    def __str__(self) -> str:
        return f"record batch {self.record_batch:,} row {self.row:,}"


@dataclass(frozen=True)
class ArrowTable(TableFile):
    """An Arrow file, whose groups are record batches."""

    @staticmethod
    def layout_of(file: File) -> Layout:
        """Where everything is in it; bytes of a row are those of the first record batch, inflated."""
        return layout(file)

    def place(self, group: int, row: int) -> Place:
        """A row of a record batch."""
        return BatchRow(group, row)

    def batches(self, columns: Sequence[str], texts: Sequence[str], group: int, n_rows: int) -> Iterator[Any]:
        """The rows of a record batch, in order, at most `n_rows` at once; the batch lies in memory as a whole.

        Raises
        ------
        SourceError
            If the file cannot be read, or is damaged.
        """
        with damage_told(self.name, KIND):
            batch = self._read(columns, group)
        for start in range(0, batch.num_rows, n_rows):
            yield batch.slice(start, n_rows)

    def _read(self, columns: Sequence[str], group: int) -> Any:
        known = layout(self.file)
        frame = known.frames.batches[group]
        message = _checked(self.file, frame)
        position = {name: n for n, name in enumerate(self.header)}
        names = [name for name in columns if name in position] or [self.header[0]]
        options = pa.ipc.IpcReadOptions(included_fields=[position[name] for name in names], use_threads=False)
        pieces = _Pieces(_before(state_of(self.file), known.frames.dictionaries[group]), message, _END)
        with pa.ipc.open_stream(pa.PythonFile(pieces, mode="r"), options=options) as stream:
            batch = stream.read_next_batch()
        if batch.num_rows != frame.n_rows:
            raise pa.ArrowInvalid(f"{batch.num_rows:,} rows in record batch {group}, of {frame.n_rows:,}")
        for column in batch.columns if set(columns) & set(self.header) else ():
            check_array(column)
        return batch

    def write_sample(self, path: Path, n_rows: int) -> int:
        """Write the first rows of its first record batch to a file."""
        rows = self.first_rows(n_rows, pa.schema(zip(self.header, layout(self.file).types, strict=True)))
        with pa.ipc.new_file(path, rows.schema) as writer:
            writer.write_table(rows)
        return int(rows.num_rows)


class _Pieces:
    """Some bytes after each other as one file for Arrow, which takes slices of them instead of copies."""

    closed = False

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = [memoryview(piece) for piece in pieces if piece]

    def read(self, n_bytes: int) -> memoryview:
        """The next bytes; as many as asked for if there are as many."""
        if not self._pieces:
            return memoryview(b"")
        if len(self._pieces[0]) < n_bytes:
            self._pieces = [memoryview(b"".join(self._pieces))]
        first = self._pieces[0]
        self._pieces[:1] = [first[n_bytes:]] if len(first) > n_bytes else []
        return first[:n_bytes]

    def close(self) -> None:
        """Nothing: the bytes belong to whoever has slices of them."""


def check_array(array: Any) -> None:
    """Refuse an array whose offsets or indices lead beyond its bytes; texts need not be UTF-8.

    Raises
    ------
    pyarrow.ArrowInvalid
        If it is one.
    """
    array.validate()
    dtype = array.type
    if pa.types.is_dictionary(dtype):
        limits = pc.min_max(array.indices).as_py()
        if limits["min"] is not None and not 0 <= limits["min"] <= limits["max"] < len(array.dictionary):
            raise pa.ArrowInvalid("an index beyond its dictionary")
        check_array(array.dictionary)
    elif is_text(dtype):
        views = not (pa.types.is_string(dtype) or pa.types.is_large_string(dtype))
        large = pa.types.is_large_string(dtype)
        octets = pa.binary_view() if views else pa.large_binary() if large else pa.binary()
        array.view(octets).validate(full=True)
    elif pa.types.is_nested(dtype) or pa.types.is_decimal(dtype):
        array.validate(full=True)


@dataclass(frozen=True)
class Layout(FileLayout):
    """What a file says of all of it.

    Parameters
    ----------
    frames
        Where its messages are.
    """

    frames: Frames


def layout(file: File) -> Layout:
    """Where everything is in a file; kept in memory, since each block needs it.

    Raises
    ------
    SourceError
        If it is damaged, or of Feather's first version.
    """
    return _layout(state_of(file))


@lru_cache(maxsize=64)
def _layout(state: FileState) -> Layout:
    file = state.file
    if read_source(file, 0, min(4, file.n_bytes)) == _FIRST_VERSION:
        raise SourceError(
            "Feather file of version 1",
            expected="version 2, which is Arrow IPC",
            where=state.name,
            fix="write it again with a pyarrow or pandas of today",
        )
    with damage_told(state.name, KIND):
        frames = read_frames(file)
        schema = pa.ipc.read_schema(pa.py_buffer(frames.schema))
        first = next((frame for frame in frames.batches if frame.n_rows), None)
        row_bytes = 0
        if first is not None:
            row_bytes = first.check(partial(read_source, file)) // first.n_rows
        group_rows = tuple(frame.n_rows for frame in frames.batches)
        return Layout(tuple(schema.names), tuple(schema.types), group_rows, row_bytes, frames)


@lru_cache(maxsize=2)
def _before(state: FileState, dictionaries: tuple[Frame, ...]) -> bytes:
    """The messages that a record batch needs before it: the schema, and dictionaries."""
    schema = layout(state.file).frames.schema
    return b"".join((schema, *(_checked(state.file, frame) for frame in dictionaries)))


def _checked(file: File, frame: Frame) -> bytes:
    message = read_source(file, frame.start, frame.stop)
    frame.check(lambda start, stop: message[start - frame.start : stop - frame.start])
    return message
