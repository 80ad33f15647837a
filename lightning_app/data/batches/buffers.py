"""Memory for batches, used again."""

from __future__ import annotations

import math
import weakref
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_KEPT = 16
_LINE = 64  # bytes


class Buffers:
    """Memory for batches, used again once nobody holds any part of a batch that was in it.

    Fresh memory of a few megabytes is unmapped when it is freed and mapped again, page by page, when it is next
    written to, which takes twice as long as copying the windows.

    Notes
    -----
    What is handed out is a view of its own of the memory, held by the storage of the tensor and by nobody else. When
    the last tensor on that storage is gone, so is the view: a weak reference to it says so, on any build of Python.
    """

    def __init__(self) -> None:
        self._kept: list[tuple[NDArray[Any], weakref.ref[NDArray[Any]]]] = []
        self._lock = Lock()  # two threads must not take the same memory

    def take(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Tensor:
        """A tensor whose values are anything."""
        with self._lock:
            kept = self._kept
            for number in range(len(kept) - 1, -1, -1):  # what was used last may still be in cache
                memory, lent = kept[number]
                if lent() is None and memory.shape == shape and memory.dtype == dtype:
                    view = memory[:]
                    kept[number] = memory, weakref.ref(view)
                    return torch.from_numpy(view)
            memory = _aligned(shape, dtype)
            view = memory[:]
            self._kept = [*kept[-_KEPT + 1 :], (memory, weakref.ref(view))]
            return torch.from_numpy(view)


def _aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Memory that begins with a cache line, as row files do: rows are then copied line by line."""
    n_bytes = math.prod(shape) * dtype.itemsize
    octets = np.empty(n_bytes + _LINE, np.uint8)
    first = -octets.ctypes.data % _LINE
    return octets[first : first + n_bytes].view(dtype).reshape(shape)
