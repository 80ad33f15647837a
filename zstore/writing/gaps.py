"""Rows for the times that a series skips: one more sorted block, all of it missing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from zstore.format.packing import fill_of
from zstore.format.storage import Storage
from zstore.writing.sort import ShardPlan, SortedBlock, Spill
from zstore.writing.steps import StepReport, encode_steps, gather_keys, report_steps

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

MOST_ROWS = 1 << 24
_DTYPE = np.dtype("int16")


class OffGridError(Exception):
    """A series steps by something that is no multiple of the usual step."""

    def __init__(self, series: int, time: int) -> None:
        super().__init__(series, time)
        self.series, self.time = series, time


class TooManyRowsError(Exception):
    """Filling would make more rows than anybody wants."""


def find_steps(plan: ShardPlan, blocks: Sequence[SortedBlock]) -> StepReport:
    """Time steps between two places of the final order."""
    codes, times, _ = gather_keys(plan, blocks)
    return report_steps(encode_steps(codes, times, plan.start))


def count_off_grid(plan: ShardPlan, blocks: Sequence[SortedBlock], freq: int) -> tuple[Int64, Int64]:
    """Series with steps that are no multiple of `freq`, and how many of them each has between two places."""
    codes, _, step = _steps_onward(plan, blocks, freq)
    series, counts = np.unique(codes[step % freq != 0], return_counts=True)
    return series.astype(np.int64), counts.astype(np.int64)


def fill(
    plan: ShardPlan, blocks: Sequence[SortedBlock], freq: int, irregular: Int64, n_channels: int, scratch: Storage
) -> SortedBlock | None:
    """Spill the rows that are missing between two places of the final order.

    Parameters
    ----------
    plan
        The places.
    blocks
        All blocks.
    freq
        Step of the grid.
    irregular
        Series that stay as they are.
    n_channels
        Channels, each of them missing.
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
    codes, times, step = _steps_onward(plan, blocks, freq)
    step[np.isin(codes, irregular)] = freq
    odd = np.flatnonzero(step % freq)
    if len(odd):
        raise OffGridError(int(codes[odd[0]]), int(times[odd[0]] + step[odd[0]]))
    skipped = step // freq - 1
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
    spill = Spill.write(scratch, f"fill{plan.shard}", [times[before] + number * freq, *([missing] * n_channels)])
    return SortedBlock(spill, series[starts], np.append(starts, n_rows))


def _steps_onward(plan: ShardPlan, blocks: Sequence[SortedBlock], freq: int) -> tuple[Int32, Int64, Int64]:
    """(row,) series and time of the rows between two places, and the step to the next row; `freq` where none is."""
    codes, times, _ = gather_keys(plan, blocks)
    next_codes, next_times = np.append(codes[1:], -1), np.append(times[1:], 0)
    if plan.last.time is not None:  # the series goes on behind the last place, with a row at that very time
        next_codes[-1], next_times[-1] = plan.last.series, plan.last.time
    return codes, times, np.where(next_codes == codes, next_times - times, freq)
