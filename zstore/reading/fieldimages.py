"""Encoded images of a field: the first says what all are, and any other that is decoded is held to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.errors import UsageError
from zstore.format.payloads.error import PayloadError
from zstore.format.payloads.images import ImageLook, decode_image, look_image
from zstore.format.trust import MOST_ROW_BYTES
from zstore.reading.version import StoredVersion

_LOOKED_AT = 1 << 16  # rows whose sizes are looked at together for one that is not empty


@dataclass(frozen=True)
class FirstImage:
    """The first image of a field.

    Parameters
    ----------
    store, name
        The field.
    row
        Where it is.
    look
        What it is.
    """

    store: StoredVersion
    name: str
    row: int
    look: ImageLook

    @classmethod
    def of(cls, store: StoredVersion, name: str) -> FirstImage:
        """That of the first row that has one.

        Raises
        ------
        UsageError
            If none has, or it is no image.
        """
        for start in range(0, store.n_rows, _LOOKED_AT):
            ranges = store.byte_ranges(name, start, min(start + _LOOKED_AT, store.n_rows))
            filled = np.flatnonzero(ranges[:, 1] > ranges[:, 0])
            if len(filled):
                row = start + int(filled[0])
                (content,) = store.read_bytes(name, row, row + 1)
                try:
                    look = look_image(content, MOST_ROW_BYTES)
                except PayloadError as error:
                    raise _refusal(store, name, row, error.reason, error.expected) from error
                assert look is not None
                return cls(store, name, row, look)
        raise UsageError(
            f"field {name!r} without a value in any row",
            expected="an image, which says of which shape all are",
            where=store.path,
            fix="leave the field out",
        )

    def alike(self, row: int, content: bytes, proved: bool) -> NDArray[Any]:
        """Decode the image of another row; `proved` as of :func:`~zstore.format.payloads.images.decode_image`.

        Raises
        ------
        UsageError
            If it is none, or of another shape or dtype than the first one.
        """
        try:
            values = decode_image(content, MOST_ROW_BYTES, proved)
        except PayloadError as error:
            raise _refusal(self.store, self.name, row, error.reason, error.expected) from error
        shape, dtype = self.look.shape, self.look.dtype
        if values.shape != shape or str(values.dtype) != dtype:
            reason = f"an image of shape {values.shape} and {values.dtype}"
            raise _refusal(self.store, self.name, row, reason, f"{shape} and {dtype}, as row {self.row:,} has")
        return values


def _refusal(store: StoredVersion, name: str, row: int, reason: str, expected: str) -> UsageError:
    series = int(store.index.series_of(row, row + 1)[0])
    return UsageError(
        f"field {name!r} of id {str(store.ids[series])!r} in row {row:,}: {reason}",
        expected=expected,
        where=store.path,
        fix="store.read_bytes, which has the bytes of each row as they are; or ingest images of one shape",
    )
