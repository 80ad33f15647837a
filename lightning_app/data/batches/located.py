"""Where windows lie in the rows of a source, and the times there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_app.data.batches.padding import Bounds, Reach

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Located:
    """Where some windows lie, each (batch,) int64.

    Parameters
    ----------
    start
        Position of the first row in the rows of the source: a row of the store only where all of them are in memory.
    series
        Position of the series in the store's ids.
    time
        Time of the first target; 0 where times are irregular.
    row
        The first row in the store; always on the CPU.
    bounds
        Which rows they may read, always on the CPU; None where no window reaches beyond these.
    """

    start: Tensor
    series: Tensor
    time: Tensor
    row: Tensor
    bounds: Bounds | None = None

    @classmethod
    def of(cls, start: Int64, series: Int64, time: Int64, row: Int64, bounds: Bounds | None) -> Located:
        """The same from arrays."""
        of = torch.from_numpy
        return cls(of(start), of(series), of(time), of(row), bounds)

    def to(self, device: torch.device) -> Located:
        """In the memory of a device, but for `row` and `bounds`."""
        start, series, time = (each.to(device, non_blocking=True) for each in (self.start, self.series, self.time))
        return Located(start, series, time, self.row, self.bounds)

    def split(self, sizes: list[int]) -> Iterator[Located]:
        """Parts of these."""
        parts = map(Located, *(torch.split_with_sizes(each, sizes) for each in self._values))
        if self.bounds is None:
            return parts
        return (replace(part, bounds=own) for part, own in zip(parts, self.bounds.split(sizes), strict=True))

    def part(self, first: int, last: int) -> Located:
        """The windows ``[first, last)`` of these."""
        bounds = None if self.bounds is None else self.bounds.part(first, last)
        start, series, time, row = (each[first:last] for each in self._values)
        return Located(start, series, time, row, bounds)

    @property
    def _values(self) -> tuple[Tensor, ...]:
        return self.start, self.series, self.time, self.row


@dataclass(frozen=True)
class PositionTimes:
    """Times of irregular rows, by position in the rows of a source; in a pool these are other rows all the time.

    Parameters
    ----------
    values
        (position,) int64.
    """

    values: Tensor

    def at(self, positions: Tensor) -> Tensor:
        """Times at some positions, which must be in the source when it is asked: never rows of the store."""
        return self.values[positions]

    def along(self, starts: Tensor, steps: range, reach: Reach | None) -> Tensor:
        """(batch, step) times of rows, counted from some positions, (batch,); of padded ones, those of the nearest."""
        rows = torch.tensor(steps, device=starts.device)
        return self.at(starts[:, None] + (rows if reach is None else reach.nearest(rows)))

    def to(self, device: torch.device) -> PositionTimes:
        """The same in the memory of a device."""
        return PositionTimes(self.values.to(device))
