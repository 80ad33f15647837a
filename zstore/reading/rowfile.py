"""Row files: decoded rows of a store in a cache folder, shared by all processes of a machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zstore.reading.cached import Observed, Values, map_values, open_cached
from zstore.reading.decode import decode_rows_of, require_float32
from zstore.reading.eviction import Cache
from zstore.reading.rownotes import SUFFIX, CacheEntry
from zstore.reading.scaling import Scaling
from zstore.reading.version import StoredVersion

_LAYOUT = 3


@dataclass(frozen=True)
class RowFile:
    """Decoded rows, memory-mapped.

    Parameters
    ----------
    values
        (row, channel) float32, in source units or scaled; 0 or NaN where missing. Changes stay in this process.
    observed
        (row, channel) bool, False where a value is missing; None where none is.
    """

    values: Values
    observed: Observed | None


def open_rows(
    store: StoredVersion,
    channels: Sequence[str],
    scaling: Scaling,
    cache: Cache | str | Path | None = None,
    fill: bool = True,
) -> RowFile:
    """Rows of a store from a row file that is built on first use.

    Parameters
    ----------
    store
        Where rows come from.
    channels
        Its columns.
    scaling
        Of each channel. In source units (:meth:`Scaling.identity`) the file depends on the version of the store and
        on `channels` alone, so whoever reads these rows shares it; otherwise the file belongs to this scaling.
    cache
        Folder of row files, with how much it may hold if that is not the usual; None for :func:`cache_folder`.
    fill
        Whether missing values are 0, after scaling; else they are NaN.

    Raises
    ------
    StoreError
        If the file cannot be written.
    CorruptionError
        If the store is damaged.
    NotFiniteError
        If a value does not fit float32 once scaled.

    Notes
    -----
    Built at the speed of :meth:`Store.decode`; see :func:`zstore.reading.cached.open_cached`.
    """
    require_float32(store, channels, scaling)
    shape = (store.n_rows, len(channels))
    masked = bool(store.missing(channels).any())
    if not store.n_rows:
        return RowFile(np.empty(shape, np.float32), None)

    def build(path: Path) -> None:
        values = np.memmap(path, np.float32, "r+", shape=shape)
        observed = np.memmap(path, np.bool_, "r+", values.nbytes, shape) if masked else None
        if observed is not None:
            observed[:] = True
        decode_rows_of(store, channels, values, scaling, observed, fill=fill)

    identity = [_LAYOUT, fill, store.digest, list(channels), *scaling_key(scaling)]
    folder = Cache.of(cache)
    entry = new_entry(store, channels, folder, identity, store.n_rows, masked)
    return RowFile(*open_cached(entry, build, lambda file: map_values(file, shape, masked), folder))


def scaling_key(scaling: Scaling) -> list[str]:
    """What the name of a row file has of its scaling: nothing in source units."""
    return [] if scaling.in_source_units else [scaling.digest()]


def new_entry(
    store: StoredVersion,
    channels: Sequence[str],
    cache: Cache,
    identity: list[Any],
    n_rows: int,
    masked: bool,
    itemsize: int = 4,
) -> CacheEntry:
    """What a file of some rows of a store is to be; its name is a digest of all that its bytes depend on."""
    name = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
    path = cache.folder / f"rows-{name}{SUFFIX}"
    n_bytes = n_rows * len(channels) * (itemsize + masked)
    return CacheEntry(str(path), store.path, store.version, tuple(channels), n_rows, n_bytes, "")
