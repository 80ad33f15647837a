"""What the manifest, the index and the moments of a version may say, checked when they are first read.

Readers rely on each of these without looking again: that rows lie inside the arrays and once only, that every shard
that holds a row is there, and that runs, ids and codes are in their order and range.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.format.codecs import CHECKSUM_BYTES
from zstore.format.index import SeriesIndex
from zstore.format.layout import SHARD_BYTES, split_shard_key
from zstore.format.manifest import ObjectRecord
from zstore.format.moments import Moments
from zstore.format.nodes import check_promise, small_arrays
from zstore.format.parts import ROWS, Part
from zstore.format.refusals import refuse, text
from zstore.format.rowarrays import RowArray, byte_arrays, row_arrays
from zstore.format.spans import blocks, uncovered, union
from zstore.format.trust import check_record

LONGEST = (1 << 63) - 1
"""Units of time between the first and the last row of a store, at most: what an int64 can count."""


def check_records(
    records: Collection[ObjectRecord],
    document: Mapping[str, Any],
    nodes: Mapping[str, Any],
    where: str,
    with_small: bool = True,
) -> None:
    """Check the manifest of a version, or a part of it.

    Parameters
    ----------
    records
        Its objects, as the manifest lists them.
    document, nodes
        The root document, which has been checked.
    where
        For messages.
    with_small
        Whether index and moments are among them, which are then compared with what their arrays promise.

    Raises
    ------
    StoreError
        Naming the first entry that cannot be.
    """
    arrays, lengths = row_arrays(document), byte_arrays(document)
    small = tuple(f"{path}/" for path in small_arrays(document, nodes))
    promised_bytes, seen = 0, set()
    for record in records:
        check_record(record.key, record.n_bytes, record.digest, where)
        if record.key in seen:
            refuse(f"object {record.key!r} twice in the manifest", "each object once", where)
        seen.add(record.key)
        variable = record.key.partition("/c/")[0]
        if variable in arrays and variable != record.key:
            _check_shard(record, arrays[variable], document, where)
        elif variable in lengths and variable != record.key:
            shard = split_shard_key(record.key)[1]
            most = -(-lengths[variable] // SHARD_BYTES)
            if not (shard.isascii() and shard.isdigit()) or str(int(shard)) != shard or int(shard) >= most:
                refuse(f"object {record.key!r}", f"one of {most:,} shards by its number", where)
        elif record.key.startswith(small):
            promised_bytes += record.n_bytes
    if with_small:
        check_promise([nodes[path.rstrip("/")] for path in small], promised_bytes, where)


def _check_shard(record: ObjectRecord, array: RowArray, document: Mapping[str, Any], where: str) -> None:
    """A shard has the key of its number, lies before the next free one, and has room for its index of chunks."""
    shard = split_shard_key(record.key)[1]
    if not (shard.isascii() and shard.isdigit()) or array.key(int(shard)) != record.key:
        refuse(f"object {record.key!r}", "a shard by its number", where)
    next_shard = document["next_shard"] * (document["shard_rows"] // array.grid.shard_rows)
    if int(shard) >= next_shard:
        refuse(f"shard {int(shard):,} of {array.variable}", f"shards before {next_shard:,}", where)
    shortest = 16 * array.n_chunks + CHECKSUM_BYTES
    if record.n_bytes < shortest:
        refuse(f"{record.n_bytes:,} bytes of {record.key}", f"at least {shortest:,}, the index of chunks", where)


def check_sources(records: Collection[ObjectRecord], where: str) -> None:
    """Check the ledger of sources; names are for comparing, and open nothing."""
    for record in records:
        text(record.key, "the name of a source", where)
        if record.n_bytes < 0:
            refuse(f"{record.n_bytes:,} bytes of source {record.key!r}", "zero or more", where)


def check_ids(ids: NDArray[Any], where: str) -> None:
    """Check the ids of a version alone: sorted, and each once. Raises `StoreError`."""
    if np.any(ids[1:] <= ids[:-1]):
        refuse("ids that are not sorted, or not unique", "each id once, sorted", where)


def check_index(index: SeriesIndex, document: Mapping[str, Any], where: str) -> None:
    """Check the index of a version, but for its ids, and for whether the shards of its rows are there.

    See :func:`check_ids`, :func:`check_shards` and :func:`check_covered`.

    Parameters
    ----------
    index
        What was read; the lengths of its arrays have been checked.
    document
        The root document, which has been checked.
    where
        For messages.

    Raises
    ------
    StoreError
        Naming the first thing that cannot be.

    Notes
    -----
    Cost: some passes over arrays of a number per series, extent or run.
    """
    n_rows = document["n_rows"]
    _in_range(index.row_size, 0, n_rows, "row_size", where)
    if len(index.row_size) and float(index.row_size.sum(dtype=np.float64)) > 2.0 * max(n_rows, 1):
        refuse("sizes of series that add up to more than all rows", f"{n_rows:,}", where)
    if int(index.row_size.sum()) != n_rows:
        refuse(f"sizes of series that add up to {int(index.row_size.sum()):,}", f"{n_rows:,} rows", where)
    _check_extents(index, document, where)
    _check_runs(index, n_rows, where)
    for static in index.statics:
        if static.categories is not None:
            _in_range(static.values, -1, len(static.categories) - 1, f"codes of {static.name!r}", where)


def check_moments(moments: Moments, index: SeriesIndex, document: Mapping[str, Any], where: str) -> None:
    """Check the moments of a version: counts fit the rows, and codes of categories have a word. Raises `StoreError`."""
    check_ends(moments.count, moments.n_missing, moments.low, moments.high, index.row_size, document, where)


def check_ends(
    count: NDArray[np.int64],
    n_missing: NDArray[np.int64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    row_size: NDArray[np.int64],
    document: Mapping[str, Any],
    where: str,
) -> None:
    """Check what moments say but means and deviations, each (series, channel), of some series with so many rows.

    Raises `StoreError`.
    """
    for name, counts in (("count", count), ("n_missing", n_missing)):
        _in_range(counts, 0, document["n_rows"], name, where)
    if np.any(count + n_missing != row_size[:, None]):
        refuse("values and missing values that do not add up to the rows", "the rows of each series", where)
    seen = count > 0
    above = seen & ((low > high) | np.isnan(low))
    for position in np.flatnonzero(above.any(axis=0))[:1].tolist():
        name = document["channels"][position]["name"]
        refuse(f"a lowest value of {name!r} above the highest", "the lowest and the highest", where)
    for position, channel in enumerate(document["channels"]):
        if channel["categories"] is not None:
            least, most = (each[seen[:, position], position] for each in (low, high))
            _in_range(least, 0, np.inf, f"codes of {channel['name']!r}", where)
            _in_range(most, 0, len(channel["categories"]) - 1, f"codes of {channel['name']!r}", where)


def check_missing(n_missing: NDArray[np.int64], row_size: NDArray[np.int64], where: str) -> None:
    """Check the counts of missing values alone: at most the rows of each series. Raises `StoreError`."""
    if n_missing.size and (int(n_missing.min()) < 0 or np.any(n_missing > row_size[:, None])):
        refuse("missing values that are more than rows, or fewer than none", "at most the rows of each series", where)


def _check_extents(index: SeriesIndex, document: Mapping[str, Any], where: str) -> None:
    start, stop, pointer = index.extent_start, index.extent_stop, index.extent_ptr
    _in_range(start, 0, document["n_places"], "extent_start", where)
    _in_range(stop, 0, document["n_places"], "extent_stop", where)
    if np.any(stop <= start):
        refuse("an empty extent", "places [start, stop)", where)
    if pointer[0] != 0 or pointer[-1] != len(start) or np.any(pointer[1:] < pointer[:-1]):
        refuse("extent_ptr that does not ascend from 0 to the number of extents", f"{len(start):,} extents", where)
    for some in blocks(index.n_series):
        edges = pointer[some.start : some.stop + 1]
        own = slice(int(edges[0]), int(edges[-1]))
        total = np.append(0, np.cumsum(stop[own] - start[own]))
        if np.any(np.diff(total[edges - edges[0]]) != index.row_size[some]):
            refuse("extents that are not of the size of their series", "as many places as rows", where)
    _, places, sizes = index.pieces  # of extents that adjoin in this order, none overlap
    order = np.argsort(places)
    if np.any(places[order][1:] < (places + sizes)[order][:-1]):
        refuse("extents that overlap", "each place in one series at most", where)


def check_shards(index: SeriesIndex, document: Mapping[str, Any], records: Collection[str], where: str) -> None:
    """Check that every shard that holds a row of a sound index is among the objects. Raises `StoreError`."""
    arrays = row_arrays(document).values()
    _, places, sizes = index.pieces
    for size in {array.grid.shard_rows for array in arrays}:
        shards: set[int] = set()
        for low, high in union(places // size, -(-(places + sizes) // size)).tolist():
            if high - low > len(records) + 1:
                refuse(f"rows in {high - low:,} shards", f"at most {len(records):,}, the objects there are", where)
            shards.update(range(low, high))
        for array in arrays:
            for shard in shards if array.grid.shard_rows == size else ():
                if array.key(shard) not in records:
                    refuse(f"no object {array.key(shard)} in the manifest", "every shard that holds a row", where)


def check_covered(index: SeriesIndex, document: Mapping[str, Any], parts: Collection[Part], where: str) -> None:
    """Check that every row of a sound index lies where parts of the manifest list shards, and how many at most.

    A part is not read for it: a shard that is missing inside one is missed when it is read. Raises `StoreError`.
    """
    size = document["shard_rows"]
    own = [part for part in parts if part.dimension == ROWS]
    first, last = (
        np.array([n // size for n in ends], np.int64) for ends in ([p.first for p in own], [p.last for p in own])
    )
    listed = np.minimum(last - first + 1, np.array([part.n_objects for part in own], np.int64))
    most = int(listed.sum()) * size
    if document["n_rows"] > most:
        refuse(f"{document['n_rows']:,} rows", f"at most {most:,}, which the parts of the manifest can hold", where)
    _, places, sizes = index.pieces
    live = union(places // size, -(-(places + sizes) // size))
    for low, high in uncovered(live, union(first, last + 1)).tolist():
        refuse(f"no shards from {low:,} to {high - 1:,} in the manifest", "every shard that holds a row", where)


def _check_runs(index: SeriesIndex, n_rows: int, where: str) -> None:
    runs, bounds = index.runs, index.row_start
    _in_range(runs.start, 0, n_rows, "run_start", where)
    _in_range(runs.stop, 0, n_rows, "run_stop", where)
    _in_range(runs.series, 0, max(index.n_series - 1, 0), "run_series", where)
    stop = runs.stop[: len(runs.start)]  # an early store without rows has the end of a run, and no run
    ends = (int(runs.start[0]), int(stop[-1])) if len(stop) else (0, 0)
    if ends != (0, n_rows) or np.any(runs.start[1:] != stop[:-1]) or np.any(stop < runs.start):
        refuse("runs that do not follow each other", "every row in one run", where)
    if len(runs.start) and not index.n_series:
        refuse("runs of no series", "a series for each run", where)
    for some in blocks(len(stop)):
        series = runs.series[some]
        if np.any(runs.start[some] < bounds[series]) or np.any(stop[some] > bounds[series + 1]):
            refuse("a run that leaves its series", "runs inside series", where)
    if np.any(index.time_stop < index.time_start):
        refuse("a series that ends before it starts", "time_start before time_stop", where)
    if len(index.time_start):
        first, last = int(index.time_start.min()), int(index.time_stop.max())
        if last - first > LONGEST or first < -LONGEST:
            refuse(
                f"times from {first:,} to {last:,}", f"times after {-LONGEST - 1:,}, at most {LONGEST:,} apart", where
            )
        _in_range(runs.time, first, last, "run_time", where)


def _in_range(values: NDArray[Any], least: float, most: float, what: str, where: str) -> None:
    """Refuse numbers out of their range, naming one."""
    if values.size and (values.min() < least or values.max() > most):
        beyond = values.min() if values.min() < least else values.max()
        refuse(f"{what} {beyond:,}", f"{least:,} to {most:,}", where)
