"""Compare everything a version needs with its digests, and the index with the rows."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from zstore.errors import CorruptionError
from zstore.format.arrays import to_bytes
from zstore.format.layout import ROOT, TIME, root_copy_key, shard_bounds
from zstore.reading.objects import ObjectReader, committed_versions, open_compared
from zstore.reading.store import Store


@dataclass(frozen=True)
class Verification:
    """What was checked, and every fault found as a sentence.

    Parameters
    ----------
    n_objects, n_bytes
        Objects and bytes compared with their digests.
    faults
        One sentence each; empty for a sound store.
    """

    n_objects: int
    n_bytes: int
    faults: tuple[str, ...]


def verify(store: Store, workers: int = 2, progress: Callable[[int, int], None] | None = None) -> Verification:
    """Check every object of a version against the manifest, then that the index fits the rows.

    Parameters
    ----------
    store
        The version to check.
    workers
        Objects read at once.
    progress
        Called with objects done and in all.

    Raises
    ------
    CorruptionError
        If the manifest itself cannot be trusted, so nothing else can be checked.
    StoreError
        If the store was replaced since it was opened.
    """
    records = list(store.objects.records.values())
    faults: list[str] = []
    with ThreadPoolExecutor(workers) as pool:
        for done, fault in enumerate(pool.map(lambda record: _fault(store, record.key), records), start=1):
            if fault:
                faults.append(fault)
            if progress:
                progress(done, len(records))
    faults += _root_faults(store)
    if not faults:
        faults += _index_faults(store)
    if faults:
        store.objects.refuse_replaced()
    return Verification(len(records), sum(record.n_bytes for record in records), tuple(faults))


def _fault(store: Store, key: str) -> str:
    try:
        open_compared(store.storage, store.objects.records[key])
    except CorruptionError as error:
        return f"{error.what}{f', expected {error.expected}' if error.expected else ''}{_rows_hit(store, key)}"
    return ""


def _root_faults(store: Store) -> list[str]:
    """Faults of what no manifest lists: the copy of the root document, and the arrays' own documents."""
    faults, objects = [], store.objects
    key, versions = root_copy_key(store.version), committed_versions(store.storage)
    # The writer that committed may have died before it made the copy.
    unfinished = store.version == versions[-1] and store.storage.n_bytes(key) is None
    if not unfinished and store.storage.read(key) != objects.root:
        faults.append(f"object {root_copy_key(store.version)} is not the root document of version {store.version}")
    if store.version != versions[-1]:
        return faults
    for variable in (TIME, *(channel.variable for channel in store.schema.channels)):
        mirror = f"{variable}/{ROOT}"
        content = b"" if store.storage.n_bytes(mirror) is None else store.storage.read(mirror)
        if content != to_bytes(objects.nodes[variable]) and content != _older_mirror(store, versions[:-1], variable):
            faults.append(f"object {mirror} is not the array's document in the root")
    return faults


def _older_mirror(store: Store, versions: list[int], variable: str) -> bytes | None:
    """What an array's own document was before the newest version; until its writer has refreshed it, it is so still."""
    for version in reversed(versions):
        nodes = ObjectReader(store.storage, version).nodes
        if variable in nodes:
            return to_bytes(nodes[variable])
    return None


def _rows_hit(store: Store, key: str) -> str:
    """Which rows and ids a damaged shard takes with it."""
    variable, _, shard = key.partition("/c/")
    names = {channel.variable: channel.name for channel in store.schema.channels} | {"time": "time"}
    if variable not in names or not shard.isdigit():
        return ""
    start, stop = shard_bounds(int(shard), store.schema.n_places, store.schema.shard_rows)
    text = f": {names[variable]}, rows {start:,} to {stop - 1:,}"
    try:
        index = store.index
    except CorruptionError:
        return text
    touched = np.flatnonzero((index.extent_start < stop) & (index.extent_stop > start))
    if not len(touched):
        return text
    series = np.searchsorted(index.extent_ptr, touched, side="right") - 1
    return f"{text}, ids {index.ids[series.min()]!r} to {index.ids[series.max()]!r}"


def _index_faults(store: Store) -> list[str]:
    index, faults = store.index, []
    if int(index.row_size.sum()) != int((index.extent_stop - index.extent_start).sum()):
        faults.append("index: the sizes of the series do not add up to their extents")
    if len(index.runs.start) and int((index.runs.stop - index.runs.start).sum()) != int(index.row_size.sum()):
        faults.append("index: the runs do not cover the rows")
    order = np.argsort(index.extent_start)
    bounds = np.stack([index.extent_start[order], index.extent_stop[order]], axis=1).ravel()
    if len(bounds) and (np.any(np.diff(bounds) < 0) or bounds[0] < 0 or bounds[-1] > store.schema.n_places):
        faults.append("index: extents overlap, or lie outside the arrays")
    faults += _run_faults(store)
    keys = [str(id_).encode() for id_ in index.ids]
    if keys != sorted(set(keys)):
        faults.append("index: ids are not sorted and unique")
    counted = store.moments.count + store.moments.n_missing
    if counted.size and np.any(counted != index.row_size[:, None]):
        faults.append("moments: values and missing values do not add up to the rows")
    for position in range(store.n_series):
        first, last = index.extent_ptr[position], index.extent_ptr[position + 1]
        if np.any(index.extent_stop[first:last] <= index.extent_start[first:last]):
            faults.append(f"index: id {str(index.ids[position])!r} has an empty extent")
    return faults


def _run_faults(store: Store) -> list[str]:
    """Whether runs, by the time step rule, lead from the first time of each series to its last one."""
    index, rule = store.index, store.time.rule
    runs = index.runs
    if not rule.regular or not len(runs.series):
        return []
    begins = np.append(True, runs.series[1:] != runs.series[:-1])
    ends = np.append(begins[1:], True)
    reach = rule.times(runs.stop - runs.start - 1, runs.time)
    wrong = set(runs.series[begins & (runs.time != index.time_start[runs.series])].tolist())
    wrong |= set(runs.series[ends & (reach != index.time_stop[runs.series])].tolist())
    return [f"index: the runs of id {str(index.ids[each])!r} do not lead to its times" for each in sorted(wrong)]
