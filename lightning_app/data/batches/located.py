"""Where windows lie in the rows of a source, and the times there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import repeat

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_app.data.batches.padding import Bounds, Reach

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class StoreRows:
    """Where some windows lie in the store, each (batch,) int64; always on the CPU.

    Parameters
    ----------
    first
        The first row in the store.
    shift
        From a row of the store to its position in the pool, 0 without one.
    """

    first: Tensor
    shift: Tensor

    def split(self, sizes: list[int]) -> Iterator[StoreRows]:
        """Parts of these."""
        return map(StoreRows, *(torch.split_with_sizes(each, sizes) for each in (self.first, self.shift)))

    def part(self, first: int, last: int) -> StoreRows:
        """Those of the windows ``[first, last)``."""
        return StoreRows(self.first[first:last], self.shift[first:last])


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
    rows
        The same in the store, for fields; None where batches have none.
    bounds
        Which rows they may read, always on the CPU; None where no window reaches beyond these.
    corners
        By name of a field, (batch, axis) where the part of its rows begins that they have, always on the CPU; fields
        that are not named have the part in the middle, or all.
    """

    start: Tensor
    series: Tensor
    time: Tensor
    rows: StoreRows | None = None
    bounds: Bounds | None = None
    corners: Mapping[str, Tensor] = field(default_factory=dict)

    def to(self, device: torch.device) -> Located:
        """In the memory of a device, but for `rows`, `bounds` and `corners`."""
        start, series, time = (each.to(device, non_blocking=True) for each in (self.start, self.series, self.time))
        return replace(self, start=start, series=series, time=time)

    def split(self, sizes: list[int]) -> Iterator[Located]:
        """Parts of these."""
        values = (torch.split_with_sizes(each, sizes) for each in (self.start, self.series, self.time))
        rows = repeat(None) if self.rows is None else self.rows.split(sizes)
        bounds = repeat(None) if self.bounds is None else self.bounds.split(sizes)
        split = {name: torch.split_with_sizes(corners, sizes) for name, corners in self.corners.items()}
        for number, (start, series, time, own_rows, own_bounds) in enumerate(zip(*values, rows, bounds, strict=False)):
            corners = {name: parts[number] for name, parts in split.items()}
            yield Located(start, series, time, own_rows, own_bounds, corners)

    def part(self, first: int, last: int) -> Located:
        """The windows ``[first, last)`` of these."""
        start, series, time = (each[first:last] for each in (self.start, self.series, self.time))
        rows = None if self.rows is None else self.rows.part(first, last)
        bounds = None if self.bounds is None else self.bounds.part(first, last)
        corners = {name: own[first:last] for name, own in self.corners.items()}
        return Located(start, series, time, rows, bounds, corners)


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
        rows = torch.arange(steps.start, steps.stop, steps.step, device=starts.device)
        return self.at(starts[:, None] + (rows if reach is None else reach.nearest(rows)))

    def to(self, device: torch.device) -> PositionTimes:
        """The same in the memory of a device."""
        return PositionTimes(self.values.to(device))
