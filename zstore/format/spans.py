"""Sets of whole numbers as spans, each (span, 2) with ``[start, stop)`` ascending and apart from each other."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]

_BLOCK = 1 << 17


def blocks(length: int) -> Iterator[slice]:
    """Slices of an array of some length, of 131,072 items at most: so little stays in a processor's cache.

    An array of ten million numbers is memory that has to be mapped first, which takes longer than the arithmetic.
    """
    return (slice(low, min(low + _BLOCK, length)) for low in range(0, length, _BLOCK))


def union(start: Int64, stop: Int64) -> Int64:
    """The numbers of any of some spans.

    Parameters
    ----------
    start, stop
        (given,) bounds ``[start, stop)``, in any order; they may overlap. Those with nothing in them count for nothing.

    Returns
    -------
    (span, 2), as few as may be.
    """
    some = stop > start
    order = np.argsort(start[some], kind="stable")
    start, stop = start[some][order], stop[some][order]
    if not len(start):
        return np.zeros((0, 2), np.int64)
    reach = np.maximum.accumulate(stop)
    begins = np.flatnonzero(np.append(True, start[1:] > reach[:-1]))
    ends = np.append(begins[1:], len(start)) - 1
    return np.stack([start[begins], reach[ends]], axis=1)


def uncovered(spans: Int64, cover: Int64) -> Int64:
    """The numbers of some spans that others do not have; all as :func:`union` makes them. Cost: sorting the bounds."""
    bounds = np.unique(np.concatenate([spans.reshape(-1), cover.reshape(-1)]))
    low, high = bounds[:-1], bounds[1:]
    left = holds(spans, low) & ~holds(cover, low)
    return union(low[left], high[left])


def holds(spans: Int64, numbers: Int64) -> NDArray[np.bool_]:
    """(number,) whether spans, as :func:`union` makes them, have each of some numbers."""
    within: NDArray[np.bool_] = np.searchsorted(spans.reshape(-1), numbers, side="right") % 2 == 1
    return within
