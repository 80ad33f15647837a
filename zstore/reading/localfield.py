"""Fields of stores in buckets, decoded from a copy of what is stored, in the cache of this machine."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

import numpy as np

from zstore.reading.cached import open_cached
from zstore.reading.compared import compare
from zstore.reading.eviction import Cache
from zstore.reading.fieldreader import FieldReader
from zstore.reading.rowfile import new_entry

_LAYOUT = 1
_FETCHED_TOGETHER = 8


@dataclass(frozen=True)
class _Part:
    """An object in the copy."""

    content: memoryview

    def read(self, start: int = 0, stop: int | None = None) -> bytes:
        return bytes(self.content[start:stop])

    def identity(self) -> None:
        """Nothing needs to tell: the copy is held."""


def local_field(reader: FieldReader, cache: Cache | str | Path | None = None) -> FieldReader:
    """The same rows, decoded from files of this machine.

    Parameters
    ----------
    reader
        Of a field of a store. One of a store that is on this machine is returned as it is.
    cache
        Folder of the copy, with how much it may hold if that is not the usual; None for :func:`cache_folder`.

    Raises
    ------
    StoreError
        If the copy cannot be written.
    CorruptionError
        If the store is damaged.

    Notes
    -----
    On first use every object of the field is fetched once, and compared with its digest. The copy has
    :attr:`FieldReader.stored_bytes`, and is shared by all processes of the machine; the system keeps it in memory where
    it has room.
    """
    store, n_bytes = reader.store, reader.stored_bytes
    if not reader.remote or not n_bytes:
        return reader
    prefix = f"{store.field(reader.name).variable}/c/"
    records = [record for key, record in sorted(store.objects.records.items()) if key.startswith(prefix)]
    ends = list(accumulate(record.n_bytes for record in records))

    def build(path: Path) -> None:
        content = np.memmap(path, np.uint8, "r+", shape=(n_bytes,))

        def fetch(number: int) -> None:
            record, end = records[number], ends[number]
            content[end - record.n_bytes : end] = np.frombuffer(compare(store.storage, record), np.uint8)

        with ThreadPoolExecutor(_FETCHED_TOGETHER) as pool:
            for _ in pool.map(fetch, range(len(records))):
                pass

    folder = Cache.of(cache)
    identity = ["stored field", _LAYOUT, store.digest, reader.name]
    entry = new_entry(store, [reader.name], folder, identity, n_bytes, masked=False, itemsize=1)
    held = open_cached(replace(entry, n_rows=store.n_rows), build, lambda file: memoryview(file.mapped()), folder)
    parts = {record.key: _Part(held[end - record.n_bytes : end]) for record, end in zip(records, ends, strict=True)}
    near = copy(store)
    near.objects = store.objects.with_copies(parts)
    return FieldReader.of(near, reader.name)
