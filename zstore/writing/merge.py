"""What is known of every series after an append: index and moments of before, joined with those of the new rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.arrow import from_strings, numbered, to_strings
from zstore.errors import SourceError
from zstore.format.index import RunTable, SeriesIndex, StaticAttribute
from zstore.format.moments import Moments
from zstore.format.timesteps import TimeStepRule
from zstore.reading.store import Store
from zstore.writing.pipeline import Written
from zstore.writing.sources.table import StaticTable
from zstore.writing.statics import match_statics

Int64 = NDArray[np.int64]

_FEW_IDS = 1 << 12  # of new rows, which are sought one by one


@dataclass(frozen=True)
class Places:
    """Where the series of a store and those of new rows stand among all.

    Parameters
    ----------
    ids
        (series,) all ids, sorted by their UTF-8 bytes.
    old, new
        Position among all ids of each series of the store, and of each series with new rows.
    known
        (new series,) its position in the store, -1 for none.
    """

    ids: NDArray[Any]
    old: Int64
    new: Int64
    known: Int64

    @classmethod
    def of(cls, store: Store, ids: NDArray[Any]) -> Places:
        """Bring the ids of a store and of new rows together."""
        if len(ids) > _FEW_IDS:
            both, (before, fresh) = numbered([from_strings(store.ids), from_strings(ids)])
            place = np.full(len(both), -1, np.int64)
            place[before] = np.arange(len(before))
            return cls(to_strings(both), before.astype(np.int64), fresh.astype(np.int64), place[fresh])
        place = np.searchsorted(store.ids, ids)
        is_known = place < store.n_series
        is_known[is_known] = store.ids[place[is_known]] == ids[is_known]
        known = np.where(is_known, place, -1)
        if is_known.all():
            return cls(store.ids, np.arange(store.n_series), place, known)
        new: Int64 = place + np.cumsum(~is_known) - ~is_known  # behind the unknown ids before each of these
        is_old = np.ones(store.n_series + int(np.count_nonzero(~is_known)), np.bool_)
        is_old[new[~is_known]] = False
        old, both = np.flatnonzero(is_old), np.empty(len(is_old), np.dtypes.StringDType())
        both[old], both[new] = store.ids, ids
        return cls(both, old, new, known)


def merge(
    base: Store,
    places: Places,
    late: NDArray[np.bool_],
    written: Written,
    statics: tuple[StaticAttribute, ...],
) -> tuple[SeriesIndex, Moments]:
    """The index and the moments of a store and of rows that were written behind it.

    Parameters
    ----------
    base
        The store as it was.
    places
        Its series and the new ones among all.
    late
        (new series,) series of the store that were written anew as a whole.
    written
        The rows.
    statics
        Static attributes of all series.
    """
    index, n_series = base.index, len(places.ids)
    row_start, summary, first_place = written.row_start, written.summary, written.first_place
    gone = np.zeros(n_series, bool)
    gone[places.new[late]] = True
    size_before = _spread(index.row_size, places, 0)
    size_before[gone] = 0
    row_size = size_before.copy()
    row_size[places.new] += np.diff(row_start)

    n_extents = _spread(np.diff(index.extent_ptr), places, 0)
    kept = slice(None) if not late.any() else ~np.repeat(gone[places.old], np.diff(index.extent_ptr))
    n_extents[gone] = 0
    behind = np.cumsum(n_extents)[places.new]
    start = np.insert(index.extent_start[kept], behind, first_place + row_start[:-1])
    stop = np.insert(index.extent_stop[kept], behind, first_place + row_start[1:])
    n_extents[places.new] += 1

    runs = _merge_runs(base, places, gone, written, size_before, row_size)
    time_start, time_stop = _spread(index.time_start, places, 0), _spread(index.time_stop, places, 0)
    whole = size_before[places.new] == 0
    time_start[places.new[whole]] = summary.time_start[whole]
    time_stop[places.new] = summary.time_stop
    extent_ptr = np.concatenate([[0], np.cumsum(n_extents)])
    merged = SeriesIndex(places.ids, row_size, extent_ptr, start, stop, runs, time_start, time_stop, statics)
    return merged, _merge_moments(base.moments, places, whole, summary.moments)


def _spread(values: NDArray[Any], places: Places, fill: float) -> NDArray[Any]:
    """(series, …) values of the series of a store among all, in memory of their own; `fill` for the others."""
    if len(values) == len(places.ids):
        return values.copy()
    found = np.full((len(places.ids), *values.shape[1:]), fill, values.dtype)
    found[places.old] = values
    return found


def _merge_moments(before: Moments, places: Places, whole: NDArray[np.bool_], fresh: Moments) -> Moments:
    """Moments of all series: those of rows that stay with those of new ones, which are all that `whole` series have."""
    empty = Moments.empty((1,)).fields()
    merged = Moments(*(_spread(values, places, empty[name][0]) for name, values in before.fields().items()))
    joined = merged.at(places.new).merge(fresh)
    for name, values in merged.fields().items():
        new = np.where(whole[:, None], fresh.fields()[name], joined.fields()[name])
        values[places.new] = new
    return merged


def scatter_statics(statics: Sequence[StaticAttribute], places: Places) -> tuple[StaticAttribute, ...]:
    """Static attributes of a store in the order of all series; new ones have none."""
    found = []
    for static in statics:
        missing = np.nan if static.categories is None else -1
        values = np.full(len(places.ids), missing, static.values.dtype)
        values[places.old] = static.values
        found.append(StaticAttribute(static.name, values, static.categories))
    return tuple(found)


def update_statics(statics: Sequence[StaticAttribute], own: StaticTable, ids: Any) -> tuple[StaticAttribute, ...]:
    """Static attributes of all series, with those that sources have of some.

    Parameters
    ----------
    statics
        What is known.
    own
        What sources have; it wins.
    ids
        (series,) ids of all series.

    Raises
    ------
    SourceError
        If an attribute holds numbers, and is to hold words, or the other way round.
    """
    matched, _, _ = match_statics(ids, own.ids, own.attributes)
    known = {static.name: static for static in statics}
    here = np.isin(ids, own.ids)
    for new in matched:
        old = known.get(new.name)
        known[new.name] = new if old is None else _updated(old, new, here)
    return tuple(known.values())


def _updated(old: StaticAttribute, new: StaticAttribute, here: NDArray[np.bool_]) -> StaticAttribute:
    """One attribute with new values where there are some series of it."""
    if new.categories is None or old.categories is None:
        empty = new.categories == () or (new.categories is None and bool(np.isnan(new.values).all()))
        if empty or (new.categories is None) == (old.categories is None):
            missing = np.nan if old.categories is None else -1
            return replace(old, values=np.where(here, missing if empty else new.values, old.values))
        raise SourceError(
            f"{'words' if new.categories is not None else 'numbers'} in static attribute {new.name!r}",
            expected=f"{'words' if old.categories is not None else 'numbers'}, as the store has them",
            fix="leave it out of the mapping, or ingest all files together anew",
        )
    words = sorted({*old.categories, *new.categories}, key=str.encode)
    code = {word: number for number, word in enumerate(words)}
    values = [
        np.array([*(code[word] for word in each.categories or ()), -1], np.int32)[each.values] for each in (old, new)
    ]
    return StaticAttribute(new.name, np.where(here, values[1], values[0]), tuple(words))


def _merge_runs(
    base: Store,
    places: Places,
    gone: NDArray[np.bool_],
    written: Written,
    size_before: Int64,
    row_size: Int64,
) -> RunTable:
    """The runs of all series: those of rows that stay, and behind them, of each series, those of its new rows."""
    runs, summary = base.index.runs, written.summary
    all_start = np.cumsum(row_size) - row_size
    shift, series = all_start[places.old] - base.index.row_start[:-1], runs.series
    start, stop = runs.start + shift[series], runs.stop[: len(series)] + shift[series]
    owner, time = places.old[series], runs.time
    if gone.any():
        kept = ~gone[owner]
        start, stop, owner, time = start[kept], stop[kept], owner[kept], time[kept]
    fresh = places.new[summary.runs.series]
    ahead = all_start[fresh] + size_before[fresh] - written.row_start[summary.runs.series]
    behind = np.searchsorted(owner, fresh, side="right")
    made = RunTable(
        np.insert(start, behind, summary.runs.start + ahead),
        np.insert(stop, behind, summary.runs.stop + ahead),
        np.insert(owner, behind, fresh),
        np.insert(time, behind, summary.runs.time),
    )
    return join_runs(made, summary.rule)


def join_runs(runs: RunTable, rule: TimeStepRule) -> RunTable:
    """Runs of one series that adjoin and go on in time as one; where there is no regular rule, all that adjoin."""
    before = np.flatnonzero((runs.series[1:] == runs.series[:-1]) & (runs.start[1:] == runs.stop[:-1]))
    if rule.regular:
        number, on_grid = rule.steps(runs.time[before + 1], runs.time[before])
        before = before[on_grid & (number == (runs.stop - runs.start)[before])]
    if not len(before):
        return runs
    start, series, time = (np.delete(each, before + 1) for each in (runs.start, runs.series, runs.time))
    return RunTable(start, np.delete(runs.stop, before), series, time)
