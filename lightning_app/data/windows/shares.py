"""The global batches of an epoch, and which positions of each are whose: arithmetic on whole numbers alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zstore import UsageError


@dataclass(frozen=True)
class Shares:
    """How the positions of an epoch are shared out between batches and ranks.

    Parameters
    ----------
    n_windows
        Windows of the epoch, at least one.
    batch_size
        Windows of a global batch, at most those of the epoch.
    rank, world
        Which process takes its part of each batch, of how many.
    shuffle
        Whether windows that are too few for a batch are left out. Else the last batch is smaller or, to give every
        rank something, larger.
    dealt
        Whether a rank takes every `world`-th position, for lanes, and not positions beside each other.
    apart
        Whether what each rank has of all batches lies beside each other, without shuffling.
    """

    n_windows: int
    batch_size: int
    rank: int
    world: int
    shuffle: bool
    dealt: bool
    apart: bool

    @property
    def n_batches(self) -> int:
        """Global batches of an epoch."""
        whole, rest = divmod(self.n_windows, self.batch_size)
        return whole if self.shuffle or rest < self.world else whole + 1

    def positions(self, number: int) -> NDArray[np.int64]:
        """Positions in the epoch of this rank's part of one global batch, ascending."""
        rank, world, size = self.rank, self.world, self.batch_size
        start = number * size
        stop = self.n_windows if not self.shuffle and number == self.n_batches - 1 else start + size
        if self.dealt:
            return np.arange(start + rank, stop, world)
        low, high = (start + (stop - start) * each // world for each in (rank, rank + 1))
        if low == high:
            return np.array([min(low, stop - 1)])  # of another rank
        if not self.apart:
            return np.arange(low, high)
        whole = (self.n_batches - 1) * size  # windows of all batches but the last
        first = whole // world * rank + (self.n_windows - whole) * rank // world + number * (size // world)
        return np.arange(first, first + high - low)


def check_shared(n_windows: int, batch_size: int, world: int, repeats: bool) -> None:
    """Refuse windows that cannot be shared out evenly.

    Parameters
    ----------
    n_windows, batch_size
        Of the epoch, and of a global batch.
    world
        How many processes there are.
    repeats
        Whether a process that has no window of its own reads another one's again.

    Raises
    ------
    UsageError
        If a batch is no multiple of the processes, or some would have no window and do not repeat another's.
    """
    if batch_size % world:
        raise UsageError(
            f"batch size {batch_size} on {world} processes",
            expected="a multiple of the number of processes",
            fix="another --data.batch_size, or other --trainer.devices",
        )
    if n_windows < (1 if repeats else world):
        raise UsageError(f"{n_windows} windows on {world} processes", expected="one for each", fix="fewer devices")
