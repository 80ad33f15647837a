"""Rows of a field, decoded from the store when they are asked for: in order, or some here and some there."""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.format.layout import shard_key
from zstore.format.rowarrays import byte_names
from zstore.reading.eviction import Cache
from zstore.reading.fieldchunks import VariableChunks
from zstore.reading.fieldimages import FirstImage
from zstore.reading.version import StoredVersion
from zstore.storage.portable import n_cores

Int64 = NDArray[np.int64]

_DIGEST_ROWS = 1 << 20  # whose digests are read together
_IMAGES_BYTES = 1 << 20  # of images that are best decoded together
_BUNDLES = 4  # for each thread, so that none waits long for the last one


class FieldReader(ABC):
    """Rows of a field, decoded when they are asked for; from several threads.

    Parameters
    ----------
    store
        Where rows come from.
    name
        The field.
    shape, dtype
        Of each row, once it is decoded.

    Notes
    -----
    What is stored is compared with the digest of its shard when that is first read, and each time with a checksum.
    Nothing that was decoded is kept: the system keeps the files in memory, compressed as they are, where it has room.
    """

    def __init__(self, store: StoredVersion, name: str, shape: tuple[int, ...], dtype: str) -> None:
        self.store, self.name, self.shape, self.dtype = store, name, shape, np.dtype(dtype)
        self.where, self.n_rows = store.path, store.n_rows
        self.row_bytes = math.prod(shape) * self.dtype.itemsize
        self._threads: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._own = threading.local()

    @staticmethod
    def of(store: StoredVersion, name: str) -> FieldReader:
        """The rows of a field of a store.

        Raises
        ------
        NotFoundError
            If there is no such field.
        UsageError
            If it is of bytes that are no images, or of no bytes at all.

        Notes
        -----
        Cost: none; of encoded images, the first one is read, whose shape and dtype all others must have.
        """
        field = store.field(name)
        if field.n_bytes is None:
            return _Chunked(store, name, field.shape, field.encoding.dtype)
        return _Images(FirstImage.of(store, name))

    @cached_property
    def stored_bytes(self) -> int:
        """Bytes of the field as it is stored. Cost: the manifest."""
        return self.store.objects.variable_bytes(self.store.field(self.name).variable)

    @cached_property
    def observed(self) -> NDArray[np.bool_] | None:
        """(row,) whether a row has a value; None where all have one. Cost: the digests of payloads, 16 bytes a row."""
        known = np.zeros(self.n_rows, np.bool_)
        for start in range(0, self.n_rows, _DIGEST_ROWS):
            stop = min(start + _DIGEST_ROWS, self.n_rows)
            known[start:stop] = self.store.payload_digests(self.name, start, stop).any(axis=1)
        return None if known.all() else known

    @property
    def remote(self) -> bool:
        """Whether the store is in a bucket, so that random reads fetch whole shards."""
        return self.store.storage.remote

    def with_cache(self, cache: Cache | str | Path | None = None) -> FieldReader:
        """The same rows, read from copies on the disk of this machine, see :meth:`Store.with_cache`."""
        return FieldReader.of(self.store.with_cache(cache), self.name) if self.remote else self

    def expect(self, starts: Int64, stops: Int64) -> None:
        """Fetch what rows will be read from ahead of use, see :meth:`Store.expect`."""
        self.store.objects.expect(self._shards(starts, stops))

    def _shards(self, starts: Int64, stops: Int64) -> Iterator[str]:
        """Keys of the shards that some rows lie in, part by part."""
        return self.store.shards_of([self.store.field(self.name).variable], starts, stops)

    @property
    def decoded_bytes(self) -> int:
        """Bytes of all rows, decoded."""
        return self.n_rows * self.row_bytes

    @property
    @abstractmethod
    def chunk_rows(self) -> int:
        """Rows that are best decoded together."""

    @property
    @abstractmethod
    def chunk_starts(self) -> Int64:
        """Rows where pieces are best cut, ascending from 0."""

    @property
    @abstractmethod
    def n_chunks_stored(self) -> int:
        """What decoding all rows costs, as :meth:`n_chunks` counts."""

    @abstractmethod
    def n_chunks(self, start: int, stop: int) -> int:
        """What decoding the rows ``[start, stop)`` costs."""

    @abstractmethod
    def scratch_bytes(self, n_rows: int) -> int:
        """Bytes of memory that decoding so many rows takes beside what is decoded."""

    @abstractmethod
    def read(self, start: int, out: NDArray[Any]) -> None:
        """Decode rows from `start` on into ``(row, …)``, on this thread; zeros where a row has no value.

        Raises
        ------
        CorruptionError
            If a shard differs from its digest.
        UsageError
            If an encoded image cannot be decoded, or is of another shape or dtype than the first one.
        """

    def take(self, rows: Int64, out: NDArray[Any], threads: int | None = None) -> None:
        """Decode some rows.

        Parameters
        ----------
        rows
            (row,) their numbers, in any order, repeats allowed.
        out
            (row, …) where they go, contiguous.
        threads
            Threads to share the work among; None for one a core.

        Raises
        ------
        IndexError
            If there is no such row.
        CorruptionError, UsageError
            As :meth:`read` does.

        Notes
        -----
        A chunk that holds several of these rows is decoded once, and an image that is asked for twice as well.
        """
        if len(rows) and not (int(rows.min()) >= 0 and int(rows.max()) < self.n_rows):
            raise IndexError(f"row {rows.min()} or {rows.max()} of {self.n_rows:,}")
        chunk, places = self._located(rows)
        order = np.argsort(places, kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(chunk[order])) + 1) if len(order) else []
        threads = n_cores() if threads is None else threads

        def work(bundle: list[NDArray[np.intp]]) -> None:
            for which in bundle:
                self._decode(int(chunk[which[0]]), rows[which], places[which], which, out)

        if threads == 1 or len(groups) < 2:
            work(groups)
            return
        n_bundles = min(threads * _BUNDLES, len(groups))
        list(self._pool(threads).map(work, (groups[first::n_bundles] for first in range(n_bundles))))

    def close(self) -> None:
        """Stop the threads; whoever takes rows again starts new ones."""
        with self._lock:
            if self._threads is not None:
                self._threads.shutdown()
                self._threads = None

    @abstractmethod
    def _located(self, rows: Int64) -> tuple[Int64, Int64]:
        """(row,) the chunk that some rows lie, or begin, in, and where in the array."""

    @abstractmethod
    def _decode(self, chunk: int, rows: Int64, places: Int64, which: NDArray[np.intp], out: NDArray[Any]) -> None:
        """Decode rows of one chunk, in the order of their places, to ``out[which]``."""

    def _pool(self, threads: int) -> ThreadPoolExecutor:
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(threads, thread_name_prefix="decode field")
            return self._threads

    def _scratch(self, n_bytes: int) -> NDArray[np.uint8]:
        """Memory of this thread, used again."""
        kept: NDArray[np.uint8] | None = getattr(self._own, "memory", None)
        if kept is None or len(kept) < n_bytes:
            kept = self._own.memory = np.empty(n_bytes, np.uint8)
        return kept[:n_bytes]


class _Chunked(FieldReader):
    """A field of arrays: rows lie together in chunks."""

    @cached_property
    def _chunks(self) -> VariableChunks:
        return VariableChunks(self.store.objects, self.store.field(self.name).variable)

    @property
    def chunk_rows(self) -> int:
        """Rows of a chunk of the field."""
        return self._chunks.rows

    @property
    def chunk_starts(self) -> Int64:
        """Rows that a chunk begins with."""
        return self.store.index.chunk_starts(self.chunk_rows)

    @property
    def n_chunks_stored(self) -> int:
        """Chunks that have rows."""
        return self.store.index.n_chunks_stored(self.chunk_rows)

    def n_chunks(self, start: int, stop: int) -> int:
        """Chunks that some rows lie in."""
        return self.store.index.n_chunks(start, stop, self.chunk_rows)

    def scratch_bytes(self, n_rows: int) -> int:
        """A chunk."""
        return self.chunk_rows * self.row_bytes

    def read(self, start: int, out: NDArray[Any]) -> None:
        """Chunk by chunk."""
        self.take(np.arange(start, start + len(out)), out, threads=1)

    def _located(self, rows: Int64) -> tuple[Int64, Int64]:
        places = self.store.index.places_of(rows)
        return places // self.chunk_rows, places

    def _decode(self, chunk: int, rows: Int64, places: Int64, which: NDArray[np.intp], out: NDArray[Any]) -> None:
        size, first = self.chunk_rows, int(which[0])
        inside = places - chunk * size
        if len(which) == size and np.all(which - first == inside):  # all of it, in its order
            self._chunks.decode(chunk, out[first : first + size])
            return
        memory = self._scratch(size * self.row_bytes).view(self.dtype).reshape(size, *self.shape)
        self._chunks.decode(chunk, memory)
        out[which] = memory[inside]


class _Images(FieldReader):
    """A field of encoded images: the bytes of each row lie one behind the other."""

    def __init__(self, first: FirstImage) -> None:
        super().__init__(first.store, first.name, first.look.shape, first.look.dtype)
        self._first, self._proved = first, np.zeros(first.store.n_rows, np.bool_)

    @cached_property
    def _chunks(self) -> VariableChunks:
        return VariableChunks(self.store.objects, self.store.field(self.name).variable)

    @cached_property
    def _ranges(self) -> Int64:
        """(row, 2) where the bytes of each row lie."""
        return self.store.byte_ranges(self.name, 0, self.n_rows)

    @property
    def chunk_rows(self) -> int:
        """Images of some 1 MiB."""
        return max(1, _IMAGES_BYTES // self.row_bytes)

    @property
    def chunk_starts(self) -> Int64:
        """Any row will do."""
        return np.arange(0, self.n_rows, self.chunk_rows)

    @property
    def n_chunks_stored(self) -> int:
        """Images."""
        return self.n_rows

    def n_chunks(self, start: int, stop: int) -> int:
        """Images."""
        return stop - start

    def scratch_bytes(self, n_rows: int) -> int:
        """Encoded images, and one that is decoded."""
        return -(-n_rows * self.stored_bytes // self.n_rows) + self.row_bytes

    def read(self, start: int, out: NDArray[Any]) -> None:
        """Neighbours are read together, and decoded one by one."""
        contents = self.store.read_bytes(self.name, start, start + len(out))
        for row, content in enumerate(contents, start):
            self._put(row, content, out[row - start])

    def _shards(self, starts: Int64, stops: Int64) -> Iterator[str]:
        variable = self.store.field(self.name).variable
        yield from self.store.shards_of(
            byte_names(variable)[1:3], np.array([0]), np.array([self.n_rows])
        )  # where the bytes of rows lie
        size = self.store.objects.shard_rows(variable)
        for start, stop in zip(starts, stops, strict=True):
            some = self._ranges[int(start) : int(stop)]
            first, last = some[:, 0] // size, (some[:, 1] - 1) // size
            held = some[:, 1] > some[:, 0]
            for shard in np.unique(np.concatenate([first[held], last[held]])).tolist():
                yield shard_key(variable, shard)

    def _located(self, rows: Int64) -> tuple[Int64, Int64]:
        places = self._ranges[rows, 0]
        return places // self._chunks.rows, places

    def _decode(self, chunk: int, rows: Int64, places: Int64, which: NDArray[np.intp], out: NDArray[Any]) -> None:
        content, first = self._bytes(chunk, int(self._ranges[rows, 1].max())), chunk * self._chunks.rows
        before, done = -1, -1
        for row, place in zip(rows.tolist(), which.tolist(), strict=True):
            if row == before:
                out[place] = out[done]
                continue
            low, high = (self._ranges[row] - first).tolist()
            self._put(row, content[low:high].tobytes() if high > low else b"", out[place])
            before, done = row, place

    def _bytes(self, chunk: int, stop: int) -> NDArray[np.uint8]:
        """What lies in the array from the beginning of a chunk on, to some byte at least."""
        size = self._chunks.rows
        n_chunks = max(-(-stop // size) - chunk, 0)
        memory = self._scratch(n_chunks * size)
        for number in range(n_chunks):
            self._chunks.decode(chunk + number, memory[number * size : (number + 1) * size])
        return memory

    def _put(self, row: int, content: bytes, out: NDArray[Any]) -> None:
        """Decode one image; zeros where a row has none."""
        if not content:
            out[...] = 0
            return
        out[...] = self._first.alike(row, content, bool(self._proved[row]))
        self._proved[row] = True  # its bytes cannot change under us: each chunk has a checksum
