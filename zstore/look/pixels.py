"""Values of fields as small images, and these as PNG inside of pages: a frame, a slice of a volume."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zstore.look.style import PICTURE
from zstore.look.template import Html, fill

MOST_PX = 128
"""Pixels along the longer side of an image."""

_LEAST_PX = 64
_SAMPLE = 1 << 16
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOURS = {1: 0, 3: 2}  # components to the type of colour, as PNG numbers them
_LEFT = 1  # the filter by which a pixel is the difference to the one on its left


class Slice(NamedTuple):
    """What is drawn of a value.

    Parameters
    ----------
    pixels
        (y, x) grey or (y, x, 3) red, green, blue; uint8, at most :data:`MOST_PX` a side.
    about
        Which part of the value it is, such as ``z 15 of 30``; empty for all of it.
    """

    pixels: NDArray[np.uint8]
    about: str


def drawn_slice(values: NDArray[Any], dimensions: Sequence[str]) -> Slice:
    """The middle slice of a value of two axes or more, with its intensities brought to 0 to 255.

    Parameters
    ----------
    values
        A value of a field, such as (y, x), (y, x, colour), (x, y, z), (z, y, x).
    dimensions
        Names of its axes.

    Returns
    -------
    Of images the whole, of others the middle along `z`, or along the first axes. Where `x` comes before `y`, as in
    scans, `x` runs to the right and `y` up. Bytes of images are as they are; others run from the 1st to the 99th
    percentile. Of more than three colours the first three are drawn, of two the first.
    """
    names, about = list(dimensions), []
    coloured = values.ndim > 2 and names[-1].endswith("colour")
    as_they_are = values.dtype == np.uint8 and values.ndim - coloured == 2
    while len(names) - coloured > 2:
        axis = names.index("z") if "z" in names else 0
        middle, name = values.shape[axis] // 2, names.pop(axis)
        about.append(f"{name} {middle:,} of {values.shape[axis]:,}")
        values = values.take(middle, axis)
    if names[:2] == ["x", "y"]:
        values = values.swapaxes(0, 1)[::-1]
    if coloured:
        values = values[..., :3] if values.shape[-1] >= 3 else values[..., 0]
    small = _shrunk(values)
    return Slice(np.round(small).astype(np.uint8) if as_they_are else _windowed(small), ", ".join(about))


def _shrunk(values: NDArray[Any]) -> NDArray[np.float64]:
    """Means of square blocks, so that no side has more than :data:`MOST_PX`; a rest at the end is left out."""
    step = -(-max(values.shape[:2]) // MOST_PX)
    height, width = (max(side // step, 1) for side in values.shape[:2])
    kept = values[: height * step, : width * step].astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        for axis, n in ((0, height), (1, width)):
            kept = np.add.reduceat(kept, np.linspace(0, kept.shape[axis], n + 1)[:-1].astype(np.int64), axis=axis)
        means: NDArray[np.float64] = kept / (min(step, values.shape[0]) * min(step, values.shape[1]))
    return means


def _windowed(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """From the 1st to the 99th percentile as 0 to 255; what is no number is 0."""
    seen = values[np.isfinite(values)]
    if not len(seen):
        return np.zeros(values.shape, np.uint8)
    low, high = np.quantile(seen[:: max(len(seen) // _SAMPLE, 1)], [0.01, 0.99])
    if low == high:
        low, high = seen.min(), seen.max()
    return windowed(values, float(low), float(high))


def windowed(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.uint8]:
    """Intensities from `low` to `high` as 0 to 255; what is no number is 0."""
    half = high / 2 - low / 2  # of the range, which may be beyond float64
    share = (np.clip(np.nan_to_num(values, nan=low), low, high) / 2 - low / 2) / (half or 1)
    bytes_: NDArray[np.uint8] = np.round(255 * share).astype(np.uint8)
    return bytes_


def png(pixels: NDArray[np.uint8], level: int = 9) -> bytes:
    """An image, (y, x) of grey or (y, x, 3) of red, green and blue, as a PNG file; `level` 1 is quick, 9 small."""
    height, width, n_components = (*pixels.shape, 1)[:3]
    flat = pixels.reshape(height, width, n_components)
    rows = np.empty((height, 1 + width * n_components), np.uint8)
    rows[:, 0] = _LEFT
    rows[:, 1:] = np.diff(flat, axis=1, prepend=np.uint8(0)).reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOURS[n_components], 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), level)), (b"IEND", b"")]
    return _SIGNATURE + b"".join(_chunk(name, body) for name, body in chunks)


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(name)))


def image(pixels: NDArray[np.uint8], label: str) -> Html:
    """An image as an element that nothing is fetched for; small ones are enlarged.

    Parameters
    ----------
    pixels
        As :func:`png` takes them.
    label
        What a screen reader says, and what is shown under the pointer.
    """
    height, width = pixels.shape[:2]
    scale = max(_LEAST_PX // max(height, width), 1)
    return fill(
        "<img src='data:image/png;base64,$content' width='$width' height='$height' style='$style' alt='$label' "
        "title='$label'/>",
        content=Html(base64.b64encode(png(pixels)).decode()),
        width=width * scale,
        height=height * scale,
        style=PICTURE,
        label=label,
    )
