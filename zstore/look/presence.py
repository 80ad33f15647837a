"""Where values are: shares of what was observed, by series and time, and samples of a channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.look.svg import sample_evenly
from zstore.reading.store import Store

_SAMPLES, _SAMPLE_ROWS = 64, 4096
MOST_SAMPLES = _SAMPLES * _SAMPLE_ROWS
"""Values of a channel that stand for all."""
_BLOCK_ROWS = 1 << 20


def observed_share(
    store: Store, position: int, span: tuple[int, int], n_times: int, channels: Sequence[str]
) -> NDArray[np.float64]:
    """How much of a series was observed, in stretches of time.

    Parameters
    ----------
    store, position
        The series.
    span
        Times ``[low, high)``.
    n_times
        Into how many stretches they are cut.
    channels
        Whose values count.

    Returns
    -------
    (stretch,) tenths of the values that there are if no step lacks its row; without a step, of the values that the
    fullest stretch has rows for. A stretch that is too short for a step of its own is as the one before. Cost: the
    channels of the series are read.
    """
    low, high = span
    first, last = store.index.row_start[position : position + 2].tolist()
    observed, rows = np.zeros(n_times), np.zeros(n_times)
    edges = [low - (low - high) * n // n_times for n in range(n_times + 1)]  # rounded up
    elapsed_edges = np.array([edge - low for edge in edges[:-1]], np.uint64)
    for begin in range(first, last, _BLOCK_ROWS):
        end = min(begin + _BLOCK_ROWS, last)
        elapsed = (store.times(begin, end) - low).view(np.uint64)  # differences may leave int64
        bins = np.searchsorted(elapsed_edges, elapsed, side="right") - 1
        rows += np.bincount(bins, minlength=n_times)
        for name in channels:
            observed += np.bincount(bins[~np.isnan(store.read(name, begin, end))], minlength=n_times)
    usual = max(1.0, store.n_rows / store.n_series / n_times)
    expected = np.full(n_times, rows.max() or usual)
    if store.time.rule.regular and last > first:
        begins = [min(edge, np.iinfo(np.int64).max) for edge in edges]
        steps = store.time.rule.first_step(np.array(begins), int(store.times(first, first + 1)[0]))
        expected = np.diff(steps).astype(np.float64)
    judged = expected > 0
    share = np.minimum(observed / np.maximum(expected * max(len(channels), 1), 1), 1)
    before = np.maximum.accumulate(np.where(judged, np.arange(n_times), int(judged.argmax())))
    taken: NDArray[np.float64] = np.where(judged | (observed > 0), share, share[before])
    return taken.round(1)


def sampled(store: Store, channel: str) -> NDArray[Any]:
    """Observed values of 64 stretches of 4,096 rows that are evenly spread; all where there are no more."""
    if not store.n_rows:
        return np.zeros(0)
    if store.n_rows <= MOST_SAMPLES:  # stretches would meet, and their rows count twice
        parts = [store.read(channel, 0, store.n_rows)]
    else:
        starts = sample_evenly(store.n_rows - _SAMPLE_ROWS + 1, _SAMPLES).tolist()
        parts = [store.read(channel, start, start + _SAMPLE_ROWS) for start in starts]
    values = np.concatenate(parts).astype(np.float64)
    observed: NDArray[Any] = values[np.isfinite(values)]
    return observed
