"""Decoded rows of a field in a cache folder, in the dtype that they are stored in, shared by all processes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.errors import UsageError
from zstore.reading.cached import open_cached
from zstore.reading.eviction import Cache
from zstore.reading.fieldreader import FieldReader
from zstore.reading.rowfile import new_entry
from zstore.reading.version import StoredVersion
from zstore.storage.portable import n_cores

_LAYOUT = 1
_READ_BYTES = 1 << 25


def open_field(store: StoredVersion, name: str, cache: Cache | str | Path | None = None) -> NDArray[Any]:
    """All rows of a field from a file that is built on first use.

    Parameters
    ----------
    store
        Where rows come from.
    name
        The field.
    cache
        Folder of such files, with how much it may hold if that is not the usual; None for :func:`cache_folder`.

    Returns
    -------
    (row, …) in the dtype that is stored, memory-mapped; zeros where a row has no value. Encoded images are decoded.
    Changes stay in this process.

    Raises
    ------
    NotFoundError
        If there is no such field.
    UsageError
        If it is of bytes that are no images, or of images of several shapes.
    StoreError
        If the file cannot be written.
    CorruptionError
        If the store is damaged.

    Notes
    -----
    Built at the speed of decoding, on all cores; see :func:`zstore.reading.cached.open_cached`.
    """
    reader = FieldReader.of(store, name)
    dtype, shape = reader.dtype, (store.n_rows, *reader.shape)
    if not store.n_rows:
        return np.empty(shape, dtype)

    def build(path: Path) -> None:
        rows = np.memmap(path, dtype, "r+", shape=shape)
        step = max(_READ_BYTES // reader.row_bytes // reader.chunk_rows, 1) * reader.chunk_rows

        def read(start: int) -> None:
            reader.read(start, rows[start : start + step])

        with ThreadPoolExecutor(n_cores()) as pool:
            for _ in pool.map(read, range(0, store.n_rows, step)):
                pass

    folder = Cache.of(cache)
    identity = ["field", _LAYOUT, store.digest, name]
    entry = new_entry(store, [name], folder, identity, store.n_rows, masked=False, itemsize=reader.row_bytes)
    return open_cached(entry, build, lambda file: np.frombuffer(file.mapped(), dtype).reshape(shape), folder)


@dataclass(frozen=True)
class FieldSteps:
    """What a window has of a field: rows of its last `steps` inputs, `stride` rows apart, or a part of each.

    Parameters
    ----------
    steps
        Rows of the field in each window.
    stride
        Rows from one to the next.
    crop
        Lengths of the part of each row that a window has, along its first axes, such as ``(84, 84)`` of an image or
        ``(48, 48, 48)`` of a volume; None for whole rows.
    """

    steps: int = 1
    stride: int = 1
    crop: tuple[int, ...] | None = None

    @classmethod
    def of(cls, given: int | tuple[int, int] | FieldSteps) -> FieldSteps:
        """From a number of steps, or one with a stride."""
        if isinstance(given, FieldSteps):
            return given
        return cls(given) if isinstance(given, int) else cls(*given)

    def __str__(self) -> str:
        apart = f", {self.stride} rows apart" if self.stride > 1 else ""
        crop = f", cropped to {' × '.join(map(str, self.crop))}" if self.crop else ""
        return f"{self.steps} step{'s' if self.steps != 1 else ''}{apart}{crop}"

    def offsets(self, name: str, lookback: int) -> NDArray[np.int64]:
        """(step,) rows from the first of a window.

        Raises
        ------
        UsageError
            If there are none, or more than a window has inputs.
        """
        reach = (self.steps - 1) * self.stride + 1
        if self.steps < 1 or self.stride < 1 or reach > lookback:
            raise UsageError(
                f"{self.steps} steps of {name!r}, {self.stride} rows apart",
                expected=f"at least one of each, within the {lookback} input rows of a window",
                fix="a longer lookback, or fewer steps",
            )
        return lookback - reach + self.stride * np.arange(self.steps)

    def shape(self, name: str, whole: tuple[int, ...]) -> tuple[int, ...]:
        """What a window has of a row of some shape.

        Raises
        ------
        UsageError
            If the part is not within the row.
        """
        crop = self.crop or ()
        if len(crop) > len(whole) or not all(1 <= size <= length for size, length in zip(crop, whole, strict=False)):
            raise UsageError(
                f"a crop of {list(crop)} of field {name!r}",
                expected=f"lengths from 1 to those of its rows, {list(whole)}",
                fix="a smaller crop",
            )
        return (*crop, *whole[len(crop) :])

    def centre(self, name: str, whole: tuple[int, ...]) -> tuple[slice, ...]:
        """Where the part in the middle of a row lies; half a value before it where that is odd."""
        sizes = self.shape(name, whole)[: len(self.crop or ())]
        corners = [(length - size) // 2 for size, length in zip(sizes, whole, strict=False)]
        return tuple(slice(corner, corner + size) for corner, size in zip(corners, sizes, strict=True))
