"""Proofs that no target is in two splits: of a run, or of a checkpoint and of what it is tested on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray

from lightning_app.data.columns.meaning import UNITS_PER_SECOND
from lightning_app.data.windows.groups import Groups
from lightning_app.data.windows.spans import Spans, timed
from lightning_app.data.windows.splits import NAMES, SplitName
from zstore import Store, UsageError, WindowIndex

Int64 = NDArray[np.int64]


def refuse_leaks(
    ranges: Callable[[SplitName, int, int], tuple[Int64, Int64]], index: WindowIndex, name: SplitName, where: str
) -> None:
    """Prove that no target of some windows belongs to another split.

    Parameters
    ----------
    ranges
        Asked for the rows in which the targets of a split lie, of all runs with any of the rows ``[low, high)``.
    index
        The windows of one split.
    name
        Which.
    where
        The store.

    Raises
    ------
    UsageError
        If one does.

    Notes
    -----
    Cost: O(pieces + runs), and memory for some of them at a time; no window is looked at by itself.
    """
    for some in index.blocks():
        first, last = index.target_spans(some)
        for other in (other for other in NAMES if other != name):
            row = _shared_row(first, last, *ranges(other, int(first.min()), int(last.max())))
            if row is not None:
                raise UsageError(
                    f"row {row:,} is a target of both {name} and {other}",
                    expected="targets in one split at most",
                    where=where,
                    fix="change --data.split",
                )


def _shared_row(first: Int64, last: Int64, start: Int64, stop: Int64) -> int | None:
    """The first row of any of some spans ``[first, last)`` that is in a range ``[start, stop)``; None for none.

    Both ascend, and none of either overlap. Where each run has one of both they come in turn, which needs no search.
    """
    kept = stop > start
    if not kept.all():
        start, stop = start[kept], stop[kept]
    if not len(start):
        return None
    if len(start) == len(first) and (
        (np.all(last <= start) and np.all(stop[:-1] <= first[1:]))
        or (np.all(stop <= first) and np.all(last[:-1] <= start[1:]))
    ):
        return None
    # If any range that begins before the end of a span meets it, the last one does.
    at = np.searchsorted(start, last) - 1
    meets = np.flatnonzero((at >= 0) & (stop[at] > first))
    return int(max(first[meets[0]], start[at[meets[0]]])) if len(meets) else None


def trained_on(
    store: Store, index: WindowIndex | None, nodes: Int64 | None = None, group: str | None = None
) -> dict[str, Any]:
    """When each series was a training target, for checkpoints.

    Parameters
    ----------
    store
        What is trained on.
    index
        Its training windows; None for none.
    nodes
        (node,) positions of the series of a panel, whose steps the windows are of; None for windows of single series.
    group
        Static attribute whose series stay in one split, such as ``patient``.

    Returns
    -------
    `ids`, (span,) int64 hashes of ids, ascending; `first` and `last`, (span,) int64 times of the first and the last
    target of each stretch of windows; and the `unit` of time, empty for plain steps. Nothing of series without windows.
    With `group`, that and `groups`, (group,) int64 hashes of its values that these series have.
    """
    spans = _spans(store, index, nodes)
    found: dict[str, Any] = {**spans.to_tensors(), "unit": store.schema.time.unit or ""}
    if group is not None and index is not None and len(index):
        found |= {"group": group, "groups": torch.from_numpy(_groups(store, group, index).hashes)}
    return found


def check_trained(trained: Any) -> None:
    """Raise UsageError unless something is what :func:`trained_on` gives, or once gave."""
    _Spans.of(trained)
    groups = trained.get("groups")
    if (groups is not None or "group" in trained) and not (
        isinstance(trained.get("group"), str)
        and isinstance(groups, torch.Tensor)
        and (groups.dtype, groups.ndim) == (torch.int64, 1)
    ):
        raise UsageError(
            "checkpoint that does not say which groups it was trained on",
            expected="their hashes",
            fix="another --ckpt_path, or fit again",
        )


def joined(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """What was trained on in two fits, one after the other; where units differ, in the coarser one, rounded outwards.

    Raises
    ------
    UsageError
        If one has dates and the other plain steps, or `before` is nothing that :func:`trained_on` gives.
    """
    unit = _coarser(str(before.get("unit", "")), str(now["unit"]))
    parts = [_Spans.of(trained).within(trained["unit"], unit, outwards=True) for trained in (before, now)]
    found = {**_Spans.joined(parts).to_tensors(), "unit": unit}
    groups = [trained for trained in (before, now) if "group" in trained]
    if groups and len({trained["group"] for trained in groups}) == 1:
        both = torch.cat([trained["groups"] for trained in groups])
        found |= {"group": groups[0]["group"], "groups": torch.unique(both)}
    return found


def refuse_trained(
    store: Store,
    index: WindowIndex,
    name: SplitName,
    trained: dict[str, Any],
    nodes: Int64 | None = None,
    group: str | None = None,
) -> None:
    """Refuse to evaluate a model on targets that it was trained on.

    Parameters
    ----------
    store, index, nodes
        The windows that it is to be evaluated on, as :func:`trained_on` has them.
    name
        Their split.
    trained
        What :func:`trained_on` gave when it was trained: on this store, or on another one.
    group
        Static attribute whose series stay in one split.

    Raises
    ------
    UsageError
        If a target would be one of those, or times cannot be compared; or if windows are of a group that it was
        trained on, whatever the ids and times of its series are here.

    Notes
    -----
    Stretches of windows are compared, from the first target to the last, by id and in the coarser of both units of
    time. Cost: O(stretches).
    """
    _refuse(store, _spans(store, index, nodes), name, trained)
    if group is None or trained.get("group") != group:
        return
    here = _groups(store, group, index)
    known = np.flatnonzero(np.isin(here.hashes, trained["groups"].numpy()))
    if len(known):
        raise UsageError(
            f"model trained on other series of {group} {here.names[known[0]]}, which is in {name} here",
            expected=f"none, of {len(known):,} such",
            where=store.path,
            fix="name others in --data.split, or drop --data.split.group if they may be the same",
        )


def _groups(store: Store, group: str, index: WindowIndex) -> Groups:
    """Those of the series that windows are of."""
    return Groups.of(store, group, np.unique(index.series))


def refuse_trained_at(
    store: Store, series: Int64, first: Int64, last: Int64, name: SplitName, trained: dict[str, Any]
) -> None:
    """The same of some stretches of time.

    Parameters
    ----------
    store, name, trained
        As for :func:`refuse_trained`.
    series
        (span,) positions.
    first, last
        (span,), or (1,) of all, times of the first and last target.
    """
    first, last = (np.broadcast_to(time, series.shape) for time in (first, last))
    _refuse(store, _Spans(_hashes(store)[series], first, last).ordered(), name, trained)


def _refuse(store: Store, spans: _Spans, name: SplitName, trained: dict[str, Any]) -> None:
    axis = store.schema.time
    unit = _coarser(str(trained.get("unit", "")), axis.unit or "")
    known = _Spans.of(trained).within(trained["unit"], unit)
    here = spans.within(axis.unit or "", unit)
    both = here.meeting(known)
    if not len(both):
        return
    place = int(both[0])
    times = " to ".join(axis.show(int(time)) for time in (spans.first[place], spans.last[place]))
    ids = {int(hashed): str(id_) for hashed, id_ in zip(_hashes(store), store.ids.tolist(), strict=True)}
    n_series = len(np.unique(here.ids[both]))
    raise UsageError(
        f"model trained on targets that are in {name} here: series {ids[int(here.ids[place])]}, among {times}",
        expected=f"none, of {n_series:,} such series",
        where=store.path,
        fix="the --data.split it was trained with, or fit again",
    )


@dataclass(frozen=True)
class _Spans:
    """Stretches of time, each of one series: (span,) hashes of ids, ascending, first and last times, both included.

    Without ids: of all series, as old checkpoints have it where all had the same times.
    """

    ids: Int64
    first: Int64
    last: Int64
    everyone: bool = False

    @classmethod
    def of(cls, trained: dict[str, Any]) -> _Spans:
        """Read a checkpoint; old ones have `start` and `stop`, the time after the last."""
        try:
            first = trained["first"] if "first" in trained else trained["start"]
            last = trained["last"] if "last" in trained else trained["stop"] - 1
            ids = trained["ids"] if "ids" in trained else torch.zeros_like(first)
            if not isinstance(trained["unit"], str) or trained["unit"] not in ("", *UNITS_PER_SECOND):
                raise ValueError(f"times in {trained['unit']!r}")
            if {part.dtype for part in (ids, first, last)} != {torch.int64}:
                raise ValueError("times that are no whole numbers")
            ids, first, last = (part.numpy() for part in (ids, first, last))
            if len({part.shape for part in (ids, first, last)}) != 1 or ids.ndim != 1:
                raise ValueError("lengths differ")
        except (KeyError, AttributeError, TypeError, ValueError) as error:
            raise UsageError(
                f"checkpoint that does not say what it was trained on ({error})",
                expected="times by series",
                fix="another --ckpt_path, or fit again",
            ) from None
        kept = last >= first
        return cls(ids[kept], first[kept], last[kept], "ids" not in trained).ordered()

    @classmethod
    def joined(cls, parts: list[_Spans]) -> _Spans:
        """All of some."""
        ids, first, last = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("ids", "first", "last")
        )
        return cls(ids, first, last, any(part.everyone for part in parts)).ordered()

    def ordered(self) -> _Spans:
        """By id, then by time; each once."""
        ids, first, last = np.unique(np.stack([self.ids, self.first, self.last]), axis=1)
        return _Spans(ids, first, last, self.everyone)

    def to_tensors(self) -> dict[str, Any]:
        """For a checkpoint."""
        names = ("first", "last") if self.everyone else ("ids", "first", "last")
        return {name: torch.from_numpy(np.ascontiguousarray(getattr(self, name))) for name in names}

    def within(self, unit: str, coarser: str, outwards: bool = False) -> _Spans:
        """The same in another unit, of the times that it has; `outwards`: and those around them."""
        factor = 1 if unit == coarser else UNITS_PER_SECOND[unit] // UNITS_PER_SECOND[coarser]
        before, after = self.first // factor, -(-self.last // factor)
        if not outwards:
            before, after = -(-self.first // factor), self.last // factor
        return _Spans(self.ids, before, after, self.everyone)

    def meeting(self, known: _Spans) -> Int64:
        """Which of these have a time that one of `known` has, for the same id."""
        if known.everyone:
            known = _Spans(np.zeros_like(known.ids), known.first, known.last).ordered()
            return _Spans(np.zeros_like(self.ids), self.first, self.last).meeting(known)
        latest = _running_latest(known.ids, known.last)
        begin, end = (np.searchsorted(known.ids, self.ids, side=side) for side in ("left", "right"))
        low, high = begin.copy(), end.copy()
        while (open_ := low < high).any():  # the first of the same id that begins after the end of each
            middle = (low + high) // 2
            early = open_ & (known.first[np.minimum(middle, len(known.first) - 1)] <= self.last)
            low, high = np.where(early, middle + 1, low), np.where(open_ & ~early, middle, high)
        candidate = np.flatnonzero((low > begin) & (self.last >= self.first))
        return candidate[latest[low[candidate] - 1] >= self.first[candidate]]


def _running_latest(ids: Int64, last: Int64) -> Int64:
    """(span,) the latest end so far among those of the same id, ids ascending."""
    latest = last.copy()
    borders = np.flatnonzero(np.diff(ids)) + 1
    for part in np.split(latest, borders) if (np.diff(last) < 0).any() else []:
        np.maximum.accumulate(part, out=part)
    return latest


def _spans(store: Store, index: WindowIndex | None, nodes: Int64 | None) -> _Spans:
    """When the targets of some windows are, by series, within the times at which these have rows."""
    spans = Spans.of(timed(store, nodes), index)
    series, first, last = spans.series, spans.first, spans.last
    if nodes is not None:
        series, first, last = np.tile(nodes, len(first)), np.repeat(first, len(nodes)), np.repeat(last, len(nodes))
        first, last = np.maximum(first, store.index.time_start[series]), np.minimum(last, store.index.time_stop[series])
        kept = last >= first
        series, first, last = series[kept], first[kept], last[kept]
    return _Spans(_hashes(store)[series], first, last).ordered()


def _coarser(one: str, other: str) -> str:
    """Of two units of time that with fewer of them in a second."""
    known = all(unit in UNITS_PER_SECOND for unit in (one, other))
    if one != other and not known:
        names = [
            unit if unit in UNITS_PER_SECOND else "plain steps" if not unit else repr(unit) for unit in (one, other)
        ]
        raise UsageError(
            f"model trained on times in {names[0]}, and times in {names[1]} here",
            expected="dates in both, or plain steps in both",
            fix="the store that it was trained on, or fit again",
        )
    return one if one == other or UNITS_PER_SECOND[one] < UNITS_PER_SECOND[other] else other


def _hashes(store: Store) -> Int64:
    """(series,) a number for each id, whatever its position."""
    one_by_one = (xxhash.xxh3_64_intdigest(id_.encode()) for id_ in store.ids)  # no list of Python's strings
    hashed = np.fromiter(one_by_one, np.uint64, store.n_series)
    return hashed.view(np.int64)
