"""From sample numbers to rows: arithmetic on runs, and one vectorised read per batch. Numpy only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from zstore.format.index import RunTable
from zstore.format.spans import blocks
from zstore.format.timesteps import IRREGULAR, TimeStepRule
from zstore.reading.windowshape import WindowBounds, WindowShape

Int64 = NDArray[np.int64]

_GUESS_BITS, _MOST_GUESSES, _LOOKS = 2, 1 << 18, 4


@dataclass(frozen=True, repr=False)
class WindowIndex:
    """All windows, numbered from 0 without being listed: O(runs) memory, O(log runs) per sample.

    A piece is a stretch of equally spaced windows inside one run.

    Parameters
    ----------
    shape
        The rows of one window.
    first
        (piece,) first row of the first window of each piece; with padding maybe before the rows that there are.
    series
        (piece,) its series.
    time
        (piece,) time of `first`.
    ends
        (piece,) number of windows up to and including each piece.
    rule
        How far it is from one row to the next.
    bounds
        (piece,) rows that its windows may read.
    """

    shape: WindowShape
    first: Int64
    series: Int64
    time: Int64
    ends: Int64
    rule: TimeStepRule
    bounds: WindowBounds

    @classmethod
    def build(
        cls,
        runs: RunTable,
        shape: WindowShape,
        rule: TimeStepRule | int | None,
        targets: tuple[Int64, Int64] | None = None,
        context: bool = True,
    ) -> WindowIndex:
        """Lay windows over runs.

        Parameters
        ----------
        runs
            Where windows may lie; none crosses the border of a run.
        shape
            The rows of one window.
        rule
            How far it is from one row to the next, such as ``store.schema.time.rule``; an int for fixed steps of so
            many units of time, None for irregular times.
        targets
            (run,) row range ``[start, stop)`` in each run in which *targets* must lie; None for all.
        context
            Whether inputs may reach back before that range.
        """
        start, stop = (runs.start, runs.stop) if targets is None else targets
        start = start if np.all(start >= runs.start) else np.maximum(start, runs.start)
        stop = stop if np.all(stop <= runs.stop) else np.minimum(stop, runs.stop)
        low = runs.start if context else start
        first, n_windows = low, np.empty_like(start)
        for some in blocks(len(start)):
            begin, last = shape.starts(low[some], start[some], stop[some])
            if first is low and not np.array_equal(begin, low[some]):  # else no memory is needed for them
                first = low.copy()
            if first is not low:
                first[some] = begin
            count = last - begin
            if shape.stride > 1:
                count //= shape.stride
            n_windows[some] = np.where(stop[some] <= start[some], 0, count + 1)
        if not isinstance(rule, TimeStepRule):
            rule = IRREGULAR if rule is None else TimeStepRule.fixed(rule, None)
        there = n_windows > 0
        kept = slice(None) if there.all() else there  # of millions of runs, nothing is copied without need
        bounds, ends, origin = WindowBounds(low, start, stop).at(kept), n_windows[kept], runs.time[kept]
        moved, first, start = first is not runs.start, first[kept], runs.start[kept]
        time = np.empty_like(origin) if rule.regular and moved else origin
        for some in blocks(len(time)) if rule.regular and moved else ():
            time[some] = rule.times(first[some] - start[some], origin[some])
        return cls(shape, first, runs.series[kept], time, np.cumsum(ends, out=ends), rule, bounds)

    @property
    def freq(self) -> int | None:
        """Units of time from each row to the next; None where that differs, as for months and irregular times."""
        return self.rule.count if self.rule.kind == "fixed" else None

    def _begins(self, piece: Int64) -> Int64:
        """Number of windows before some pieces."""
        return np.where(piece > 0, self.ends[np.maximum(piece, 1) - 1], 0) if len(self.ends) else np.zeros_like(piece)

    def _n_windows(self, some: slice) -> Int64:
        """Windows of some pieces next to each other."""
        return np.diff(self.ends[some], prepend=self.ends[some.start - 1] if some.start else 0)

    @cached_property
    def _guesses(self) -> tuple[int, Int64]:
        """A table from the upper bits of sample numbers to the first piece that may be meant; at most 2 MiB."""
        n_bits = min(len(self.ends).bit_length() + _GUESS_BITS, _MOST_GUESSES.bit_length() - 1)
        shift = max(len(self).bit_length() - n_bits, 0)
        buckets = np.arange((len(self) >> shift) + 2) << shift
        return shift, np.searchsorted(self.ends, buckets, side="right")

    def _piece(self, samples: Int64) -> Int64:
        """The piece of each sample: what ``searchsorted`` finds, in a tenth of its time if pieces are of like size."""
        shift, guesses = self._guesses
        bucket = samples >> shift
        piece: Int64 = guesses[bucket]
        for _ in range(_LOOKS):
            beyond = self.ends[piece] <= samples
            if not beyond.any():
                return piece
            piece += beyond
        left = np.flatnonzero(self.ends[piece] <= samples)
        low, high, wanted = piece[left] + 1, guesses[bucket[left] + 1], samples[left]
        while np.any(low < high):  # bisection within each bucket: the piece lies in [low, high]
            middle = (low + high) >> 1
            beyond = self.ends[middle] <= wanted
            low, high = np.where(beyond & (low < high), middle + 1, low), np.where(beyond, high, middle)
        piece[left] = low
        return piece

    def rank(self, rows: Int64) -> Int64:
        """How many windows start before each of some rows: windows are numbered in the order of their first rows."""
        if not len(self):
            return np.zeros(len(rows), np.int64)
        piece = np.searchsorted(self.first, rows) - 1
        inside = -(-(rows - self.first[piece]) // self.shape.stride)
        begins = self._begins(piece)
        return np.where(piece >= 0, begins + np.minimum(inside, self.ends[piece] - begins), 0)

    def observed(self, holes: tuple[Int64, Int64]) -> WindowIndex:
        """The windows that have a target.

        Parameters
        ----------
        holes
            (hole,) row ranges ``[start, stop)`` without any target, ascending, see :func:`find_holes`.

        Notes
        -----
        Arithmetic on holes and pieces; no window is looked at. What is kept are the stretches of windows that remain.
        Cost: O(holes + pieces), of targets that are several rows apart times the horizon.
        """
        return self._kept(*self._with_targets_in(*self._between(holes)))

    def whole(self, holes: tuple[Int64, Int64]) -> WindowIndex:
        """The windows that lack no target; those that are padded do not count as lacking.

        Parameters
        ----------
        holes
            (hole,) row ranges ``[start, stop)`` in each row of which a target is missing, ascending.

        Notes
        -----
        Cost: as :meth:`observed`.
        """
        low, high = self._with_targets_in(*self._inside(holes))
        begin, end = np.append(0, high), np.append(low, len(self))
        return self._kept(begin[end > begin], end[end > begin])

    def _with_targets_in(self, piece: Int64, start: Int64, stop: Int64) -> tuple[Int64, Int64]:
        """Ranges of sample numbers, ascending, of windows with a target in some (stretch,) rows of their pieces."""
        shape, n_windows = self.shape, np.diff(self.ends, prepend=0)
        # First targets of the windows that have one of these rows: for each target, or for all where none is left out.
        steps = np.zeros(1, np.int64) if shape.target_stride == 1 else -shape.target_rows
        ahead = shape.horizon - 1 if shape.target_stride == 1 else 0
        low, high = (
            np.clip(-(-(first - shape.target_offset - self.first[piece]) // shape.stride), 0, n_windows[piece])
            for first in ((start - ahead)[None] + steps[:, None], stop[None] + steps[:, None])
        )
        low, high = (part + self._begins(piece) for part in (low, high))
        return _merged(low.ravel(), high.ravel())

    def _inside(self, holes: tuple[Int64, Int64]) -> tuple[Int64, Int64, Int64]:
        """The holes among possible targets: (hole,) their pieces, and rows ``[start, stop)``."""
        first, last = self.target_spans()
        begin, n_holes = _overlapping(holes, first, last)
        piece = np.repeat(np.arange(len(first)), n_holes)
        hole = begin[piece] + np.arange(len(piece)) - np.repeat(np.cumsum(n_holes) - n_holes, n_holes)
        return piece, np.maximum(holes[0][hole], first[piece]), np.minimum(holes[1][hole], last[piece])

    def _between(self, holes: tuple[Int64, Int64]) -> tuple[Int64, Int64, Int64]:
        """Stretches of possible targets without a hole: (stretch,) their pieces, and rows ``[start, stop)``."""
        first, last = self.target_spans()
        begin, n_holes = _overlapping(holes, first, last)
        piece = np.repeat(np.arange(len(first)), n_holes + 1)
        number = np.arange(len(piece)) - np.repeat(np.cumsum(n_holes + 1) - n_holes - 1, n_holes + 1)
        hole = begin[piece] + number
        none = np.zeros(1, np.int64)  # so that the hole behind the last one can be asked for
        start = np.where(number > 0, np.append(none, holes[1])[hole], first[piece])
        stop = np.where(number < n_holes[piece], np.append(holes[0], none)[hole], last[piece])
        kept = stop > start
        return piece[kept], start[kept], stop[kept]

    def _kept(self, low: Int64, high: Int64) -> WindowIndex:
        """The windows of some ranges of sample numbers, ascending, none of which overlap."""
        borders = self.ends[:-1]
        inside = np.searchsorted(low, borders, side="right") - 1
        borders = borders[(inside >= 0) & (borders < high[inside]) & (borders > low[inside])] if len(low) else low
        begin = np.sort(np.concatenate([low, borders]))
        end = np.minimum(np.append(begin[1:], len(self)), high[np.searchsorted(low, begin, side="right") - 1])
        piece = self._piece(begin)
        first, series, _ = self.locate(begin)
        time = self._time(piece, first - self.first[piece])
        ends = np.cumsum(end - begin)
        return WindowIndex(self.shape, first, series, time, ends, self.rule, self.bounds.at(piece))

    def last_starts(self, samples: Int64) -> Int64:
        """The last row that a window of the same run and the same rows could start at, of some samples, (batch,)."""
        bounds = self.bounds_of(samples)
        return self.shape.starts(bounds.input_start, bounds.target_start, bounds.stop)[1]

    def bounds_of(self, samples: Int64) -> WindowBounds:
        """Rows that some samples, (batch,), may read."""
        return self.bounds.at(self._piece(samples))

    def target_spans(self, some: slice | None = None) -> tuple[Int64, Int64]:
        """(piece,) rows ``[start, stop)`` in which the targets of each piece lie; none of them is padded.

        Parameters
        ----------
        some
            Pieces next to each other, see :meth:`blocks`; None for all.
        """
        some = some or slice(0, None)
        first, n_windows, bounds = self.first[some] + self.shape.target_offset, self._n_windows(some), self.bounds
        last = first + (n_windows - 1) * self.shape.stride + self.shape.target_span
        return np.maximum(first, bounds.target_start[some]), np.minimum(last, bounds.stop[some])

    def blocks(self) -> Iterator[slice]:
        """The pieces, so many at a time that arrays over them stay in a processor's cache."""
        return blocks(len(self.ends))

    def spans(self, some: slice | None = None) -> tuple[Int64, Int64]:
        """(piece,) rows ``[start, stop)`` in which the windows of each piece lie; parameter as of `target_spans`."""
        some = some or slice(0, None)
        last = self.first[some] + (self._n_windows(some) - 1) * self.shape.stride + self.shape.span
        return np.maximum(self.first[some], self.bounds.input_start[some]), np.minimum(last, self.bounds.stop[some])

    def target_ranges(self) -> tuple[Int64, Int64]:
        """(range,) rows ``[start, stop)`` that are a target of some window; ascending, and none of them overlap.

        Cost: as :meth:`input_ranges`; where targets are several rows apart times the horizon.
        """
        shape = self.shape
        if shape.target_stride == 1:
            return self._ranges(shape.target_offset, shape.horizon, self.bounds.target_start)
        each = [self._ranges(shape.target_offset + int(row), 1, self.bounds.target_start) for row in shape.target_rows]
        return _merged(*(np.concatenate(part) for part in zip(*each, strict=True)))

    def input_ranges(self) -> tuple[Int64, Int64]:
        """(range,) rows ``[start, stop)`` that are an input of some window; ascending, and none of them overlap.

        Cost: O(pieces); where the stride leaves rows between windows out, O(windows).
        """
        return self._ranges(0, self.shape.lookback, self.bounds.input_start)

    def n_rows(self) -> int:
        """How many rows any window reads, each counted once; rows of a delay, and between targets, count too."""
        if self.shape.stride <= self.shape.span:  # else rows between windows are left out
            total, reach = 0, 0
            for start, stop in map(self.spans, self.blocks()):
                if start[0] < reach or np.any(start[1:] < stop[:-1]) or np.any(stop < start):
                    break  # pieces share rows
                total, reach = total + int((stop - start).sum()), int(stop[-1])
            else:
                return total
        start, stop = self._ranges(0, self.shape.span, self.bounds.input_start)
        return int((stop - start).sum())

    def _ranges(self, offset: int, length: int, low: Int64) -> tuple[Int64, Int64]:
        """The rows from `offset` on of all windows, as ranges that do not overlap; those from `low`, (piece,), on."""
        n_windows, stride, high = np.diff(self.ends, prepend=0), self.shape.stride, self.bounds.stop
        if stride <= length:
            start = self.first + offset
            stop = start + (n_windows - 1) * stride + length
        else:
            number = np.arange(len(self)) - np.repeat(self.ends - n_windows, n_windows)
            start = np.repeat(self.first, n_windows) + number * stride + offset
            stop = start + length
            low, high = np.repeat(low, n_windows), np.repeat(high, n_windows)
        return _merged(np.maximum(start, low), np.minimum(stop, high))

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def __repr__(self) -> str:
        n_series, n_pieces = len(np.unique(self.series)), len(self.ends)
        stretches = f"{n_pieces:,} stretch{'es' if n_pieces != 1 else ''} of {n_series:,} series"
        return f"<WindowIndex: {len(self):,} windows of {self.shape}, in {stretches}>"

    def _repr_html_(self) -> str:
        from zstore.look.windows import windows_html

        return windows_html(self)

    def locate(self, samples: Int64) -> tuple[Int64, Int64, Int64]:
        """First row, series, and time of the first target of each sample; time 0 where times are irregular, or rows.

        Parameters
        ----------
        samples
            (batch,) sample numbers in ``[0, len(self))``.
        """
        piece = self._piece(samples)
        step = (samples - self._begins(piece)) * self.shape.stride
        time = self._time(piece, step + self.shape.target_offset)
        return self.first[piece] + step, self.series[piece], time if self.rule.regular else np.zeros_like(time)

    def _time(self, piece: Int64, n_rows: Int64) -> Int64:
        """Time of the row so many rows behind the first of each piece; of the first where times are irregular."""
        time = self.time[piece]
        return self.rule.times(n_rows, time) if self.rule.regular else time


def find_holes(observed: Iterable[NDArray[np.bool_]]) -> tuple[Int64, Int64]:
    """Stretches of rows of which nothing was observed.

    Parameters
    ----------
    observed
        Whether something was, for all rows in order, in blocks of any size.

    Returns
    -------
    ``(start, stop)``, each (hole,) rows, ascending. A hole may reach over the end of a series.
    """
    start, stop = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    row, last = 0, True
    for block in observed:
        flips = np.flatnonzero(np.diff(block, prepend=last)) + row
        falls = flips[int(not last) :: 2]
        start.append(falls)
        stop.append(flips[int(last) :: 2])
        row, last = row + len(block), bool(block[-1]) if len(block) else last
    stop += [] if last else [np.array([row])]
    return np.concatenate(start), np.concatenate(stop)


def _overlapping(holes: tuple[Int64, Int64], first: Int64, last: Int64) -> tuple[Int64, Int64]:
    """The first of some ascending holes that overlaps each of some ranges ``[first, last)``, and how many do."""
    begin = np.searchsorted(holes[1], first, side="right")
    return begin, np.maximum(np.searchsorted(holes[0], last, side="left") - begin, 0)


def _merged(start: Int64, stop: Int64) -> tuple[Int64, Int64]:
    """The numbers of some ranges ``[start, stop)`` as ranges that ascend and do not touch; empty ones left out."""
    kept = stop > start
    if not kept.all():
        start, stop = start[kept], stop[kept]
    if np.any(start[1:] < start[:-1]):
        order = np.argsort(start, kind="stable")
        start, stop = start[order], stop[order]
    reach = np.maximum.accumulate(stop)
    if not len(start):
        return start, reach
    new = np.append(True, start[1:] > reach[:-1])
    return start[new], reach[np.append(new[1:], True)]
