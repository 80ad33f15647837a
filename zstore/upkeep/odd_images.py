"""What looks wrong in a field of encoded images: those of another size than most, unreadable, black or one colour."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zstore.format.payloads.error import PayloadError
from zstore.format.payloads.images import decode_image, look_image
from zstore.reading.store import Store
from zstore.text import counted
from zstore.upkeep.field_checks import GLANCE, glances
from zstore.upkeep.field_rows import FieldRows, by_series
from zstore.upkeep.findings import Finding
from zstore.writing.scheduler import Scheduler

_READ_BYTES = 1 << 24
_READ_ROWS = 1 << 12
_TOGETHER = 64  # images that are decoded before it is decided whether to go on
_MOST_REASONS = 1000
_MOST_IMAGE_BYTES = 1 << 30


@dataclass(frozen=True)
class ImageRows:
    """What was seen of the encoded images of a field.

    Parameters
    ----------
    shape
        (row, 3) int32 pixels down and across, and components, 0 of grey ones.
    faults
        (row,) whether its bytes are no image that can be read.
    reasons
        Why not, by row; not of all where there are many.
    glance
        (row,) of :data:`zstore.upkeep.field_checks.GLANCE`, of those that were decoded.
    """

    shape: NDArray[np.int32]
    faults: NDArray[np.bool_]
    reasons: dict[int, str]
    glance: NDArray[Any]


class _Headers(NamedTuple):
    """Of the rows of a block: shape, first byte, and what is wrong by row of the store."""

    shape: NDArray[np.int32]
    kind: NDArray[np.uint8]
    reasons: dict[int, str]


def look_at_images(rows: FieldRows, runner: Scheduler, told: Callable[[int], None]) -> ImageRows:
    """Read the header of each image, and decode those that have the fewest bytes, for one colour takes few.

    Parameters
    ----------
    rows
        Of a field of bytes.
    runner
        Runs what reads and decodes.
    told
        Called with rows that are done.

    Notes
    -----
    Of PNG and of JPEG each, images are decoded by their bytes for a pixel, from the fewest on, 64 at a time, until none
    of these is of one colour.
    """
    store, name, n_rows = rows.store, rows.field.name, len(rows.present)
    bounds = np.zeros((n_rows, 2), np.int64)
    for start in range(0, n_rows, _READ_ROWS):
        bounds[start : start + _READ_ROWS] = store.byte_ranges(name, start, min(start + _READ_ROWS, n_rows))
    sizes = bounds[:, 1] - bounds[:, 0]
    found = ImageRows(np.zeros((n_rows, 3), np.int32), np.zeros(n_rows, np.bool_), {}, np.zeros(n_rows, GLANCE))
    kind = np.zeros(n_rows, np.uint8)
    blocks = list(_blocks(sizes))

    def seen(number: int, headers: _Headers) -> None:
        start, stop = blocks[number]
        found.shape[start:stop], kind[start:stop] = headers.shape, headers.kind
        for row, reason in headers.reasons.items():
            _note_fault(found, row, reason)
        told(stop - start)

    read = partial(_read_headers, store=store, name=name)
    runner.map("headers", read, [(*block, rows.present[slice(*block)]) for block in blocks], seen=seen)
    judged = rows.present & ~found.faults & ~rows.repeated
    for own in _smallest_first(sizes, kind, found, judged):
        for start in range(0, len(own), _TOGETHER):
            some = own[start : start + _TOGETHER]
            decoded = runner.map("look", partial(_decoded, store=store, name=name), some.tolist())
            for row, glance in zip(some.tolist(), decoded, strict=True):
                if isinstance(glance, str):
                    _note_fault(found, row, glance)
                else:
                    found.glance[row] = glance
            if not found.glance["uniform"][some].any():
                break
    for row in np.flatnonzero(rows.repeated).tolist():
        found.glance[row] = found.glance[row - 1]
    return found


def _smallest_first(
    sizes: NDArray[np.int64], kind: NDArray[np.uint8], found: ImageRows, judged: NDArray[np.bool_]
) -> Iterator[NDArray[np.int64]]:
    """The rows of images of each kind, those first that have the fewest bytes for their pixels."""
    per_pixel = sizes / np.maximum(found.shape[:, 0].astype(np.int64) * found.shape[:, 1], 1)
    for each in np.unique(kind[judged]).tolist():
        own = np.flatnonzero(judged & (kind == each))
        yield own[np.argsort(per_pixel[own], kind="stable")]


def _blocks(sizes: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Rows that are read together: of some 16 MB, at most 4,096."""
    ends, start = np.cumsum(sizes), 0
    while start < len(sizes):
        most = int(np.searchsorted(ends, (ends[start - 1] if start else 0) + _READ_BYTES, side="right"))
        stop = min(max(most, start + 1), start + _READ_ROWS)
        yield start, stop
        start = stop


def _read_headers(block: tuple[int, int, NDArray[np.bool_]], store: Store, name: str) -> _Headers:
    """What the headers of some rows say, of those that are present."""
    start, stop, present = block
    headers = _Headers(np.zeros((stop - start, 3), np.int32), np.zeros(stop - start, np.uint8), {})
    for number, content in enumerate(store.read_bytes(name, start, stop)):
        if not present[number]:
            continue
        headers.kind[number] = content[0] if content else 0
        try:
            look = look_image(content, _MOST_IMAGE_BYTES)
        except PayloadError as error:
            headers.reasons[start + number] = error.reason
            continue
        assert look is not None
        headers.shape[number] = (*look.shape, 0)[:3]
    return headers


def _decoded(row: int, store: Store, name: str) -> Any:
    """Of :data:`GLANCE`; or why an image cannot be decoded."""
    try:
        glance = glances(decode_image(store.read_bytes(name, row, row + 1)[0], _MOST_IMAGE_BYTES)[np.newaxis])
    except PayloadError as error:
        return error.reason
    glance[["at_low", "at_high"]] = 0  # which only those of all rows together say something about
    return glance[0]


def _note_fault(found: ImageRows, row: int, reason: str) -> None:
    found.faults[row] = True
    if len(found.reasons) < _MOST_REASONS:
        found.reasons[row] = reason


def odd_images(rows: FieldRows, images: ImageRows) -> Iterator[Finding]:
    """Images that cannot be read, and those of another shape than most, if most have one."""

    def unreadable(of: NDArray[np.int64]) -> str:
        reason = images.reasons.get(int(of[0]))
        return f"{counted(len(of), 'image')} that cannot be read" + (f", the first {reason}" if reason else "")

    yield from by_series(rows, "odd_file", images.faults, unreadable)
    seen = np.flatnonzero(rows.present & ~images.faults)
    if not len(seen):
        return
    shapes, counts = np.unique(images.shape[seen], axis=0, return_counts=True)
    usual = shapes[counts.argmax()]
    if 2 * counts.max() < len(seen):
        return
    marked = np.zeros_like(rows.present)
    marked[seen] = (images.shape[seen] != usual).any(axis=1)

    def other(of: NDArray[np.int64]) -> str:
        return f"{counted(len(of), 'image')} of {_pixels(images.shape[of[0]])}, where most are {_pixels(usual)}"

    yield from by_series(rows, "odd_file", marked, other)


def _pixels(shape: NDArray[np.int32]) -> str:
    """Pixels down, across, and components, as the shapes of fields are shown."""
    return " x ".join(str(length) for length in shape.tolist() if length)
