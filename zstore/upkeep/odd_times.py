"""What looks wrong in the times of a store: gaps, changes of clocks and of sampling, times off the grid."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from zstore.format.schema import TimeAxis
from zstore.format.timesteps import TimeStepRule
from zstore.reading.store import Store
from zstore.text import counted
from zstore.upkeep import checks
from zstore.upkeep.findings import Finding, finding

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}

_DAY_S = 86_400
_MANY = 3  # series of which most are too short: then it is said once


def odd_times(store: Store, window: int | None = None) -> Iterator[Finding]:
    """Findings about the times of a store, from its index; where no rule holds, from the times of each series.

    Parameters
    ----------
    store
        The store.
    window
        Rows that follow each other of which each series should have a stretch; None for none.
    """
    if window is not None:
        yield from _too_short(store, window)
    if not store.time.rule.regular:
        yield from _sampling_changes(store)
        return
    yield from _off_grid(store)
    runs, rule = store.index.runs, store.time.rule
    last_time = rule.times(runs.stop - runs.start - 1, runs.time)
    follows = np.flatnonzero(runs.series[1:] == runs.series[:-1])
    n_steps, on_grid = rule.steps(runs.time[follows + 1], last_time[follows])
    yield from _odd_steps(store, follows, ~on_grid)
    longer = n_steps > 1  # a shorter one is odd, but no gap
    yield from _gaps(store, follows[longer], n_steps[longer] - 1, last_time[follows[longer]])


def _too_short(store: Store, window: int) -> Iterator[Finding]:
    """Series in which no window fits, for none of their runs has as many rows."""
    runs = store.index.runs
    size = runs.stop - runs.start
    order = np.lexsort([-size, runs.series])  # of each series the longest run first
    series, first = np.unique(runs.series[order], return_index=True)
    best = order[first]
    short = size[best] < window
    if int(short.sum()) >= _MANY and 2 * int(short.sum()) > len(series):
        most = f"the longest stretch of all has {counted(int(size.max()), 'row')}"
        yield Finding(
            "short", "", "", f"no window of {window:,} rows in {short.sum():,} of {len(series):,} series; {most}"
        )
        return
    for position, run in zip(series[short].tolist(), best[short].tolist(), strict=True):
        detail = f"no window of {window:,} rows in stretches of at most {counted(int(size[run]), 'row')}"
        yield finding(store, "short", position, "", int(runs.start[run]), int(runs.stop[run]), detail)


def _sampling_changes(store: Store) -> Iterator[Finding]:
    """Parts of series whose times lie closer together, or farther apart, than elsewhere."""
    index, show = store.index, partial(_show_units, store.time)
    for low, high in checks.whole_series(index.row_start):
        judged = low + np.flatnonzero(index.row_size[low:high] > checks.LEAST_ROWS)
        if not len(judged):
            continue
        times = store.times(int(index.row_start[low]), int(index.row_start[high]))
        for position in judged.tolist():
            first, last = index.row_start[position : position + 2].tolist()
            own = times[first - index.row_start[low] : last - index.row_start[low]]
            if (stretch := checks.sampling_change(own, show)) is not None:
                start, stop = first + stretch.start, first + stretch.stop
                yield finding(store, "sampling_change", position, "", start, stop, stretch.detail)


def _off_grid(store: Store) -> Iterator[Finding]:
    """Series whose times lie between the steps of the others."""
    index, rule = store.index, store.time.rule
    off: NDArray[np.int64] = np.flatnonzero(~rule.steps(index.time_start, index.time_start[:1])[1])
    if 2 * len(off) > store.n_series:  # most are: then it is the first that is off
        off = off[:0] if store.n_series < 3 else np.zeros(1, np.int64)
    for position in off.tolist():
        row = int(index.row_start[position])
        detail = f"its times lie between the steps of {rule} of the others"
        yield finding(store, "off_grid", position, "", row, int(index.row_start[position + 1]), detail)


def _gaps(
    store: Store, follows: NDArray[np.int64], lost: NDArray[np.int64], before: NDArray[np.int64]
) -> Iterator[Finding]:
    """Series with steps that have no row.

    Parameters
    ----------
    store
        The store.
    follows
        (gap,) runs behind which a gap lies.
    lost
        (gap,) steps without a row.
    before
        (gap,) time of the last row before it.
    """
    index, runs, axis, rule = store.index, store.index.runs, store.time, store.time.rule
    after, rows, owner = runs.time[follows + 1], runs.start[follows + 1], runs.series[follows + 1]
    per_second = _PER_SECOND.get(axis.unit or "")
    clock = (
        checks.clock_changes(before, after, rule.count, per_second)
        if per_second and rule.plain and rule.count < _DAY_S * per_second
        else np.zeros(0, np.int64)
    )
    by_clock = np.isin(np.arange(len(follows)), clock)
    for kind, chosen in (("clock_change", by_clock), ("gap", ~by_clock)):
        gaps = np.flatnonzero(chosen)
        for own in np.split(gaps, np.flatnonzero(np.diff(owner[gaps])) + 1) if len(gaps) else []:
            position = int(owner[own[0]])
            row = int(rows[own[np.argmax(lost[own])]])
            detail = _lost(kind, lost[own].tolist(), rule.noun(1) if rule.calendar else "step")
            if kind == "gap" and _thinned(lost[own], int(index.row_size[position])):
                kept = f"mostly a row every {_show_steps(axis, int(np.median(lost[own])) + 1)}"
                yield finding(store, "sampling_change", position, "", row, row + 1, kept)
            else:
                yield finding(store, kind, position, "", row, row + 1, detail)


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
        yield finding(store, "off_grid", int(runs.series[border]), "", row, row + 1, detail)
    whole = np.bincount(runs.series, minlength=store.n_series) == 1  # irregular series are not cut
    reach = rule.times(np.maximum(index.row_size - 1, 0), index.time_start)
    for position in np.flatnonzero(whole & (index.time_stop != reach)).tolist():
        start, stop = index.row_start[position : position + 2].tolist()
        yield finding(store, "off_grid", position, "", start, stop, f"most of its steps are no multiple of {rule}")


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
