"""Where the targets of windows lie: rows, series and times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore import PanelGrid, Store, WindowIndex

Int64 = NDArray[np.int64]


def timed(store: Store, nodes: Int64 | None) -> Store | PanelGrid:
    """What has the times of the rows that windows lie in: the store, or the grid of a panel of some series."""
    return store if nodes is None else PanelGrid.of(store, nodes)


@dataclass(frozen=True)
class Spans:
    """Stretches of rows in which targets lie.

    Parameters
    ----------
    start, stop
        (piece,) rows ``[start, stop)``.
    series
        (piece,) of which series.
    first, last
        (piece,) times of the first and of the last row.
    """

    start: Int64
    stop: Int64
    series: Int64
    first: Int64
    last: Int64

    @classmethod
    def of(cls, rows: Store | PanelGrid, index: WindowIndex | None) -> Spans:
        """Those of some windows in the rows of a store, or in the steps of a panel; None for no windows.

        Cost: reads all times where they are irregular.
        """
        if index is None:
            nothing = np.zeros(0, np.int64)
            return cls(nothing, nothing, nothing, nothing, nothing)
        start, stop = index.target_spans()
        if not index.rule.regular:
            times = rows.times(0, int(stop.max(initial=0)))
            return cls(start, stop, index.series, times[start], times[stop - 1])
        first, last = (index.rule.times(rows - index.first, index.time) for rows in (start, stop - 1))
        return cls(start, stop, index.series, first, last)

    def show(self, axis: Any) -> tuple[str, str]:
        """The first and the last time as text; empty without windows."""
        return (axis.show(int(self.first.min())), axis.show(int(self.last.max()))) if len(self.first) else ("", "")
