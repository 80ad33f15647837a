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
    index, summary, of_new = base.index, written.summary, _Among.of(base, places, late)
    first, last = (written.first_place + edge for edge in (written.row_start[:-1], written.row_start[1:]))
    kept = slice(None) if not late.any() else ~np.repeat(_where(base.n_series, of_new.gone), np.diff(index.extent_ptr))
    n_gone = np.cumsum(np.where(late, index.extent_ptr[of_new.above] - index.extent_ptr[of_new.below], 0))
    behind = index.extent_ptr[of_new.above] - n_gone
    start, stop = np.insert(index.extent_start[kept], behind, first), np.insert(index.extent_stop[kept], behind, last)
    extent_ptr, unknown = index.extent_ptr, of_new.below[places.known < 0]
    if len(unknown):
        extent_ptr = np.insert(extent_ptr, unknown, extent_ptr[unknown])
    n_more = np.append(0, np.arange(1, len(behind) + 1) - n_gone)
    extent_ptr = extent_ptr + np.repeat(n_more, np.diff(places.new + 1, prepend=0, append=len(extent_ptr)))

    row_size = _spread(index.row_size, places, 0)
    row_size[places.new] = of_new.n_left + np.diff(written.row_start)
    whole, time_start = of_new.n_left == 0, index.time_start
    if whole.any():
        time_start = _spread(time_start, places, 0)
        time_start[places.new[whole]] = summary.time_start[whole]
    time_stop = _spread(index.time_stop, places, 0)
    time_stop[places.new] = summary.time_stop
    runs = _merge_runs(base, places, of_new, written)
    merged = SeriesIndex(places.ids, row_size, extent_ptr, start, stop, runs, time_start, time_stop, statics)
    return merged, _merge_moments(base.moments, places, whole, summary.moments)


@dataclass(frozen=True)
class _Among:
    """What a store has of each series with new rows.

    Parameters
    ----------
    below, above
        (new series,) series of the store before it, and those up to and including it.
    n_left
        (new series,) rows of the store that stay; none of those that are written anew.
    gone
        (gone,) positions in the store of the series that are written anew as a whole.
    """

    below: Int64
    above: Int64
    n_left: Int64
    gone: Int64

    @classmethod
    def of(cls, base: Store, places: Places, late: NDArray[np.bool_]) -> _Among:
        """Count; arguments as of :func:`merge`."""
        is_known = places.known >= 0
        below = places.new - (np.cumsum(~is_known) - ~is_known)
        n_left = np.zeros(len(below), np.int64)
        n_left[is_known & ~late] = base.index.row_size[places.known[is_known & ~late]]
        return cls(below, below + is_known, n_left, places.known[late])


def _where(n: int, positions: Int64) -> NDArray[np.bool_]:
    """(n,) whether each is one of some positions."""
    found = np.zeros(n, np.bool_)
    found[positions] = True
    return found


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


def _merge_runs(base: Store, places: Places, of_new: _Among, written: Written) -> RunTable:
    """The runs of all series: those of rows that stay, and behind them, of each series, those of its new rows.

    The first of those goes on with the last one that stays, where they follow each other; so few runs are compared.
    """
    runs, summary, row_start = base.index.runs, written.summary, base.index.row_start
    n_more = np.diff(written.row_start) + of_new.n_left - (row_start[of_new.above] - row_start[of_new.below])
    series, time, stop = runs.series, runs.time, runs.stop[: len(runs.series)]
    start = runs.start
    if len(of_new.gone):
        kept = ~_where(base.n_series, of_new.gone)[series]
        start, stop, series, time = start[kept], stop[kept], series[kept], time[kept]
    owner = series if len(places.ids) == base.n_series else places.old[series]
    behind = np.searchsorted(owner, places.new, side="right")
    shift = np.repeat(np.append(0, np.cumsum(n_more)), np.diff(behind, prepend=0, append=len(owner)))
    start, stop = start + shift, stop + shift
    own = summary.runs.series
    ahead = row_start[of_new.below] + np.cumsum(n_more) - n_more + of_new.n_left - written.row_start[:-1]
    fresh = join_runs(
        RunTable(summary.runs.start + ahead[own], summary.runs.stop + ahead[own], places.new[own], summary.runs.time),
        summary.rule,
    )
    behind = np.searchsorted(owner, fresh.series, side="right")
    before = behind - 1
    follows = np.append(True, fresh.series[1:] != fresh.series[:-1])[: len(behind)] & (behind > 0)
    follows[follows] = owner[before[follows]] == fresh.series[follows]
    follows[follows] = _follow(
        summary.rule, time[before[follows]], (stop - start)[before[follows]], fresh.time[follows]
    )
    stop[before[follows]] = fresh.stop[follows]
    if follows.all():
        return RunTable(start, stop, owner, time)
    new, behind = ~follows, behind[~follows]
    return RunTable(
        np.insert(start, behind, fresh.start[new]),
        np.insert(stop, behind, fresh.stop[new]),
        np.insert(owner, behind, fresh.series[new]),
        np.insert(time, behind, fresh.time[new]),
    )


def _follow(rule: TimeStepRule, before: Int64, n_rows: Int64, after: Int64) -> NDArray[np.bool_]:
    """Whether runs that begin at some times follow ones of so many rows: always where there is no regular rule."""
    if not rule.regular:
        return np.ones(len(before), np.bool_)
    number, on_grid = rule.steps(after, before)
    following: NDArray[np.bool_] = on_grid & (number == n_rows)
    return following


def join_runs(runs: RunTable, rule: TimeStepRule) -> RunTable:
    """Runs of one series that adjoin and go on in time as one; where there is no regular rule, all that adjoin."""
    before = np.flatnonzero((runs.series[1:] == runs.series[:-1]) & (runs.start[1:] == runs.stop[:-1]))
    n_rows = (runs.stop - runs.start)[before]
    before = before[_follow(rule, runs.time[before], n_rows, runs.time[before + 1])]
    if not len(before):
        return runs
    start, series, time = (np.delete(each, before + 1) for each in (runs.start, runs.series, runs.time))
    return RunTable(start, np.delete(runs.stop, before), series, time)
