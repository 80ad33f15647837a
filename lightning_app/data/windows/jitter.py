"""Windows that start some rows later than they would, drawn anew for each position of each epoch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_app.data.windows.order import drawn
from zstore import WindowIndex

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Jitter:
    """Moves windows.

    Parameters
    ----------
    n_rows
        Rows that a window starts later at most.
    index
        All windows that there are, one row apart: those that windows may become.
    """

    n_rows: int
    index: WindowIndex

    def moved(self, index: WindowIndex, samples: Int64, positions: Int64, seed: int, epoch: int) -> Int64:
        """Windows that stand for some others.

        Parameters
        ----------
        index
            The windows that are to be moved, each of which is in :attr:`index` too.
        samples, positions
            (batch,) their numbers, and where they are in the epoch.
        seed, epoch
            Key of what is drawn.

        Returns
        -------
        (batch,) numbers in :attr:`index`: of those that start up to `n_rows` later in the same run and split, one at
        random, each as likely as the others. None is without an observed target if :attr:`index` has no such window.
        """
        start = index.locate(samples)[0]
        last = np.minimum(start + self.n_rows, index.last_starts(samples))
        first = self.index.rank(start)
        return first + drawn(positions, self.index.rank(last + 1) - first, seed, epoch)
