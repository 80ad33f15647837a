"""True values of targets in source units, float64, for metrics: what is unscaled has lost digits, and zeros."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from zstore import WindowBounds

Float64 = NDArray[np.float64]
Read = Callable[[int, int], Float64]
"""Rows ``[start, stop)`` of a view as (row, …, target) float64."""

_BLOCK_BYTES = 1 << 25
_BLOCKS = 2  # held at once: windows of an evaluation come in order, and a batch may lie across a border


class ReadsTargets(Protocol):
    """Reads what was observed of the targets of windows."""

    def at(self, first: NDArray[np.int64], bounds: WindowBounds | None = None) -> Float64:
        """(batch, horizon, …, target) of windows, by the first target row of each, (batch,)."""


class ObservedTargets:
    """Targets of windows, from blocks of rows that are decoded where they are needed.

    Parameters
    ----------
    read
        Decodes rows.
    n_rows, row_bytes
        Rows there are, and bytes of one.
    steps
        (horizon,) rows of the targets of a window, from the first one on, ascending from 0.
    most
        Rows of a block at most, such as those of a chunk.

    Notes
    -----
    Memory: two blocks of 32 MB, or of all targets of a window where these reach further. Each block is decoded once
    as long as windows come in order. Not for several threads at once.
    """

    def __init__(self, read: Read, n_rows: int, row_bytes: int, steps: NDArray[np.int64], most: int) -> None:
        self._read, self._n_rows, self._steps, self._span = read, n_rows, steps, int(steps[-1]) + 1
        self._size = max(min(_BLOCK_BYTES // max(row_bytes, 1), most), self._span, 1)
        self._blocks: OrderedDict[int, Float64] = OrderedDict()

    def at(self, first: NDArray[np.int64], bounds: WindowBounds | None = None) -> Float64:
        """(batch, horizon, …, target) of windows, by the first target row of each, (batch,).

        Rows beyond those that windows may read, if there are `bounds`, have the values of the nearest.
        """
        rows = first[:, None] + self._steps
        if bounds is not None:
            rows = np.clip(rows, bounds.target_start[:, None], bounds.stop[:, None] - 1)
        blocks = rows[:, 0] // self._size
        parts = [(block, self._block(block)) for block in np.unique(blocks).tolist()]
        values = np.empty((*rows.shape, *parts[0][1].shape[1:]))
        for block, block_rows in parts:
            inside = blocks == block
            values[inside] = block_rows[rows[inside] - block * self._size]
        return values

    def _block(self, number: int) -> Float64:
        """Rows of a block, and those behind it that its last window needs."""
        if number not in self._blocks:
            while len(self._blocks) >= _BLOCKS:
                self._blocks.popitem(last=False)
            start = number * self._size
            self._blocks[number] = self._read(start, min(start + self._size + self._span - 1, self._n_rows))
        self._blocks.move_to_end(number)
        return self._blocks[number]
