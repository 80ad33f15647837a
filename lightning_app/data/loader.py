"""Batches: a slice of the epoch's order, one gather out of decoded rows, a dict of tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_app.batch import Batch
from lightning_app.data.order import shuffled
from lightning_app.data.residency import Rows
from zstore import UsageError, WindowIndex, WindowShape

Samples = NDArray[np.int64]

_AHEAD = 1 << 14  # windows that are located at once


@dataclass(frozen=True)
class Located:
    """Where some windows lie, each (batch,) int64: first row, series, and time of the first target."""

    start: Tensor
    series: Tensor
    time: Tensor

    def to(self, device: torch.device) -> Located:
        """In the memory of a device."""
        return Located(*(values.to(device, non_blocking=True) for values in (self.start, self.series, self.time)))

    def part(self, first: int, last: int) -> Located:
        """The windows ``[first, last)`` of these."""
        return Located(self.start[first:last], self.series[first:last], self.time[first:last])


@dataclass(frozen=True)
class WindowSource:
    """Decoded rows and which of their columns are what.

    Parameters
    ----------
    rows
        (row, channel), scaled and filled; inputs are its first `n_inputs` columns.
    n_inputs
        Input channels.
    targets, future
        Columns of the targets, and of the channels known in advance.
    statics
        (series, attribute) float32.
    masked
        Whether any target is missing anywhere.
    times
        (row,) int64 times, where they are irregular; else None.
    """

    rows: Rows
    n_inputs: int
    targets: list[int]
    future: list[int]
    statics: Tensor
    masked: bool
    times: Tensor | None = None

    def locate(self, index: WindowIndex, samples: Samples) -> Located:
        """Where the windows of (batch,) sample numbers lie."""
        start, series, time = (torch.from_numpy(values) for values in index.locate(samples))
        if self.times is not None:
            time = self.times[start + index.shape.target_offset]
        located = Located(start, series, time)
        return located if self.device.type == "cpu" else located.to(self.device)

    @property
    def device(self) -> torch.device:
        """Where batches are made."""
        return self.rows.values.device

    def to(self, device: torch.device) -> WindowSource:
        """The same on a device: rows are copied there, and batches made there."""
        return replace(self, rows=self.rows.to(device), statics=self.statics.to(device))

    def batch(self, shape: WindowShape, windows: Located) -> Batch:
        """Some windows.

        Notes
        -----
        One gather where inputs and targets are near each other; `x` and `y` are parts of what it has copied. Nothing
        is scaled or filled here: rows are so already.
        """
        first = windows.start + shape.target_offset
        if shape.delay <= shape.lookback + shape.horizon:
            together = gather(self.rows.values, windows.start, shape.span)
            past = together[:, : shape.lookback]
            ahead = together[:, shape.target_offset : shape.target_offset + shape.horizon]
        else:
            past = gather(self.rows.values, windows.start, shape.lookback)
            ahead = gather(self.rows.values, first, shape.horizon)
        y = _columns(ahead, self.targets)
        if self.masked and self.rows.observed is not None:
            mask = _columns(gather(self.rows.observed, first, shape.horizon), self.targets)
        else:
            mask = torch.ones(1, dtype=torch.bool, device=y.device).expand(y.shape)
        return {
            "x": past[..., : self.n_inputs],
            "y": y,
            "mask": mask,
            "x_static": self.statics[windows.series],
            "x_future": _columns(ahead, self.future),
            "series": windows.series,
            "time": windows.time,
        }


def _columns(rows: Tensor, columns: list[int]) -> Tensor:
    """Some columns; a view where they lie beside each other."""
    if columns == list(range(columns[0], columns[0] + len(columns)) if columns else []):
        return rows[..., columns[0] : columns[0] + len(columns)] if columns else rows[..., :0]
    return rows[..., columns]


class WindowLoader:
    """Iterates batches of one split; Lightning takes it for a DataLoader.

    Every *global* batch is a function of (seed, epoch, its number) alone; rank r of w takes its slice of it,
    so what is trained on does not depend on w. There are no worker processes: rows are decoded already.

    Parameters
    ----------
    source
        Where rows come from.
    index
        Which windows there are.
    batch_size
        Windows of a global batch.
    shuffle
        Whether to shuffle, anew in each epoch. Without it windows come in order, each exactly once, and
        the last batch may be smaller or, to give every rank something, larger.
    seed
        Of the order.
    rank, world
        Which process this is, of how many.
    epoch
        Asked for the number of each epoch that begins; without it epochs count up from 0.

    Raises
    ------
    UsageError
        If the windows cannot be shared out evenly.
    """

    def __init__(
        self,
        source: WindowSource,
        index: WindowIndex,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        epoch: Callable[[], int] | None = None,
    ) -> None:
        if batch_size % world:
            raise UsageError(
                f"batch size {batch_size} on {world} processes",
                expected="a multiple of the number of processes",
                fix="mend --data.batch_size",
            )
        if len(index) < world:
            raise UsageError(f"{len(index)} windows on {world} processes", expected="one for each", fix="fewer devices")
        self.source, self.index, self.shuffle, self.seed = source, index, shuffle, seed
        self.rank, self.world = rank, world
        self.batch_size = min(batch_size, len(index) // world * world)
        self._epoch, self._consumed, self._resuming = -1, 0, False
        self._next_epoch = epoch
        nowhere = torch.zeros(0, dtype=torch.int64)
        self._ahead: tuple[tuple[int, int], list[int], Located] = (-1, -1), [], Located(nowhere, nowhere, nowhere)

    def __len__(self) -> int:
        whole, rest = divmod(len(self.index), self.batch_size)
        return whole if self.shuffle or rest < self.world else whole + 1

    def __iter__(self) -> Iterator[Batch]:
        # A generator: this runs when the first batch is asked for, when Lightning knows its epoch.
        if not self._resuming or self._consumed >= len(self):
            self._epoch, self._consumed = self._epoch + 1 if self._next_epoch is None else self._next_epoch(), 0
        self._resuming = False
        while self._consumed < len(self):
            batch = self.source.batch(self.index.shape, self._located(self._consumed))
            self._consumed += 1
            yield batch

    def samples(self, number: int) -> Samples:
        """Sample numbers of this rank's slice of one global batch of the current epoch."""
        positions = np.arange(*self._positions(number))
        return shuffled(positions, len(self.index), self.seed, self._epoch) if self.shuffle else positions

    def _located(self, number: int) -> Located:
        """Where the windows of a batch lie; worked out for many at once, at little more than the cost of one."""
        ahead = max(_AHEAD // self.batch_size, 1)
        block = number // ahead
        if self._ahead[0] != (self._epoch, block):
            numbers = range(block * ahead, min((block + 1) * ahead, len(self)))
            bounds = [self._positions(each) for each in numbers]
            positions = np.concatenate([np.arange(*bound) for bound in bounds])
            samples = shuffled(positions, len(self.index), self.seed, self._epoch) if self.shuffle else positions
            ends = np.cumsum([0, *(high - low for low, high in bounds)]).tolist()
            self._ahead = (self._epoch, block), ends, self.source.locate(self.index, samples)
        _, ends, located = self._ahead
        place = number - block * ahead
        return located.part(ends[place], ends[place + 1])

    def _positions(self, number: int) -> tuple[int, int]:
        """Positions in the epoch of this rank's slice of one global batch."""
        start = number * self.batch_size
        stop = len(self.index) if not self.shuffle and number == len(self) - 1 else start + self.batch_size
        low = start + (stop - start) * self.rank // self.world
        high = start + (stop - start) * (self.rank + 1) // self.world
        return low, high

    def state_dict(self) -> dict[str, int]:
        """Where the epoch stands, counted in batches handed out; Lightning keeps it in its checkpoints."""
        return {"epoch": self._epoch, "consumed": self._consumed}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue where :meth:`state_dict` was taken."""
        self._epoch, self._consumed, self._resuming = state["epoch"], state["consumed"], True


def gather(rows: Tensor, starts: Tensor, length: int) -> Tensor:
    """Copy windows out of decoded rows in one vectorised read.

    Parameters
    ----------
    rows
        (row, channel), contiguous.
    starts
        (batch,) int64, first row of each window; any order, repeats allowed.
    length
        Rows per window.

    Returns
    -------
    (batch, length, channel), freshly allocated.

    Raises
    ------
    IndexError
        If a window would leave `rows`.

    Notes
    -----
    One memcpy per window; no Python loop.
    """
    n_rows, n_channels = rows.shape
    if length > n_rows:
        raise IndexError(f"windows of {length} rows leave the {n_rows} rows")
    view = rows.as_strided((n_rows - length + 1, length * n_channels), (n_channels, 1))
    return view.index_select(0, starts).view(len(starts), length, n_channels)
