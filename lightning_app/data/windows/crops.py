"""Which part of an image or volume a training window has, drawn anew for each position of each epoch."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_app.data.windows.order import drawn

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Crops:
    """Draws where parts of rows begin. All steps of a window have the same part; fields have parts of their own.

    Parameters
    ----------
    room
        By name of a field, (axis,) how many places there are along each of the axes that are cropped.
    """

    room: Mapping[str, tuple[int, ...]]

    def drawn(self, positions: Int64, seed: int, epoch: int) -> dict[str, Int64]:
        """By name of a field, (batch, axis) where the parts of some windows begin.

        Parameters
        ----------
        positions
            (batch,) where the windows are in the epoch: whoever makes a batch of them draws the same.
        seed, epoch
            Key of what is drawn.
        """
        found = {}
        for name, room in self.room.items():
            key = zlib.crc32(name.encode())
            axes = [
                drawn(positions, np.full(len(positions), places), seed, epoch, key, axis)
                for axis, places in enumerate(room, 1)
            ]
            found[name] = np.stack(axes, axis=1)
        return found
