"""Values of fields as pictures: a frame of an episode, a slice of a volume in any of three planes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.errors import UsageError
from zstore.format.payloads.error import PayloadError
from zstore.format.schema import Field
from zstore.look.fields import read_value
from zstore.look.pixels import png, windowed
from zstore.reading.store import Store
from zstore.view.numbers import Clock, listed

MOST_PX = 1024
"""Pixels along the longer side of a picture."""
_MOST_KEPT = 1 << 27
_BLOCK_ROWS = 1 << 20
_IMAGE_AXES = ("y", "x", "colour")


class LastValues:
    """Values of fields that were decoded last, so that three planes of a volume decode it once.

    Notes
    -----
    Memory: :data:`_MOST_KEPT` bytes, and the one value that is decoded: requests in parallel wait for each other.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, int], NDArray[Any]] = OrderedDict()

    def read(self, store: Store, field: Field, row: int) -> NDArray[Any] | None:
        """The value of a field in a row; see :func:`zstore.look.fields.read_value`."""
        key = field.name, row
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            value = read_value(store, field, row)
            if value is None or value.nbytes > _MOST_KEPT:
                return value
            self._kept[key] = value
            while sum(each.nbytes for each in self._kept.values()) > _MOST_KEPT:
                self._kept.popitem(last=False)
            return value


def field_rows(store: Store, id_: str, name: str) -> dict[str, Any]:
    """What a field has in a series: rows, times, its axes and their lengths, and how many rows have a value.

    ``before`` and ``after`` are the ids of the series beside it, None at the ends.
    """
    field = store.field(name)
    position = store.position(id_)
    first, last = store.index.row_start[position : position + 2].tolist()
    times = store.times(first, last)
    n_present, shown = 0, first
    for begin in range(first, last, _BLOCK_ROWS):
        present = store.payload_digests(name, begin, min(begin + _BLOCK_ROWS, last)).any(axis=1)
        if not n_present and present.any():
            shown = begin + int(np.argmax(present))
        n_present += int(present.sum())
    axes, lengths = list(field.dimensions), list(field.shape)
    if field.n_bytes is not None:
        axes, lengths = _of_image(store, field, shown)
    beside = [str(store.ids[at]) if 0 <= at < store.n_series else None for at in (position - 1, position + 1)]
    return {
        "name": name,
        "n": last - first,
        "x": listed(Clock.of(store).seconds(times)) if last - first <= 20_000 else None,
        "first": store.time.show(int(times[0])) if len(times) else "",
        "axes": axes,
        "lengths": lengths,
        "is_coloured": bool(axes) and axes[-1].endswith("colour"),
        "n_present": n_present,
        "before": beside[0],
        "after": beside[1],
    }


def row_at(store: Store, id_: str, row: int, second: float | None) -> dict[str, Any]:
    """A row of a series and its time in seconds: one by its number, or the last one up to a time.

    Raises
    ------
    UsageError
        If there is no such row.
    """
    position, clock = store.position(id_), Clock.of(store)
    first, last = store.index.row_start[position : position + 2].tolist()
    if second is not None:
        row = int(np.searchsorted(store.times(first, last), clock.stored(second, up=False), "right")) - 1
        row = max(row, 0)
    if not 0 <= row < last - first:
        raise UsageError(f"row {row:,} of {last - first:,}", expected="a row of the series, from 0")
    return {"row": row, "x": clock.second(int(store.times(first + row, first + row + 1)[0]))}


def _of_image(store: Store, field: Field, row: int) -> tuple[list[str], list[int]]:
    """Axes and lengths of an encoded image; without lengths where it has none, or cannot be read."""
    try:
        value = read_value(store, field, row)
    except PayloadError:  # said where it is drawn; other rows may be sound
        value = None
    return (list(_IMAGE_AXES), []) if value is None else (list(_IMAGE_AXES[: value.ndim]), list(value.shape))


def frame(store: Store, values: LastValues, id_: str, name: str, row: int, axis: str | None, at: int | None) -> bytes:
    """One picture as PNG.

    Parameters
    ----------
    store, values, id_, name
        The field of a series; `values` has what was decoded last.
    row
        Of the series, from 0.
    axis
        Of a value with more than two axes, the one that is cut. Default: ``z``, or the first.
    at
        Where along it. Default: the middle.

    Raises
    ------
    UsageError
        If there is no such row, axis or place.
    PayloadError
        If the bytes are no image that can be read.
    """
    field, position = store.field(name), store.position(id_)
    first, last = store.index.row_start[position : position + 2].tolist()
    if not 0 <= row < last - first:
        raise UsageError(f"row {row:,} of {last - first:,}", expected="a row of the series, from 0")
    value = values.read(store, field, first + row)
    if value is None:
        raise UsageError(f"no value of {name} in row {row:,}", expected="a row that has one")
    return png(_cut(field, value, axis, at), level=1)


def _cut(field: Field, value: NDArray[Any], axis: str | None, at: int | None) -> NDArray[np.uint8]:
    names = list(field.dimensions) or list(_IMAGE_AXES[: value.ndim])
    coloured = value.ndim > 2 and names[-1].endswith("colour")
    as_they_are = value.dtype == np.uint8 and value.ndim - coloured <= 2
    low, high = _intensities(value)
    while len(names) - coloured > 2:
        wanted = axis if axis in names else "z" if "z" in names else names[0]
        number = names.index(wanted)
        place = value.shape[number] // 2 if at is None or wanted != axis else at
        if not 0 <= place < value.shape[number]:
            raise UsageError(f"{wanted} {place:,} of {value.shape[number]:,}", expected="a place along this axis")
        value = value.take(place, number)
        names.pop(number)
    if value.ndim == 1:
        value = value[np.newaxis]
    if not coloured and len(names) == 2 and (names in (["x", "y"], ["x", "z"], ["y", "z"])):
        value = value.swapaxes(0, 1)[::-1]
    if coloured:
        value = value[..., :3] if value.shape[-1] >= 3 else value[..., 0]
    step = -(-max(value.shape[:2]) // MOST_PX)
    value = value[::step, ::step]
    return np.ascontiguousarray(value) if as_they_are else windowed(value.astype(np.float64), low, high)


def _intensities(value: NDArray[Any]) -> tuple[float, float]:
    """The 1st and the 99th percentile of all of a value, so that its slices are shown alike."""
    flat = value.reshape(-1)[:: max(value.size >> 16, 1)].astype(np.float64)
    seen = flat[np.isfinite(flat)]
    if not len(seen):
        return 0.0, 0.0
    low, high = np.quantile(seen, [0.01, 0.99])
    return (float(low), float(high)) if high > low else (float(seen.min()), float(seen.max()))
