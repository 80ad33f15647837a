"""A store as one table again: CSV or Parquet, in the order of the store, streaming."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv as pacsv
from pyarrow import parquet

from zstore.errors import StoreError, UsageError
from zstore.format.layout import TIME
from zstore.reading.store import Store

_BATCH_ROWS = 1 << 18


def export(
    store: Store,
    target: Path,
    ids: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write rows as CSV or Parquet, by the ending of `target`.

    Parameters
    ----------
    store
        What to write.
    target
        A file ending in ``.csv`` or ``.parquet``; it appears when it is whole.
    ids
        Series to write; None for all.
    progress
        Called with rows done and in all.

    Returns
    -------
    The number of rows. Memory: one batch of 262,144 rows.

    Raises
    ------
    UsageError
        If `target` ends in something else.
    NotFoundError
        If the store has no such id.
    """
    if target.suffix not in (".csv", ".parquet"):
        raise UsageError(f"export to {target}", expected="a file ending in .csv or .parquet", fix="mend OUT")
    ranges = _ranges(store, ids)
    n_rows, done = sum(stop - start for start, stop in ranges), 0
    schema = _schema(store)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        with _writer(temporary, target.suffix, schema) as writer:
            for start, stop in _batches(ranges):
                writer.write_batch(_batch(store, schema, start, stop))
                done += stop - start
                if progress:
                    progress(done, n_rows)
        os.replace(temporary, target)
    except OSError as error:
        raise StoreError(
            f"cannot write {target} ({error.strerror or error})", fix="free some space or check the permissions"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return n_rows


def _ranges(store: Store, ids: Sequence[str] | None) -> list[tuple[int, int]]:
    """Row ranges to write."""
    bounds = store.index.row_start
    if ids is None:
        return [(0, store.n_rows)]
    return [(int(bounds[position]), int(bounds[position + 1])) for position in map(store.position, ids)]


def _batches(ranges: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for start, stop in ranges:
        for first in range(start, stop, _BATCH_ROWS):
            yield first, min(first + _BATCH_ROWS, stop)


def _schema(store: Store) -> Any:
    axis = store.schema.time
    time = pa.int64() if axis.unit is None else pa.timestamp(axis.unit, tz=axis.zone)
    fields = [(store.schema.id_name or "id", pa.string()), (TIME, time)]
    for channel in store.schema.channels:
        kind = pa.string() if channel.categories is not None else pa.from_numpy_dtype(np.dtype(channel.dtype))
        fields.append((channel.name, kind))
    return pa.schema(fields)


def _batch(store: Store, schema: Any, start: int, stop: int) -> Any:
    index = store.index
    bounds = index.row_start
    series = np.arange(np.searchsorted(bounds, start, side="right") - 1, np.searchsorted(bounds, stop))
    low, high = np.maximum(bounds[series], start), np.minimum(bounds[series + 1], stop)
    ids = pa.array(index.ids[series].astype(object), pa.string()).take(
        pa.array(np.repeat(np.arange(len(series)), high - low))
    )
    columns = [ids, pa.array(store.times(start, stop)).cast(schema.field(1).type)]
    for channel in store.schema.channels:
        values = store.read(channel.name, start, stop)
        missing = np.isnan(values)
        if channel.categories is not None:
            codes = pa.array(np.where(missing, 0, values).astype(np.int32), mask=missing)
            columns.append(pa.array(channel.categories, pa.string()).take(codes))
        else:
            columns.append(pa.array(values, mask=missing))
    return pa.record_batch(columns, schema=schema)


def _writer(path: Path, suffix: str, schema: Any) -> Any:
    if suffix == ".csv":
        return pacsv.CSVWriter(str(path), schema, write_options=pacsv.WriteOptions(quoting_style="needed"))
    return parquet.ParquetWriter(str(path), schema, compression="zstd")
