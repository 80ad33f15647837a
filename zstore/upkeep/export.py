"""A store as tables again: CSV, Parquet, or a folder of Parquet, in the order of the store, streaming."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv as pacsv

from zstore.errors import StoreError, UsageError
from zstore.reading.columns import are_dates
from zstore.reading.selection import Selection
from zstore.reading.store import Store
from zstore.storage.portable import exchange
from zstore.upkeep.outfile import check_place

_PART = re.compile(r"part-[0-9]+\.parquet")


def export(
    store: Store | Selection,
    target: Path | str,
    ids: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
    *,
    rows_per_file: int | None = None,
    statics: bool = False,
    fields: Sequence[str] | None = None,
    overwrite: bool = False,
) -> int:
    """Write rows as CSV or Parquet.

    Parameters
    ----------
    store
        What to write: a store, or a part of it from :meth:`Store.sel`.
    target
        File to write, ending in ``.csv`` or ``.parquet``; with `rows_per_file` a folder of Parquet files. It appears
        when it is whole. Categories are words; in Parquet they are dictionaries, which pandas reads as Categorical.
    ids
        Series of a store to write; None for all.
    progress
        Called with rows done and in all.
    rows_per_file
        Rows of each file of a folder, about; None for one file. Files are called ``part-00000.parquet`` and so on, in
        the order of the rows; all rows of a series are in one of them, so that readers pass over files by their ids.
    statics
        Whether to write static attributes as columns too.
    fields
        Fields to write too, to Parquet; None for none. Encoded images are bytes, others ``arrow.fixed_shape_tensor``,
        which are lists to readers that do not know it.
    overwrite
        Whether to replace what is there: a file, or a folder that has files of such names only.

    Returns
    -------
    The number of rows.

    Notes
    -----
    The columns are those of :meth:`Selection.to_arrow`: channels keep their names, ids are called as in the source, or
    ``id`` where it had no column of them, and times ``time``; either gets ``_`` behind its name as often as it takes to
    be unique. So what was written can be ingested again with ``--id`` and ``--time``. In CSV, times are dates where
    every time of the store is a midnight, else dates and clocks, with ``Z`` where they are of UTC. Memory: as there.

    Raises
    ------
    UsageError
        If `target` ends in something else, or is there already; if `fields` are to be written as CSV.
    NotFoundError
        If the store has no such id, or no such field.
    StoreError
        If it cannot be written.
    """
    rows, target = _rows(store, ids), Path(target)
    _check(target, rows_per_file, overwrite)
    if fields and rows_per_file is None and target.suffix == ".csv":
        raise UsageError(
            f"--fields {','.join(fields)} in {target.name}",
            expected="Parquet, whose columns may hold arrays and bytes",
            fix="choose a name that ends in .parquet, or leave --fields out",
        )
    n_rows, done = rows.n_rows, 0

    def told(n_more: int) -> None:
        nonlocal done
        done += n_more
        if progress:
            progress(done, n_rows)

    with _whole(target, overwrite) as building:
        if rows_per_file is None:
            _write(building, target.suffix, rows, statics, fields, told)
            return n_rows
        building.mkdir()
        for number, part in enumerate(_parts(rows, rows_per_file)):
            _write(building / f"part-{number:05d}.parquet", ".parquet", part, statics, fields, told)
    return n_rows


def _rows(store: Store | Selection, ids: Sequence[str] | None) -> Selection:
    if isinstance(store, Store):
        return store.sel(ids)
    if ids is not None:
        raise UsageError("ids of a selection", expected="a store, or a selection that has them", fix="store.sel(ids)")
    return store


def _check(target: Path, rows_per_file: int | None, overwrite: bool) -> None:
    """Refuse what cannot be meant, before anything is written."""
    check_place(target, "export")
    if rows_per_file is None and target.suffix not in (".csv", ".parquet"):
        raise UsageError(
            f"export to {target}",
            expected="a file ending in .csv or .parquet, or a folder and --rows-per-file",
            fix="choose one of these endings",
        )
    if rows_per_file is not None and rows_per_file < 1:
        raise UsageError(f"--rows-per-file {rows_per_file}", expected="at least 1")
    if not os.path.lexists(target):
        return
    if not overwrite:
        raise _occupied(target)
    folder = target.is_dir() and not target.is_symlink()
    if folder != (rows_per_file is not None) or (folder and not all(map(_PART.fullmatch, os.listdir(target)))):
        raise UsageError(
            f"--overwrite of {target}",
            expected="a folder of part-*.parquet only" if rows_per_file is not None else "a file",
            fix="choose another name",
        )


@contextmanager
def _whole(target: Path, overwrite: bool) -> Iterator[Path]:
    """A name beside the target for what is written; it takes the target's name when it is whole."""
    building = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    aside = building.with_suffix(".old")
    try:
        yield building
        if overwrite and target.is_dir():
            exchange(building, target, aside)
        elif building.is_dir():
            os.rename(building, target)  # the system refuses a folder that came meanwhile, unless it is empty
        elif overwrite:
            os.replace(building, target)
        else:
            _name(building, target)
    except OSError as error:
        raise StoreError(
            f"cannot write {target} ({error.strerror or error})", fix="free some space or check the permissions"
        ) from error
    finally:
        if building.is_dir():
            shutil.rmtree(building)
        building.unlink(missing_ok=True)


def _name(building: Path, target: Path) -> None:
    """Give a file its name, but not that of a file that came meanwhile."""
    try:
        os.link(building, target)
    except FileExistsError:
        raise _occupied(target) from None
    except OSError:  # a file system without links
        if os.path.lexists(target):
            raise _occupied(target) from None
        os.replace(building, target)


def _occupied(target: Path) -> UsageError:
    return UsageError(f"{target} is there already", expected="a free name", fix="choose another, or pass --overwrite")


def _parts(rows: Selection, most: int) -> Iterator[Selection]:
    """The same rows in parts of about `most` rows, all of a series in one; at least one part."""
    size = rows.ranges.sizes
    cuts = np.flatnonzero(np.diff((np.cumsum(size) - size) // most)) + 1
    for series in np.split(rows.series, cuts):
        yield replace(rows, series=series)


def _write(
    path: Path,
    suffix: str,
    rows: Selection,
    statics: bool,
    fields: Sequence[str] | None,
    told: Callable[[int], None],
) -> None:
    batches = rows.to_arrow(statics, fields)
    schema = batches.schema
    if suffix == ".csv":
        dates = are_dates(rows.store)
        schema = pa.schema([(field.name, _plain(field.type, dates)) for field in schema])
    with _writer(path, suffix, schema) as writer:
        for batch in batches:
            writer.write_batch(batch.cast(schema) if suffix == ".csv" else batch)
            told(batch.num_rows)


def _plain(kind: Any, dates: bool) -> Any:
    """The type that a column of CSV is written from; Arrow writes the rest as :func:`written_times` has it."""
    if dates and pa.types.is_timestamp(kind):
        return pa.date32()
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _writer(path: Path, suffix: str, schema: Any) -> Any:
    if suffix == ".csv":
        return pacsv.CSVWriter(str(path), schema, write_options=pacsv.WriteOptions(quoting_style="needed"))
    from pyarrow import parquet  # takes 10 ms to import, which every command would pay for

    return parquet.ParquetWriter(str(path), schema, compression="zstd")
