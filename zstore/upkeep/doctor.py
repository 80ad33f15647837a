"""The data doctor: what looks wrong in a store, by series and channel, in one pass over its rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.format.schema import TimeAxis
from zstore.format.timesteps import TimeStepRule
from zstore.reading.store import Store
from zstore.upkeep import checks
from zstore.upkeep.checks import Stretch, counted
from zstore.upkeep.history import log

KINDS = {
    "refused": "rows that were set aside by an ingest or append",
    "duplicate": "rows that were dropped by an ingest or append, because another row had the same id and time",
    "off_grid": "times between the time steps of the others",
    "gap": "time steps without a row",
    "clock_change": "an hour missing on a Sunday in spring, as in local times with daylight saving time",
    "sampling_change": "rows farther apart, or closer together, in a part of a series",
    "infinite": "infinite values, which no scaler takes",
    "empty": "a channel without any value in a series",
    "constant": "a channel with one value only in a series",
    "copy": "a series with the same numbers as another one",
    "missing_run": "a long stretch without values",
    "flat_line": "a long stretch of one value",
    "sentinel": "a number that may stand for a missing value; --missing reads it so",
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
_MANY = 3  # series in which a channel is constant, if most are: then it is told once
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

    def where(self, store: Store) -> str:
        """The series and channel for a person: a store of one series without an id names the channel alone."""
        series = self.series if store.schema.id_name or store.n_series > 1 else ""
        return " ".join(part for part in (series, self.channel) if part) or "the store"

    @property
    def sentence(self) -> str:
        """What it is and when, for a person; when is left out of what is about a whole series."""
        one_row = self.stop - self.start == 1
        where = _WHEN.get(self.kind, "at" if one_row else "from")
        if self.kind == "off_grid" and one_row:
            where = "first at"
        elif self.kind == "gap" and " gaps" in self.detail:
            where = "the longest until"
        if not self.when or not where:
            return self.detail
        what, stop, why = self.detail.partition(";")
        return f"{what}, {where} {self.when}{stop}{why}"


_WHEN = {"sentinel": "first at", "infinite": "first at", "gap": "until", "clock_change": "one at"}
_WHEN |= dict.fromkeys(("empty", "constant", "copy"), "")


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
    numbers = [channel.name for channel in store.schema.channels if channel.kind == "number"]
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
    with np.errstate(over="ignore", invalid="ignore"):  # ranges of the largest numbers leave float64
        kinds = {kind: stretch for kind, check in _CHECKS.items() if (stretch := check(values)) is not None}
    if "sentinel" in kinds:  # says why they are far away
        kinds.pop("outlier", None)
    for kind, stretch in kinds.items():
        yield _finding(store, kind, position, channel, first + stretch.start, first + stretch.stop, stretch.detail)


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


def _of_times(store: Store) -> Iterator[Finding]:
    index, axis = store.index, store.schema.time
    rule = axis.rule
    if not rule.regular:
        show = partial(_show_units, axis)
        for position in range(store.n_series):
            first, last = index.row_start[position : position + 2].tolist()
            if (stretch := checks.sampling_change(store.times(first, last), show)) is not None:
                start, stop = first + stretch.start, first + stretch.stop
                yield _finding(store, "sampling_change", position, "", start, stop, stretch.detail)
        return
    runs = index.runs
    off: NDArray[np.int64] = np.flatnonzero(~rule.steps(index.time_start, index.time_start[:1])[1])
    if 2 * len(off) > store.n_series:  # most are: then it is the first that is off
        off = off[:0] if store.n_series < 3 else np.zeros(1, np.int64)
    for position in off.tolist():
        row = int(index.row_start[position])
        detail = f"its times lie between the steps of {rule} of the others"
        yield _finding(store, "off_grid", position, "", row, int(index.row_start[position + 1]), detail)
    last_time = rule.times(runs.stop - runs.start - 1, runs.time)
    follows = np.flatnonzero(runs.series[1:] == runs.series[:-1])
    n_steps, on_grid = rule.steps(runs.time[follows + 1], last_time[follows])
    yield from _odd_steps(store, follows, ~on_grid)
    follows, n_steps = follows[n_steps > 1], n_steps[n_steps > 1]  # a shorter one is odd, but no gap
    before, after, rows = last_time[follows], runs.time[follows + 1], runs.start[follows + 1]
    owner, lost = runs.series[follows + 1], n_steps - 1
    per_second = _PER_SECOND.get(axis.unit or "")
    clock = (
        checks.clock_changes(before, after, rule.count, per_second)
        if per_second and rule.plain and rule.count < _DAY_S * per_second
        else np.zeros(0, np.int64)
    )
    by_clock = np.isin(np.arange(len(follows)), clock)
    for kind, chosen in (("clock_change", by_clock), ("gap", ~by_clock)):
        there = np.flatnonzero(chosen)
        for mine in np.split(there, np.flatnonzero(np.diff(owner[there])) + 1) if len(there) else []:
            position = int(owner[mine[0]])
            longest = mine[np.argmax(lost[mine])]
            detail = _lost(kind, lost[mine].tolist(), rule.noun(1) if rule.calendar else "step")
            if kind == "gap" and _thinned(lost[mine], int(index.row_size[position])):
                kept = f"mostly a row every {_show_steps(axis, int(np.median(lost[mine])) + 1)}"
                yield _finding(store, "sampling_change", position, "", int(rows[longest]), int(rows[longest]) + 1, kept)
            else:
                yield _finding(store, kind, position, "", int(rows[longest]), int(rows[longest]) + 1, detail)


def _odd_steps(store: Store, follows: NDArray[np.int64], is_odd: NDArray[np.bool_]) -> Iterator[Finding]:
    """Series with steps between rows that are no whole number of steps of the rule: some of them, or most.

    Parameters
    ----------
    store
        The store.
    follows
        (border,) runs that another run of the same series follows.
    is_odd
        (border,) whether what lies between the two is no whole number of steps.
    """
    index, runs, rule = store.index, store.index.runs, store.time.rule
    first, n_odd = np.unique(runs.series[follows[is_odd]], return_index=True, return_counts=True)[1:]
    for border, count in zip(follows[is_odd][first].tolist(), n_odd.tolist(), strict=True):
        row = int(runs.start[border + 1])
        detail = f"{counted(count, 'step')} that {'is' if count == 1 else 'are'} no multiple of {rule}"
        yield _finding(store, "off_grid", int(runs.series[border]), "", row, row + 1, detail)
    whole = np.bincount(runs.series, minlength=store.n_series) == 1  # irregular series are not cut
    reach = rule.times(np.maximum(index.row_size - 1, 0), index.time_start)
    for position in np.flatnonzero(whole & (index.time_stop != reach)).tolist():
        start, stop = index.row_start[position : position + 2].tolist()
        yield _finding(store, "off_grid", position, "", start, stop, f"most of its steps are no multiple of {rule}")


def _lost(kind: str, lost: list[int], noun: str) -> str:
    """Gaps in words, from how many steps each has."""
    if kind == "clock_change":
        return f"{counted(len(lost), 'hour')} missing"
    if len(lost) == 1:
        return f"{counted(lost[0], noun)} missing"
    return f"{counted(sum(lost), noun)} missing in {len(lost):,} gaps, at most {max(lost):,} together"


def _show_units(axis: TimeAxis, step: int) -> str:
    """So many units of time, for a person."""
    return TimeStepRule.fixed(step, axis.unit).text


def _show_steps(axis: TimeAxis, n: int) -> str:
    """So many steps, for a person."""
    rule = axis.rule
    return f"{n:,} {rule.noun(n)}" if rule.calendar else _show_units(axis, n * rule.count)


def _thinned(lost: NDArray[np.int64], n_rows: int) -> bool:
    """Whether gaps are so many, and so alike, that the series just has a longer step somewhere."""
    return len(lost) >= max(checks.LEAST_ROWS, n_rows / 10) and float(np.mean(lost == np.median(lost))) > 0.9


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
            yield _whole(store, "empty", position, channel.name, detail)
        judged = count >= checks.LEAST_ROWS
        constant = np.flatnonzero(judged & (low == high)).tolist()
        if len(constant) >= _MANY and 2 * len(constant) > int(judged.sum()):
            detail = f"one value in each of {len(constant):,} series; a static attribute would say it once"
            yield Finding("constant", "", channel.name, detail)
            continue
        for position in constant:
            detail = f"{low[position]:g} in all {count[position]:,} rows that have a value"
            yield _whole(store, "constant", position, channel.name, detail)
    fields = [moments.count, moments.mean, moments.m2, moments.low, moments.high]
    numbers = np.nan_to_num(np.concatenate(fields, axis=1).astype(np.float64), posinf=0, neginf=0)
    _, first, inverse = np.unique(numbers, axis=0, return_index=True, return_inverse=True)
    varied = (moments.m2 > 0).any(axis=1)
    for position in np.flatnonzero(varied & (first[inverse.ravel()] != np.arange(store.n_series))).tolist():
        other = store.ids[first[inverse.ravel()[position]]]
        yield _whole(
            store, "copy", position, "", f"the same counts, means, spreads and ranges as {other} in every channel"
        )


def _whole(store: Store, kind: str, position: int, channel: str, detail: str) -> Finding:
    start, stop = store.index.row_start[position : position + 2].tolist()
    return _finding(store, kind, position, channel, start, stop, detail)


def _finding(store: Store, kind: str, position: int, channel: str, start: int, stop: int, detail: str) -> Finding:
    when = store.schema.time.show(int(store.times(start, start + 1)[0]))
    return Finding(kind, str(store.ids[position]), channel, detail, start, stop, when)
