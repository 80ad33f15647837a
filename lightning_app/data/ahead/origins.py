"""Where the known rows of each series end, and the future begins."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_app.data.layout import Layout
from lightning_app.data.scales import Scales
from zstore import UsageError

Int64 = NDArray[np.int64]
logger = logging.getLogger(__name__)

NAMED = 3
"""Series that a message names."""
_FEW = 16  # series whose rows are looked at one by one
_BLOCK = 1 << 14  # rows that are looked at together


@dataclass(frozen=True)
class Origins:
    """The last known row of each series that is forecast; of a panel, its last known step.

    Parameters
    ----------
    series
        (window,) positions in the store; 0 for a panel.
    known
        (window,) row behind the last known one.
    low
        (window,) first row that may be an input: no gap lies between it and `known`.
    stop
        (window,) row behind the last one of the series. Those from `known` on are there, and not known.
    time
        (window,) of the last known row.
    """

    series: Int64
    known: Int64
    low: Int64
    stop: Int64
    time: Int64

    def __len__(self) -> int:
        return len(self.series)

    def at(self, kept: NDArray[np.bool_]) -> Origins:
        """Some of them."""
        return Origins(self.series[kept], self.known[kept], self.low[kept], self.stop[kept], self.time[kept])


def find_origins(scales: Scales, series: Int64 | None, since: str | Int64 | None) -> Origins:
    """Where the known rows end.

    Parameters
    ----------
    scales
        Which channels a model reads, and of which store.
    series
        Positions of the series; None for all that were asked for. A panel always has all of its own.
    since
        The first time that is not known any more, or (series,) that of each series of the store. None: a row is known
        if it has a value that nobody knows in advance, that is a target or, where targets lie behind the inputs, any
        input that is not among `future`.

    Returns
    -------
    Those that have a known row, in the order of the store; the others are named in a warning.

    Raises
    ------
    UsageError
        If none has one, or `since` is no time.

    Notes
    -----
    Cost: without `since`, and where such values may be missing in every channel, these channels are decoded.
    """
    layout = scales.layout
    bounds, own = _bounds(layout, series)
    if since is None:
        known = _last_seen(scales, bounds)
    else:
        times = np.full(len(own), _parsed(layout, since)) if isinstance(since, str) else since[own]
        known = _rows_before(layout, bounds, times)
    some = known > bounds[0]
    if not some.any():
        raise UsageError(
            "nothing to forecast from: no series has a known row"
            + (f" before {since}" if isinstance(since, str) else ""),
            expected="a row with an observed target",
            where=layout.store.path,
            fix="another --data.predict_from" if since is not None else "other --data.targets",
        )
    if not some.all():
        named = named_series(layout, own[~some])
        logger.warning(f"{int((~some).sum()):,} series are not forecast, for they have no known row: {named}")
    runs = layout.view.runs
    run = np.searchsorted(runs.start, known[some] - 1, "right") - 1
    return Origins(own[some], known[some], runs.start[run], bounds[1][some], _times_at(layout, known[some] - 1, run))


def _bounds(layout: Layout, series: Int64 | None) -> tuple[tuple[Int64, Int64], Int64]:
    """(window,) rows ``[start, stop)`` of each series, and the series."""
    if layout.nodes is not None:
        zero = np.zeros(1, np.int64)
        return (zero, zero + layout.view.n_rows), zero
    edges = layout.store.index.row_start
    members = layout.view.members
    if series is not None:
        chosen = np.asarray(series, np.int64)
    else:
        chosen = np.arange(layout.store.n_series) if members is None else np.flatnonzero(members)
    return (edges[chosen], edges[chosen + 1]), chosen


def _parsed(layout: Layout, since: str) -> int:
    axis = layout.store.schema.time
    try:
        return axis.parse(since)
    except ValueError:
        raise UsageError(
            f"--data.predict_from {since!r}",
            expected="a time of the store, such as " + axis.show(int(layout.view.runs.time.max(initial=0))),
            where=layout.store.path,
            fix="correct it",
        ) from None


def named_series(layout: Layout, series: Int64) -> str:
    """The ids of the first few of some series."""
    return ", ".join(map(str, layout.store.ids[series[:NAMED]].tolist())) + (", …" if len(series) > NAMED else "")


def _rows_before(layout: Layout, bounds: tuple[Int64, Int64], times: Int64) -> Int64:
    """(window,) the first row at or after a time of each."""
    if layout.nodes is not None:
        return layout.view.timed.first_step(times)  # type: ignore[union-attr]
    found = []
    for start, stop, time in zip(*(bound.tolist() for bound in bounds), times.tolist(), strict=True):
        low, high = start, stop
        while low < high:  # a block of times is one read, so few rows are left before the last one
            if high - low <= _BLOCK:
                low += int(np.searchsorted(layout.store.times(low, high), time))
                break
            middle = (low + high) // 2
            low, high = (middle + 1, high) if int(layout.store.times(middle, middle + 1)[0]) < time else (low, middle)
        found.append(low)
    return np.array(found, np.int64)


def _last_seen(scales: Scales, bounds: tuple[Int64, Int64]) -> Int64:
    """(window,) the row behind the last one that has a value which nobody knows in advance."""
    layout = scales.layout
    names = list(layout.targets)
    if layout.window.delay >= 0:
        names += [name for name in layout.seen if name not in layout.future and name not in names]
    start, stop = bounds
    if not layout.view.missing(names).all():  # in each row at least one is there
        return stop
    columns = [layout.columns.index(name) for name in names]
    if layout.nodes is None and len(start) <= _FEW:
        return np.array([_last_of(layout, names, *each) for each in zip(start.tolist(), stop.tolist(), strict=True)])
    blocks = layout.view.observed(columns, scales.scaler, layout.options.row_cache, False)
    low, seen = 0, [np.zeros(0, np.int64)]
    for block in blocks:
        seen.append(np.flatnonzero(block) + low)
        low += len(block)
    rows = np.concatenate(seen)
    found = np.searchsorted(rows, stop) - 1
    last = np.where(found >= 0, rows[np.maximum(found, 0)] + 1 if len(rows) else 0, 0)
    return np.maximum(last, start)  # without any, nothing is known


def _last_of(layout: Layout, names: list[str], start: int, stop: int) -> int:
    """The same of one series, read backwards."""
    for high in range(stop, start, -_BLOCK):
        low = max(start, high - _BLOCK)
        seen = np.any([~np.isnan(layout.store.read(name, low, high)) for name in names], axis=0)
        if seen.any():
            return low + int(np.flatnonzero(seen)[-1]) + 1
    return start


def _times_at(layout: Layout, rows: Int64, run: Int64) -> Int64:
    """Times of some rows, which lie in some runs."""
    view = layout.view
    rule = layout.store.time.rule
    if rule.regular:
        return rule.times(rows - view.runs.start[run], view.runs.time[run])
    return np.array([int(view.timed.times(row, row + 1)[0]) for row in rows.tolist()], np.int64)
