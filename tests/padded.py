"""Padded windows by a plain loop over rows, to compare with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from zstore import Padding, WindowShape
from zstore.format.index import RunTable

Int64 = NDArray[np.int64]

KINDS = st.sampled_from(get_args(Padding))
SHAPES = st.builds(
    lambda lookback, horizon, delay, *others: WindowShape(lookback, horizon, max(delay, -lookback), *others),
    st.integers(1, 6),
    st.integers(1, 4),
    st.integers(-6, 3),
    st.integers(1, 3),
    st.integers(1, 4),
    KINDS,
    KINDS,
)


def runs_of(lengths: list[int]) -> RunTable:
    """Runs of so many rows, two to a series, with a gap of 100 steps between them."""
    stops = np.cumsum(lengths, dtype=np.int64)
    starts, number = stops - lengths, np.arange(len(lengths))
    return RunTable(starts, stops, number // 2, starts * 10 + number * 1000)


@dataclass(frozen=True)
class Plain:
    """A window, each row of it by itself: a row of the store, and whether that stands for one beyond those there are.

    Parameters
    ----------
    start
        Of the window; not a row where it is padded.
    run
        Which run it lies in.
    inputs, targets
        Rows that are read, and whether each is padded, and whether with zeros.
    """

    start: int
    run: int
    inputs: list[tuple[int, bool, bool]]
    targets: list[tuple[int, bool, bool]]

    @property
    def real_targets(self) -> set[int]:
        """Rows that are targets, none of them padded."""
        return {row for row, padded, _ in self.targets if not padded}

    @property
    def real_inputs(self) -> set[int]:
        """Rows that are inputs, none of them padded."""
        return {row for row, padded, _ in self.inputs if not padded}


def plain_windows(runs: RunTable, shape: WindowShape, span: tuple[Int64, Int64], context: bool) -> list[Plain]:
    """All windows, in order."""
    found: list[Plain] = []
    for run in range(len(runs.start)):
        start, stop = max(span[0][run], runs.start[run]), min(span[1][run], runs.stop[run])
        low = runs.start[run] if context else start
        if stop <= start:
            continue
        allowed = [
            _window(first, run, shape, int(low), int(start), int(stop))
            for first in range(int(low) - shape.lookback, int(stop) + 1)
            if _is_one(first, shape, low, start, stop)
        ]
        found += allowed[:: shape.stride]
    return found


def _is_one(first: int, shape: WindowShape, low: int, start: int, stop: int) -> bool:
    """Whether a window begins at a row, padded or not."""
    inputs = range(first, first + shape.lookback)
    targets = [first + shape.lookback + shape.delay + n * shape.target_stride for n in range(shape.horizon)]
    last = inputs[-1]
    good = last < stop and targets[-1 if shape.pad_after == "none" else 0] < stop
    if shape.pad_before == "none":
        return good and inputs[0] >= low and targets[0] >= start
    good = good and last >= low and (targets[0] >= start or last >= start)
    if shape.pad_after != "none" and stop - start < shape.target_stride:
        return good and targets[0] >= start
    return good and any(start <= row < stop for row in targets)


def _window(first: int, run: int, shape: WindowShape, low: int, start: int, stop: int) -> Plain:
    def read(row: int, least: int) -> tuple[int, bool, bool]:
        if row < least:
            return least, True, shape.pad_before == "zero"
        if row >= stop:
            return stop - 1, True, shape.pad_after == "zero"
        return row, False, False

    first_target = first + shape.lookback + shape.delay
    inputs = [read(row, low) for row in range(first, first + shape.lookback)]
    targets = [read(first_target + n * shape.target_stride, start) for n in range(shape.horizon)]
    return Plain(first, run, inputs, targets)
