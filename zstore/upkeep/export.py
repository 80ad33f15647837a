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

from zstore.errors import StoreError, UsageError
from zstore.format.layout import TIME
from zstore.reading.columns import free_name, read_codes
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
        File to write, ending in ``.csv`` or ``.parquet``. It appears when it is whole. Categories are words; in
        Parquet they are dictionaries, which pandas reads as Categorical.
    ids
        Series to write; None for all.
    progress
        Called with rows done and in all.

    Returns
    -------
    The number of rows. Memory: one batch of 262,144 rows.

    Notes
    -----
    Channels keep their names. Ids are called as in the source, or ``id`` where it had no column of them, and times
    ``time``; either gets ``_`` behind its name as often as it takes to be unique, see :func:`id_and_time`. So the file
    can be ingested again with ``--id`` and ``--time``.

    Raises
    ------
    UsageError
        If `target` ends in something else.
    NotFoundError
        If the store has no such id.
    """
    if target.suffix not in (".csv", ".parquet"):
        raise UsageError(
            f"export to {target}", expected="a file ending in .csv or .parquet", fix="choose one of these endings"
        )
    ranges = _ranges(store, ids)
    n_rows, done = sum(stop - start for start, stop in ranges), 0
    schema = _schema(store, words_once=target.suffix == ".parquet")
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


def id_and_time(store: Store) -> tuple[str, str]:
    """Names of the columns of ids and of times in an export."""
    id_ = free_name(store.schema.id_name or "id", store.channels)
    return id_, free_name(TIME, {id_, *store.channels})


def _schema(store: Store, words_once: bool) -> Any:
    """Columns and their types; with `words_once` categories are dictionaries."""
    axis = store.schema.time
    id_, time = id_and_time(store)
    fields = [(id_, pa.string()), (time, pa.int64() if axis.unit is None else pa.timestamp(axis.unit, tz=axis.zone))]
    for channel in store.schema.channels:
        kind = pa.from_numpy_dtype(np.dtype(channel.dtype))
        if channel.kind == "category":
            kind = pa.dictionary(pa.int32(), pa.string()) if words_once else pa.string()
        fields.append((channel.name, kind))
    return pa.schema(fields)


def _batch(store: Store, schema: Any, start: int, stop: int) -> Any:
    series = store.index.series_of(start, stop)
    ids = pa.array(store.index.ids[series[0] : series[-1] + 1].tolist(), pa.string())
    columns = [ids.take(pa.array(series - series[0]))]
    columns.append(pa.array(store.times(start, stop)).cast(schema.field(1).type))
    for number, channel in enumerate(store.schema.channels, 2):
        if channel.kind == "number":
            values = store.read(channel.name, start, stop)
            columns.append(pa.array(values, mask=np.isnan(values)))
            continue
        codes = read_codes(store, channel, start, stop)
        indices = pa.array(np.maximum(codes, 0).astype(np.int32), mask=codes < 0)
        words = pa.DictionaryArray.from_arrays(indices, pa.array(channel.categories, pa.string()))
        columns.append(words.cast(schema.field(number).type))
    return pa.record_batch(columns, schema=schema)


def _writer(path: Path, suffix: str, schema: Any) -> Any:
    if suffix == ".csv":
        return pacsv.CSVWriter(str(path), schema, write_options=pacsv.WriteOptions(quoting_style="needed"))
    from pyarrow import parquet  # takes 10 ms to import, which every command would pay for

    return parquet.ParquetWriter(str(path), schema, compression="zstd")
