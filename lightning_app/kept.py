"""Forecasts that were made, kept in the run folder by id, origin and time: one file of Parquet for each origin."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from numpy.typing import NDArray

from lightning_app.data.ahead.rows import rows_known
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.prediction_arrays import target_variables
from zstore import Store, StoreError

FOLDER = "forecasts"
"""Of a run folder, where they are kept."""
COLUMNS = ("id", "origin", "time", "step", "target", "forecast")

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Forecasts:
    """Forecasts that were kept, a value each.

    Parameters
    ----------
    ids, targets
        (value,) texts.
    origin, time
        (value,) last known row, and the row that is forecast, in the unit of the store.
    step
        (value,) number of the target row, from 1.
    forecast
        (value,) float64 in source units.
    """

    ids: NDArray[Any]
    origin: Int64
    time: Int64
    step: Int64
    targets: NDArray[Any]
    forecast: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.forecast)


def keep_forecasts(folder: Path, predictions: Path, data: WindowDataModule) -> list[Path]:
    """Keep what `predict` has forecast of rows to come.

    Parameters
    ----------
    folder
        Where forecasts are kept, such as ``runs/x/forecasts``.
    predictions
        The store of predictions.
    data
        What they are of; `predict_on` is ``future``.

    Returns
    -------
    The files that were written: ``2024-06-30.parquet`` for an origin, with a row for each id, target row and target
    that is a number.

    Raises
    ------
    StoreError
        If an earlier file of the same origin is damaged.

    Notes
    -----
    Each file is written under another name, flushed and renamed, so it is there as a whole or not at all. Forecasts of
    the same id and origin replace those that were kept before; other ids of that origin stay. Memory: all forecasts of
    one call.
    """
    table, axis = _table(predictions, data), data.store.schema.time
    folder.mkdir(parents=True, exist_ok=True)
    origins = _whole_numbers(table["origin"])
    written = []
    for origin in np.unique(origins).tolist():
        rows = table.filter(pa.array(origins == origin))
        path = folder / f"{axis.show(origin).replace(' ', 'T').replace(':', '')}.parquet"
        if path.exists():
            before = _read(path, data.store)
            others = ~np.isin(before["id"].to_numpy(), rows["id"].to_numpy())
            rows = pa.concat_tables([before.filter(pa.array(others)), rows])
        rows = rows.sort_by([("id", "ascending"), ("target", "ascending"), ("step", "ascending")])
        partial = path.with_name(f".{path.name}.partial")
        with partial.open("wb") as file:
            pq.write_table(rows, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        written.append(path)
    return written


def read_forecasts(folder: Path, store: Store) -> Forecasts:
    """Read all forecasts that were kept.

    Parameters
    ----------
    folder
        Where they are.
    store
        Has the unit of their times.

    Raises
    ------
    StoreError
        If a file is damaged or has times of another kind, or a forecast is kept twice.
    """
    paths = sorted(path for path in folder.glob("*.parquet") if not path.name.startswith("."))
    table = pa.concat_tables([_schema(store).empty_table(), *(_read(path, store) for path in paths)])
    key = table.select(["id", "origin", "step", "target"])
    if key.group_by(key.column_names).aggregate([]).num_rows != table.num_rows:
        raise StoreError(
            f"forecasts in {folder} that are kept twice",
            expected="one file for each origin, as predict writes it",
            fix="remove copies of files",
        )
    texts = (table[name].to_numpy() for name in ("id", "target"))
    numbers = (_whole_numbers(table[name]) for name in ("origin", "time", "step"))
    (ids, targets), (origin, time, step) = texts, numbers
    return Forecasts(ids, origin, time, step, targets, table["forecast"].to_numpy())


def _table(predictions: Path, data: WindowDataModule) -> pa.Table:
    """All forecasts of numbers in a store of predictions, as a table."""
    store, ahead = data.store, data.ahead
    group: Any = zarr.open_group(str(predictions), mode="r")
    ids, times = group["id"][:].astype(object), group["time"][:]
    n, horizon = times.shape
    first = ahead.index.locate(np.arange(n))[0]
    origin = ahead.row_times[first + rows_known(ahead.index.shape) - 1]
    n_nodes = max(data.view.n_nodes, 1)
    nodes = np.tile(ids, n) if data.view.nodes is not None else ids
    each = n * n_nodes
    tables = []
    for target, name in zip(data.targets, target_variables(store, data.targets), strict=True):
        if store.channel(target).kind != "number":
            continue
        values = group[name][:].reshape(n, horizon, n_nodes).swapaxes(1, 2)
        columns = (
            np.repeat(nodes, horizon),
            np.repeat(origin, n_nodes * horizon),
            np.repeat(times, n_nodes, axis=0).ravel(),
            np.tile(np.arange(1, horizon + 1), each),
            np.full(each * horizon, target, object),
            values.ravel().astype(np.float64),
        )
        tables.append(pa.table(dict(zip(COLUMNS, columns, strict=True))).cast(_schema(store)))
    return pa.concat_tables([_schema(store).empty_table(), *tables])


def _schema(store: Store) -> pa.Schema:
    unit = store.schema.time.unit
    time = pa.int64() if unit is None else pa.timestamp(unit)
    return pa.schema(zip(COLUMNS, (pa.string(), time, time, pa.int32(), pa.string(), pa.float64()), strict=True))


def _whole_numbers(column: Any) -> Int64:
    found: Int64 = column.combine_chunks().cast(pa.int64()).to_numpy(zero_copy_only=False)
    return found


def _read(path: Path, store: Store) -> pa.Table:
    """A file of forecasts, with times in the unit of the store."""
    try:
        table = pq.read_table(path, partitioning=None)
    except (pa.ArrowInvalid, OSError) as error:
        raise StoreError(
            f"forecasts that cannot be read ({str(error).partition(chr(10))[0]})",
            expected="a file that predict wrote",
            where=str(path),
            fix="restore the file, or remove it: then its forecasts are not scored",
        ) from error
    if tuple(table.column_names) != COLUMNS:
        raise StoreError(
            f"forecasts with the columns {', '.join(table.column_names)}",
            expected=", ".join(COLUMNS),
            where=str(path),
            fix="remove the file, which predict did not write",
        )
    unit, kind = store.schema.time.unit, table.schema.field("origin").type
    if pa.types.is_timestamp(kind) != (unit is not None):
        raise StoreError(
            f"forecasts at {'dates' if unit is None else 'whole steps'}",
            expected=f"{'whole steps' if unit is None else 'dates'}, as {store.path} has them",
            where=str(path),
            fix="evaluate them against the store that they were made from",
        )
    return table.cast(_schema(store))
