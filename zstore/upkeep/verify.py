"""Compare everything a version needs with its digests, and the index with the rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from zstore.errors import CorruptionError, StoreError, UsageError
from zstore.format.documents import to_bytes
from zstore.format.layout import (
    CHUNK_BYTES,
    ROOT,
    SHARD_BYTES,
    RowGrid,
    root_copy_key,
    shard_bounds,
    shard_key,
    split_shard_key,
)
from zstore.format.manifest import ObjectRecord
from zstore.format.rowarrays import RowArray, byte_arrays, row_arrays
from zstore.format.shards import check_chunks
from zstore.format.soundness import check_shards
from zstore.reading.ahead import Ahead
from zstore.reading.compared import open_compared
from zstore.reading.listed import PartedManifest
from zstore.reading.root import committed_versions, root_document
from zstore.reading.store import Store
from zstore.storage.protocol import Opened
from zstore.writing.cluster import ClusterClient
from zstore.writing.scheduler import Scheduler
from zstore.writing.sources.join import grouped
from zstore.writing.sources.options import TableOptions

_TASK_BYTES = 1 << 26
"""Compared by a task of a cluster: some 30 ms."""
_LEAST_TASKS = 64


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


def verify(
    store: Store,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
    *,
    scheduler: str | ClusterClient | None = None,
) -> Verification:
    """Check every object of a version against the manifest, then that the index fits the rows.

    Parameters
    ----------
    store
        The version to check.
    workers
        Objects looked at at once; of a bucket, up to 128 MiB are fetched ahead of them.
    progress
        Called with objects done and in all.
    scheduler
        A Dask cluster whose workers see the store, as ``tcp://host:8786``; ``local`` starts one of `workers` processes
        here. Or a ``dask.distributed.Client``, which stays open.

    Raises
    ------
    UsageError
        If `workers` is less than 1.
    CorruptionError
        If the manifest itself cannot be trusted, so nothing else can be checked.
    StoreError
        If the store was replaced since it was opened.
    """
    if workers < 1:
        raise UsageError(f"workers {workers}", expected="one or more", fix="correct --workers")
    records, unread = _listed(store)
    faults = [*_linked_faults(store), *unread]
    arrays = row_arrays(store.objects.document)
    wanted = _chunks_needed(store, records, arrays.values())
    of_each = partial(_faults_in, store=store, arrays=arrays, wanted=wanted)
    if scheduler is None:
        for done, fault in enumerate(of_each(records, workers), start=1):
            faults += [fault] if fault else []
            if progress:
                progress(done, len(records))
    else:
        with Scheduler(workers, scheduler, lambda _, done, total, __: progress and progress(done, total)) as runner:
            runner.require_store(store.storage)
            groups = [records[a:b] for a, b in grouped([one.n_bytes for one in records], _TASK_BYTES, _LEAST_TASKS)]
            for found in runner.map("verify", partial(_in_group, of_each), groups, list(map(len, groups)), "objects"):
                faults += [fault for fault in found if fault]
    faults += _root_faults(store)
    if not faults:
        faults += _small_faults(store, records)
    if not faults:
        faults += [*_run_faults(store), *_byte_faults(store)]
    if faults:
        store.objects.refuse_replaced()
    return Verification(len(records), sum(record.n_bytes for record in records), tuple(faults))


def _listed(store: Store) -> tuple[list[ObjectRecord], list[str]]:
    """Every object of the version, and the parts of its manifest that cannot be trusted."""
    manifest = store.objects.manifest
    if not isinstance(manifest, PartedManifest):
        return list(store.objects.records.values()), []
    records, faults = list[ObjectRecord](), []
    for part in manifest.top.objects:
        try:
            records += manifest.listed(part).values()
        except StoreError as error:
            faults.append(f"{error.what}; the {part.n_objects:,} objects that it lists were not looked at")
    return records, faults


def _check_shards(store: Store, records: Collection[ObjectRecord]) -> None:
    """Refuse an index whose rows lie in shards that are not listed; a manifest in parts was not read for it yet."""
    check_shards(store.index, store.objects.document, {record.key for record in records}, store.path)


def _in_group(of_each: Callable[[list[ObjectRecord]], Iterable[str]], records: list[ObjectRecord]) -> list[str]:
    return list(of_each(records))


def _faults_in(
    records: Sequence[ObjectRecord],
    workers: int = 1,
    *,
    store: Store,
    arrays: Mapping[str, RowArray],
    wanted: Mapping[tuple[str, str], int],
) -> Iterator[str]:
    """What is wrong with each of some objects, in their order; ``""`` for a sound one."""
    opened = Ahead(partial(open_compared, store.storage), records, store.storage.remote)
    with ThreadPoolExecutor(workers) as pool, opened:  # which ends first, so that none of them waits for it
        yield from pool.map(lambda record: _fault(store, record, opened, arrays, wanted), records)


def _fault(
    store: Store,
    record: ObjectRecord,
    objects: Ahead[Opened],
    arrays: Mapping[str, RowArray],
    wanted: Mapping[tuple[str, str], int],
) -> str:
    key = record.key
    try:
        opened = objects.take(key)
        if (grid := _shard_grid(store, key, arrays)) is not None:
            n_written = check_chunks(opened.read, record.n_bytes, *grid)
            if n_written < (needed := wanted.get(split_shard_key(key), 0)):
                raise ValueError(f"it has {n_written:,} chunks, and its rows need {needed:,}")
    except CorruptionError as error:
        return f"{error.what}{f', expected {error.expected}' if error.expected else ''}{_rows_hit(store, key)}"
    except ValueError as error:
        return f"object {key} has its digest, and cannot be decoded ({error}){_rows_hit(store, key)}"
    return ""


def _chunks_needed(
    store: Store, records: Collection[ObjectRecord], arrays: Collection[RowArray]
) -> dict[tuple[str, str], int]:
    """By variable and shard that holds rows, the chunks that it must have; nothing where the index tells nothing."""
    try:
        _check_shards(store, records)
        start, stop = store.index.extent_start, store.index.extent_stop
    except StoreError:
        return {}  # told where the index is checked
    extents, needed = list(zip(start.tolist(), stop.tolist(), strict=True)), dict[tuple[RowGrid, int], int]()
    for grid in {array.grid for array in arrays}:
        for low, high in extents:
            for shard in range(low // grid.shard_rows, (high - 1) // grid.shard_rows + 1):
                last = min(high - shard * grid.shard_rows, grid.shard_rows)
                needed[grid, shard] = max(needed.get((grid, shard), 0), -(-last // grid.chunk_rows))
    return {
        (array.variable, str(shard)): n_chunks
        for array in arrays
        for (grid, shard), n_chunks in needed.items()
        if grid == array.grid
    }


def _shard_grid(store: Store, key: str, arrays: Mapping[str, RowArray]) -> tuple[str, int, int] | None:
    """Library, bytes of a chunk and chunks of a shard, of the array that a shard belongs to."""
    variable, shard = split_shard_key(key)
    array = arrays.get(variable)
    if not shard or (array is None and variable not in byte_arrays(store.objects.document)):
        return None
    library = store.objects.nodes[variable]["codecs"][0]["configuration"]["codecs"][1]["name"]
    if array is None:
        return library, CHUNK_BYTES, SHARD_BYTES // CHUNK_BYTES
    return library, array.chunk_bytes, array.n_chunks


def _linked_faults(store: Store) -> list[str]:
    """Links and special files in the folder of a store, whatever they are called: nobody's work but a stranger's."""
    return [f"{error.strerror}" for error in store.storage.strangers()]


def _root_faults(store: Store) -> list[str]:
    """Faults of what no manifest lists: the copy of the root document, and the arrays' own documents."""
    faults, objects = [], store.objects
    key, versions = root_copy_key(store.version), committed_versions(store.storage)
    # The writer that committed may have died before it made the copy.
    unfinished = store.version == versions[-1] and store.storage.n_bytes(key) is None
    if not unfinished and not _is(store, key, objects.root.content):
        faults.append(f"object {root_copy_key(store.version)} is not the root document of version {store.version}")
    if store.version != versions[-1]:
        return faults
    for variable in (*row_arrays(objects.document), *byte_arrays(objects.document)):
        mirror = f"{variable}/{ROOT}"
        if not _is(store, mirror, to_bytes(objects.nodes[variable])):
            older = _older_mirror(store, versions[:-1], variable)
            if older is None or not _is(store, mirror, older):
                faults.append(f"object {mirror} is not the array's document in the root")
    return faults


def _is(store: Store, key: str, content: bytes) -> bool:
    """Whether an object is this; one of another length is not read."""
    try:
        return store.storage.n_bytes(key) == len(content) and store.storage.read(key, most=len(content)) == content
    except OSError:
        return False  # a link, or gone meanwhile


def _older_mirror(store: Store, versions: list[int], variable: str) -> bytes | None:
    """What an array's own document was before the newest version; until its writer has refreshed it, it is so still."""
    for version in reversed(versions):
        nodes = root_document(store.storage, version).nodes
        if variable in nodes:
            return to_bytes(nodes[variable])
    return None


def _rows_hit(store: Store, key: str) -> str:
    """Which rows and ids a damaged shard takes with it."""
    variable, shard = split_shard_key(key)
    array = row_arrays(store.objects.document).get(variable)
    if array is None or not shard.isdigit():
        return ""
    names = {field.variable: field.name for field in (*store.schema.channels, *store.schema.fields)}
    start, stop = shard_bounds(int(shard), store.schema.n_places, array.grid.shard_rows)
    text = f": {names.get(variable, variable)}, rows {start:,} to {stop - 1:,}"
    try:
        index, ids = store.index, store.ids
    except StoreError:
        return text
    touched = np.flatnonzero((index.extent_start < stop) & (index.extent_stop > start))
    if not len(touched):
        return text
    series = np.searchsorted(index.extent_ptr, touched, side="right") - 1
    return f"{text}, ids {ids[series.min()]!r} to {ids[series.max()]!r}"


def _small_faults(store: Store, records: Collection[ObjectRecord]) -> list[str]:
    """What is wrong with index, ids, moments and ledger, though they have their digests, checked as readers do."""
    faults = []
    checks = {name: partial(getattr, store, name) for name in ("ids", "index", "moments", "ledger")}
    checks["shards"] = partial(_check_shards, store, records)
    checks["table"] = partial(TableOptions.from_json, store.objects.document["table"])
    for name, check in checks.items():
        try:
            check()
        except StoreError as error:
            faults.append(f"{name}: {error.what}; expected {error.expected}")
            break  # the others rely on it
    return faults


def _byte_faults(store: Store) -> list[str]:
    """Whether the bytes of every row of a field of bytes lie inside its array, and in an object."""
    faults, size = [], store.schema.shard_rows
    for field in store.schema.fields:
        if field.n_bytes is None:
            continue
        for start in range(0, store.n_rows, size):
            try:
                for low, high in store.byte_ranges(field.name, start, min(start + size, store.n_rows)).tolist():
                    shards = range(low // SHARD_BYTES, -(-high // SHARD_BYTES) if high > low else 0)
                    absent = [n for n in shards if shard_key(field.variable, n) not in store.objects.records]
                    if absent:
                        raise CorruptionError(f"no object {shard_key(field.variable, absent[0])}")
            except StoreError as error:
                faults.append(f"{field.name}: {error.what}")
                break
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
