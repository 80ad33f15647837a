"""What is known of every series after an append: index and moments of before, joined with those of the new rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from zstore.arrow import as_numpy, text_array, union
from zstore.errors import SourceError
from zstore.format.index import RunTable, SeriesIndex, StaticAttribute
from zstore.format.moments import Moments
from zstore.format.timesteps import TimeStepRule
from zstore.reading.store import Store
from zstore.writing.pipeline import Written
from zstore.writing.sources.table import StaticTable
from zstore.writing.statics import match_statics
from zstore.writing.version import Summary

Int64 = NDArray[np.int64]


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
        before, fresh = text_array(store.ids.tolist()), text_array(ids.tolist())
        both = union([before, fresh])
        known = pc.index_in(fresh, value_set=before)
        return cls(
            np.array(both.to_pylist(), dtype=np.dtypes.StringDType()),
            as_numpy(pc.index_in(before, value_set=both), "int32").astype(np.int64),
            as_numpy(pc.index_in(fresh, value_set=both), "int32").astype(np.int64),
            np.array([-1 if place is None else place for place in known.to_pylist()], np.int64),
        )


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
    size_before = np.zeros(n_series, np.int64)
    size_before[places.old] = index.row_size
    size_before[gone] = 0
    row_size = size_before.copy()
    row_size[places.new] += np.diff(row_start)
    all_start = np.concatenate([[0], np.cumsum(row_size)])

    owner = places.old[np.repeat(np.arange(base.n_series), np.diff(index.extent_ptr))]
    kept = ~gone[owner]
    series = np.concatenate([owner[kept], places.new])
    start = np.concatenate([index.extent_start[kept], first_place + row_start[:-1]])
    stop = np.concatenate([index.extent_stop[kept], first_place + row_start[1:]])
    order = np.argsort(series, kind="stable")
    extent_ptr = np.searchsorted(series[order], np.arange(n_series + 1))

    runs = _merge_runs(index.runs, places, gone, index.row_start, row_start, size_before, all_start, summary)
    time_start, time_stop = np.zeros(n_series, np.int64), np.zeros(n_series, np.int64)
    time_start[places.old], time_stop[places.old] = index.time_start, index.time_stop
    whole = size_before[places.new] == 0
    time_start[places.new[whole]] = summary.time_start[whole]
    time_stop[places.new] = summary.time_stop
    merged = SeriesIndex(
        places.ids, row_size, extent_ptr, start[order], stop[order], runs, time_start, time_stop, statics
    )
    before = _scatter(base.moments.at(~gone[places.old]), places.old[~gone[places.old]], n_series)
    return merged, before.merge(_scatter(summary.moments, places.new, n_series))


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
    runs: RunTable,
    places: Places,
    gone: NDArray[np.bool_],
    old_start: Int64,
    new_start: Int64,
    size_before: Int64,
    all_start: Int64,
    summary: Summary,
) -> RunTable:
    owner = places.old[runs.series]
    kept = ~gone[owner]
    shift = all_start[owner] - old_start[runs.series]
    fresh = places.new[summary.runs.series]
    ahead = all_start[fresh] + size_before[fresh] - new_start[summary.runs.series]
    start = np.concatenate([(runs.start + shift)[kept], summary.runs.start + ahead])
    stop = np.concatenate([(runs.stop + shift)[kept], summary.runs.stop + ahead])
    series = np.concatenate([owner[kept], fresh])
    time = np.concatenate([runs.time[kept], summary.runs.time])
    order = np.argsort(start, kind="stable")
    return join_runs(RunTable(start[order], stop[order], series[order], time[order]), summary.rule)


def join_runs(runs: RunTable, rule: TimeStepRule) -> RunTable:
    """Runs of one series that adjoin and go on in time as one; where there is no regular rule, all that adjoin."""
    length = runs.stop - runs.start
    same = (runs.series[1:] == runs.series[:-1]) & (runs.start[1:] == runs.stop[:-1])
    if rule.regular:
        number, on_grid = rule.steps(runs.time[1:], runs.time[:-1])
        same &= on_grid & (number == length[:-1])
    begins = np.concatenate([np.ones(min(len(length), 1), bool), ~same])
    first = np.flatnonzero(begins)
    last = np.append(first[1:], len(length)) - 1
    return RunTable(runs.start[first], runs.stop[last[: len(first)]], runs.series[first], runs.time[first])


def _scatter(moments: Moments, positions: Int64, n_series: int) -> Moments:
    spread = Moments.empty((n_series, moments.count.shape[1]))
    for name, values in spread.fields().items():
        values[positions] = moments.fields()[name]
    return spread
