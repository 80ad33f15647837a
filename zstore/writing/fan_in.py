"""Many blocks made few: groups of them are merged, so that no task has to read from more than so many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from zstore.format.layout import n_shards, shard_bounds
from zstore.format.storage import Storage
from zstore.writing.scheduler import Scheduler
from zstore.writing.shards import Gathered, RowsSpec
from zstore.writing.sort import Border, ShardPlan, SortedBlock, Spill, count_rows, find_border

MOST_FILES = 1024
"""Blocks on disk that a task may read from. A short read takes some 30 us, so that 1,024 blocks of 13 columns cost a
shard 0.4 s, as much as merging its rows once more does."""
MOST_OBJECTS = 64
"""The same for blocks in a bucket, where each read waits for an answer."""


def most_blocks(scratch: Storage) -> int:
    """Blocks that a task may read from."""
    return MOST_OBJECTS if scratch.remote else MOST_FILES


def limit_fan_in(
    n_series: int, blocks: list[SortedBlock], rows: RowsSpec, scratch: Storage, runner: Scheduler
) -> tuple[list[SortedBlock], RowsSpec]:
    """Blocks of which any stretch of the final order lies in a bounded number, and how they are spilled.

    Parameters
    ----------
    n_series
        Series in all.
    blocks
        Sorted blocks, in the order that decides between rows at one time.
    rows
        How they were spilled, and what the channels are to be.
    scratch
        Where they lie.
    runner
        Runs the merging of each group.

    Notes
    -----
    With at most m blocks nothing happens. Otherwise groups of m are merged, each into stretches of a shard's rows, and
    groups of groups likewise, until at most m are left: log_m(blocks) passes over the rows. What was merged is removed.
    """
    most = most_blocks(scratch)
    done = rows.unchanged
    groups = [[pair] for pair in zip(blocks, rows.bringers, strict=True)]
    while len(groups) > most:
        merged = []
        for first in range(0, len(groups), most):
            members = [pair for group in groups[first : first + most] for pair in group]
            together = [block for block, _ in members]
            spec = replace(rows, bringers=tuple(bringer for _, bringer in members))
            plans = plan_shards(count_rows(n_series, together), together, unique=False)
            merge = partial(_merge, blocks=together, spec=spec, scratch=scratch)
            sizes = [plan.stop - plan.start for plan in plans]
            merged.append([(block, done) for block in runner.map("merge", merge, plans, sizes, "rows")])
            scratch.remove([block.spill.key for block in together])
        groups = merged
    pairs = [pair for group in groups for pair in group]
    return [block for block, _ in pairs], replace(rows, bringers=tuple(bringer for _, bringer in pairs))


def plan_shards(
    row_start: Any, blocks: Sequence[SortedBlock], unique: bool = True, shard_rows: int | None = None
) -> list[ShardPlan]:
    """Which task writes which rows; `shard_rows` are those of a store that is there, None for those of a new one."""
    n_rows = int(row_start[-1])
    if shard_rows is None:
        bounds = [shard_bounds(shard, n_rows) for shard in range(n_shards(n_rows))]
    else:
        bounds = [shard_bounds(shard, n_rows, shard_rows) for shard in range(n_shards(n_rows, shard_rows))]
    filled = [block for block in blocks if len(block.series)]
    first, last = (np.array([block.series[n] for block in filled], np.int64) for n in (0, -1))
    borders = []
    for start, _ in bounds:
        series = int(np.searchsorted(row_start, start, side="right")) - 1
        near = [filled[n] for n in np.flatnonzero((first <= series) & (last >= series))]
        borders.append(find_border(start, row_start, near, unique))
    borders.append(Border(len(row_start) - 1, None))
    return [ShardPlan(s, start, stop, borders[s], borders[s + 1]) for s, (start, stop) in enumerate(bounds)]


def _merge(plan: ShardPlan, blocks: Sequence[SortedBlock], spec: RowsSpec, scratch: Storage) -> SortedBlock:
    """One block of the rows between two places of the final order, packed as they are to be stored."""
    rows = Gathered(plan, blocks, spec)
    columns = [rows.times, *(rows.column(position) for position in range(len(spec.channels)))]
    starts = np.flatnonzero(np.diff(rows.codes, prepend=-1))
    spill = Spill.write(scratch, f"merged{plan.shard}", columns)
    return SortedBlock(spill, rows.codes[starts], np.append(starts, len(rows.codes)))
