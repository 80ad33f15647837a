"""Encoded images by their first bytes: PNG or JPEG."""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zstore.format.payloads import jpeg, png
from zstore.format.payloads.error import PayloadError


class ImageLook(NamedTuple):
    """What an encoded image will be once it is decoded.

    Parameters
    ----------
    shape
        (y, x), or (y, x, colour).
    dtype
        ``uint8`` or ``uint16``.
    """

    shape: tuple[int, ...]
    dtype: str

    @property
    def n_bytes(self) -> int:
        """Bytes of the array."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


def look_image(content: bytes, limit_bytes: int, whole: bool = True) -> ImageLook | None:
    """What an encoded image holds; see :func:`zstore.format.payloads.png.look`."""
    header = _kind(content).look(content, limit_bytes, whole)
    return None if header is None else ImageLook(header.shape, header.dtype)


def decode_image(content: bytes, limit_bytes: int, proved: bool = False) -> NDArray[Any]:
    """An encoded image as an array; see :func:`zstore.format.payloads.png.decode` and its sister of JPEG.

    `proved`: whether these very bytes were decoded before, without an error. What only proves that they are a whole
    image is left out then, a fifth of the work for JPEG and half of it for PNG.
    """
    values: NDArray[Any] = _kind(content).decode(content, limit_bytes, proved)
    return values


def _kind(content: bytes) -> ModuleType:
    for kind in (png, jpeg):
        if content.startswith(kind.SIGNATURE):
            return kind
    raise PayloadError(
        f"a file that begins with {content[:8]!r}" if content else "an empty file", "an image as PNG or JPEG has it"
    )
