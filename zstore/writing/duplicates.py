"""Rows of one series at one time: which of them stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from zstore.writing.sort import ShardPlan, SortedBlock, Spill
from zstore.writing.steps import gather_keys

Int64 = NDArray[np.int64]


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
    codes, times, (slices, order) = gather_keys(plan, blocks)
    if not slices:
        return []
    place = np.arange(len(codes)) if order is None else order
    same = (codes[1:] == codes[:-1]) & (times[1:] == times[:-1])
    extra = np.concatenate([[False], same]) if keep == "first" else np.concatenate([same, [False]])
    dropped = np.sort(place[extra])
    found, begin = [], 0
    for n, start, stop in slices:
        mine = dropped[(dropped >= begin) & (dropped < begin + stop - start)]
        if len(mine):
            found.append((n, mine - begin + start))
        begin += stop - start
    return found


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
