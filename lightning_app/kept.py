"""Forecasts that were made, kept in the run folder by id, origin and time: one file of Parquet for each origin."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import zarr
from numpy.typing import NDArray

from lightning_app.data.ahead.forecast import Ahead
from lightning_app.data.ahead.rows import rows_known
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.stores import names_files
from lightning_app.forecast_files import COLUMNS, joined, read_kept, schema_of, stores_of, write_kept
from lightning_app.prediction_arrays import quantile_variables, target_variables
from zstore import Store, StoreError, UsageError

logger = logging.getLogger(__name__)

FOLDER = "forecasts"
"""Of a run folder, where they are kept."""

OfOthers = Literal["refuse", "leave out", "read"]
"""What becomes of files with forecasts that were made from another store."""
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
    beside
        By column, such as ``q0.1``, ``lower80`` and ``upper80``, (value,) quantiles and ends of intervals in source
        units, NaN where there is none.
    """

    ids: NDArray[Any]
    origin: Int64
    time: Int64
    step: Int64
    targets: NDArray[Any]
    forecast: NDArray[np.float64]
    beside: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.forecast)


def keep_forecasts(folder: Path, predictions: Path, data: WindowDataModule, ahead: Ahead) -> list[Path]:
    """Keep what `predict` has forecast.

    Parameters
    ----------
    folder
        Where forecasts are kept, such as ``runs/x/forecasts``.
    predictions
        The store of predictions.
    data
        What they are of.
    ahead
        Their windows.

    Returns
    -------
    The files that were written: ``2024-06-30.parquet`` for an origin, with a row for each id, target row and target
    that is a number; behind the forecast are columns of quantiles, such as ``q0.1``, and of the ends of intervals, such
    as ``lower80`` and ``upper80``, where there are some, null for ids that have none.

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
    table, axis = _table(predictions, data, ahead), data.store.schema.time
    folder.mkdir(parents=True, exist_ok=True)
    origins = _whole_numbers(table["origin"])
    written = []
    for origin in np.unique(origins).tolist():
        rows = table.filter(pa.array(origins == origin))
        path = folder / f"{axis.show(origin).replace(' ', 'T').replace(':', '')}.parquet"
        stores = {_name_of(data)}
        if path.exists():
            before, known = read_kept(path, data.store)
            others = ~np.isin(before["id"].to_numpy(), rows["id"].to_numpy())
            rows = joined([before.filter(pa.array(others)), rows])
            stores |= known if others.any() else set()
        rows = rows.sort_by([("id", "ascending"), ("target", "ascending"), ("step", "ascending")])
        write_kept(path, rows, stores)
        written.append(path)
    return written


def read_forecasts(
    folder: Path, store: Store, paths: Sequence[Path] | None = None, of_others: OfOthers = "refuse"
) -> Forecasts:
    """Read forecasts that were kept.

    Parameters
    ----------
    folder
        Where they are.
    store
        What they are forecasts of.
    paths
        Some of its files. Default: all.
    of_others
        Whether files with forecasts that were made from another store are refused, left out or read; the latter two are
        told in a warning.

    Raises
    ------
    StoreError
        If a file is damaged or has times of another kind, or a forecast is kept twice.
    UsageError
        If forecasts were made from another store. A store that was ingested anew is another one; one that was appended
        to, copied or moved is not, nor is one of files that have changed. Older files do not say it, and are read.
    """
    if paths is None:
        paths = sorted(path for path in folder.glob("*.parquet") if not path.name.startswith("."))
    known = {store.schema.uuid, _name_in_cache(store)}
    others = [path for path in paths if not stores_of(path) <= known]
    read = [path for path in paths if of_others != "leave out" or path not in others]
    tables = [read_kept(path, store)[0] for path in read]
    if others:
        _tell_others(others, store, of_others)
    table = joined([schema_of(store).empty_table(), *tables])
    key = table.select(["id", "origin", "step", "target"])
    if key.group_by(key.column_names).aggregate([]).num_rows != table.num_rows:
        raise StoreError(
            f"forecasts that are kept twice, in {' and '.join(_twice(read, tables))}",
            expected="one file for each origin, as predict writes it",
            where=str(folder),
            fix="remove one of the files",
        )
    texts = (table[name].to_numpy() for name in ("id", "target"))
    numbers = (_whole_numbers(table[name]) for name in ("origin", "time", "step"))
    (ids, targets), (origin, time, step) = texts, numbers
    beside = {name: table[name].to_numpy() for name in table.column_names[len(COLUMNS) :]}
    return Forecasts(ids, origin, time, step, targets, table["forecast"].to_numpy(), beside)


def _name_of(data: WindowDataModule) -> str:
    """What names a store: its uuid. One of files is ingested anew when they change, so these name it."""
    return _name_in_cache(data.store) if names_files(str(data.options.store)) else data.store.schema.uuid


def _name_in_cache(store: Store) -> str:
    return Path(store.path).stem


def _tell_others(paths: Sequence[Path], store: Store, of_others: OfOthers) -> None:
    files = f"{paths[0]}{f' and {len(paths) - 1:,} more' if len(paths) > 1 else ''}"
    what = f"forecasts of another store than {store.path}, or from before it was ingested anew, in {files}"
    if of_others == "refuse":
        expected = "forecasts that were made from the store that they are scored against"
        again = f"python -m lightning_app evaluate {paths[0].parent.parent} --data.store {store.path}"
        raise UsageError(what, expected=expected, fix=f"move the files away, or, if both have the same series: {again}")
    logger.warning(what + (", are not scored" if of_others == "leave out" else ""))


def _twice(paths: Sequence[Path], tables: Sequence[pa.Table]) -> list[str]:
    """The names of two files with a forecast of the same id, origin, step and target; or of one that has it twice."""
    known: dict[Any, str] = {}
    for path, table in zip(paths, tables, strict=True):
        for key in zip(*(table[name].to_pylist() for name in ("id", "origin", "step", "target")), strict=True):
            if key in known:
                return sorted({known[key], path.name})
            known[key] = path.name
    return []


def _table(predictions: Path, data: WindowDataModule, ahead: Ahead) -> pa.Table:
    """All forecasts of numbers in a store of predictions, as a table."""
    store = data.store
    group: Any = zarr.open_group(str(predictions), mode="r")
    ids, times = group["id"][:].astype(object), group["time"][:]
    n, horizon = times.shape
    first = ahead.index.locate(np.arange(n))[0]
    origin = ahead.row_times[first + rows_known(ahead.index.shape) - 1]
    n_nodes = max(data.view.n_nodes, 1)
    nodes = np.tile(ids, n) if data.view.nodes is not None else ids
    each = n * n_nodes
    tables = []
    names = target_variables(store, data.targets)
    stems = [name.removesuffix("quantile") for name in quantile_variables(names)]
    for target, name, stem in zip(data.targets, names, stems, strict=True):
        if store.channel(target).kind != "number":
            continue
        by_row = (-1, horizon, n_nodes)

        def flat(values: Any, shape: tuple[int, ...] = by_row) -> NDArray[np.float64]:
            found: NDArray[np.float64] = values.reshape(shape).swapaxes(1, 2).ravel().astype(np.float64)
            return found

        columns = (
            np.repeat(nodes, horizon),
            np.repeat(origin, n_nodes * horizon),
            np.repeat(times, n_nodes, axis=0).ravel(),
            np.tile(np.arange(1, horizon + 1), each),
            np.full(each * horizon, target, object),
            flat(group[name][:]),
        )
        beside = {column: flat(values) for column, values in _beside(group, stem).items()}
        table = dict(zip(COLUMNS, columns, strict=True)) | beside
        tables.append(pa.table(table).cast(schema_of(store, tuple(beside))))
    return joined([schema_of(store).empty_table(), *tables])


def _beside(group: Any, stem: str) -> dict[str, NDArray[Any]]:
    """By column, the quantiles and ends of intervals of a target in a store of predictions."""
    found: dict[str, NDArray[Any]] = {}
    for ending, column, factor in (("quantile", "q", 1), ("lower", "lower", 100), ("upper", "upper", 100)):
        if f"{stem}{ending}" in group:
            array = group[f"{stem}{ending}"]
            levels, values = group[array.metadata.dimension_names[-1]][:], array[:]
            found |= {f"{column}{factor * level:.6g}": values[..., n] for n, level in enumerate(levels.tolist())}
    return found


def _whole_numbers(column: Any) -> Int64:
    found: Int64 = column.combine_chunks().cast(pa.int64()).to_numpy(zero_copy_only=False)
    return found
