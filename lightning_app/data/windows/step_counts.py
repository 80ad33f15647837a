"""How the steps of a split are counted: by the time step rule of a store, by rows, or by units of time."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zstore import Store, TimeStepRule

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class RuleCount:
    """Steps as a time step rule counts them; single units of time where `units`, since times are irregular."""

    rule: TimeStepRule
    units: bool = False

    def n_steps(self, first: Int64, last: Int64) -> Int64:
        """(series,) steps from the first time to the last one, both among them."""
        return self.rule.steps(last, first)[0] + 1

    def later(self, time: Int64, n: Int64) -> Int64:
        """(series,) time so many steps behind another."""
        return self.rule.times(n, time)


@dataclass(frozen=True)
class RowCount:
    """Steps that are rows: each series has its own."""

    times: Int64
    row_start: Int64
    units = False

    def n_steps(self, first: Int64, last: Int64) -> Int64:
        """(series,) its rows."""
        return np.diff(self.row_start)

    def later(self, time: Int64, n: Int64) -> Int64:
        """(series,) time of the row so many rows behind the first one that is not before another time."""
        later = np.array(time, copy=True)
        for series, (start, stop) in enumerate(itertools.pairwise(self.row_start.tolist())):
            row = start + int(np.searchsorted(self.times[start:stop], time[series])) + int(n[series])
            if n[series] and stop > start:
                later[series] = self.times[row] if row < stop else self.times[stop - 1] + 1
        return later


def count_of(store: Store, by_series: bool) -> RuleCount | RowCount:
    """How steps are counted, for borders of each series or of all. Cost: reads all times where steps are rows."""
    rule = store.time.rule
    if rule.regular:
        return RuleCount(rule)
    if rule.kind == "rows" and by_series:
        return RowCount(store.times(0, store.n_rows), store.index.row_start)
    return RuleCount(TimeStepRule.fixed(1, rule.unit), units=True)
