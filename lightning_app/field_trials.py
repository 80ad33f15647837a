"""How fast the fields of a store are decoded here, and which residency has room for them: part of ``zstore plan``."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.rows.fields import FieldPlace
from lightning_app.data.supply import rooms_of
from zstore import FieldReader

FIELD_PLACES: tuple[FieldPlace, ...] = ("device", "host", "encoded", "stream")

_SIZES = {"under 1 GB": 10**9, "under 10 GB": 10**10, "under 100 GB": 10**11, "beyond": 10**12}
_BLOCK_BYTES = 1 << 23
_BATCH = 64  # rows that are decoded together, some here and some there


@dataclass(frozen=True)
class FieldTrial:
    """A field, how fast it is decoded, and where there is room for it.

    Parameters
    ----------
    name, rows
        The field, and its rows in words.
    options
        What the data module is asked for, with where its rows are to live.
    decoded_bytes, stored_bytes
        Of all rows, decoded and as they are stored.
    decoded_mb_per_s, rows_per_s
        Megabytes and rows that as many threads as PyTorch has decode in a second, in their order.
    random_rows_per_s
        Rows that they decode in a second, 64 at a time from anywhere; 0 where the store is in a bucket.
    chosen
        Where its rows are to live.
    why_not
        By residency, why there is no room for it there.
    by_size
        What ``auto`` takes here for a field of such rows, by the size of all of them decoded.
    """

    name: str
    rows: str
    options: dict[str, Any]
    decoded_bytes: int
    stored_bytes: int
    decoded_mb_per_s: float
    rows_per_s: float
    random_rows_per_s: float
    chosen: FieldPlace
    why_not: dict[str, str]
    by_size: dict[str, str]


def try_fields(data: WindowDataModule, seconds: float) -> tuple[FieldTrial, ...]:
    """Decode parts of each field that batches have, for some seconds each, and look for room."""
    layout, placement = data.layout, data.placement
    return tuple(_tried(data, name, reader, placement.fields[name], seconds) for name, reader in layout.readers.items())


def _tried(data: WindowDataModule, name: str, reader: FieldReader, chosen: FieldPlace, seconds: float) -> FieldTrial:
    in_order = _rate(lambda: _in_order(reader), seconds / 2)
    at_random = 0.0 if reader.remote else _rate(lambda: _at_random(reader), seconds / 2)
    reader.close()
    rooms = rooms_of(data.layout, data.placement, data.process)  # that channels leave
    shape = " x ".join(map(str, reader.shape))
    return FieldTrial(
        name=name,
        options=data.options.fields[name].to_json() | {"residency": chosen},
        rows=f"{reader.n_rows:,} rows of {shape} {reader.dtype}",
        decoded_bytes=reader.decoded_bytes,
        stored_bytes=reader.stored_bytes,
        decoded_mb_per_s=in_order * reader.row_bytes / 1e6,
        rows_per_s=in_order,
        random_rows_per_s=at_random,
        chosen=chosen,
        why_not=rooms.lacking(reader.decoded_bytes, reader.stored_bytes, reader.remote),
        by_size={
            label: rooms.fitting(n_bytes, n_bytes * reader.stored_bytes // reader.decoded_bytes, reader.remote)[0]
            for label, n_bytes in _SIZES.items()
        },
    )


def _rate(work: Callable[[], int], seconds: float) -> float:
    """Rows a second of work that says how many rows it did."""
    work()  # shards are compared with their digests when they are first read
    began, n_rows = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - began) < seconds or not n_rows:
        n_rows += work()
    return n_rows / elapsed


def _in_order(reader: FieldReader) -> int:
    """Decode a block on each thread, the blocks next to each other somewhere."""
    n_blocks = torch.get_num_threads()
    size = max(_BLOCK_BYTES // reader.row_bytes // reader.chunk_rows, 1) * reader.chunk_rows
    first = int(np.random.default_rng().integers(max(reader.n_rows - n_blocks * size, 0) + 1))
    first -= first % reader.chunk_rows
    starts = range(first, min(first + n_blocks * size, reader.n_rows), size)

    def read(start: int) -> int:
        n_rows = min(size, reader.n_rows - start)
        reader.read(start, np.empty((n_rows, *reader.shape), reader.dtype))
        return n_rows

    with ThreadPoolExecutor(n_blocks) as pool:
        return sum(pool.map(read, starts))


def _at_random(reader: FieldReader) -> int:
    rows = np.random.default_rng().integers(reader.n_rows, size=_BATCH)
    reader.take(rows, np.empty((_BATCH, *reader.shape), reader.dtype), torch.get_num_threads())
    return _BATCH


def show_fields(trials: tuple[FieldTrial, ...]) -> list[str]:
    """Lines about fields."""
    lines = []
    for each in trials:
        random = f", {each.random_rows_per_s:,.0f} rows/s at random" if each.random_rows_per_s else ""
        sizes = ", ".join(f"{label} {place}" for label, place in each.by_size.items())
        lines += [
            f"field {each.name}: {each.rows}, {each.decoded_bytes / 1e9:.3f} GB decoded, "
            f"{each.stored_bytes / 1e9:.3f} GB stored: {each.chosen}",
            f"  decoding: {each.decoded_mb_per_s:,.0f} MB/s, {each.rows_per_s:,.0f} rows/s in order{random}",
            *(f"  {place}: no room, {why}" for place, why in each.why_not.items()),
            f"  such rows of other sizes here: {sizes}",
        ]
    return lines
