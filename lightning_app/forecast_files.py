"""Files of kept forecasts: written as a whole or not at all, with a digest, and checked when they are read."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence, Set
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from zstore import Store, StoreError

COLUMNS = ("id", "origin", "time", "step", "target", "forecast")
"""Of each file; behind them are quantiles and ends of intervals, such as ``q0.1``, ``lower80`` and ``upper80``."""
_DIGEST = b"lightning_app_sha256"  # of the values, in the metadata of a file
_STORES = b"lightning_app_stores"  # that they were made from, likewise
_BESIDE = re.compile(r"(q|lower|upper)(\d[\d.e+-]*)")


def write_kept(path: Path, rows: pa.Table, stores: Set[str] = frozenset()) -> None:
    """Write a file of forecasts, which is there as a whole or not at all.

    Parameters
    ----------
    path
        The file.
    rows
        As :func:`schema_of` has them. Their digest is written beside them.
    stores
        Names of the stores that they were made from; older files have none.
    """
    names = ",".join(sorted(stores)).encode()
    metadata = {_DIGEST: _digest(rows, names), **({_STORES: names} if stores else {})}
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        pq.write_table(rows.replace_schema_metadata(metadata), file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def read_kept(path: Path, store: Store) -> tuple[pa.Table, set[str]]:
    """Read a file of forecasts.

    Returns
    -------
    Its table, with times in the unit of the store, and the stores that it was made from, if it says so.

    Raises
    ------
    StoreError
        If it is damaged, is no such file, or has times of another kind.
    """
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
    metadata = table.schema.metadata or {}
    noted, stores = metadata.get(_DIGEST), metadata.get(_STORES, b"")
    zone = getattr(kind, "tz", None)
    if stores and (zone is None) != (store.schema.time.zone is None):  # older files have no zone
        raise StoreError(
            f"forecasts at times {'without a zone' if zone is None else 'in UTC'}",
            expected=f"times {'in UTC' if zone is None else 'without a zone'}, as {store.path} has them",
            where=str(path),
            fix="evaluate them against the store that they were made from, or move the file away",
        )
    try:
        found = table.cast(schema_of(store, beside))
        if any(found[name].null_count for name in COLUMNS) or not np.isfinite(found["forecast"].to_numpy()).all():
            raise ValueError("values are missing, or not finite")
        if noted is not None and noted != _digest(found, stores):  # older files have none
            raise ValueError("values are not those that were written")
    except (pa.ArrowException, ValueError) as error:
        raise StoreError(
            f"damaged forecasts ({str(error).partition(chr(10))[0]})",
            expected="a file as predict wrote it",
            where=str(path),
            fix="restore the file, or remove it: then its forecasts are not scored",
        ) from error
    return found, _names(stores)


def stores_of(path: Path) -> set[str]:
    """What names the stores that a file of forecasts was made from: none, if it is old, or cannot be read."""
    try:
        return _names((pq.read_schema(path).metadata or {}).get(_STORES, b""))
    except (pa.ArrowException, OSError, ValueError):
        return set()


def _names(stores: bytes) -> set[str]:
    return set(stores.decode(errors="replace").split(",")) if stores else set()


def joined(tables: list[pa.Table]) -> pa.Table:
    """All rows, with every column that some have; but for those that are null throughout."""
    table = pa.concat_tables(tables, promote_options="default")
    empty = [name for name in table.column_names[len(COLUMNS) :] if table[name].null_count == len(table)]
    names = [name for name in table.column_names[len(COLUMNS) :] if name not in empty]
    return table.select([*COLUMNS, *sorted(names, key=_kind_and_level)])


def _kind_and_level(column: str) -> tuple[str, float]:
    kind, level = cast("re.Match[str]", _BESIDE.fullmatch(column)).groups()
    return kind, float(level)


def schema_of(store: Store, beside: Sequence[str] = ()) -> pa.Schema:
    """Columns of forecasts of a store, in the unit of its times; in UTC where it is."""
    axis = store.schema.time
    time = pa.int64() if axis.unit is None else pa.timestamp(axis.unit, None if axis.zone is None else "UTC")
    kinds = (pa.string(), time, time, pa.int32(), pa.string(), pa.float64(), *([pa.float64()] * len(beside)))
    return pa.schema(zip((*COLUMNS, *beside), kinds, strict=True))


def _are_levels(columns: Sequence[str]) -> bool:
    """Whether columns are quantiles and both ends of intervals, named as they are here."""
    parts = [match.groups() for match in map(_BESIDE.fullmatch, columns) if match]
    try:
        named = [f"{kind}{float(level):.6g}" for kind, level in parts if 0 < float(level) < (1 if kind == "q" else 100)]
    except ValueError:  # as 1..2
        return False
    lower, upper = ({level for kind, level in parts if kind == end} for end in ("lower", "upper"))
    return named == list(columns) and len(set(columns)) == len(columns) and lower == upper


def _digest(table: pa.Table, stores: bytes = b"") -> bytes:
    """Names all values of a table, whatever the unit of times: Parquet does not tell when a bit has changed."""
    found = hashlib.sha256(stores)
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
