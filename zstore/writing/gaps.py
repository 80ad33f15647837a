"""Rows for the times that a series skips: one more sorted block, all of it missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zstore.errors import SourceError, UsageError
from zstore.format.encodings.base import fill_of
from zstore.format.schema import TimeAxis
from zstore.format.timesteps import TimeStepRule
from zstore.storage.protocol import Storage
from zstore.writing.scheduler import Scheduler
from zstore.writing.shards import RowsSpec
from zstore.writing.sort import ShardPlan, SortedBlock, Spill, count_rows, plan_shards
from zstore.writing.steps import StepReport, Trial, choose_rule, encode_steps, gather_keys, report_steps

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

MOST_ROWS = 1 << 24
_DTYPE = np.dtype("int16")


class OffGridError(Exception):
    """A series steps by something that is no whole number of steps of the rule."""

    def __init__(self, series: int, time: int) -> None:
        super().__init__(series, time)
        self.series, self.time = series, time


class TooManyRowsError(Exception):
    """Filling would make more rows than anybody wants."""


def find_steps(plan: ShardPlan, blocks: Sequence[SortedBlock], axis: TimeAxis) -> StepReport:
    """Time steps between two places of the final order."""
    codes, times, _ = gather_keys(plan, blocks)
    return report_steps(encode_steps(codes, times, plan.start), times, axis)


def try_rule(plan: ShardPlan, blocks: Sequence[SortedBlock], rule: TimeStepRule) -> Trial:
    """How many neighbours between two places of the final order follow each other under a rule."""
    codes, times, _ = gather_keys(plan, blocks)
    return Trial.of(codes, times, plan.start, rule)


def count_off_grid(plan: ShardPlan, blocks: Sequence[SortedBlock], rule: TimeStepRule) -> tuple[Int64, Int64]:
    """Series with steps that are no whole steps of a rule, and how many of them each has between two places."""
    onward = _steps_onward(plan, blocks, rule)
    series, counts = np.unique(onward.codes[~onward.on_grid], return_counts=True)
    return series.astype(np.int64), counts.astype(np.int64)


def fill(
    plan: ShardPlan,
    blocks: Sequence[SortedBlock],
    rule: TimeStepRule,
    irregular: Int64,
    n_columns: int,
    scratch: Storage,
) -> SortedBlock | None:
    """Spill the rows that are missing between two places of the final order.

    Parameters
    ----------
    plan
        The places.
    blocks
        All blocks.
    rule
        Of the grid.
    irregular
        Series that stay as they are.
    n_columns
        Columns of spills beside the time, each of them missing.
    scratch
        Where spills go.

    Returns
    -------
    The rows, or None if there are none.

    Raises
    ------
    OffGridError
        If a row is not on the grid of its series.
    TooManyRowsError
        If there would be more than `MOST_ROWS`.
    """
    onward = _steps_onward(plan, blocks, rule)
    codes, times = onward.codes, onward.times
    kept = np.isin(codes, irregular)
    odd = np.flatnonzero(~onward.on_grid & ~kept)
    if len(odd):
        raise OffGridError(int(codes[odd[0]]), int(onward.next_times[odd[0]]))
    skipped = np.where(kept, 0, onward.number - 1)
    n_rows = int(skipped.sum())
    if n_rows > MOST_ROWS:
        raise TooManyRowsError(n_rows)
    if n_rows == 0:
        return None
    before = np.repeat(np.arange(len(codes)), skipped)
    number = np.arange(n_rows) - np.repeat(np.cumsum(skipped) - skipped, skipped) + 1
    series = codes[before]
    starts = np.flatnonzero(np.diff(series, prepend=-1))
    missing: NDArray[np.int16] = np.full(n_rows, fill_of(_DTYPE), _DTYPE)
    filled = rule.times(number, times[before])
    spill = Spill.write(scratch, f"fill{plan.shard}", [filled, *([missing] * n_columns)])
    return SortedBlock(spill, series[starts], np.append(starts, n_rows))


class _Onward(NamedTuple):
    """(row,) series and time of each row, the time of the next row, and how many steps later that is.

    Where a series ends, the next row counts as one step later.
    """

    codes: Int32
    times: Int64
    next_times: Int64
    number: Int64
    on_grid: NDArray[np.bool_]


def _steps_onward(plan: ShardPlan, blocks: Sequence[SortedBlock], rule: TimeStepRule) -> _Onward:
    """The rows between two places, and the steps from each to the next."""
    codes, times, _ = gather_keys(plan, blocks)
    next_codes, next_times = np.append(codes[1:], -1), np.append(times[1:], 0)
    if plan.last.time is not None:  # the series goes on behind the last place, with a row at that very time
        next_codes[-1], next_times[-1] = plan.last.series, plan.last.time
    ends = next_codes != codes
    number, on_grid = rule.steps(np.where(ends, times, next_times), times)
    return _Onward(codes, times, next_times, np.where(ends, 1, number), on_grid | ends)


def fill_skipped(
    ids: Any,
    blocks: list[SortedBlock],
    asked: TimeStepRule | None,
    rows: RowsSpec,
    scratch: Storage,
    runner: Scheduler,
) -> tuple[TimeStepRule, list[SortedBlock]]:
    """The rule of the rows, and blocks of missing rows, one for each shard's worth of rows that skips any."""
    if asked is not None and not asked.regular:
        raise UsageError(
            f"--fill-gaps with --freq {asked.text}",
            expected="a rule that says where a row is missing",
            fix="leave out --fill-gaps, or name a rule such as 1D, MS or B with --freq",
        )
    plans = plan_shards(count_rows(len(ids), blocks), blocks, rows.shard_rows, unique=False)
    rule = asked
    if rule is None or not rule.plain:
        reports = runner.map("steps", partial(find_steps, blocks=blocks, axis=rows.time), plans)

        def measure(rule: TimeStepRule) -> list[Trial]:
            return runner.map("rule", partial(try_rule, blocks=blocks, rule=rule), plans)

        rule, _ = choose_rule(reports, rows.time.unit, asked, measure)
    if not rule.regular:
        raise SourceError(
            "gaps in irregular times cannot be filled",
            expected="a step that more than half of all rows have",
            fix="--freq STEP, or leave out --fill-gaps",
        )
    axis = replace(rows.time, rule=rule)
    n_off = np.zeros(len(ids), np.int64)
    for series, counts in runner.map("grid", partial(count_off_grid, blocks=blocks, rule=rule), plans):
        n_off[series] += counts
    irregular = np.flatnonzero(2 * n_off > np.diff(count_rows(len(ids), blocks)) - 1)
    try:
        n_columns = len(rows.columns)
        make = partial(fill, blocks=blocks, rule=rule, irregular=irregular, n_columns=n_columns, scratch=scratch)
        return rule, [block for block in runner.map("fill", make, plans) if block is not None]
    except OffGridError as error:
        raise SourceError(
            f"time {axis.show(error.time)} of id {str(ids[error.series])!r} is off the grid",
            expected=f"times a multiple of {axis.show_freq()} after the first"
            if rule.plain
            else f"times as {axis.show_freq()} has them",
            fix="another --freq, or leave out --fill-gaps",
        ) from None
    except TooManyRowsError as error:
        raise SourceError(
            f"filling gaps would add {error.args[0]:,} rows to a stretch of {rows.shard_rows:,}",
            expected=f"at most {MOST_ROWS:,}",
            fix="a larger --freq, or leave out --fill-gaps",
        ) from None
