"""A series with as many points as a screen has pixels: the lowest and the highest value of each stretch of time.

Of n stretches of equal length, stretch b has the rows with times t for which
``floor((t - low) * n / (high - low)) = b``. What is kept of it are the rows with its lowest and its highest observed
value, the first ones of these, in their order. So every extreme is drawn, at its own time, and a line through the
points covers the pixels that one through all rows would. A stretch without an observed value is a gap.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]


@dataclass
class Thinned:
    """Takes rows in the order of their times, in as many parts as one likes.

    Parameters
    ----------
    low, high
        Times ``[low, high)`` that are drawn.
    n_stretches
        Into how many stretches they are cut.

    Notes
    -----
    Memory: 40 bytes a stretch. Cost: some five passes over the rows of a part.
    """

    low: int
    high: int
    n_stretches: int
    n_infinite: int = 0
    _low: Float64 = field(init=False)
    _high: Float64 = field(init=False)
    _low_time: Int64 = field(init=False)
    _high_time: Int64 = field(init=False)

    def __post_init__(self) -> None:
        self._low, self._high = np.full(self.n_stretches, np.inf), np.full(self.n_stretches, -np.inf)
        self._low_time, self._high_time = np.zeros(self.n_stretches, np.int64), np.zeros(self.n_stretches, np.int64)

    def add(self, times: Int64, values: NDArray[np.floating]) -> None:
        """Take (row,) times and values, NaN where missing; infinite values are counted and left out."""
        finite = np.isfinite(values)
        if not finite.all():
            self.n_infinite += int(np.isinf(values).sum())
            times, values = times[finite], values[finite]
        if not len(values):
            return
        elapsed = (times - self.low).view(np.uint64).astype(np.float64)  # differences may leave int64
        place = elapsed * (self.n_stretches / (self.high - self.low))
        stretch = np.minimum(place, self.n_stretches - 1).astype(np.int64)
        starts = np.flatnonzero(np.diff(stretch, prepend=-1))
        own = stretch[starts]
        for extremes, at, reduce_, better in (
            (self._low, self._low_time, np.minimum, np.less),
            (self._high, self._high_time, np.maximum, np.greater),
        ):
            found = reduce_.reduceat(values, starts)
            new = better(found, extremes[own])
            sizes = np.diff(starts, append=len(values))
            rows = np.flatnonzero(values == np.repeat(found, sizes))
            _, first = np.unique(np.searchsorted(starts, rows, side="right"), return_index=True)
            extremes[own[new]] = found[new]
            at[own[new]] = times[rows[first]][new]

    def points(self) -> tuple[Int64, Float64]:
        """(point,) times, ascending, and values; NaN once between two stretches, for all those that lie between."""
        seen = np.flatnonzero(self._low <= self._high)
        if not len(seen):
            return np.zeros(0, np.int64), np.zeros(0)
        times = np.stack([self._low_time[seen], self._high_time[seen]], axis=1)
        values = np.stack([self._low[seen], self._high[seen]], axis=1)
        turned = times[:, 0] > times[:, 1]
        times[turned], values[turned] = times[turned, ::-1], values[turned, ::-1]
        twice = times[:, 0] == times[:, 1]
        gap = np.diff(seen, append=seen[-1] + 1) > 1
        middle = times[:, 1] + np.diff(times[:, 0], append=times[-1, 1]) // 2
        kept = np.stack([np.ones(len(seen), np.bool_), ~twice, gap], axis=1)
        all_times = np.concatenate([times, middle[:, None]], axis=1)
        all_values = np.concatenate([values, np.full((len(seen), 1), np.nan)], axis=1)
        return all_times[kept], all_values[kept]


def with_gaps(times: Int64, values: Float64, follows: NDArray[np.bool_]) -> tuple[Int64, Float64]:
    """Rows as points, with a NaN between two that do not follow each other.

    Parameters
    ----------
    times, values
        (row,) each.
    follows
        (row - 1,) whether each row but the first is one step after the one before.
    """
    cuts = np.flatnonzero(~follows) + 1
    middle = times[cuts - 1] + (times[cuts] - times[cuts - 1]) // 2
    return np.insert(times, cuts, middle), np.insert(values.astype(np.float64), cuts, np.nan)
