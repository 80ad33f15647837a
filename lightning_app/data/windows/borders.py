"""Where the targets of a split lie: borders in time, and the rows of each run between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

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
    return TargetRows(store, split, members).of(name)


@dataclass(frozen=True)
class TargetRows:
    """Where the targets of a split lie in some runs of a store, next to each other; see :func:`target_rows`."""

    store: Store
    split: Split
    members: NDArray[np.bool_] | None = None
    _whole: dict[str, tuple[Int64, Int64]] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def _borders(self) -> list[tuple[Int64, Int64]]:
        return time_borders(self.store, self.split)

    @cached_property
    def _assigned(self) -> Int64:
        return assign_series(self.store, self.split, self.members)

    def of(self, name: SplitName, some: slice | None = None) -> tuple[Int64, Int64]:
        """(run,) start and stop in some runs; None for all."""
        every, position, split = self.store.index.runs, NAMES.index(name), self.split
        some = some or slice(0, len(every.start))  # an early store without rows has the end of a run, and no run
        start, stop, series = every.start[some], every.stop[some], every.series[some]
        if split.by != "series":
            edges = self._borders[position]
            begin, end = (
                _rows_at(self.store, start, stop, every.time[some], edge if len(edge) == 1 else edge[series])
                for edge in edges
            )
            start, stop = begin, end
        if split.by != "time":
            stop = np.where(self._assigned[series] == position, stop, start)
        if self.members is not None:
            stop = np.where(self.members[series], stop, start)
        return start, np.maximum(stop, start) if np.any(stop < start) else stop

    def near(self, name: SplitName, low: int, high: int) -> tuple[Int64, Int64]:
        """(run,) start and stop in the runs that have any of the rows ``[low, high)``.

        Cost: that of these runs; where times are irregular all are read once, and what is found is kept.
        """
        runs = self.store.index.runs
        some = slice(int(np.searchsorted(runs.stop, low, side="right")), int(np.searchsorted(runs.start, high)))
        if self.store.time.rule.regular:
            return self.of(name, some)
        if name not in self._whole:
            self._whole[name] = self.of(name)
        start, stop = self._whole[name]
        return start[some], stop[some]


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
        edges = [int(np.int64(store.schema.time.parse(date))) for date in dates]
    except (ValueError, OverflowError):
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


def _rows_at(store: Store, start: Int64, stop: Int64, origin: Int64, time: Int64) -> Int64:
    """(run,) first row that is not before `time`, (run,) or (1,) for all, of runs with these rows and first times."""
    rule = store.time.rule
    if rule.regular and len(time) == 1 and len(start) and time[0] <= origin.min():
        return start
    found = np.empty_like(start)
    if rule.regular:
        for low in range(0, len(found), _BLOCK_RUNS):  # of ten million, temporaries stay in cache
            some = slice(low, low + _BLOCK_RUNS)
            ahead = rule.first_step(time if len(time) == 1 else time[some], origin[some])
            np.minimum(ahead, stop[some] - start[some], out=found[some])  # before rows are added, or it may overflow
            np.maximum(found[some], 0, out=found[some])
            found[some] += start[some]
        return found
    at, first, found[:] = np.broadcast_to(time, start.shape), 0, start
    while first < len(found):  # some whole runs, in each of which times ascend
        last = max(int(np.searchsorted(stop, start[first] + _BLOCK_ROWS, side="right")), first + 1)
        begin, size = start[first:last], (stop - start)[first:last]
        before = store.times(int(begin[0]), int(stop[last - 1])) < np.repeat(at[first:last], size)
        n_before = np.concatenate([[0], np.cumsum(before)])
        found[first:last] += n_before[begin - begin[0] + size] - n_before[begin - begin[0]]
        first = last
    return found
