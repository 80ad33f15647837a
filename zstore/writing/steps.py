"""Series and times between two places of the final order, and the steps between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zstore.writing.sort import ShardPlan, SortedBlock, codes_between, locate, sort_order

Int64 = NDArray[np.int64]
Int32 = NDArray[np.int32]
Slices = list[tuple[int, int, int]]


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


def gather_keys(plan: ShardPlan, blocks: Sequence[SortedBlock]) -> tuple[Int32, Int64, tuple[Slices, Int64 | None]]:
    """Read and order the series and times between two places.

    Returns
    -------
    (row,) series and (row,) times in order; and where they came from: the rows ``(block, start, stop)`` of the
    spills, and the order that was applied to them, None if they were in order.
    """
    slices = [(n, locate(b, plan.first)[0], locate(b, plan.last)[0]) for n, b in enumerate(blocks)]
    slices = [(n, start, stop) for n, start, stop in slices if stop > start]
    codes = np.concatenate([np.zeros(0, np.int32), *(codes_between(blocks[n], a, b) for n, a, b in slices)])
    times = np.concatenate([np.zeros(0, np.int64), *(blocks[n].spill.read(0, a, b) for n, a, b in slices)])
    order = sort_order(codes - codes.min(initial=0), times)
    if order is not None:
        codes, times = codes[order], times[order]
    return codes, times, (slices, order)


def encode_steps(codes: NDArray[np.int32], times: Int64, first_row: int) -> Steps:
    """Run-length encode the steps between neighbouring rows of a series."""
    inside = codes[1:] == codes[:-1]
    step = np.where(inside, times[1:] - times[:-1], -1)
    starts = np.flatnonzero(np.diff(step, prepend=-2))
    length = np.diff(np.append(starts, len(step)))
    kept = step[starts] >= 0
    starts, length = starts[kept], length[kept]
    return Steps(first_row + starts + 1, step[starts], length, times[starts + 1])
