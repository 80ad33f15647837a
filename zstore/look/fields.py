"""How fields show themselves: what they are, and some rows as small images, slices or lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.errors import UsageError
from zstore.format.payloads.error import PayloadError
from zstore.format.payloads.images import decode_image
from zstore.format.schema import Field
from zstore.look.pixels import drawn_slice, image
from zstore.look.style import BESIDE, QUIET
from zstore.look.svg import line
from zstore.look.template import Html, fill, table
from zstore.reading.version import StoredVersion

_MOST_FIELDS, _MOST_IMAGE_BYTES = 12, 1 << 28
_LINE_W, _LINE_H = 128, 40
_IMAGE_AXES = ("y", "x", "colour")


def fields_table(store: StoredVersion, rows: Sequence[int], named: bool = False) -> Html | None:
    """A table of the fields of a store, a field a row, with what some rows hold; None where there are none.

    Parameters
    ----------
    store, rows
        Of which.
    named
        Whether rows are said to be of their series.
    """
    lines: list[Sequence[object]] = []
    for field in store.schema.fields[:_MOST_FIELDS]:
        name = fill(
            "$name<br/><span style='color:$quiet'>$about</span>",
            name=field.name,
            quiet=QUIET,
            about=field_text(store, field),
        )
        lines.append([name, None if field.name in store.volume_grids else thumbnails(store, field, rows, named)])
    more = len(store.schema.fields) - len(lines)
    lines += [[f"and {more:,} more", None]] if more else []
    return table(lines, "ll", ["field", None]) if lines else None


def field_text(store: StoredVersion, field: Field) -> str:
    """What a row of a field is, such as ``96 x 96 x 3 (y, x, colour) of uint8``."""
    if field.name in store.volume_grids:
        return f"where the voxels of {store.volume_grids[field.name]} lay in their sources"
    if field.n_bytes is not None:
        return "bytes, as in the source"
    return f"{' x '.join(f'{n:,}' for n in field.shape)} ({', '.join(field.dimensions)}) of {field.encoding.dtype}"


def thumbnails(store: StoredVersion, field: Field, rows: Iterable[int], named: bool = False) -> Html:
    """Some rows of a field beside each other, each with its time, and, if `named`, with the id of its series.

    Cost: for each row, a chunk of the field is decoded, and the shard that it lies in is compared with its digest.
    """
    return fill("<div>$drawn</div>", drawn=[_one(store, field, row, named) for row in rows])


def _one(store: StoredVersion, field: Field, row: int, named: bool) -> Html:
    when = store.time.show(int(store.times(row, row + 1)[0]))
    try:
        drawn, about = _drawn(field, read_value(store, field, row), f"{field.name} at {when}")
    except (PayloadError, UsageError) as error:  # not an image, or no library to read it with: said in its place
        drawn, about = fill("<span>$error</span>", error=str(error)), ""
    return fill(
        "<figure style='$style'>$drawn<figcaption style='color:$quiet;font-size:smaller'>$id$when$comma$about"
        "</figcaption></figure>",
        style=BESIDE,
        drawn=drawn,
        quiet=QUIET,
        id=f"{store.ids[np.searchsorted(store.index.row_start, row, side='right') - 1]} " if named else None,
        when=when,
        comma=", " if about else None,
        about=about,
    )


def read_value(store: StoredVersion, field: Field, row: int) -> NDArray[Any] | None:
    """The value of a field in a row, encoded images decoded; None where it has none.

    Raises
    ------
    PayloadError
        If bytes are no image that can be read.
    UsageError
        If the library is not installed that reads it.
    """
    if not store.payload_digests(field.name, row, row + 1).any():
        return None
    if field.n_bytes is not None:
        return decode_image(store.read_bytes(field.name, row, row + 1)[0], _MOST_IMAGE_BYTES)
    value: NDArray[Any] = store.read_field(field.name, row, row + 1)[0]
    return value


def _drawn(field: Field, value: NDArray[Any] | None, label: str) -> tuple[Html, str]:
    """A value as an image, a slice or a line, and which part of it that is."""
    if value is None:
        return fill("<span style='color:$quiet'>no value</span>", quiet=QUIET), ""
    if value.ndim == 1:
        return line(value.astype(np.float64), _LINE_W, _LINE_H, label), ""
    drawn = drawn_slice(value, field.dimensions or _IMAGE_AXES[: value.ndim])
    return image(drawn.pixels, label), drawn.about


def spread_rows(first: int, stop: int, n: int = 3) -> list[int]:
    """The first, the last and some rows between them, evenly spread; all where there are no more."""
    rows: list[int] = np.unique(np.linspace(first, stop - 1, min(n, stop - first)).astype(np.int64)).tolist()
    return rows
