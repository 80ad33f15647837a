"""Infinite values of a channel: how many there are among some rows, and which, for messages."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from zstore import Store

_NAMED = 3


def infinite_values(store: Store, channel: str, ranges: Iterable[tuple[int, int, int]]) -> tuple[int, str]:
    """Look for infinite values among some rows.

    Parameters
    ----------
    store, channel
        What is read.
    ranges
        Series, and the first row and the one behind the last, of each stretch of rows.

    Returns
    -------
    How many there are; and the first three with their series and times, as messages have them.
    """
    named: list[str] = []
    n_infinite = 0
    for series, start, stop in ranges:
        values = store.read(channel, start, stop)
        rows = np.flatnonzero(np.isinf(values))
        n_infinite += len(rows)
        for row in rows[: _NAMED - len(named)].tolist():
            time = store.schema.time.show(int(store.times(start + row, start + row + 1)[0]))
            named.append(f"{values[row]:g} in {store.ids[series]} at {time}")
    return n_infinite, ", ".join(named)
