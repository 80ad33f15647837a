"""Rows of one series at one time made into one: each cell has the last value that is not missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zstore.errors import UsageError
from zstore.storage.protocol import Storage
from zstore.writing.duplicates import OnDuplicate, drop_rows, is_missing, rows_by_block, without_duplicates
from zstore.writing.scheduler import Scheduler
from zstore.writing.shards import Gathered, RowsSpec
from zstore.writing.sort import ShardPlan, SortedBlock, Spill, count_rows, plan_shards
from zstore.writing.sources.payloads import FieldSpec
from zstore.writing.steps import gather_keys

Int64 = NDArray[np.int64]


class Single(NamedTuple):
    """Rows that have each (series, time) once.

    Parameters
    ----------
    blocks
        The rows; those that were made of several lie in blocks of their own, the last ones.
    rows
        How they are spilled.
    n_updated
        Rows that were made of several.
    """

    blocks: list[SortedBlock]
    rows: RowsSpec
    n_updated: int


def settle_duplicates(
    n_series: int, blocks: list[SortedBlock], rows: RowsSpec, policy: OnDuplicate, scratch: Storage, runner: Scheduler
) -> Single:
    """Rows that have each (series, time) once, as the user asks; with ``error``, as they are.

    Parameters
    ----------
    n_series
        Series in all.
    blocks
        All blocks, in the order of the source, those of a store first. Spills keep that order among equal rows.
    rows
        How they are spilled, and what the channels are to be.
    policy
        What becomes of several rows.
    scratch, runner
        Where spills go, and what runs the tasks.
    """
    if policy == "error":
        return Single(blocks, rows, 0)
    if policy != "update":
        return Single(without_duplicates(n_series, blocks, policy, rows.shard_rows, runner), rows, 0)
    plans = plan_shards(count_rows(n_series, blocks), blocks, rows.shard_rows, unique=False)
    sizes = [plan.stop - plan.start for plan in plans]
    work = partial(_combine, blocks=blocks, spec=rows, scratch=scratch)
    found = [pair for pair in runner.map("update", work, plans, sizes, "rows") if pair is not None]
    gone: dict[int, list[Int64]] = {}
    for number, some in (pair for dropped, _ in found for pair in dropped):
        gone.setdefault(number, []).append(some)
    tasks = [(blocks[number], np.sort(np.concatenate(some))) for number, some in gone.items()]
    thinned = dict(zip(gone, runner.map("drop", drop_rows, tasks), strict=True))
    made = [block for _, block in found]
    left = [thinned.get(number, block) for number, block in enumerate(blocks)]
    rows = replace(rows, bringers=rows.bringers + (rows.unchanged,) * len(made))
    return Single(left + made, rows, sum(block.spill.n_rows for block in made))


def refuse_fields(policy: OnDuplicate, fields: Sequence[FieldSpec]) -> None:
    """Refuse to update rows that have more than numbers and words.

    Raises
    ------
    UsageError
        If there are fields, and rows are to be updated.
    """
    if policy == "update" and fields:
        raise UsageError(
            f"--on-duplicate update of rows with the field {fields[0].name!r}",
            expected="rows of numbers and categories; a row with images or other fields is replaced as a whole",
            fix="--on-duplicate last or first",
        )


def _combine(
    plan: ShardPlan, blocks: Sequence[SortedBlock], spec: RowsSpec, scratch: Storage
) -> tuple[list[tuple[int, Int64]], SortedBlock] | None:
    """One block of the rows that several of one time become, and those, by block; None where each time is there once.

    No (series, time) lies on both sides of either place of the plan.
    """
    codes, times, (slices, order) = gather_keys(plan, blocks)
    begins = np.ones(len(codes), bool)
    begins[1:] = (codes[1:] != codes[:-1]) | (times[1:] != times[:-1])
    group = np.cumsum(begins) - 1
    several = np.bincount(group, minlength=1)[group] > 1
    if not several.any():
        return None
    first = np.flatnonzero(begins[several])
    gathered = Gathered(plan, blocks, spec)
    cells = [_last_values(column[several], first) for column in gathered.columns(range(len(spec.columns)))]
    series, at = codes[several][first], times[several][first]
    starts = np.flatnonzero(np.diff(series, prepend=-1))
    spill = Spill.write(scratch, f"updated{plan.shard}", [at, *cells])
    position = np.flatnonzero(several) if order is None else order[several]
    return rows_by_block(slices, position), SortedBlock(spill, series[starts], np.append(starts, len(series)))


def _last_values(stored: NDArray[Any], first: Int64) -> NDArray[Any]:
    """(group,) last value of each group of rows that is not missing, or a missing one; `first` row of each group."""
    present = ~is_missing(stored)
    last = np.maximum.reduceat(np.where(present, np.arange(len(stored)), -1), first)
    return stored[np.where(last < 0, first, last)]
