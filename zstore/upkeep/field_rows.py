"""What is known of each row of a field, and findings about rows of many series: one where most have the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.format.schema import Field
from zstore.reading.store import Store
from zstore.upkeep.checks import longest_stretch
from zstore.upkeep.findings import Finding, finding, of_series

Bools = NDArray[np.bool_]

_MANY = 3  # series of which most have the same to be said of them: then it is said once


@dataclass(frozen=True)
class FieldRows:
    """What is known of each row of a field.

    Parameters
    ----------
    store, field
        Of which.
    present
        (row,) whether it has a value.
    repeated
        (row,) whether it has the value of the row before, of the same series.
    copies
        Positions of series whose rows all have the values that another one's have, and the first such series of each.
    glance
        (row,) of :data:`GLANCE`; None where values were not looked at.
    """

    store: Store
    field: Field
    present: Bools
    repeated: Bools
    copies: Mapping[int, int]
    glance: NDArray[Any] | None = None

    @property
    def is_black(self) -> Bools:
        """(row,) whether its value is 0 throughout."""
        return np.zeros_like(self.present) if self.glance is None else self.present & self.glance["black"]

    @property
    def is_uniform(self) -> Bools:
        """(row,) whether its value is one number throughout, 0 or another."""
        return np.zeros_like(self.present) if self.glance is None else self.present & self.glance["uniform"]

    def counts(self, marked: Bools) -> NDArray[np.int64]:
        """(series,) rows of each that are marked."""
        counts: NDArray[np.int64] = np.diff(np.append(0, np.cumsum(marked))[self.store.index.row_start])
        return counts


def by_series(
    rows: FieldRows, kind: str, marked: Bools, say: Callable[[NDArray[np.int64]], str], whole: bool = False
) -> Iterator[Finding]:
    """A finding for each series with rows that are marked; or one, where those are most of the series.

    Parameters
    ----------
    rows
        Of which field.
    kind
        Of the findings.
    marked
        (row,) what is told of.
    say
        From the numbers of some rows to what they are.
    whole
        Whether all rows of a series are marked, or none.
    """
    store, name, every = rows.store, rows.field.name, np.flatnonzero(marked)
    if not len(every):
        return
    row_start = store.index.row_start
    owner = np.searchsorted(row_start, every, side="right") - 1
    positions, first, counts = np.unique(owner, return_index=True, return_counts=True)
    n_judged = int(np.count_nonzero(rows.counts(rows.present)))
    if len(positions) >= _MANY and 2 * len(positions) > n_judged:
        worst = int(counts.argmax())
        of_worst = every[first[worst] : first[worst] + counts[worst]]
        start, stop = _stretch(of_worst)
        most = "" if whole else f"; most of them, {counts[worst]:,}, in {store.ids[positions[worst]]}"
        detail = f"{say(every)}, in {len(positions):,} of {store.n_series:,} series{most}"
        yield Finding(kind, "", name, detail, start, stop)
        return
    for position, begin, count in zip(positions.tolist(), first.tolist(), counts.tolist(), strict=True):
        own = every[begin : begin + count]
        if whole:
            yield of_series(store, kind, position, name, say(own))
            continue
        start, stop = _stretch(own)
        together = f", at most {stop - start:,} together" if 1 < stop - start < count else ""
        yield finding(store, kind, position, name, start, stop, say(own) + together)


def _stretch(of: NDArray[np.int64]) -> tuple[int, int]:
    """The longest stretch among the numbers of some rows."""
    marked = np.zeros(int(of[-1] - of[0]) + 1, np.bool_)
    marked[of - of[0]] = True
    start, stop = longest_stretch(marked)
    return int(of[0]) + start, int(of[0]) + stop
