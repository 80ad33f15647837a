"""Where windows lie in the rows of a source, and the times there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

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
    shift
        From a row of the store to its position in the pool, 0 without one; always on the CPU.
    bounds
        Which rows they may read, always on the CPU; None where no window reaches beyond these.
    corners
        By name of a field, (batch, axis) where the part of its rows begins that they have, always on the CPU; fields
        that are not named have the part in the middle, or all.
    """

    start: Tensor
    series: Tensor
    time: Tensor
    row: Tensor
    shift: Tensor
    bounds: Bounds | None = None
    corners: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        start: Int64,
        series: Int64,
        time: Int64,
        row: Int64,
        shift: Int64,
        bounds: Bounds | None,
        corners: Mapping[str, Int64],
    ) -> Located:
        """The same from arrays."""
        of = torch.from_numpy
        parts = {name: of(own) for name, own in corners.items()}
        return cls(of(start), of(series), of(time), of(row), of(shift), bounds, parts)

    def to(self, device: torch.device) -> Located:
        """In the memory of a device, but for `row`, `shift`, `bounds` and `corners`."""
        start, series, time = (each.to(device, non_blocking=True) for each in (self.start, self.series, self.time))
        return replace(self, start=start, series=series, time=time)

    def split(self, sizes: list[int]) -> Iterator[Located]:
        """Parts of these."""
        parts: Iterator[Located] = map(Located, *(torch.split_with_sizes(each, sizes) for each in self._values))
        if self.bounds is not None:
            parts = (replace(part, bounds=own) for part, own in zip(parts, self.bounds.split(sizes), strict=True))
        if self.corners:
            split = {name: torch.split_with_sizes(corners, sizes) for name, corners in self.corners.items()}
            own_of = ({name: corners[number] for name, corners in split.items()} for number in range(len(sizes)))
            parts = (replace(part, corners=own) for part, own in zip(parts, own_of, strict=True))
        return parts

    def part(self, first: int, last: int) -> Located:
        """The windows ``[first, last)`` of these."""
        bounds = None if self.bounds is None else self.bounds.part(first, last)
        start, series, time, row, shift = (each[first:last] for each in self._values)
        corners = {name: own[first:last] for name, own in self.corners.items()}
        return Located(start, series, time, row, shift, bounds, corners)

    @property
    def _values(self) -> tuple[Tensor, ...]:
        return self.start, self.series, self.time, self.row, self.shift


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
