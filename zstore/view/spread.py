"""Where values are missing, and how they are distributed: read from the rows, of large stores from some of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from zstore.look.presence import MOST_SAMPLES, observed_share, sampled
from zstore.look.svg import sample_evenly
from zstore.reading.store import Store
from zstore.view.numbers import Clock, listed, number

MOST_SERIES, MOST_TIMES = 120, 400
"""Lines and columns of the map of what is missing."""
_MOST_VALUES = 24_000_000
_MOST_SAMPLED = 4_000_000
_BARS = 60
_LARGEST_HALF = 0.5e308


def missing_map(store: Store, n_series: int, n_times: int, channel: str | None = None) -> dict[str, Any]:
    """How much of some evenly chosen series was observed, over time.

    Parameters
    ----------
    store
        Whose series.
    n_series, n_times
        Lines and columns, at most :data:`MOST_SERIES` and :data:`MOST_TIMES`.
    channel
        The channel or vector that counts. Default: as many channels as it takes 24 M values to look at.

    Returns
    -------
    ``ids``, ``start`` and ``stop`` of the columns, the ``last`` row of all, ``shares`` (series, time) from 0 to 1, and
    the ``channels`` that count.
    """
    if not store.n_rows:
        return {"ids": [], "start": 0.0, "stop": 0.0, "last": 0.0, "shares": [], "channels": []}
    low, last = int(store.index.time_start.min()), int(store.index.time_stop.max())
    high = last + 1
    n_times, high = _columns(store, low, high, max(min(n_times, MOST_TIMES, high - low), 1))
    chosen = sample_evenly(store.n_series, max(min(n_series, MOST_SERIES), 1))
    names = list(store.chosen_channels(channel)) if channel else list(store.channels)
    n_rows = max(int(store.index.row_size[chosen].sum()), 1)
    if (most := max(_MOST_VALUES // n_rows, 1)) < len(names):
        names = names[:most]
    if n_rows > 2 * _MOST_VALUES:  # of very long series fewer
        chosen = chosen[sample_evenly(len(chosen), max(len(chosen) * 2 * _MOST_VALUES // n_rows, 1))]
    shares = [listed(observed_share(store, position, (low, high), n_times, names)) for position in chosen.tolist()]
    clock = Clock.of(store)
    return {
        "ids": [str(store.ids[position]) for position in chosen.tolist()],
        "start": clock.second(low),
        "stop": clock.second(high - 1),
        "last": clock.second(last),
        "shares": shares,
        "channels": names,
    }


def _columns(store: Store, low: int, high: int, most: int) -> tuple[int, int]:
    """How many columns there are, and where the last one ends: of fixed steps, each has room for as many of them."""
    rule = store.time.rule
    if rule.kind != "fixed" or (high - low) // rule.count > 2**40:
        return most, high
    n_steps = -(-(high - low) // rule.count)
    of_column = -(-n_steps // most)
    n_columns = -(-n_steps // of_column)
    return n_columns, min(low + n_columns * of_column * rule.count, 2**63 - 1)


def histogram(store: Store, channel: str) -> dict[str, Any]:
    """The distribution of a channel or vector between its 0.1st and its 99.9th percentile.

    Returns
    -------
    ``edges`` (bar + 1,), ``counts`` (bar,), ``quantiles`` 0.001, 0.5 and 0.999, and ``n`` values that were looked at:
    some 260,000 of each channel at most, and of a vector as many channels as it takes 4 M.
    """
    names = store.chosen_channels(channel)
    most = max(_MOST_SAMPLED // max(min(store.n_rows, MOST_SAMPLES), 1), 1)
    chosen = sample_evenly(len(names), most).tolist()
    values = np.concatenate([sampled(store, names[place]) for place in chosen])
    if not len(values):
        return {"edges": [], "counts": [], "quantiles": [], "n": 0}
    with np.errstate(over="ignore", invalid="ignore"):  # of the largest numbers, whose quantiles are not told
        low, median, high = np.quantile(values, [0.001, 0.5, 0.999])
        is_drawn = high > low and high / 2 - low / 2 < _LARGEST_HALF
    quantiles = [number(each) for each in (low, median, high)]
    told = {"quantiles": quantiles, "n": len(values)}
    if not is_drawn:
        return {**told, "edges": [quantiles[0], quantiles[2]], "counts": [len(values)]}
    counts, edges = np.histogram(values, _BARS, (low, high))
    return {**told, "edges": edges.tolist(), "counts": counts.tolist()}
