"""Windows that reach beyond the rows that they may read, and targets that are several rows apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zstore import WindowBounds, WindowShape

_FEW_ROWS = 1 << 13  # are copied one by one in less time than it takes to tell which windows are padded


@dataclass(frozen=True)
class Bounds:
    """Rows that windows may read, counted from the first row of each; (batch,) int64.

    Parameters
    ----------
    input_start, target_start, stop
        See :class:`zstore.WindowBounds`.
    """

    input_start: Tensor
    target_start: Tensor
    stop: Tensor

    @classmethod
    def of(cls, bounds: WindowBounds, starts: NDArray[np.int64]) -> Bounds:
        """Those of windows that start at some rows, (batch,)."""
        return cls(*(torch.from_numpy(row - starts) for row in (bounds.input_start, bounds.target_start, bounds.stop)))

    @property
    def _values(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.input_start, self.target_start, self.stop

    def to(self, device: torch.device) -> Bounds:
        """In the memory of a device."""
        if device.type == "cpu":
            return self
        return Bounds(*(each.to(device, non_blocking=True) for each in self._values))

    def split(self, sizes: list[int]) -> Iterator[Bounds]:
        """Parts of these."""
        return map(Bounds, *(torch.split_with_sizes(each, sizes) for each in self._values))

    def part(self, first: int, last: int) -> Bounds:
        """Those of the windows ``[first, last)``."""
        return Bounds(*(each[first:last] for each in self._values))


@dataclass(frozen=True)
class Reach:
    """Which rows are read of windows, from a first one on.

    Parameters
    ----------
    step
        Rows from one to the next.
    low, high
        (batch,) int64 rows ``[low, high)``, counted from the first one, that may be read: the nearest of them stands
        for each beyond them. None where none is beyond.
    """

    step: int
    low: Tensor | None = None
    high: Tensor | None = None

    @classmethod
    def both(cls, shape: WindowShape, bounds: Bounds | None, device: torch.device) -> tuple[Reach | None, Reach | None]:
        """That of inputs, and of targets from the first one on; None for rows beside each other that all are there."""
        if bounds is None:
            return None, None if shape.target_stride == 1 else cls(shape.target_stride)
        bounds, offset = bounds.to(device), shape.target_offset
        targets = cls(shape.target_stride, bounds.target_start - offset, bounds.stop - offset)
        return cls(1, bounds.input_start, bounds.stop), targets

    def at(self, windows: slice | Tensor) -> Reach:
        """That of some of the windows."""
        if self.low is None or self.high is None:
            return self
        return Reach(self.step, self.low[windows], self.high[windows])

    def moved(self, n_rows: int) -> Reach:
        """The same rows, counted from another one."""
        if self.low is None or self.high is None:
            return self
        return Reach(self.step, self.low + n_rows, self.high + n_rows)

    def nearest(self, rows: Tensor) -> Tensor:
        """(batch, row) the rows that stand for some, (row,); (row,) where none is beyond those that may be read."""
        if self.low is None or self.high is None:
            return rows
        return torch.clamp(rows, self.low[:, None], self.high[:, None] - 1)


def gather_within(rows: Tensor, starts: Tensor, length: int, reach: Reach, out: Tensor | None = None) -> Tensor:
    """Copy rows of windows that may reach beyond those that they may read.

    Parameters
    ----------
    rows
        (row, channel), contiguous.
    starts
        (batch,) int64, first row of each window, which need not be a row.
    length
        Rows that are read.
    reach
        Which these are.
    out
        (batch, length * channel) where to copy to; None for fresh memory.

    Returns
    -------
    (batch, length, channel).

    Notes
    -----
    On a CPU, of many rows, windows that are not padded are copied as a whole.
    """
    low, high = reach.low, reach.high
    few = len(starts) * length <= _FEW_ROWS
    if low is None or high is None or reach.step > 1 or few or rows.device.type != "cpu" or length > len(rows):
        return _by_row(rows, starts, length, reach, out)
    n_rows, n_channels = rows.shape
    whole = rows.as_strided((n_rows - length + 1, length * n_channels), (n_channels, 1))
    copied = torch.index_select(whole, 0, starts.clamp(0, n_rows - length), out=out)
    copied = copied.view(len(starts), length, n_channels)
    beyond = torch.nonzero((low > 0) | (high < length)).flatten()
    if len(beyond):
        copied[beyond] = _by_row(rows, starts[beyond], length, reach.at(beyond))
    return copied


def _by_row(rows: Tensor, starts: Tensor, length: int, reach: Reach, out: Tensor | None = None) -> Tensor:
    wanted = starts[:, None] + reach.nearest(torch.arange(0, length * reach.step, reach.step, device=starts.device))
    flat = None if out is None else out.view(-1, rows.shape[1])
    return torch.index_select(rows, 0, wanted.flatten(), out=flat).view(len(starts), length, rows.shape[1])


@dataclass(frozen=True)
class Pads:
    """Which rows of windows are padded, and which of those are zeros.

    Parameters
    ----------
    n_before
        (batch,) int64 input rows that are padded, the first ones.
    inputs, targets
        (batch, lookback) and (batch, horizon) bool, True where a row is padded.
    zero_inputs, zero_targets
        Those that are zeros; None where none is.
    """

    n_before: Tensor
    inputs: Tensor
    targets: Tensor
    zero_inputs: Tensor | None
    zero_targets: Tensor | None

    @classmethod
    def of(cls, shape: WindowShape, bounds: Bounds) -> Pads:
        """Those of windows that may read some rows."""
        first, start, stop = (each.numpy()[:, None] for each in bounds._values)
        rows = shape.target_offset + shape.target_rows  # of numpy: it takes half as long for the few values of a batch
        inputs = torch.from_numpy(np.arange(shape.lookback) < first)
        before, after = rows < start, rows >= stop
        sides = [side for side, kind in ((before, shape.pad_before), (after, shape.pad_after)) if kind == "zero"]
        return cls(
            bounds.input_start,
            inputs,
            torch.from_numpy(before | after),
            inputs if shape.pad_before == "zero" else None,
            torch.from_numpy(sides[0] | sides[-1]) if sides else None,
        )

    def to(self, device: torch.device) -> Pads:
        """In the memory of a device."""
        if device.type == "cpu":
            return self
        values = self.n_before, self.inputs, self.targets, self.zero_inputs, self.zero_targets
        return Pads(*(None if each is None else each.to(device, non_blocking=True) for each in values))  # type: ignore[arg-type]


def fill_zeros(values: Tensor, zero: Tensor | None) -> None:
    """Make some rows of windows zeros, in place.

    Parameters
    ----------
    values
        (batch, step, …).
    zero
        (batch, step) bool, on the same device; None for no row.
    """
    if zero is None or not values.numel():
        return
    zero = zero.view(*zero.shape, *(1 for _ in values.shape[2:]))
    if values.device.type != "cpu":
        values.masked_fill_(zero, 0)
        return
    some = torch.nonzero(zero.flatten(1).any(dim=1)).flatten()
    if len(some):
        values[some] = values[some].masked_fill(zero[some], 0)
