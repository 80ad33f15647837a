"""Ranges of rows: those of some series between two times, cut into blocks that are read together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.errors import UsageError
from zstore.reading.version import StoredVersion

Int64 = NDArray[np.int64]
Stretches = Iterable[tuple[int, int, Int64 | None]]

_TOGETHER = 1 << 20  # rows whose times are looked through at once


@dataclass(frozen=True)
class RowRanges:
    """Some rows of some series, in the order of the store.

    Parameters
    ----------
    series
        (range,) positions of series in the index, ascending; each at most once before :meth:`blocks` cuts them.
    start, stop
        (range,) rows ``[start, stop)`` of each; none where they are equal.
    """

    series: Int64
    start: Int64
    stop: Int64

    @property
    def sizes(self) -> Int64:
        """(range,) rows of each."""
        return self.stop - self.start

    @property
    def n_rows(self) -> int:
        """Rows of all."""
        return int(self.sizes.sum())

    @classmethod
    def none(cls) -> RowRanges:
        """Not a row."""
        nothing = np.zeros(0, np.int64)
        return cls(nothing, nothing, nothing)

    def first(self, n_rows: int) -> RowRanges:
        """The first so many rows."""
        before = np.cumsum(self.sizes) - self.sizes
        return replace(self, stop=self.start + np.clip(n_rows - before, 0, self.sizes))

    def at(self, which: slice | Int64 | NDArray[np.bool_]) -> RowRanges:
        """Some of the ranges."""
        return RowRanges(self.series[which], self.start[which], self.stop[which])

    def blocks(self, block_rows: int) -> Iterator[RowRanges]:
        """The same rows in parts, none of which crosses a multiple of `block_rows`, and none of which is empty."""
        ranges = self.at(self.sizes > 0)
        first, last = ranges.start // block_rows, (ranges.stop - 1) // block_rows
        counts = last - first + 1
        block = np.repeat(first - np.cumsum(counts) + counts, counts) + np.arange(int(counts.sum()))
        start = np.maximum(np.repeat(ranges.start, counts), block * block_rows)
        stop = np.minimum(np.repeat(ranges.stop, counts), (block + 1) * block_rows)
        cut = RowRanges(np.repeat(ranges.series, counts), start, stop)
        bounds = np.flatnonzero(np.diff(block, prepend=-1, append=-1)).tolist()
        for low, high in pairwise(bounds):
            yield cut.at(slice(low, high))

    def near(self, most_gap: int) -> Iterator[tuple[int, int, Int64 | None]]:
        """Stretches of rows ``[low, high)`` to read, and which of them are meant, counted from `low`; None for all.

        Rows between two ranges are read with them where they are fewer than `most_gap`.
        """
        if not len(self.start):
            return
        cuts = np.flatnonzero(self.start[1:] - self.stop[:-1] >= most_gap) + 1
        bounds = [0, *cuts.tolist(), len(self.start)]
        for begin, end in pairwise(bounds):
            low, high = int(self.start[begin]), int(self.stop[end - 1])
            sizes = self.sizes[begin:end]
            n_rows = int(sizes.sum())
            if n_rows == high - low:
                yield low, high, None
            else:
                shift = self.start[begin:end] - low - np.cumsum(sizes) + sizes
                yield low, high, np.repeat(shift, sizes) + np.arange(n_rows)


def read_stretches(read: Callable[[int, int], NDArray[Any]], stretches: Stretches) -> NDArray[Any]:
    """(row,) what a function reads of some stretches of rows, from :meth:`RowRanges.near`."""
    parts = [read(low, high) if wanted is None else read(low, high)[wanted] for low, high, wanted in stretches]
    values: NDArray[Any] = parts[0] if len(parts) == 1 else np.concatenate(parts or [read(0, 0)])
    return values


def parse_bound(store: StoredVersion, text: str | int | None, name: str) -> int | None:
    """A bound of times as a person writes it, as int64 of the axis; None for none.

    Raises
    ------
    UsageError
        If it is no such time.
    """
    if text is None:
        return None
    try:
        return store.schema.time.parse(text)
    except ValueError:
        wanted = "a step number" if store.schema.time.unit is None else "a date, or a date and time, in ISO form"
        raise UsageError(f"unreadable {name} {text!r}", expected=wanted) from None


def row_ranges(store: StoredVersion, series: Int64, low: int | None, high: int | None) -> RowRanges:
    """Rows of some series whose times are in ``[low, high)``.

    Parameters
    ----------
    store
        Whose rows.
    series
        (range,) positions of series, ascending.
    low, high
        Times in units of the axis; None for no bound.

    Notes
    -----
    Cost: arithmetic on the runs of these series. Where times are irregular, or rows just counted, the times of series
    that a bound cuts are read.
    """
    bounds = store.index.row_start
    start, stop = bounds[series], bounds[series + 1]
    if low is not None:
        start = _first_rows(store, series, low)
    if high is not None:
        stop = _first_rows(store, series, high)
    return RowRanges(series, start, np.maximum(start, stop))


def _first_rows(store: StoredVersion, series: Int64, time: int) -> Int64:
    """(range,) the first row of each series at or after a time; the row after its last if there is none."""
    index = store.index
    first, last = index.row_start[series], index.row_start[series + 1]
    rows = np.where(index.time_start[series] >= time, first, last)
    inside = np.flatnonzero((index.time_start[series] < time) & (index.time_stop[series] >= time))
    if not len(inside):
        return rows
    cut = series[inside]
    rows[inside] = (_by_rule if store.time.rule.regular else _by_times)(store, cut, time)
    return rows


def _by_rule(store: StoredVersion, series: Int64, time: int) -> Int64:
    runs = store.index.runs
    begin, end = np.searchsorted(runs.series, [series[0], series[-1] + 1]).tolist()
    ahead = store.time.rule.first_step(np.asarray(time), runs.time[begin:end])
    n_before = np.clip(ahead, 0, runs.stop[begin:end] - runs.start[begin:end])
    counts = np.zeros(int(series[-1] - series[0]) + 1, np.int64)
    np.add.at(counts, runs.series[begin:end] - series[0], n_before)
    rows: Int64 = store.index.row_start[series] + counts[series - series[0]]
    return rows


def _by_times(store: StoredVersion, series: Int64, time: int) -> Int64:
    """The same by the times themselves, of neighbouring series together."""
    bounds = store.index.row_start
    ranges = RowRanges(series, bounds[series], bounds[series + 1])
    rows = np.empty(len(series), np.int64)
    for part in np.split(np.arange(len(series)), np.flatnonzero(np.diff(ranges.start // _TOGETHER)) + 1):
        for low, high, _ in ranges.at(part).near(store.schema.chunk_rows):
            times = store.times(low, high)
            for place in part[(ranges.start[part] >= low) & (ranges.stop[part] <= high)].tolist():
                first, last = int(ranges.start[place]), int(ranges.stop[place])
                rows[place] = first + np.searchsorted(times[first - low : last - low], time)
    return rows


def times_at(store: StoredVersion, rows: Int64) -> Int64:
    """(row,) times of some rows, ascending. Cost: as for :func:`row_ranges`."""
    rule, runs = store.time.rule, store.index.runs
    if rule.regular:
        run = np.searchsorted(runs.start, rows, side="right") - 1
        return rule.times(rows - runs.start[run], runs.time[run])
    ranges = RowRanges(rows, rows, rows + 1)
    parts = [read_stretches(store.times, part.near(store.schema.chunk_rows)) for part in ranges.blocks(_TOGETHER)]
    return np.concatenate([np.zeros(0, np.int64), *parts])
