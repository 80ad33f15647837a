"""Batches: a slice of the epoch's order, one gather out of decoded rows, a dict of tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_app.batch import Batch
from lightning_app.data.order import shuffled
from zstore import UsageError, WindowIndex


@dataclass(frozen=True)
class WindowSource:
    """Decoded rows and which of their columns are what.

    Parameters
    ----------
    rows
        (row, channel) float32, NaN where missing; inputs are its first `n_inputs` columns.
    n_inputs
        Input channels.
    targets, future
        Columns of the targets, and of the channels known in advance.
    statics
        (series, attribute) float32.
    missing
        (channel,) whether a column has any missing value; whole columns need no filling.
    times
        (row,) int64 times, where they are irregular; else None.
    """

    rows: Tensor
    n_inputs: int
    targets: list[int]
    future: list[int]
    statics: Tensor
    missing: list[bool]
    times: Tensor | None = None

    def batch(self, index: WindowIndex, samples: np.ndarray[Any, np.dtype[np.int64]]) -> Batch:
        """The windows of some samples.

        Parameters
        ----------
        index
            Which windows there are.
        samples
            (batch,) sample numbers.
        """
        shape = index.shape
        located = index.locate(samples)
        starts, series, time = (torch.from_numpy(values) for values in located)
        first_target = starts + shape.target_offset
        x = gather(self.rows, starts, shape.lookback)[..., : self.n_inputs]
        if any(self.missing[: self.n_inputs]):
            x = torch.nan_to_num(x, nan=0.0)
        ahead = gather(self.rows, first_target, shape.horizon)
        y = self._columns(ahead, self.targets)
        if any(self.missing[column] for column in self.targets):
            mask = ~torch.isnan(y)
            y = torch.nan_to_num(y, nan=0.0)
        else:
            mask = torch.ones(y.shape, dtype=torch.bool)
        return {
            "x": x,
            "y": y,
            "mask": mask,
            "x_static": self.statics[series],
            "x_future": torch.nan_to_num(ahead[..., self.future], nan=0.0),
            "series": series,
            "time": time if self.times is None else self.times[first_target],
        }

    def _columns(self, rows: Tensor, columns: list[int]) -> Tensor:
        return rows if columns == list(range(rows.shape[-1])) else rows[..., columns]


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

    def __len__(self) -> int:
        whole, rest = divmod(len(self.index), self.batch_size)
        return whole if self.shuffle or rest < self.world else whole + 1

    def __iter__(self) -> Iterator[Batch]:
        # A generator: this runs when the first batch is asked for, when Lightning knows its epoch.
        if not self._resuming or self._consumed >= len(self):
            self._epoch, self._consumed = self._epoch + 1 if self._next_epoch is None else self._next_epoch(), 0
        self._resuming = False
        while self._consumed < len(self):
            batch = self.source.batch(self.index, self.samples(self._consumed))
            self._consumed += 1
            yield batch

    def samples(self, number: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Sample numbers of this rank's slice of one global batch of the current epoch."""
        start = number * self.batch_size
        stop = len(self.index) if not self.shuffle and number == len(self) - 1 else start + self.batch_size
        low = start + (stop - start) * self.rank // self.world
        high = start + (stop - start) * (self.rank + 1) // self.world
        positions = np.arange(low, high)
        return shuffled(positions, len(self.index), self.seed, self._epoch) if self.shuffle else positions

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
        (row, channel) float32, contiguous.
    starts
        (batch,) int64, first row of each window; any order, repeats allowed.
    length
        Rows per window.

    Returns
    -------
    (batch, length, channel) float32, freshly allocated.

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
