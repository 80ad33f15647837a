"""From sample numbers to rows: arithmetic on runs, and one vectorised read per batch. Numpy only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from zstore.errors import UsageError
from zstore.format.index import RunTable
from zstore.format.timesteps import IRREGULAR, TimeStepRule

Int64 = NDArray[np.int64]

_GUESS_BITS, _LOOKS = 2, 4


@dataclass(frozen=True)
class WindowShape:
    """The rows of one window.

    Parameters
    ----------
    lookback
        Input rows.
    horizon
        Target rows.
    delay
        Rows between the last input and the first target. ``-1`` with ``horizon=1`` targets the last
        input row; ``-horizon`` targets the last `horizon` input rows.
    stride
        Rows between the starts of two windows of one run.
    """

    lookback: int
    horizon: int
    delay: int = 0
    stride: int = 1

    def __post_init__(self) -> None:
        for name, least in (("lookback", 1), ("horizon", 1), ("stride", 1), ("delay", -self.lookback)):
            value = getattr(self, name)
            if value < least:
                raise UsageError(f"{name} {value}", expected=f"at least {least}", fix=f"correct --data.{name}")

    @property
    def target_offset(self) -> int:
        """Rows from the first input to the first target."""
        return self.lookback + self.delay

    @property
    def span(self) -> int:
        """Rows from the first to the last row of a window, both included."""
        return max(self.lookback, self.target_offset + self.horizon)

    def __str__(self) -> str:
        rows, step = f"{self.lookback:,} + {self.horizon:,} rows", f", {self.stride:,} rows apart"
        return rows + (f", delay {self.delay:,}" if self.delay else "") + (step if self.stride > 1 else "")


@dataclass(frozen=True, repr=False)
class WindowIndex:
    """All windows, numbered from 0 without being listed: O(runs) memory, O(log runs) per sample.

    A piece is a stretch of equally spaced windows inside one run.

    Parameters
    ----------
    shape
        The rows of one window.
    first
        (piece,) first row of the first window of each piece.
    series
        (piece,) its series.
    time
        (piece,) time of `first`.
    ends
        (piece,) number of windows up to and including each piece.
    rule
        How far it is from one row to the next.
    """

    shape: WindowShape
    first: Int64
    series: Int64
    time: Int64
    ends: Int64
    rule: TimeStepRule

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
        start, stop = np.maximum(start, runs.start), np.minimum(stop, runs.stop)
        first = np.maximum(runs.start, start - shape.target_offset) if context else start
        room = stop - shape.span - first
        n_windows = np.where((room >= 0) & (stop > start), room // shape.stride + 1, 0)
        kept = n_windows > 0
        if not isinstance(rule, TimeStepRule):
            rule = IRREGULAR if rule is None else TimeStepRule.fixed(rule, None)
        time = runs.time[kept]
        if rule.regular:
            time = rule.times((first - runs.start)[kept], time)
        return cls(shape, first[kept], runs.series[kept], time, np.cumsum(n_windows[kept]), rule)

    @property
    def freq(self) -> int | None:
        """Units of time from each row to the next; None where that differs, as for months and irregular times."""
        return self.rule.count if self.rule.kind == "fixed" else None

    @cached_property
    def _begins(self) -> Int64:
        """(piece,) number of windows before each piece."""
        return np.append(0, self.ends[:-1])

    @cached_property
    def _guesses(self) -> tuple[int, Int64]:
        """A table from the upper bits of sample numbers to the first piece that may be meant."""
        shift = max(len(self).bit_length() - len(self.ends).bit_length() - _GUESS_BITS, 0)
        buckets = np.arange((len(self) >> shift) + 1) << shift
        return shift, np.searchsorted(self.ends, buckets, side="right")

    def _piece(self, samples: Int64) -> Int64:
        """The piece of each sample: what ``searchsorted`` finds, in a tenth of its time if pieces are of like size."""
        shift, guesses = self._guesses
        piece: Int64 = guesses[samples >> shift]
        for _ in range(_LOOKS):
            beyond = self.ends[piece] <= samples
            if not beyond.any():
                return piece
            piece += beyond
        left = np.flatnonzero(self.ends[piece] <= samples)
        piece[left] = np.searchsorted(self.ends, samples[left], side="right")
        return piece

    def rank(self, rows: Int64) -> Int64:
        """How many windows start before each of some rows: windows are numbered in the order of their first rows."""
        if not len(self):
            return np.zeros(len(rows), np.int64)
        piece = np.searchsorted(self.first, rows) - 1
        inside = -(-(rows - self.first[piece]) // self.shape.stride)
        begins = self._begins[piece]
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
        """
        shape, n_windows = self.shape, len(self)
        start, stop = (bounds[holes[1] - holes[0] >= shape.horizon] - shape.target_offset for bounds in holes)
        left_out = self.rank(start), self.rank(stop - shape.horizon + 1)
        low, high = np.append(0, left_out[1]), np.append(left_out[0], n_windows)
        low, high = low[high > low], high[high > low]
        if not n_windows or not len(low):
            nothing = np.zeros(0, np.int64)
            return WindowIndex(shape, nothing, nothing, nothing, nothing, self.rule)
        borders = self.ends[:-1]
        inside = np.searchsorted(low, borders, side="right") - 1
        borders = borders[(inside >= 0) & (borders < high[inside]) & (borders > low[inside])]
        begin = np.sort(np.concatenate([low, borders]))
        end = np.minimum(np.append(begin[1:], n_windows), high[np.searchsorted(low, begin, side="right") - 1])
        piece = self._piece(begin)
        first, series, _ = self.locate(begin)
        time = self._time(piece, first - self.first[piece])
        return WindowIndex(shape, first, series, time, np.cumsum(end - begin), self.rule)

    def target_spans(self) -> tuple[Int64, Int64]:
        """(piece,) rows ``[start, stop)`` in which the targets of each piece lie."""
        first = self.first + self.shape.target_offset
        return first, first + (np.diff(self.ends, prepend=0) - 1) * self.shape.stride + self.shape.horizon

    def target_ranges(self) -> tuple[Int64, Int64]:
        """(range,) rows ``[start, stop)`` that are a target of some window; ascending, and none of them overlap."""
        return self._ranges(self.shape.target_offset, self.shape.horizon)

    def input_ranges(self) -> tuple[Int64, Int64]:
        """(range,) rows ``[start, stop)`` that are an input of some window; ascending, and none of them overlap."""
        return self._ranges(0, self.shape.lookback)

    def n_rows(self) -> int:
        """How many rows any window reads, each counted once; rows of a delay count too."""
        start, stop = self._ranges(0, self.shape.span)
        return int((stop - start).sum())

    def _ranges(self, offset: int, length: int) -> tuple[Int64, Int64]:
        """The rows from `offset` on of all windows, as ranges that do not overlap.

        Cost: O(pieces); where the stride leaves rows between windows out, O(windows).
        """
        n_windows, stride = np.diff(self.ends, prepend=0), self.shape.stride
        if stride <= length:
            start = self.first + offset
            stop = start + (n_windows - 1) * stride + length
        else:
            number = np.arange(len(self)) - np.repeat(self.ends - n_windows, n_windows)
            start = np.repeat(self.first, n_windows) + number * stride + offset
            stop = start + length
        if not len(start):
            return start, stop
        reach = np.maximum.accumulate(stop)  # both ascend
        new = np.append(True, start[1:] > reach[:-1])
        return start[new], reach[np.append(new[1:], True)]

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
        step = (samples - self._begins[piece]) * self.shape.stride
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
