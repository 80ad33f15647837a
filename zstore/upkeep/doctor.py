"""The data doctor: what looks wrong in a store, by series and channel, in one pass over its rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.reading.store import Store
from zstore.upkeep import checks
from zstore.upkeep.checks import Stretch
from zstore.upkeep.history import log

KINDS = {
    "refused": "rows that were set aside at ingest",
    "duplicate": "rows dropped at ingest, whose time another row had",
    "off_grid": "rows between the time steps of their series, or series between those of the others",
    "gap": "time steps without a row",
    "clock_change": "an hour missing on a Sunday in spring: times with summer time",
    "sampling_change": "another step between rows at the end than at the beginning",
    "infinite": "values that are infinite, which no scaler takes and every loss shows",
    "empty": "a channel without any value in a series",
    "constant": "a channel with one value only in a series",
    "copy": "a series with the numbers of another one",
    "missing_run": "a long stretch without values",
    "flat_line": "a long stretch of one value",
    "sentinel": "numbers that people write for a missing value",
    "outlier": "values far beyond all others",
    "drift": "another level or spread at the end than at the beginning",
}
"""What is looked for."""

_CHECKS: dict[str, Callable[[NDArray[Any]], Stretch | None]] = {
    "missing_run": checks.missing_run,
    "flat_line": checks.flat_line,
    "sentinel": checks.sentinels,
    "outlier": checks.outliers,
    "drift": checks.drift,
}
_PIECE_ROWS = 1 << 20
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_DAY_S = 86_400


@dataclass(frozen=True)
class Finding:
    """One thing that looks wrong.

    Parameters
    ----------
    kind
        One of :data:`KINDS`.
    series
        Id of the series; empty for the store as a whole.
    channel
        The channel; empty for the rows themselves.
    detail
        What it is.
    start, stop
        Rows of the store that it is about; equal where it is about none.
    when
        Time of the first of them.
    """

    kind: str
    series: str
    channel: str
    detail: str
    start: int = 0
    stop: int = 0
    when: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """All findings about one version of a store, those about most rows first within each kind.

    Parameters
    ----------
    store
        What was looked at.
    findings
        What was found.
    """

    store: Store
    findings: tuple[Finding, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Findings of each kind there is, in the order of :data:`KINDS`."""
        found = Counter(finding.kind for finding in self.findings)
        return {kind: found[kind] for kind in KINDS if found[kind]}

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "store": self.store.path,
            "version": self.store.version,
            "counts": self.counts,
            "findings": [asdict(finding) for finding in self.findings],
        }


def examine(
    store: Store,
    progress: Callable[[int, int], None] | None = None,
    storage_options: Mapping[str, str] | None = None,
) -> Diagnosis:
    """Look a store over.

    Parameters
    ----------
    store
        What is looked at.
    progress
        Told the rows that are done, and how many there are.
    storage_options
        For a store in object storage, whose earlier receipts are read.

    Raises
    ------
    CorruptionError
        If the store is damaged: `verify` comes first.

    Notes
    -----
    Each check says in `checks` from where on it speaks up. Cost: every channel that is a number is decoded once, and
    some 0.3 ms a series and channel. Memory: 1 M rows, or those of the longest series, of one channel.
    """
    found = [*_of_ingest(store, storage_options), *_of_times(store), *_of_moments(store)]
    numbers = [channel.name for channel in store.schema.channels if channel.categories is None]
    row_start = store.index.row_start
    for low, high in _pieces(row_start):
        first, last = int(row_start[low]), int(row_start[high])
        for name in numbers:
            values = store.read(name, first, last)
            for position in range(low, high):
                start, stop = (int(row) - first for row in row_start[position : position + 2])
                found += _of_values(store, position, name, first + start, values[start:stop])
        if progress is not None:
            progress(last, store.n_rows)
    order = {kind: number for number, kind in enumerate(KINDS)}
    return Diagnosis(store, tuple(sorted(found, key=lambda each: (order[each.kind], each.start - each.stop))))


def _pieces(row_start: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Ranges of whole series of some 1 M rows."""
    low, n_series = 0, len(row_start) - 1
    while low < n_series:
        reached = int(np.searchsorted(row_start, row_start[low] + _PIECE_ROWS, side="right")) - 1
        high = min(max(reached, low + 1), n_series)
        yield low, high
        low = high


def _of_values(store: Store, position: int, channel: str, first: int, values: NDArray[Any]) -> Iterator[Finding]:
    values = np.asarray(values, np.float64)
    infinite = checks.infinite(values)
    if infinite is not None:
        yield _finding(
            store, "infinite", position, channel, first + infinite.start, first + infinite.stop, infinite.detail
        )
        values = np.where(np.isinf(values), np.nan, values)
    if len(values) < checks.LEAST_ROWS:
        return
    kinds = {kind: stretch for kind, check in _CHECKS.items() if (stretch := check(values)) is not None}
    if "sentinel" in kinds:  # says why they are far away
        kinds.pop("outlier", None)
    for kind, stretch in kinds.items():
        yield _finding(store, kind, position, channel, first + stretch.start, first + stretch.stop, stretch.detail)


def _of_ingest(store: Store, storage_options: Mapping[str, str] | None) -> Iterator[Finding]:
    """What the receipts of all versions that are kept say."""
    for entry in log(store.path, storage_options):
        if entry.version > store.version:
            continue
        receipt = entry.receipt
        for kind, name in (("refused", "n_quarantined"), ("duplicate", "n_duplicates")):
            if count := int(receipt.get(name, 0)):
                aside = f", see {receipt['quarantine']}" if kind == "refused" and receipt.get("quarantine") else ""
                yield Finding(kind, "", "", f"{count:,} rows of version {entry.version}{aside}")


def _of_times(store: Store) -> Iterator[Finding]:
    index, axis = store.index, store.schema.time
    rule = axis.rule
    if not rule.regular:
        for position in range(store.n_series):
            first, last = index.row_start[position : position + 2].tolist()
            if (stretch := checks.sampling_change(store.times(first, last))) is not None:
                start, stop = first + stretch.start, first + stretch.stop
                yield _finding(store, "sampling_change", position, "", start, stop, stretch.detail)
        return
    runs = index.runs
    off: NDArray[np.int64] = np.flatnonzero(~rule.steps(index.time_start, index.time_start[:1])[1])
    if 2 * len(off) > store.n_series:  # most are: then it is the first that is off
        off = off[:0] if store.n_series < 3 else np.zeros(1, np.int64)
    for position in off.tolist():
        row = int(index.row_start[position])
        between = f"{rule.count:,} {axis.unit or 'steps'}" if rule.plain else str(rule)
        detail = f"times lie between steps of {between}"
        yield _finding(store, "off_grid", position, "", row, int(index.row_start[position + 1]), detail)
    last_time = rule.times(runs.stop - runs.start - 1, runs.time)
    follows = np.flatnonzero(runs.series[1:] == runs.series[:-1])
    before, after, rows = last_time[follows], runs.time[follows + 1], runs.start[follows + 1]
    owner, lost = runs.series[follows + 1], np.maximum(rule.steps(after, before)[0] - 1, 0)
    per_second = _PER_SECOND.get(axis.unit or "")
    clock = (
        checks.clock_changes(before, after, rule.count, per_second)
        if per_second and rule.plain and rule.count < _DAY_S * per_second
        else np.zeros(0, np.int64)
    )
    by_clock = np.isin(np.arange(len(follows)), clock)
    skipped = lost > 0
    yield from _off_rule(store, owner[~skipped], rows[~skipped])
    for kind, chosen in (("clock_change", by_clock & skipped), ("gap", ~by_clock & skipped)):
        there = np.flatnonzero(chosen)
        for mine in np.split(there, np.flatnonzero(np.diff(owner[there])) + 1) if len(there) else []:
            position = int(owner[mine[0]])
            longest = mine[np.argmax(lost[mine])]
            n_lost = int(lost[mine].sum())
            what = f"{n_lost:,} {rule.noun(n_lost) if rule.calendar else 'steps'}"
            detail = f"{len(mine):,} of {what} together, the longest of {int(lost[longest]):,}"
            if kind == "gap" and _thinned(lost[mine], int(index.row_size[position])):
                kept = f"a row every {int(np.median(lost[mine])) + 1:,} steps"
                yield _finding(store, "sampling_change", position, "", int(rows[longest]), int(rows[longest]) + 1, kept)
            else:
                yield _finding(store, kind, position, "", int(rows[longest]), int(rows[longest]) + 1, detail)


def _off_rule(store: Store, owner: NDArray[np.int64], rows: NDArray[np.int64]) -> Iterator[Finding]:
    """Rows before which no row is missing, and which follow no other: they lie between the steps of the rule."""
    for position in np.unique(owner).tolist():
        mine = rows[owner == position]
        first, n_rows = int(mine[0]), len(mine)
        detail = (
            f"{n_rows:,} row{'s' if n_rows > 1 else ''} less than a step of {store.time.rule}, or no whole one, after"
        )
        yield _finding(store, "off_grid", position, "", first, first + 1, f"{detail} the row before")


def _thinned(lost: NDArray[np.int64], n_rows: int) -> bool:
    """Whether gaps are so many, and so alike, that the series just has a longer step somewhere."""
    return len(lost) >= max(checks.LEAST_ROWS, n_rows / 10) and float(np.mean(lost == np.median(lost))) > 0.9


def _of_moments(store: Store) -> Iterator[Finding]:
    """What the statistics of each series and channel say, without reading a row."""
    moments = store.moments
    for column, channel in enumerate(store.schema.channels):
        if channel.categories is not None:
            continue
        count, low, high = (values[:, column] for values in (moments.count, moments.low, moments.high))
        for position in np.flatnonzero(store.index.row_size > 0).tolist():
            if not count[position]:
                yield _whole(store, "empty", position, channel.name, "no value")
            elif low[position] == high[position] and count[position] >= checks.LEAST_ROWS:
                detail = f"{low[position]:g} in all {count[position]:,} rows"
                yield _whole(store, "constant", position, channel.name, detail)
    fields = [moments.count, moments.mean, moments.m2, moments.low, moments.high]
    numbers = np.nan_to_num(np.concatenate(fields, axis=1).astype(np.float64), posinf=0, neginf=0)
    _, first, inverse = np.unique(numbers, axis=0, return_index=True, return_inverse=True)
    varied = (moments.m2 > 0).any(axis=1)
    for position in np.flatnonzero(varied & (first[inverse.ravel()] != np.arange(store.n_series))).tolist():
        other = store.ids[first[inverse.ravel()[position]]]
        yield _whole(store, "copy", position, "", f"the same count, mean, spread and range as {other} in every channel")


def _whole(store: Store, kind: str, position: int, channel: str, detail: str) -> Finding:
    start, stop = store.index.row_start[position : position + 2].tolist()
    return _finding(store, kind, position, channel, start, stop, detail)


def _finding(store: Store, kind: str, position: int, channel: str, start: int, stop: int, detail: str) -> Finding:
    when = store.schema.time.show(int(store.times(start, start + 1)[0]))
    return Finding(kind, str(store.ids[position]), channel, detail, start, stop, when)
