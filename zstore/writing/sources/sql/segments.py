"""Batches of a query as Arrow streams on scratch space, and the notes of those that are whole."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import pyarrow as pa
import xxhash

from zstore.storage.file import File
from zstore.writing.room import with_room
from zstore.writing.sources.sql.order import Order
from zstore.writing.sources.sql.query import Bound, Query
from zstore.writing.sources.sql.watermarks import bound_of, greatest_of
from zstore.writing.sources.times.iso import UNITS
from zstore.writing.sources.typed.moments import coarsest_unit
from zstore.writing.sources.workspace import NOTE, Runner, Workspace


@dataclass(frozen=True)
class SpoolFile:
    """An Arrow stream on scratch space.

    Parameters
    ----------
    file
        The file.
    digest
        xxh3-128 of its bytes, as 32 hex digits.
    part
        Number of the part of the query that its rows are of.
    first_row
        Rows of that part in the files before.
    n_rows
        Rows in it.
    units
        The coarsest unit that all moments of a column are whole in, of each column of timestamps.
    """

    file: File
    digest: str
    part: int
    first_row: int
    n_rows: int
    units: Mapping[str, str]


@dataclass
class Part:
    """What was read of a part of a query.

    Parameters
    ----------
    number
        Of the part.
    files
        Its rows, in order.
    bound
        The greatest watermark of them.
    border
        The least value of a column that is behind them, where more rows of the part follow; None at its end.
    """

    number: int
    files: list[SpoolFile] = field(default_factory=list)
    bound: Bound | None = None
    border: Bound | None = None

    @property
    def n_rows(self) -> int:
        """Rows in all files."""
        return sum(one.n_rows for one in self.files)

    def note(self, name: str, space: Workspace, first: int = 0) -> None:
        """Note that files from the number `first` on are whole."""
        files = [
            {
                "key": one.file.key,
                "n_bytes": one.file.n_bytes,
                "digest": one.digest,
                "first_row": one.first_row,
                "n_rows": one.n_rows,
                "units": one.units,
            }
            for one in self.files[first:]
        ]
        bounds = [bound and bound.to_json() for bound in (self.bound, self.border)]
        space.note(name, json.dumps({"files": files, "bound": bounds[0], "border": bounds[1]}).encode())


def noted(space: Workspace, name: str, number: int) -> Part | None:
    """Part or segment from the note of it; None if note or files are not whole."""
    try:
        known = json.loads(space.notes[name])
    except (KeyError, ValueError):  # not done, or cut short when its writer was killed
        return None
    bound, border = (known[which] and Bound.from_json(known[which]) for which in ("bound", "border"))
    part = Part(number, bound=bound, border=border)
    for one in known["files"]:
        if not space.is_whole(one["key"], one["n_bytes"], one["digest"]):
            return None
        file = File(space.scratch, one["key"], one["n_bytes"])
        part.files.append(SpoolFile(file, one["digest"], number, one["first_row"], one["n_rows"], one["units"]))
    return part


def segments_noted(space: Workspace, name: str, number: int) -> list[Part]:
    """The first segments of a part, as far as they are whole."""
    segments: list[Part] = []
    while (segment := noted(space, f"{name}-{len(segments)}", number)) is not None:
        segments.append(segment)
    return segments


def joined(segments: list[Part]) -> Part:
    """Segments as what was read of their part, and where the rest of it begins."""
    files = [file for segment in segments for file in segment.files]
    return Part(segments[-1].number, files, greatest_of([one.bound for one in segments]), segments[-1].border)


class Received:
    """Bytes of a query that have come, of all its parts together, and whether some rows are noted."""

    def __init__(self, runner: Runner | None) -> None:
        self._runner, self._lock, self._n_bytes = runner, threading.Lock(), 0
        self.is_noted = False

    def add(self, n_bytes: int) -> None:
        """Some more have come."""
        with self._lock:
            self._n_bytes += n_bytes
            self._show(0)

    def end(self) -> None:
        """There are no more."""
        self._show(self._n_bytes)

    def _show(self, total: int) -> None:
        if self._runner is not None:
            self._runner.report("query", self._n_bytes, total, "bytes")


class Writer:
    """Writes the rows of a part, segment by segment, to files.

    Parameters
    ----------
    query, name
        The query, and what its notes are called.
    space
        Where to.
    text_order
        Whether the database compares texts by their bytes.
    n_before
        Segments that an earlier run has read.
    received
        Told of what is written.
    """

    def __init__(
        self, query: Query, name: str, space: Workspace, text_order: bool, n_before: int, received: Received
    ) -> None:
        self._query, self._name, self._space = query, name, space
        self._text_order, self._received = text_order, received
        self._order = Order(query, text_order, n_before)

    def write(self, part: Part, batches: Iterator[Any]) -> Part:
        """Write batches behind the rows of a part; a new file whenever types change or a segment ends.

        Returns
        -------
        The part with all of them. Where a batch is None, they all come again: those before it do not count.
        """
        begun, n_begun = replace(part, files=list(part.files)), self._order.segment
        segments = self._order.segments(map(storable, batches))
        n_noted, first = n_begun, len(part.files)
        for (segment, schema), same in groupby(segments, key=_segment_and_schema):
            if segment > n_noted:
                self._note(part, n_noted, first)
                n_noted, first = segment, len(part.files)
            if schema is None:
                notes = [f"{self._name}-{number}{NOTE}" for number in range(n_begun, n_noted)]
                files = [one.file.key for one in part.files[len(begun.files) :]]
                self._space.scratch.remove([*notes, *files])
                self._order = Order(self._query, self._text_order, n_begun)
                return self.write(begun, batches)
            part.files.append(self._file(part, schema, (batch for _, batch in same)))
        return part

    def _note(self, part: Part, segment: int, first: int) -> None:
        Part(part.number, part.files, part.bound, self._order.borders[segment]).note(
            f"{self._name}-{segment}", self._space, first
        )
        self._received.is_noted = True

    def _file(self, part: Part, schema: Any, batches: Iterator[Any]) -> SpoolFile:
        """A file of batches that have one schema."""
        stream = _Stream(schema, self._query, part.bound, self._text_order, self._received)
        key = f"{self._name}-{uuid.uuid4().hex}.arrows"
        scratch = self._space.scratch
        n_bytes = scratch.write_stream(key, with_room(scratch, key, stream.pieces(batches)))
        part.bound = stream.bound
        file = File(scratch, key, n_bytes)
        return SpoolFile(file, stream.digest, part.number, part.n_rows, stream.n_rows, stream.units)


class _Stream:
    """Batches of one schema, on their way to a file."""

    def __init__(self, schema: Any, query: Query, bound: Bound | None, text_order: bool, received: Received) -> None:
        self._schema, self._query, self._hasher = schema, query, xxhash.xxh3_128()
        self._text_order, self._received = text_order, received
        self.bound, self.n_rows = bound, 0
        self.units = {field.name: "s" for field in schema if pa.types.is_timestamp(field.type)}

    @property
    def digest(self) -> str:
        """xxh3-128 of all pieces."""
        return self._hasher.hexdigest()

    def pieces(self, batches: Iterator[Any]) -> Iterator[memoryview]:
        """The bytes of an Arrow stream, which are those of the batches where they can be."""
        sink = _Sink()
        with pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), self._schema) as writer:
            for batch in batches:
                self.n_rows += batch.num_rows
                self.bound = greatest_of([self.bound, bound_of(batch, self._query, self._text_order)])
                for name, unit in self.units.items():
                    self.units[name] = max(unit, coarsest_unit(batch.column(name)), key=UNITS.index)
                writer.write_batch(batch)
                yield from self._hashed(sink)
        yield from self._hashed(sink)

    def _hashed(self, sink: _Sink) -> Iterator[memoryview]:
        pieces = sink.taken()
        for piece in pieces:
            self._hasher.update(piece)
        self._received.add(sum(map(len, pieces)))
        yield from pieces


class _Sink:
    """A file for Arrow to write to, which keeps what it is given until that is taken."""

    closed = False

    def __init__(self) -> None:
        self._pieces: list[memoryview] = []

    def write(self, piece: Any) -> int:
        """Keep some bytes."""
        self._pieces.append(memoryview(piece).cast("B"))
        return len(self._pieces[-1])

    def taken(self) -> list[memoryview]:
        """All that was written since the last time; small pieces as one."""
        pieces, self._pieces = self._pieces, []
        return [
            piece
            for large, some in groupby(pieces, key=lambda piece: len(piece) >= _LARGE)
            for piece in (some if large else [memoryview(b"".join(some))])
        ]

    def flush(self) -> None:
        """Nothing: whoever takes pieces writes them."""

    def close(self) -> None:
        """Nothing: what is left is taken."""


_LARGE = 1 << 12


def _segment_and_schema(item: tuple[int, Any]) -> tuple[int, Any]:
    segment, batch = item
    return segment, None if batch is None else batch.schema


def storable(batch: Any) -> Any:
    """A batch without dictionaries and extensions, which mean other things elsewhere."""
    if batch is None:
        return None
    arrays = [column.dictionary_decode() if pa.types.is_dictionary(column.type) else column for column in batch.columns]
    arrays = [array.storage if isinstance(array, pa.ExtensionArray) else array for array in arrays]
    return pa.RecordBatch.from_arrays(arrays, batch.schema.names)
