"""Values of fields as pictures: a frame of an episode, a slice of a volume in any of three planes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.errors import UsageError
from zstore.format.schema import Field
from zstore.look.fields import read_value
from zstore.look.pixels import png, windowed
from zstore.reading.store import Store
from zstore.view.numbers import listed, seconds

MOST_PX = 1024
"""Pixels along the longer side of a picture."""
_IMAGE_AXES = ("y", "x", "colour")


def field_rows(store: Store, id_: str, name: str) -> dict[str, Any]:
    """What a field has in a series: rows, times, its axes and their lengths, and which rows have a value."""
    field = store.field(name)
    position = store.position(id_)
    first, last = store.index.row_start[position : position + 2].tolist()
    times = store.times(first, last)
    present = store.payload_digests(name, first, last).any(axis=1) if last > first else np.zeros(0, np.bool_)
    axes, lengths = list(field.dimensions), list(field.shape)
    if field.n_bytes is not None and present.any():
        value = read_value(store, field, first + int(np.argmax(present)))
        axes, lengths = list(_IMAGE_AXES[: value.ndim]), list(value.shape)  # type: ignore[union-attr]
    return {
        "name": name,
        "n": last - first,
        "x": listed(seconds(times, store.time)) if last - first <= 20_000 else None,
        "first": store.time.show(int(times[0])) if len(times) else "",
        "axes": axes,
        "lengths": lengths,
        "is_coloured": bool(axes) and axes[-1].endswith("colour"),
        "n_present": int(present.sum()),
    }


def frame(store: Store, id_: str, name: str, row: int, axis: str | None, at: int | None) -> bytes:
    """One picture as PNG.

    Parameters
    ----------
    store, id_, name
        The field of a series.
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
    value = read_value(store, field, first + row)
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
