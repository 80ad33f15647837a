"""Many blocks made few: groups of them are merged, so that no task has to read from more than so many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from zstore.storage.protocol import Storage
from zstore.writing.scheduler import Scheduler
from zstore.writing.shards import Gathered, RowsSpec
from zstore.writing.sort import ShardPlan, SortedBlock, Spill, count_rows, plan_shards

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
            plans = plan_shards(count_rows(n_series, together), together, rows.shard_rows, unique=False)
            merge = partial(_merge, blocks=together, spec=spec, scratch=scratch)
            sizes = [plan.stop - plan.start for plan in plans]
            merged.append([(block, done) for block in runner.map("merge", merge, plans, sizes, "rows")])
            scratch.remove([block.spill.key for block in together])
        groups = merged
    pairs = [pair for group in groups for pair in group]
    return [block for block, _ in pairs], replace(rows, bringers=tuple(bringer for _, bringer in pairs))


def _merge(plan: ShardPlan, blocks: Sequence[SortedBlock], spec: RowsSpec, scratch: Storage) -> SortedBlock:
    """One block of the rows between two places of the final order, packed as they are to be stored."""
    rows = Gathered(plan, blocks, spec)
    columns = [rows.times, *rows.columns(range(len(spec.columns)))]
    starts = np.flatnonzero(np.diff(rows.codes, prepend=-1))
    spill = Spill.write(scratch, f"merged{plan.shard}", columns)
    return SortedBlock(spill, rows.codes[starts], np.append(starts, len(rows.codes)))
