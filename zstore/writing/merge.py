"""What is known of every series after an append: index and moments of before, joined with those of the new rows."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.errors import SourceError
from zstore.format.index import RunTable, StaticAttribute
from zstore.format.moments import Moments
from zstore.format.timesteps import TimeStepRule
from zstore.reading.store import Store
from zstore.writing.pipeline import Written
from zstore.writing.sources.table import StaticTable
from zstore.writing.spliced import Edits, Spliced
from zstore.writing.spliced_index import SplicedIndex, SplicedMoments
from zstore.writing.statics import match_statics

Int64 = NDArray[np.int64]

_DECODERS = 4  # arrays at once


@dataclass(frozen=True)
class Places:
    """Where the series of a store and those of new rows stand among all.

    Parameters
    ----------
    store
        The store.
    of_new
        (new series,) ids of series with new rows, sorted by their UTF-8 bytes.
    new
        (new series,) position of each series with new rows among all.
    known
        (new series,) its position in the store, -1 for none.
    """

    store: Store
    of_new: NDArray[Any]
    new: Int64
    known: Int64

    @classmethod
    def of(cls, store: Store, ids: NDArray[Any]) -> Places:
        """Bring the ids of a store and of new rows together."""
        place, is_known = store.column("id").ranks(ids)
        new: Int64 = place + np.cumsum(~is_known) - ~is_known  # behind the unknown ids before each of these
        return cls(store, ids, new, np.where(is_known, place, -1))

    @property
    def is_known(self) -> NDArray[np.bool_]:
        """(new series,) whether the store has it."""
        return self.known >= 0

    @property
    def below(self) -> Int64:
        """(new series,) series of the store before it."""
        return self.new - (np.cumsum(~self.is_known) - ~self.is_known)

    @property
    def unknown(self) -> Int64:
        """(unknown series,) the same of those that the store has not."""
        return self.below[~self.is_known]

    @cached_property
    def old(self) -> Int64:
        """(series of the store,) position of each among all."""
        is_old = np.ones(self.store.n_series + len(self.unknown), np.bool_)
        is_old[self.new[~self.is_known]] = False
        return np.flatnonzero(is_old)

    @cached_property
    def ids(self) -> NDArray[Any]:
        """(series,) all ids, sorted by their UTF-8 bytes."""
        if not len(self.unknown):
            return self.store.ids
        both = np.empty(self.store.n_series + len(self.unknown), np.dtypes.StringDType())
        both[self.old], both[self.new] = self.store.ids, self.of_new
        return both


def merge(
    base: Store,
    places: Places,
    late: NDArray[np.bool_],
    written: Written,
    statics: tuple[StaticAttribute, ...],
) -> tuple[SplicedIndex, SplicedMoments]:
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

    Notes
    -----
    Cost: chunks of the index of the store that tell of series with new rows, and nothing of memory for the others.
    """
    summary, of_new = written.summary, _Among.of(base, places, late)
    is_known, unknown, n_new = places.is_known, places.unknown, np.diff(written.row_start)
    known = places.known[is_known]
    ptr = base.column("extent_ptr")
    ptr_below, ptr_above = ptr.take(np.stack([of_new.below, of_new.above], axis=1).ravel()).reshape(-1, 2).T
    n_more = 1 - np.where(late, ptr_above - ptr_below, 0)  # extents
    drop = ptr_below[late], ptr_above[late]
    first, last = (written.first_place + edge for edge in (written.row_start[:-1], written.row_start[1:]))
    counted = (ptr_below + np.cumsum(n_more) - n_more)[~is_known]

    def by_series(name: str, values: NDArray[Any], changed: NDArray[np.bool_]) -> Spliced:
        """A column over series, with values of new ones, and of known ones where they changed."""
        mine = changed[is_known]
        edits = Edits.of((unknown, values[~is_known]), (known[mine], values[is_known][mine]))
        return Spliced.of(base.column(name), edits)

    whole, every = of_new.n_left == 0, np.ones(len(late), np.bool_)
    columns = {
        "id": by_series("id", places.of_new, ~every),
        "row_size": by_series("row_size", of_new.n_left + n_new, every),
        "extent_ptr": Spliced.of(ptr, Edits.of((unknown, counted), shift=(of_new.above, n_more))),
        "extent_start": Spliced.of(base.column("extent_start"), Edits.of((ptr_above, first), drop=drop)),
        "extent_stop": Spliced.of(base.column("extent_stop"), Edits.of((ptr_above, last), drop=drop)),
        **_merge_runs(base, places, of_new, late, written),
        "time_start": by_series("time_start", summary.time_start, whole),
        "time_stop": by_series("time_stop", summary.time_stop, every),
    }
    n_rows = base.n_rows + int((of_new.n_left + n_new).sum() - of_new.n_before.sum())
    behind = not late.any() and bool(np.all(ptr_above == len(base.column("extent_start"))))
    adjoins = behind and (not len(late) or written.first_place == base.n_rows)
    index = SplicedIndex(columns, statics, n_rows, base.contiguous and adjoins)
    return index, SplicedMoments(_merge_moments(base, is_known, known, unknown, whole, summary.moments))


@dataclass(frozen=True)
class _Among:
    """What a store has of each series with new rows.

    Parameters
    ----------
    below, above
        (new series,) series of the store before it, and those up to and including it.
    n_before, n_left
        (new series,) rows of the store, and those that stay: none of series that are written anew.
    """

    below: Int64
    above: Int64
    n_before: Int64
    n_left: Int64

    @classmethod
    def of(cls, base: Store, places: Places, late: NDArray[np.bool_]) -> _Among:
        """Count; arguments as of :func:`merge`."""
        is_known, below = places.is_known, places.below
        n_before = np.zeros(len(below), np.int64)
        n_before[is_known] = base.column("row_size").take(places.known[is_known])
        return cls(below, below + is_known, n_before, np.where(late, 0, n_before))


def _merge_moments(
    base: Store,
    is_known: NDArray[np.bool_],
    known: Int64,
    unknown: Int64,
    whole: NDArray[np.bool_],
    fresh: Moments,
) -> dict[str, Spliced]:
    """Moments of all series: those of rows that stay with those of new ones, which are all that `whole` series have."""
    before = Moments.empty((len(whole), fresh.count.shape[1]))
    bases = {name: base.moments_column(name) for name in before.fields()}
    with ThreadPoolExecutor(_DECODERS) as pool:
        taken = pool.map(lambda column: column.take(known), bases.values())
        for values, there in zip(before.fields().values(), taken, strict=True):
            values[is_known] = there
    joined, found = before.merge(fresh).fields(), {}
    for name, new in fresh.fields().items():
        values = np.where(whole[:, None], new, joined[name])
        mine = is_known & (values != before.fields()[name]).any(axis=1)
        edits = Edits.of((unknown, values[~is_known]), (known[mine[is_known]], values[mine]))
        found[name] = Spliced.of(bases[name], edits)
    return found


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
    known = {static.name: _loaded(static) for static in statics}
    here = np.isin(ids, own.ids)
    for new in matched:
        old = known.get(new.name)
        known[new.name] = new if old is None else _updated(old, new, here)
    return tuple(known.values())


def _loaded(static: StaticAttribute) -> StaticAttribute:
    """A static attribute in memory."""
    return replace(static, values=static.values.whole()) if isinstance(static.values, Spliced) else static


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
    base: Store, places: Places, of_new: _Among, late: NDArray[np.bool_], written: Written
) -> dict[str, Spliced]:
    """The runs of all series: those of rows that stay, and behind them, of each series, those of its new rows.

    The first of those goes on with the last one that stays, where they follow each other; so few runs are compared.
    """
    names = ("run_start", "run_stop", "run_series", "run_time")
    runs, summary = {name: base.column(name) for name in names}, written.summary
    n_runs = len(runs["run_start"])
    bounds = np.stack([of_new.below, of_new.above], axis=1).ravel()
    low, behind = runs["run_series"].lower_bound(bounds).reshape(-1, 2).T  # the runs of each, and those before them
    n_more = np.diff(written.row_start) + of_new.n_left - of_new.n_before
    own = summary.runs.series
    row_start = base.column("row_size").sums_before(of_new.below)
    ahead = row_start + np.cumsum(n_more) - n_more + of_new.n_left - written.row_start[:-1]
    fresh = join_runs(
        RunTable(summary.runs.start + ahead[own], summary.runs.stop + ahead[own], places.new[own], summary.runs.time),
        summary.rule,
    )
    number = np.searchsorted(places.new, fresh.series)  # which new series each run is of
    follows = np.append(True, fresh.series[1:] != fresh.series[:-1])[: len(number)]
    follows &= ~late[number] & (behind > low)[number]
    before, at = behind[number[follows]] - 1, np.flatnonzero(follows)
    with ThreadPoolExecutor(_DECODERS) as pool:
        taken = pool.map(lambda name: runs[name].take(before), ("run_start", "run_stop", "run_time"))
        start, stop, time = taken
    goes_on = _follow(summary.rule, time, stop - start, fresh.time[at])
    follows[at[~goes_on]] = False
    longer, new, drop = (before[goes_on], fresh.stop[at[goes_on]]), ~follows, (low[late], behind[late])
    gone = low[late] < behind[late]
    drop, insert = (drop[0][gone], drop[1][gone]), behind[number[new]]
    n_unknown = (places.known < 0).astype(np.int64)
    edits = {
        "run_start": Edits.of((insert, fresh.start[new]), drop=drop, shift=(behind, n_more)),
        "run_stop": Edits.of((insert, fresh.stop[new]), longer, drop, (behind, n_more)),
        "run_series": Edits.of((insert, fresh.series[new]), drop=drop, shift=(behind, n_unknown)),
        "run_time": Edits.of((insert, fresh.time[new]), drop=drop),
    }
    return {name: Spliced.of(runs[name], edits[name], n_runs) for name in names}


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
