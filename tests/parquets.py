"""Small Parquet files, the stores made of them, and what these have of a channel."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import zstore
from zstore import Store, open_store

READING: dict[str, Any] = {"id": "id", "time": "time"}
DAY = dt.datetime(2020, 1, 1)


def parquet(path: Path, columns: dict[str, Any], **writing: Any) -> Path:
    """Write a Parquet file of columns that are Arrow arrays, or lists."""
    pq.write_table(pa.table(columns), path, **writing)
    return path


def rows(path: Path, n_rows: int = 240, n_series: int = 5, **writing: Any) -> Path:
    """A long table in time order: words as ids, timestamps, numbers with decimals and nulls, categories."""
    random = np.random.default_rng(0)
    values = [None if random.random() < 0.1 else round(float(v), 2) for v in random.normal(size=n_rows)]
    return parquet(
        path,
        {
            "id": [f"s{n % n_series}" for n in range(n_rows)],
            "time": pa.array([DAY + dt.timedelta(hours=n // n_series) for n in range(n_rows)], pa.timestamp("us")),
            "v": values,
            "word": [["north", "south", None][n % 3] for n in range(n_rows)],
        },
        **writing,
    )


def made(source: Path | Sequence[Path], path: Path, **reading: Any) -> Store:
    zstore.ingest(source, path, **{**READING, **reading})
    return open_store(path)


def one(path: Path, array: pa.Array, **reading: Any) -> Store:
    """The store of one series whose rows have a column `x`, at times 0, 1, 2, …"""
    parquet(path / "one.parquet", {"time": list(range(len(array))), "x": array})
    return made(path / "one.parquet", path / "one.zarr", id=None, overwrite=True, **reading)


def values(store: Store, channel: str) -> list[float | None]:
    return [None if math.isnan(v) else v for v in store.read(channel, 0, store.n_rows).tolist()]


def words(store: Store, channel: str) -> list[str | None]:
    known = store.channel(channel).categories or ()
    return [None if math.isnan(c) else known[int(c)] for c in store.read(channel, 0, store.n_rows).tolist()]
