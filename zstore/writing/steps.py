"""Series and times between two places of the final order, and the steps between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from zstore.format.index import usual_step
from zstore.writing.sort import ShardPlan, SortedBlock, codes_between, locate, read_all, sort_order

Int64 = NDArray[np.int64]
Int32 = NDArray[np.int32]
Slices = list[tuple[int, int, int]]

_MOST_RUNS = 1 << 12
_MOST_STEPS = 64


@dataclass(frozen=True)
class Steps:
    """Time steps between neighbouring rows of a series, run-length encoded.

    Parameters
    ----------
    row
        (step run,) row that ends the first step of each run of equal steps.
    step
        (step run,) the step.
    length
        (step run,) how many times in a row.
    time
        (step run,) time of `row`.
    """

    row: Int64
    step: Int64
    length: Int64
    time: Int64

    def unlike(self, freq: int) -> Breaks:
        """The steps that are not `freq`, one by one."""
        odd = self.step != freq
        row, step, length, time = (values[odd] for values in (self.row, self.step, self.length, self.time))
        offset = np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length, length)
        step = np.repeat(step, length)
        return Breaks(np.repeat(row, length) + offset, np.repeat(time, length) + offset * step, step % freq != 0)


@dataclass(frozen=True)
class Breaks:
    """Rows before which time does not advance by the usual step.

    Parameters
    ----------
    row, time
        (break,) the row, and its time.
    off_grid
        (break,) whether the step is no multiple of the usual one either.
    """

    row: Int64
    time: Int64
    off_grid: NDArray[np.bool_]


@dataclass(frozen=True)
class StepReport:
    """The steps of a stretch of rows, in little memory whatever they are.

    Parameters
    ----------
    step, count
        (step,) the most frequent steps, and how often each occurs.
    n_steps
        Steps in all.
    runs
        All of them; None where they change too often to be kept.
    """

    step: Int64
    count: Int64
    n_steps: int
    runs: Steps | None


def gather_keys(plan: ShardPlan, blocks: Sequence[SortedBlock]) -> tuple[Int32, Int64, tuple[Slices, Int64 | None]]:
    """Read and order the series and times between two places.

    Returns
    -------
    (row,) series and (row,) times in order; and where they came from: the rows ``(block, start, stop)`` of the
    spills, and the order that was applied to them, None if they were in order.
    """
    first, last = plan.first.series, plan.last.series
    near = [n for n, b in enumerate(blocks) if len(b.series) and b.series[-1] >= first and b.series[0] <= last]
    borders = [partial(locate, blocks[n], border) for n in near for border in (plan.first, plan.last)]
    rows = [row for row, _ in read_all(blocks, borders)]
    slices = [(n, start, stop) for n, start, stop in zip(near, rows[::2], rows[1::2], strict=True) if stop > start]
    reads = [partial(blocks[n].spill.read, 0, start, stop) for n, start, stop in slices]
    codes = np.concatenate([np.zeros(0, np.int32), *(codes_between(blocks[n], a, b) for n, a, b in slices)])
    times = np.concatenate([np.zeros(0, np.int64), *read_all(blocks, reads)])
    order = sort_order(codes - codes.min(initial=0), times)
    if order is not None:
        codes, times = codes[order], times[order]
    return codes, times, (slices, order)


def encode_steps(codes: Int32 | Int64, times: Int64, first_row: int) -> Steps:
    """Run-length encode the steps between neighbouring rows of a series."""
    inside = codes[1:] == codes[:-1]
    step = np.where(inside, times[1:] - times[:-1], -1)
    starts = np.flatnonzero(np.diff(step, prepend=-2))
    length = np.diff(np.append(starts, len(step)))
    kept = step[starts] >= 0
    starts, length = starts[kept], length[kept]
    return Steps(first_row + starts + 1, step[starts], length, times[starts + 1])


def report_steps(steps: Steps) -> StepReport:
    """What to keep of the steps of a stretch of rows."""
    distinct, inverse = np.unique(steps.step, return_inverse=True)
    counts = np.bincount(inverse, weights=steps.length, minlength=len(distinct)).astype(np.int64)
    kept = np.argsort(-counts, kind="stable")[:_MOST_STEPS]
    runs = steps if len(steps.step) <= _MOST_RUNS else None
    return StepReport(distinct[kept], counts[kept], int(steps.length.sum()), runs)


def usual_step_of(reports: Sequence[StepReport]) -> int | None:
    """The step that more than half of all steps have, else None.

    Notes
    -----
    Such a step is the most frequent of one report at least. In a report of very many different steps, those that are
    not among its most frequent ones count as none.
    """
    empty = np.zeros(0, np.int64)
    step = np.concatenate([empty, *(report.step for report in reports)])
    count = np.concatenate([empty, *(report.count for report in reports)])
    distinct, inverse = np.unique(step, return_inverse=True)
    counts = np.bincount(inverse, weights=count, minlength=len(distinct)).astype(np.int64)
    return usual_step(distinct, counts, sum(report.n_steps for report in reports))


def irregular_series(breaks: Breaks, row_start: Int64) -> Int64:
    """Series of which more than half of all steps are no multiple of the usual one."""
    series = np.searchsorted(row_start, breaks.row[breaks.off_grid], side="right") - 1
    n_off = np.bincount(series, minlength=len(row_start) - 1)
    return np.flatnonzero(2 * n_off > np.diff(row_start) - 1)
