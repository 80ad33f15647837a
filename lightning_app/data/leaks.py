"""Proofs that no target is in two splits: of a run, or of a checkpoint and of what it is tested on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray

from lightning_app.data.splits import NAMES, Split, SplitName, assign_series, time_borders
from zstore import Store, UsageError, WindowIndex

Int64 = NDArray[np.int64]


def refuse_leaks(
    ranges: Callable[[SplitName], tuple[Int64, Int64]], index: WindowIndex, name: SplitName, where: str
) -> None:
    """Prove that no target of some windows belongs to another split.

    Parameters
    ----------
    ranges
        Asked for the rows in which the targets of a split lie.
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
    Cost: O(pieces + runs); no window is looked at by itself.
    """
    first, last = index.target_spans()
    for other in NAMES:
        if other == name:
            continue
        start, stop = ranges(other)
        kept = stop > start
        start, stop = start[kept], stop[kept]
        if not len(start):
            continue
        # Ranges are disjoint and ascending: if any that begins before the end of a span meets it, the last one does.
        at = np.searchsorted(start, last) - 1
        meets = np.flatnonzero((at >= 0) & (stop[at] > first))
        if len(meets):
            row = int(max(first[meets[0]], start[at[meets[0]]]))
            raise UsageError(
                f"row {row:,} is a target of both {name} and {other}",
                expected="targets in one split at most",
                where=where,
                fix="mend --data.split",
            )


def trained_on(store: Store, split: Split) -> dict[str, Any]:
    """The times of the training targets of each series, for checkpoints.

    Returns
    -------
    `start` and `stop`, (1,) int64 if they are the same for all series, else (series,) with `ids`, (series,) int64
    hashes of the ids, ascending; and the `unit` of time.
    """
    start, stop = _spans(store, split, "train")
    axis = store.schema.time
    if split.by == "time" and split.over == "store":
        return {"start": torch.from_numpy(start[:1]), "stop": torch.from_numpy(stop[:1]), "unit": axis.unit or ""}
    ids, mine = _hashes(store), stop > start
    order = np.argsort(ids[mine])
    columns = {"ids": ids, "start": start, "stop": stop}
    return {
        **{name: torch.from_numpy(values[mine][order]) for name, values in columns.items()},
        "unit": axis.unit or "",
    }


def refuse_trained(store: Store, split: Split, name: SplitName, trained: dict[str, Any]) -> None:
    """Refuse to evaluate a model on targets that it was trained on.

    Parameters
    ----------
    store, split, name
        What it is to be evaluated on.
    trained
        What :func:`trained_on` found when it was trained; of this store, or of another one that has the same ids.

    Raises
    ------
    UsageError
        If a target would be one of those.
    """
    if trained["unit"] != (store.schema.time.unit or ""):
        return
    start, stop = _spans(store, split, name)
    seen_start, seen_stop = trained["start"].numpy(), trained["stop"].numpy()
    if "ids" in trained:
        ids, known = _hashes(store), trained["ids"].numpy()
        at = np.minimum(np.searchsorted(known, ids), max(len(known) - 1, 0))
        found = known[at] == ids if len(known) else np.zeros(len(ids), bool)
        start, stop, at = start[found], stop[found], at[found]
        positions = np.flatnonzero(found)
        seen_start, seen_stop = seen_start[at], seen_stop[at]
    else:
        positions = np.arange(store.n_series)
    low, high = np.maximum(start, seen_start), np.minimum(stop, seen_stop)
    both = np.flatnonzero(high > low)
    if len(both):
        times = " to ".join(store.schema.time.show(int(time)) for time in (low[both[0]], high[both[0]]))
        raise UsageError(
            f"model trained on targets that are in {name} here: series {store.ids[positions[both[0]]]}, {times}",
            expected=f"none, of {len(both):,} such series",
            where=store.path,
            fix="the --data.split it was trained with, or fit again",
        )


def _spans(store: Store, split: Split, name: SplitName) -> tuple[Int64, Int64]:
    """(series,) times ``[start, stop)`` between which the targets of a split lie; empty where start equals stop."""
    index, position = store.index, NAMES.index(name)
    start, stop = index.time_start, index.time_stop + 1
    if split.by != "series":
        start, stop = time_borders(store, split)[position]
    if split.by != "time":
        stop = np.where(assign_series(store, split) == position, stop, start)
    return start, stop


def _hashes(store: Store) -> Int64:
    """(series,) a number for each id, whatever its position."""
    hashed = np.array([xxhash.xxh3_64_intdigest(id_.encode()) for id_ in store.ids.tolist()], np.uint64)
    return hashed.view(np.int64)
