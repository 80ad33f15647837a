"""Where the targets of a split lie: borders in time, and the rows of each run between them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lightning_app.data.windows.fractions import refuse_nothing, refuse_overlap, share_out
from lightning_app.data.windows.members import assign_series
from lightning_app.data.windows.splits import NAMES, Split, SplitName
from lightning_app.data.windows.step_counts import count_of
from zstore import Store, UsageError

Int64 = NDArray[np.int64]
_BLOCK_ROWS, _BLOCK_RUNS = 1 << 20, 1 << 17  # times that are read together, runs that are looked at together
_ROWS_OF_SERIES = "0, or --data.split.over series, since steps are the rows of each series"


def target_rows(
    store: Store, split: Split, name: SplitName, members: NDArray[np.bool_] | None = None
) -> tuple[Int64, Int64]:
    """Where the targets of one split lie.

    Parameters
    ----------
    store, split, name
        What is cut, how, and which part.
    members
        (series,) which series there are; None for all. Times of the store are still those of all.

    Returns
    -------
    (run,) start and stop of the row range in each run of ``store.index.runs``; empty where start equals stop.

    Raises
    ------
    UsageError
        If the sizes, dates, ids or values do not fit the store, or splits would overlap.
    """
    runs, position = store.index.runs, NAMES.index(name)
    if split.by == "series":
        start, stop = runs.start, runs.stop
    else:
        edges = time_borders(store, split)[position]
        start, stop = (_rows_at(store, edge if len(edge) == 1 else edge[runs.series]) for edge in edges)
    if split.by != "time":
        mine = assign_series(store, split, members)[runs.series] == position
        stop = np.where(mine, stop, start)
    if members is not None:
        stop = np.where(members[runs.series], stop, start)
    stop = stop[: len(start)]  # an early store without rows has the end of a run, and no run
    return start, np.maximum(stop, start) if np.any(stop < start) else stop


def time_borders(store: Store, split: Split) -> list[tuple[Int64, Int64]]:
    """Time range ``[start, stop)`` of train, val and test, each (series,) int64; (1,) where all series have the same.

    Raises
    ------
    UsageError
        If they do not fit the store, or overlap.
    """
    index, whole = store.index, np.ones(store.n_series if split.over == "series" else 1, np.int64)
    first, last = index.time_start, index.time_stop
    if split.over != "series":
        first, last = first.min(initial=2**62, keepdims=True), last.max(initial=-(2**62), keepdims=True)
    count = count_of(store, split.over == "series")
    if split.embargo and count.units:
        raise UsageError(
            f"embargo of {split.embargo:,} steps",
            expected="0, since times are irregular" if store.time.rule.kind == "irregular" else _ROWS_OF_SERIES,
            where=str(store.path),
            fix="--data.split.embargo 0, and dates that leave such a time to nobody",
        )
    if split.dates is not None:
        edges = [date * whole for date in _dates(store, split.dates)]
    elif split.from_end or (all(float(size).is_integer() for size in split.shares) and sum(split.shares) > 1):
        n_steps = count.n_steps(first, last)
        counts, n_asked = _whole_counts(n_steps, split)
        most = int(n_steps.max(initial=0))
        if count.units or n_asked > most:
            raise UsageError(
                f"split of {n_asked:,} steps",
                expected="fractions or dates, since times are irregular" if count.units else f"at most {most:,} steps",
                where=str(store.path),
                fix="smaller --data.split.sizes",
            )
        edges = [first, *(count.later(first, n) for n in counts.cumsum(axis=1).T)]
    else:
        refuse_overlap(split.shares, steps=True)
        n_steps = count.n_steps(first, last)
        counts = share_out(n_steps, split.shares)
        longest = int(n_steps.max(initial=0))
        refuse_nothing(counts, longest, split.shares, "time steps", "--data.split.sizes", store.path)
        edges = [first, *(count.later(first, n) for n in counts.cumsum(axis=1).T)]
    begins = [count.later(edge, whole * split.embargo) if n else edge for n, edge in enumerate(edges[:3])]
    return list(zip(begins, edges[1:], strict=True))


def _whole_counts(n_steps: Int64, split: Split) -> tuple[Int64, int]:
    """(series, 3) steps that each split has where sizes are whole numbers of them, and how many those add up to."""
    train, val, test = map(int, split.shares)
    if not split.from_end:
        return np.tile(np.array([train, val, test], np.int64), (len(n_steps), 1)), train + val + test
    later = split.origin * test  # steps that an earlier origin leaves to nobody
    n_steps = np.maximum(n_steps - later, 0)
    n_test = np.minimum(n_steps, test)
    n_val = np.minimum(n_steps - n_test, val)
    return np.stack([n_steps - n_test - n_val, n_val, n_test], axis=1), val + test + later


def _dates(store: Store, dates: tuple[str, str, str, str]) -> list[int]:
    try:
        edges = [store.schema.time.parse(date) for date in dates]
    except ValueError:
        raise UsageError(
            f"split dates {list(dates)}", expected="ISO dates, or step numbers", fix="correct --data.split.dates"
        ) from None
    if edges != sorted(edges):
        raise UsageError(
            f"split dates {list(dates)} go back in time, so targets would be in two splits",
            expected="first time of train, of val, of test, and the time after test, in order",
            fix="correct --data.split.dates",
        )
    return edges


def _rows_at(store: Store, time: Int64) -> Int64:
    """(run,) first row of each run whose time is not before `time`, (run,) or (1,) for all."""
    runs, rule = store.index.runs, store.time.rule
    if rule.regular:
        rows = np.empty_like(runs.start)
        for low in range(0, len(rows), _BLOCK_RUNS):  # of ten million, temporaries stay in cache
            some = slice(low, low + _BLOCK_RUNS)
            start, ahead = runs.start[some], rule.first_step(time if len(time) == 1 else time[some], runs.time[some])
            ahead = np.maximum(np.add(ahead, start, out=ahead), start, out=ahead)
            np.minimum(ahead, runs.stop[some], out=rows[some])
        return rows
    at, found, first = np.broadcast_to(time, runs.start.shape), runs.start.copy(), 0
    while first < len(found):  # some whole runs, in each of which times ascend
        last = max(int(np.searchsorted(runs.stop, runs.start[first] + _BLOCK_ROWS, side="right")), first + 1)
        start, size = runs.start[first:last], (runs.stop - runs.start)[first:last]
        before = store.times(int(start[0]), int(runs.stop[last - 1])) < np.repeat(at[first:last], size)
        n_before = np.concatenate([[0], np.cumsum(before)])
        found[first:last] += n_before[start - start[0] + size] - n_before[start - start[0]]
        first = last
    return found
