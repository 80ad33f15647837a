"""Forecasts that were made, kept in the run folder by id, origin and time: one file of Parquet for each origin."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from numpy.typing import NDArray

from lightning_app.data.ahead.forecast import Ahead
from lightning_app.data.ahead.rows import rows_known
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.prediction_arrays import quantile_variables, target_variables
from zstore import Store, StoreError

FOLDER = "forecasts"
"""Of a run folder, where they are kept."""
COLUMNS = ("id", "origin", "time", "step", "target", "forecast")
_DIGEST = b"lightning_app_sha256"  # of the values, in the metadata of a file
_BESIDE = re.compile(r"(q|lower|upper)(\d[\d.e+-]*)")

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
        if path.exists():
            before = _read(path, data.store)
            others = ~np.isin(before["id"].to_numpy(), rows["id"].to_numpy())
            rows = _joined([before.filter(pa.array(others)), rows])
        rows = rows.sort_by([("id", "ascending"), ("target", "ascending"), ("step", "ascending")])
        write_kept(path, rows)
        written.append(path)
    return written


def write_kept(path: Path, rows: pa.Table) -> None:
    """Write a file of forecasts, which is there as a whole or not at all, with a digest of its values."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        pq.write_table(rows.replace_schema_metadata({_DIGEST: _digest(rows)}), file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def read_forecasts(folder: Path, store: Store, paths: Sequence[Path] | None = None) -> Forecasts:
    """Read forecasts that were kept.

    Parameters
    ----------
    folder
        Where they are.
    store
        Has the unit of their times.
    paths
        Some of its files. Default: all.

    Raises
    ------
    StoreError
        If a file is damaged or has times of another kind, or a forecast is kept twice.
    """
    if paths is None:
        paths = sorted(path for path in folder.glob("*.parquet") if not path.name.startswith("."))
    table = _joined([_schema(store).empty_table(), *(_read(path, store) for path in paths)])
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
    beside = {name: table[name].to_numpy() for name in table.column_names[len(COLUMNS) :]}
    return Forecasts(ids, origin, time, step, targets, table["forecast"].to_numpy(), beside)


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
        tables.append(pa.table(table).cast(_schema(store, tuple(beside))))
    return _joined([_schema(store).empty_table(), *tables])


def _beside(group: Any, stem: str) -> dict[str, NDArray[Any]]:
    """By column, the quantiles and ends of intervals of a target in a store of predictions."""
    found: dict[str, NDArray[Any]] = {}
    for ending, column, factor in (("quantile", "q", 1), ("lower", "lower", 100), ("upper", "upper", 100)):
        if f"{stem}{ending}" in group:
            array = group[f"{stem}{ending}"]
            levels, values = group[array.metadata.dimension_names[-1]][:], array[:]
            found |= {f"{column}{factor * level:.6g}": values[..., n] for n, level in enumerate(levels.tolist())}
    return found


def _joined(tables: list[pa.Table]) -> pa.Table:
    """All rows, with every column that some have; but for those that are null throughout."""
    table = pa.concat_tables(tables, promote_options="default")
    empty = [name for name in table.column_names[len(COLUMNS) :] if table[name].null_count == len(table)]
    names = [name for name in table.column_names[len(COLUMNS) :] if name not in empty]
    return table.select([*COLUMNS, *sorted(names, key=_kind_and_level)])


def _kind_and_level(column: str) -> tuple[str, float]:
    kind, level = cast("re.Match[str]", _BESIDE.fullmatch(column)).groups()
    return kind, float(level)


def _schema(store: Store, beside: Sequence[str] = ()) -> pa.Schema:
    unit = store.schema.time.unit
    time = pa.int64() if unit is None else pa.timestamp(unit)
    kinds = (pa.string(), time, time, pa.int32(), pa.string(), pa.float64(), *([pa.float64()] * len(beside)))
    return pa.schema(zip((*COLUMNS, *beside), kinds, strict=True))


def _whole_numbers(column: Any) -> Int64:
    found: Int64 = column.combine_chunks().cast(pa.int64()).to_numpy(zero_copy_only=False)
    return found


def _read(path: Path, store: Store) -> pa.Table:
    """A file of forecasts, with times in the unit of the store."""
    try:
        table = pq.read_table(path, partitioning=None)
        names = table.column_names
    except (pa.ArrowException, OSError, ValueError) as error:
        raise StoreError(
            f"forecasts that cannot be read ({str(error).partition(chr(10))[0]})",
            expected="a file that predict wrote",
            where=str(path),
            fix="restore the file, or remove it: then its forecasts are not scored",
        ) from error
    beside = names[len(COLUMNS) :]
    if tuple(names[: len(COLUMNS)]) != COLUMNS or not _are_levels(beside):
        raise StoreError(
            f"forecasts with the columns {', '.join(names)}",
            expected=f"{', '.join(COLUMNS)}, and quantiles and intervals such as q0.1, lower80 and upper80",
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
    noted = (table.schema.metadata or {}).get(_DIGEST)
    try:
        found = table.cast(_schema(store, beside))
        if any(found[name].null_count for name in COLUMNS) or not np.isfinite(found["forecast"].to_numpy()).all():
            raise ValueError("values are missing, or not finite")
        if noted is not None and noted != _digest(found):  # older files have none
            raise ValueError("values are not those that were written")
    except (pa.ArrowException, ValueError) as error:
        raise StoreError(
            f"damaged forecasts ({str(error).partition(chr(10))[0]})",
            expected="a file as predict wrote it",
            where=str(path),
            fix="restore the file, or remove it: then its forecasts are not scored",
        ) from error
    return found


def _are_levels(columns: Sequence[str]) -> bool:
    """Whether columns are quantiles and both ends of intervals, named as they are here."""
    parts = [match.groups() for match in map(_BESIDE.fullmatch, columns) if match]
    try:
        named = [f"{kind}{float(level):.6g}" for kind, level in parts if 0 < float(level) < (1 if kind == "q" else 100)]
    except ValueError:  # as 1..2
        return False
    lower, upper = ({level for kind, level in parts if kind == end} for end in ("lower", "upper"))
    return named == list(columns) and len(set(columns)) == len(columns) and lower == upper


def _digest(table: pa.Table) -> bytes:
    """Names all values of a table, whatever the unit of times: Parquet does not tell when a bit has changed."""
    found = hashlib.sha256()
    for name in table.column_names:
        values = table[name].to_numpy()
        if values.dtype.kind == "M":
            seconds = values.astype("datetime64[s]")
            values = np.stack([seconds.astype(np.int64), (values - seconds).astype("timedelta64[ns]").astype(np.int64)])
        elif values.dtype.kind == "f":
            values = np.where(np.isnan(values), np.nan, values)  # all alike
        content = json.dumps(values.tolist()).encode() if values.dtype.kind == "O" else values.tobytes()
        found.update(f"{name} {values.dtype} {len(content)} ".encode() + content)
    return found.hexdigest().encode()
