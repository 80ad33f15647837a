"""Stored objects as Zarr arrays, each checked against the manifest before it is first decoded."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from copy import copy
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.errors import CorruptionError, NotFoundError, StoreError, ZstoreError
from zstore.format.arrays import decode_small, decode_small_chunk, decode_text_chunk, small_chunks
from zstore.format.index import SeriesIndex
from zstore.format.layout import ROOT, root_copy_key, shard_key, shards_of
from zstore.format.manifest import ObjectRecord
from zstore.format.shards import decode_rows
from zstore.reading.ahead import Ahead
from zstore.reading.compared import FIX, compare, open_compared
from zstore.reading.eviction import Cache
from zstore.reading.listed import Described, Manifest, manifest_of, undecodable
from zstore.reading.objectcache import ObjectCache
from zstore.reading.root import root_document
from zstore.storage.protocol import Opened, Storage

_READERS, _DECODERS = 16, 4
_MANY_VALUES = 1 << 18  # worth some threads
_FILES, _FETCHED = 64, 8  # shards that stay open, or in memory where they come from a bucket


class ObjectReader:
    """One committed version of a store, as the root document read at opening time describes it.

    Parameters
    ----------
    storage
        Where the store is.
    version
        Which; None for the newest.

    Raises
    ------
    StoreError
        If nothing is committed there, or the root document is not one of zstore.
    NotFoundError
        If there is no such version.
    CorruptionError
        If the root document was changed.
    """

    def __init__(self, storage: Storage, version: int | None = None) -> None:
        self.storage, self.root = storage, root_document(storage, version)
        self.document, self.nodes = self.root.document, self.root.nodes
        self._manifest: Manifest | None = None
        self._copies: dict[str, Opened] = {}
        self._near: ObjectCache | None = None
        self._recent: dict[str, Opened] = {}
        self._compared: dict[str, Hashable] = {}
        self._lock = threading.Lock()
        self._opening: dict[str, threading.Lock] = {}

    def with_copies(self, copies: Mapping[str, Opened]) -> ObjectReader:
        """The same version, some objects of which are read elsewhere, where they were compared with the manifest."""
        other = copy(self)
        other._copies, other._recent, other._compared = dict(copies), {}, {}
        return other

    def with_cache(self, cache: Cache) -> ObjectReader:
        """The same version, whose shards are read from copies on the disk of this machine, fetched on first use."""
        other = self.with_copies({})
        other._near = ObjectCache(self.storage, cache)
        return other

    def expect(self, keys: Iterable[str]) -> None:
        """Fetch shards ahead of use, see :meth:`ObjectCache.expect`; nothing without :meth:`with_cache`."""
        if self._near is not None:
            self._near.expect(self._record(key) for key in keys)

    @property
    def manifest(self) -> Manifest:
        """Which objects the version has; itself checked against the root document when it is read."""
        with self._lock:
            if self._manifest is None:
                read = partial(_compare_all, self.storage)  # not bound to this reader, whose files end with it
                self._manifest = manifest_of(Described(self.document, self.nodes, str(self.storage), read))
            return self._manifest

    @property
    def records(self) -> Mapping[str, ObjectRecord]:
        """Every object by key, but for those of the manifest itself. Cost: the whole manifest."""
        with self._unless_replaced():
            return self.manifest.records

    @property
    def sources(self) -> list[ObjectRecord]:
        """The sources whose rows the version has, as its manifest lists them."""
        with self._unless_replaced():
            return self.manifest.sources

    def check_shards(self, index: SeriesIndex) -> None:
        """Refuse an index, sound in itself, whose rows lie in shards that are not listed. Raises `StoreError`."""
        with self._unless_replaced():
            self.manifest.check_shards(index)

    @property
    def keys(self) -> set[str]:
        """Every object that this version needs. Cost: the whole manifest."""
        return {*self.records, *self.own_keys}

    @property
    def own_keys(self) -> set[str]:
        """The objects that say what this version is: those of the manifest, and the copy of the root document."""
        listing = {key for key, _, _ in self.document["manifest"]}
        return {*self.manifest.own_keys, *listing, root_copy_key(self.root.version)}

    def content(self, key: str) -> bytes:
        """The bytes of one object, compared with the manifest.

        Raises
        ------
        CorruptionError
            If it is missing, of another length, or of another digest.
        """
        with self._unless_replaced():
            return compare(self.storage, self._record(key))

    def ahead(self, keys: Iterable[str]) -> Ahead[bytes]:
        """What gives objects as :meth:`content` does, in this order, read ahead where they come from a bucket."""
        return Ahead(lambda record: self.content(record.key), map(self._record, keys), self.storage.remote)

    def refuse_replaced(self) -> None:
        """Refuse a store that is another one than when it was opened: what is not as it was then is no damage.

        Raises
        ------
        StoreError
            If the root document of this version is a sound one, and not the one that was opened, or if there is none.
        """
        try:
            gone = self.storage.n_bytes(ROOT) is None
        except OSError:
            return  # nothing tells
        if gone:
            raise StoreError(
                f"the store is gone ({self.storage})",
                expected="the store that was opened",
                where=f"{self.storage}/{ROOT}",
                fix="open it where it is now; if nobody has moved or removed it, restore it from a copy",
            )
        try:
            document = root_document(self.storage, self.root.version).document
        except NotFoundError:
            document = root_document(self.storage).document
            if document["uuid"] == self.document["uuid"]:
                return  # this version was collected
        except (ZstoreError, OSError):
            return  # nothing tells
        if document["digest"] != self.document["digest"]:
            raise StoreError(
                f"the store was replaced ({self.storage})",
                expected=f"version {self.document['version']} of {self.document['committed']}, as it was opened",
                where=f"{self.storage}/{ROOT}",
                fix="open the store again",
            )

    @contextmanager
    def _unless_replaced(self) -> Iterator[None]:
        """Say that the store was replaced where that is why something is not as it was."""
        try:
            yield
        except StoreError:
            self.refuse_replaced()
            raise

    def _record(self, key: str) -> ObjectRecord:
        record = self.manifest.find(key)
        if record is None:
            raise CorruptionError(
                f"object {key} is not in the manifest", where=str(self.storage), fix="zstore verify, or ingest again"
            )
        return record

    def small(self, path: str) -> tuple[NDArray[Any], dict[str, Any]]:
        """A whole small array (index, moments) and its attributes, checked."""
        document = self.nodes[path]
        try:
            values = decode_small(document, lambda key: self.content(f"{path}/{key}"))
        except ValueError as error:
            raise undecodable(path, self.nodes, error, str(self.storage)) from error
        return values, dict(document["attributes"])

    def small_parts(self, paths: Sequence[str]) -> Iterator[tuple[slice, list[NDArray[Any]]]]:
        """Several small arrays of as many rows, a chunk of each at a time, and the rows that it has.

        Cost: memory for a chunk of each; all of it where another writer made chunks that differ in length.
        """
        first = self.nodes[paths[0]]
        if any(self.nodes[path]["chunk_grid"] != first["chunk_grid"] for path in paths):
            yield slice(0, first["shape"][0]), [self.small(path)[0] for path in paths]
            return
        for number, rows in enumerate(small_chunks(first)):
            yield rows, [self.small_part(path, number) for path in paths]

    def small_part(self, path: str, number: int, as_bytes: bool = False) -> NDArray[Any]:
        """One chunk of a small array, checked, without what fills up the last one; texts `as_bytes` where they can be.

        See :func:`decode_text_chunk`.
        """
        decode = decode_text_chunk if as_bytes else decode_small_chunk
        try:
            return decode(self.nodes[path], number, lambda key: self.content(f"{path}/{key}"))
        except ValueError as error:
            raise undecodable(path, self.nodes, error, str(self.storage)) from error

    def smalls(self, paths: Iterable[str]) -> list[tuple[NDArray[Any], dict[str, Any]]]:
        """Several small arrays, see :meth:`small`; read at once where they are large, or come from a bucket."""
        named = list(paths)
        n_values = sum(math.prod(self.nodes[path]["shape"]) for path in named)
        if n_values < _MANY_VALUES and not self.storage.remote:
            return [self.small(path) for path in named]
        with ThreadPoolExecutor(_READERS if self.storage.remote else _DECODERS) as pool:
            return list(pool.map(self.small, named))

    def shard_rows(self, variable: str) -> int:
        """Rows of a shard of a variable."""
        return int(self.nodes[variable]["chunk_grid"]["configuration"]["chunk_shape"][0])

    def empty(self, variable: str, n_rows: int = 0) -> NDArray[Any]:
        """(row, …) memory for so many rows of a variable."""
        document = self.nodes[variable]
        return np.empty((n_rows, *document["shape"][1:]), document["data_type"])

    def stored(self, variable: str, start: int, stop: int) -> NDArray[Any]:
        """Stored values, (row, …), at the places ``[start, stop)`` of a variable; every shard touched is checked."""
        document, shard_rows = self.nodes[variable], self.shard_rows(variable)
        parts = [self.empty(variable)]
        for shard in shards_of(start, stop, shard_rows):
            key, first = shard_key(variable, shard, len(document["shape"])), shard * shard_rows
            rows = max(start - first, 0), min(stop - first, shard_rows)
            with self.reading(key) as (read, n_bytes):
                parts.append(decode_rows(read, n_bytes, document, *rows))
        return parts[1] if len(parts) == 2 else np.concatenate(parts)

    @contextmanager
    def reading(self, key: str) -> Iterator[tuple[Callable[[int, int], bytes], int]]:
        """What reads the bytes from one to another position of an object that was compared with the manifest.

        And how many bytes it has. A `ValueError` or an `OSError` of whoever decodes them says here that the object was
        changed, or cannot be read any more.
        """
        try:
            with self._unless_replaced():
                opened = self._opened(key)
            yield opened.read, self._record(key).n_bytes
        except ValueError as error:
            self._refuse_copy(key, error)
            self.refuse_replaced()
            raise CorruptionError(
                f"object {key} was changed ({error})",
                expected="what was there when it was opened",
                where=f"{self.storage}/{key}",
                fix=FIX,
            ) from error
        except OSError as error:
            self.refuse_replaced()
            raise StoreError(
                f"cannot read object {key} any more ({error.strerror})",
                where=f"{self.storage}/{key}",
                fix="open the store again; if its version was removed meanwhile, a newer one",
            ) from error

    def _refuse_copy(self, key: str, error: ValueError) -> None:
        """Refuse a copy of an object on this machine that was damaged while it was open."""
        damaged = None if self._near is None else self._near.discard(self._record(key))
        if damaged is not None:
            with self._lock:
                self._recent.pop(key, None)
            raise CorruptionError(
                f"the copy of object {key} was changed ({error})",
                expected="what was fetched from the bucket",
                where=str(damaged),
                fix="run again, which fetches it anew; look at the disk",
            ) from error

    def variable_bytes(self, variable: str) -> int:
        """Bytes of the objects of a variable, compressed as they are. Cost: the manifest."""
        return sum(record.n_bytes for key, record in self.records.items() if key.startswith(f"{variable}/c/"))

    def _opened(self, key: str) -> Opened:
        """An object, compared with the manifest when it is opened; it stays open, and so what it is, for a while.

        Its key may come to name something else: once this version was collected, another may use it again. So it is
        compared once more when it is opened again, unless the storage can tell that it is the same.
        """
        with self._lock:
            opening = self._opening.setdefault(key, threading.Lock())
        with opening:  # of two threads that want it at once, one reads it
            opened = self._recent.get(key)
            if opened is None:
                opened = self._open(key)
            with self._lock:
                self._recent.pop(key, None)
                self._recent[key] = opened  # last
                on_disk = not self.storage.remote or (self._near is not None and self._near.has_room)
                while len(self._recent) > (_FILES if on_disk else _FETCHED):
                    self._recent.pop(next(iter(self._recent)))
        return opened

    def _open(self, key: str) -> Opened:
        if key in self._copies:
            return self._copies[key]
        if self._near is not None:
            return self._near.open(self._record(key))
        if (known := self._compared.get(key)) is not None:
            with suppress(OSError):  # told below, where it is opened as if for the first time
                if (same := self.storage.reopen(key, known)) is not None:
                    return same
        opened = open_compared(self.storage, self._record(key))
        self._compared[key] = opened.identity()
        return opened


def _compare_all(storage: Storage, records: Sequence[ObjectRecord]) -> list[bytes]:
    """The bytes of objects, each compared with its record; of a bucket, several at once."""
    if not storage.remote:
        return [compare(storage, record) for record in records]
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(partial(compare, storage), records))
