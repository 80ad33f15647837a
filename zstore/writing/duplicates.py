"""Rows of one series at one time: which of them stay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from zstore.format.encodings.base import fill_of
from zstore.writing.scheduler import Scheduler
from zstore.writing.sort import ShardPlan, SortedBlock, Spill, count_rows, plan_shards
from zstore.writing.steps import Slices, gather_keys

Int64 = NDArray[np.int64]

OnDuplicate = Literal["error", "first", "last", "update"]
"""What becomes of several rows of one series at one time."""


def find_extra(
    plan: ShardPlan, blocks: Sequence[SortedBlock], keep: Literal["first", "last"]
) -> list[tuple[int, Int64]]:
    """Rows to drop between two places of the final order.

    Parameters
    ----------
    plan
        The places; no (series, time) lies on both sides of either.
    blocks
        All blocks, in the order of the source. Spills keep that order among equal rows.
    keep
        Which of several rows of one series at one time stays, in the order of the source.

    Returns
    -------
    Pairs of a block's number and the rows of its spill to drop, ascending.
    """
    return _repeated(plan, blocks, keep)


def find_fillers(plan: ShardPlan, blocks: Sequence[SortedBlock], n_old: int) -> list[tuple[int, Int64]]:
    """Rows of a store that fill gaps, and stand where a row has come between two places of the final order.

    Parameters
    ----------
    plan
        The places; no (series, time) lies on both sides of either.
    blocks
        All blocks: first `n_old` of the store, which has each (series, time) once, in the packing that it has there.
    n_old
        Blocks of the store.

    Returns
    -------
    Pairs of a block's number and the rows of its spill to drop, ascending.

    Notes
    -----
    A filler is a row without any value: nothing tells it from one that a source had so, and neither says anything.
    """
    fillers = []
    for n, rows in _repeated(plan, blocks, "last"):
        if n >= n_old:
            continue
        low, high = int(rows[0]), int(rows[-1]) + 1
        for column in range(1, len(blocks[n].spill.dtypes)):
            rows = rows[is_missing(blocks[n].spill.read(column, low, high)[rows - low])]
        if len(rows):
            fillers.append((n, rows))
    return fillers


def is_missing(stored: NDArray[Any]) -> NDArray[np.bool_]:
    """(row,) whether spilled or stored values of a channel stand for none."""
    missing: NDArray[np.bool_] = np.isnan(stored) if stored.dtype.kind == "f" else stored == fill_of(stored.dtype)
    return missing


def _repeated(
    plan: ShardPlan, blocks: Sequence[SortedBlock], keep: Literal["first", "last"]
) -> list[tuple[int, Int64]]:
    """Rows of each block that have the series and time of another, but for the first or last of these."""
    codes, times, (slices, order) = gather_keys(plan, blocks)
    if not slices:
        return []
    position = np.arange(len(codes)) if order is None else order
    same = (codes[1:] == codes[:-1]) & (times[1:] == times[:-1])
    extra = np.concatenate([[False], same]) if keep == "first" else np.concatenate([same, [False]])
    return rows_by_block(slices, position[extra])


def rows_by_block(slices: Slices, positions: Int64) -> list[tuple[int, Int64]]:
    """Pairs of a block's number and rows of its spill, ascending, of positions in slices that follow each other."""
    dropped = np.sort(positions)
    rows, begin = [], 0
    for n, start, stop in slices:
        inside = dropped[(dropped >= begin) & (dropped < begin + stop - start)]
        if len(inside):
            rows.append((n, inside - begin + start))
        begin += stop - start
    return rows


def drop_rows(task: tuple[SortedBlock, Int64]) -> SortedBlock:
    """A block without some rows of its spill, which is written anew beside the old one."""
    block, rows = task
    spill = block.spill
    columns: list[NDArray[Any]] = [
        np.delete(spill.read(column, 0, spill.n_rows), rows) for column in range(len(spill.dtypes))
    ]
    thinned = Spill.write(spill.scratch, spill.key.partition("-")[0], columns)
    starts = block.starts - np.searchsorted(rows, block.starts)
    return replace(block, spill=thinned, starts=starts)


def without_duplicates(
    n_series: int, blocks: list[SortedBlock], keep: Literal["first", "last"], shard_rows: int, runner: Scheduler
) -> list[SortedBlock]:
    """Blocks that have each (series, time) once: the first or the last in their order."""
    return _without(n_series, blocks, partial(find_extra, blocks=blocks, keep=keep), shard_rows, runner)


def without_fillers(
    n_series: int, blocks: list[SortedBlock], n_old: int, shard_rows: int, runner: Scheduler
) -> list[SortedBlock]:
    """Blocks of which the first `n_old`, of a store, have no filler where another block has a row."""
    return _without(n_series, blocks, partial(find_fillers, blocks=blocks, n_old=n_old), shard_rows, runner)


def _without(
    n_series: int,
    blocks: list[SortedBlock],
    find: Callable[[ShardPlan], list[tuple[int, Any]]],
    shard_rows: int,
    runner: Scheduler,
) -> list[SortedBlock]:
    """Blocks without the rows that `find` names between two places of the final order."""
    plans = plan_shards(count_rows(n_series, blocks), blocks, shard_rows, unique=False)
    extra: dict[int, list[Any]] = {}
    for number, rows in (pair for pairs in runner.map("duplicates", find, plans) for pair in pairs):
        extra.setdefault(number, []).append(rows)
    tasks = [(blocks[number], np.sort(np.concatenate(rows))) for number, rows in extra.items()]
    thinned = dict(zip(extra, runner.map("drop", drop_rows, tasks), strict=True))
    return [thinned.get(number, block) for number, block in enumerate(blocks)]
