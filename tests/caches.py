"""A small store, and the cache folder that its decoded rows go to."""

import os
import time
from pathlib import Path

import numpy as np
from conftest import write_table

from zstore import Cache, RowFile, Scaling, Store, cache_entries, ingest, open_rows, open_store

N_ROWS = 300
PER_CHANNEL = 4 * N_ROWS  # bytes of a row file


def small_store(folder: Path) -> Store:
    """A store of three series with three channels, in a folder."""
    rows = [[f"s{n % 3}", n // 3, n / 4, n % 5, -n] for n in range(N_ROWS)]
    ingest(write_table(folder / "r.csv", ["id", "t", "u", "v", "w"], rows), folder / "s.zarr", id="id", time="t")
    return open_store(folder / "s.zarr")


def rows_of(store: Store, cache: Cache | Path, channels: tuple[str, ...] = ("u", "v")) -> RowFile:
    return open_rows(store, channels, Scaling.identity(len(channels)), cache)


def values_of(store: Store, channels: tuple[str, ...] = ("u", "v")) -> np.ndarray:
    return np.stack([store.read(name, 0, N_ROWS) for name in channels], axis=1).astype(np.float32)


def row_file(folder: Path) -> Path:
    (entry,) = cache_entries(folder)
    return Path(entry.path)


def path_of(folder: Path, *channels: str) -> Path:
    return next(Path(entry.path) for entry in cache_entries(folder) if entry.channels == channels)


def unused_for(path: Path, days: float) -> None:
    times = (time.time() - days * 86_400,) * 2
    os.utime(path.with_suffix(".json"), times)
