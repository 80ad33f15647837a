"""The data doctor: what looks wrong in a store, by series and channel, in one pass over its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.errors import UsageError
from zstore.format.moments import Moments
from zstore.reading.store import Store
from zstore.text import counted
from zstore.upkeep import checks
from zstore.upkeep.checks import Stretch
from zstore.upkeep.findings import KINDS, OF_FIELDS, OF_VALUES, Diagnosis, Finding, finding, of_series, of_vectors
from zstore.upkeep.history import log
from zstore.upkeep.odd_fields import odd_fields, same_payloads
from zstore.upkeep.odd_times import odd_times
from zstore.writing.cluster import ClusterClient
from zstore.writing.scheduler import Scheduler

_CHECKS: dict[str, Callable[[NDArray[Any]], Stretch | None]] = {
    "missing_run": checks.missing_run,
    "flat_line": checks.flat_line,
    "sentinel": checks.sentinels,
    "outlier": checks.outliers,
    "drift": checks.drift,
}
_MIXES = np.uint64(0x9E3779B97F4A7C15)  # odd, and its bits look random
_COPIES = 4  # of a value of a field, while it is looked at
_MANY = 3  # series in which a channel is constant, if most are: then it is told once


def examine(
    store: Store,
    progress: Callable[[int, int], None] | None = None,
    storage_options: Mapping[str, str] | None = None,
    *,
    window: int | None = None,
    skip_fields: bool = False,
    workers: int | None = None,
    scheduler: str | ClusterClient | None = None,
) -> Diagnosis:
    """Look a store over.

    Parameters
    ----------
    store
        What is looked at.
    progress
        Told the rows that are done, and how many there are, those of each field counted once more.
    storage_options
        For a store in object storage, whose earlier receipts are read.
    window
        Rows that a window needs (lookback + delay + horizon), to tell of series in which none fits; None for no such
        check.
    skip_fields
        Whether to leave out what costs decoding every value of every field.
    workers
        Threads, or processes where `scheduler` is ``local``; None for one per core.
    scheduler
        A Dask cluster whose workers see the store, as ``tcp://host:8786``; ``local`` starts one of `workers` processes
        here. Or a ``dask.distributed.Client``, which stays open.

    Raises
    ------
    CorruptionError
        If the store is damaged: `verify` comes first.
    UsageError
        If `window` is less than 1, or encoded images cannot be decoded for want of a library.

    Notes
    -----
    Each check says in `checks` and `field_checks` from where on it speaks up. Cost: every channel that is a number is
    decoded once, and some 0.3 ms a series and channel; see :func:`zstore.upkeep.odd_fields.odd_fields` for fields.
    Memory of a thread: 1 M rows, or those of the longest series, of one channel; or some 16 MB of a field, or one value
    of it. Digests, and what was seen of each row of a field, are in the memory of this process, whoever decodes.
    """
    if window is not None and window < 1:
        raise UsageError(f"a window of {window} rows", expected="at least 1", fix="correct --window")
    done, total = 0, store.n_rows * (1 + len(store.schema.fields) * (not skip_fields))

    def told(n_rows: int) -> None:
        nonlocal done
        done += n_rows
        if progress is not None:
            progress(done, total)

    found = [*_of_ingest(store, storage_options), *odd_times(store, window), *_of_moments(store)]
    largest = max((field.row_bytes for field in store.schema.fields if field.n_bytes is None), default=0)
    with Scheduler(workers, scheduler, task_bytes=_COPIES * largest) as runner:
        runner.require_store(store.storage)
        found += _of_numbers(store, runner, told)
        found = _ends_once(store, of_vectors(store, found))
        copies = {each.series for each in found if each.kind == "copy"}
        of_fields = odd_fields(store, not skip_fields, runner, told)
        found += [each for each in of_fields if each.kind != "copy" or each.series not in copies]
    order = {kind: number for number, kind in enumerate(KINDS)}
    found.sort(key=lambda each: (order[each.kind], each.start - each.stop))
    skipped = {"short"} if window is None else set()
    skipped |= set(OF_FIELDS) if not store.fields else set(OF_VALUES) if skip_fields else set()
    return Diagnosis(store, tuple(found), tuple(kind for kind in KINDS if kind not in skipped))


def _of_numbers(store: Store, runner: Scheduler, told: Callable[[int], None]) -> list[Finding]:
    """What the rows of each series and channel of numbers say."""
    numbers, row_start = [c.name for c in store.schema.channels if c.kind == "number"], store.index.row_start
    long, infinite = store.index.row_size >= checks.LEAST_ROWS, {name: store.infinite_series(name) for name in numbers}
    items: list[tuple[int, int, str, list[int]]] = []
    for low, high in checks.whole_series(row_start):
        for name, odd in infinite.items():
            odd = odd[np.searchsorted(odd, low) : np.searchsorted(odd, high)]
            judged = np.union1d(low + np.flatnonzero(long[low:high]), odd).tolist()
            if judged:
                items.append((low, high, name, judged))
    n_done, n_told = 0, 0

    def seen(number: int, _: object) -> None:
        nonlocal n_done, n_told
        n_done += 1
        so_far = store.n_rows * n_done // len(items)
        told(so_far - n_told)
        n_told = so_far

    found = runner.map("values", partial(_of_range, store=store), items, seen=seen)
    told(store.n_rows - n_told)
    return [each for findings in found for each in findings]


def _of_range(item: tuple[int, int, str, list[int]], store: Store) -> list[Finding]:
    """What the rows of some series say, of one channel: of those that are judged, by their positions."""
    low, high, name, judged = item
    row_start, found = store.index.row_start, list[Finding]()
    first, last = int(row_start[low]), int(row_start[high])
    values = store.read(name, first, last)
    for position in judged:
        start, stop = (int(row) - first for row in row_start[position : position + 2])
        found += _of_values(store, position, name, first + start, values[start:stop])
    return found


def _of_values(store: Store, position: int, channel: str, first: int, values: NDArray[Any]) -> Iterator[Finding]:
    values = np.asarray(values, np.float64)
    infinite = checks.infinite(values)
    if infinite is not None:
        yield finding(
            store, "infinite", position, channel, first + infinite.start, first + infinite.stop, infinite.detail
        )
        values = np.where(np.isinf(values), np.nan, values)
    if len(values) < checks.LEAST_ROWS:
        return
    with np.errstate(over="ignore", invalid="ignore"):  # ranges of the largest numbers leave float64
        kinds = {kind: stretch for kind, check in _CHECKS.items() if (stretch := check(values)) is not None}
    if "sentinel" in kinds:  # says why they are far away
        kinds.pop("outlier", None)
    for kind, stretch in kinds.items():
        yield finding(store, kind, position, channel, first + stretch.start, first + stretch.stop, stretch.detail)


def _ends_once(store: Store, found: Sequence[Finding]) -> list[Finding]:
    """Findings, where a channel that lacks its last values in most series, as of days to come, is one of them."""
    ends = set(store.index.row_start[1:].tolist())
    by_channel: dict[str, list[Finding]] = {}
    for each in found:
        if each.kind == "missing_run" and each.stop in ends:
            by_channel.setdefault(each.channel, []).append(each)
    most = {name: runs for name, runs in by_channel.items() if len(runs) >= max(_MANY, store.n_series // 2 + 1)}
    once = {id(run) for runs in most.values() for run in runs}
    kept = [each for each in found if id(each) not in once]
    for name, runs in most.items():
        sizes = sorted({run.stop - run.start for run in runs})
        rows = counted(sizes[0], "row") if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,} rows"
        what = f"the last {rows} of {len(runs):,} series have no value, as rows to come have none"
        kept.append(Finding("missing_run", "", name, what))
    return kept


def _of_ingest(store: Store, storage_options: Mapping[str, str] | None) -> Iterator[Finding]:
    """What the receipts of the rows in the store say, each once: the newest, and those of the versions before it.

    A version that was compacted or rolled back to has the receipt of its rows, which an earlier version has as well.
    """
    entries = {entry.version: entry for entry in log(store.path, storage_options)}
    version: int | None = store.version
    while version is not None and (entry := entries.get(version)) is not None:
        receipt = entry.receipt
        version = int(receipt.get("version", version))
        for kind, name, done in (("refused", "n_quarantined", "set aside"), ("duplicate", "n_duplicates", "dropped")):
            if count := int(receipt.get(name, 0)):
                aside = f", see {receipt['quarantine']}" if kind == "refused" and receipt.get("quarantine") else ""
                yield Finding(kind, "", "", f"{counted(count, 'row')} {done} by version {version}{aside}")
        made = entries.get(version)
        version = version - 1 if made is not None and made.action == "append" else None


def _of_moments(store: Store) -> Iterator[Finding]:
    """What the statistics of each series and channel say, without reading a row."""
    moments = store.moments
    for column, channel in enumerate(store.schema.channels):
        if channel.kind == "category":
            continue
        count, low, high = (values[:, column] for values in (moments.count, moments.low, moments.high))
        n_rows = store.index.row_size
        for position in np.flatnonzero((n_rows > 0) & (count == 0)).tolist():
            detail = f"no value in {counted(int(n_rows[position]), 'row')}"
            yield of_series(store, "empty", position, channel.name, detail)
        judged = count >= checks.LEAST_ROWS
        constant = np.flatnonzero(judged & (low == high)).tolist()
        if len(constant) >= _MANY and 2 * len(constant) > int(judged.sum()):
            detail = f"one value in each of {len(constant):,} series; a static attribute would say it once"
            yield Finding("constant", "", channel.name, detail)
            continue
        for position in constant:
            detail = f"{low[position]:g} in all {count[position]:,} rows that have a value"
            yield of_series(store, "constant", position, channel.name, detail)
    for position, other in _same_moments(moments):
        if same_payloads(store, position, other):
            every = "every channel and field" if store.fields else "every channel"
            detail = f"the same counts, means, spreads and ranges as {store.ids[other]} in {every}"
            yield of_series(store, "copy", position, "", detail)


def _same_moments(moments: Moments) -> Iterator[tuple[int, int]]:
    """Series whose moments, not all of one value, are those of an earlier one: their positions, and the first such.

    Cost: a number for each series that tells most of them apart, and an order of these; only those of one number are
    compared as a whole.
    """
    fields = [moments.count, moments.mean, moments.m2, moments.low, moments.high]
    columns = [values[:, column] for values in fields for column in range(values.shape[1])]
    key = np.zeros(len(moments.count), np.uint64)
    for column in columns:
        key ^= _finite(column).view(np.uint64)
        key *= _MIXES
        key ^= key >> np.uint64(32)
    order = np.argsort(key, kind="stable")
    alike = key[order[1:]] == key[order[:-1]]
    alike = np.append(alike, False) | np.append(False, alike) if len(key) else alike
    some = np.sort(order[alike])
    some = some[(moments.m2[some] > 0).any(axis=1)]
    numbers = np.stack([_finite(column[some]) for column in columns], axis=1) if columns else np.zeros((0, 1))
    _, first, inverse = np.unique(numbers, axis=0, return_index=True, return_inverse=True)
    first = some[first[inverse.ravel()]]
    yield from zip(some[first != some].tolist(), first[first != some].tolist(), strict=True)


def _finite(values: NDArray[Any]) -> NDArray[np.float64]:
    """Numbers as float64, with one 0 for all that are not finite, and for both of them."""
    return np.nan_to_num(values.astype(np.float64), posinf=0, neginf=0) + 0.0
