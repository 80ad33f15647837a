"""True values of targets in source units, float64, for metrics: what is unscaled has lost digits, and zeros."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Read = Callable[[int, int], Float64]
"""Rows ``[start, stop)`` of a view as (row, …, target) float64."""

_BLOCK_BYTES = 1 << 25
_BLOCKS = 2  # held at once: windows of an evaluation come in order, and a batch may lie across a border


class ObservedTargets:
    """Targets of windows, from blocks of rows that are decoded where they are needed.

    Parameters
    ----------
    read
        Decodes rows.
    n_rows, row_bytes
        Rows there are, and bytes of one.
    horizon
        Target rows of a window.
    most
        Rows of a block at most, such as those of a chunk.

    Notes
    -----
    Memory: two blocks of 32 MB, or of a horizon where that is longer. Each block is decoded once as long as windows
    come in order. Not for several threads at once.
    """

    def __init__(self, read: Read, n_rows: int, row_bytes: int, horizon: int, most: int) -> None:
        self._read, self._n_rows, self._horizon = read, n_rows, horizon
        self._size = max(min(_BLOCK_BYTES // max(row_bytes, 1), most), horizon, 1)
        self._blocks: OrderedDict[int, Float64] = OrderedDict()

    def at(self, first: NDArray[np.int64]) -> Float64:
        """(batch, horizon, …, target) of windows, by the first target row of each, (batch,)."""
        blocks, steps = first // self._size, np.arange(self._horizon)
        parts = [(blocks == block, self._block(block)) for block in np.unique(blocks).tolist()]
        values = np.empty((len(first), self._horizon, *parts[0][1].shape[1:]))
        for inside, block_rows in parts:
            rows = first[inside] - first[inside][0] // self._size * self._size
            values[inside] = block_rows[rows[:, None] + steps]
        return values

    def _block(self, number: int) -> Float64:
        """Rows of a block, and those behind it that its last window needs."""
        if number not in self._blocks:
            while len(self._blocks) >= _BLOCKS:
                self._blocks.popitem(last=False)
            start = number * self._size
            self._blocks[number] = self._read(start, min(start + self._size + self._horizon - 1, self._n_rows))
        self._blocks.move_to_end(number)
        return self._blocks[number]
