"""Rows of a series as the command line shows them: CSV, with what fields hold in a few words."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.format.payloads.error import PayloadError
from zstore.format.payloads.images import look_image
from zstore.format.payloads.png import SIGNATURE
from zstore.format.schema import Field
from zstore.reading.columns import are_dates, free_name, read_codes, to_words, written_times
from zstore.reading.store import Store
from zstore.text import shown

_BLOCK_ROWS, _BLOCK_BYTES = 1 << 14, 1 << 24
_MOST_IMAGE_BYTES = 1 << 30


def shown_rows(store: Store, first: int, last: int) -> Iterator[str]:
    """Lines of CSV: a header, then rows ``[first, last)`` of a series.

    Parameters
    ----------
    store, first, last
        Which rows.

    Yields
    ------
    Times, channels as the source wrote them, as far as the store keeps that, and of each field its dtype, shape, lowest
    and highest value; empty where missing.

    Notes
    -----
    Cost: fields are decoded, so a line comes when its block is. Memory: 16,384 rows, or 16 MB of a field.
    """
    fields = store.schema.fields
    names = [free_name("time", (*store.channels, *store.fields)), *store.channels, *store.fields]
    yield ",".join(csv_cell(shown(name, None)) for name in names)
    dates, widest = are_dates(store), max((field.row_bytes for field in fields if field.n_bytes is None), default=1)
    step = max(min(_BLOCK_ROWS, _BLOCK_BYTES // widest), 1)
    for start in range(first, last, step):
        stop = min(start + step, last)
        columns = [shown_values(store, name, start, stop) for name in store.channels]
        columns += [_field_cells(store, field, start, stop) for field in fields]
        times = written_times(store.times(start, stop), store.time, dates)
        yield from map(",".join, zip(times, *columns, strict=True))


def shown_values(store: Store, name: str, start: int, stop: int) -> list[str]:
    """Values of a channel as the source wrote them: empty where missing, words on one line."""
    channel = store.channel(name)
    if channel.kind == "category":
        words = to_words(read_codes(store, channel, start, stop), channel.categories)
        return ["" if word is None else csv_cell(shown(word, None)) for word in words.tolist()]
    values, decimals = store.read(name, start, stop), channel.encoding.decimals
    if decimals is not None:
        return ["" if value != value else f"{value:.{decimals}f}" for value in values.astype("float64").tolist()]
    return ["" if value != value else str(value) for value in values]


def _field_cells(store: Store, field: Field, start: int, stop: int) -> list[str]:
    """What a field holds in some rows; empty where it has no value."""
    present: list[bool] = np.any(store.payload_digests(field.name, start, stop), axis=1).tolist()
    if field.n_bytes is not None:
        cells = map(_image_cell, store.read_bytes(field.name, start, stop))
    else:
        cells = map(partial(_value_cell, field), store.read_field(field.name, start, stop))
    return [cell if known else "" for cell, known in zip(cells, present, strict=True)]


def _value_cell(field: Field, value: NDArray[Any]) -> str:
    """Such as ``uint8 96x96x3 0..255``: the dtype that is stored, the shape, the lowest and the highest value."""
    low, high = np.fmin.reduce(value, axis=None), np.fmax.reduce(value, axis=None)
    ends = f"{low:.6g}..{high:.6g}" if value.dtype.kind == "f" else f"{int(low)}..{int(high)}"
    return f"{value.dtype} {'x'.join(map(str, field.shape))} {ends}"


def _image_cell(content: bytes) -> str:
    """Such as ``PNG 60x80x3 1024 bytes``."""
    try:
        look = look_image(content, _MOST_IMAGE_BYTES)
    except PayloadError:
        return f"{len(content)} bytes"  # which are no image
    assert look is not None
    return f"{'PNG' if content.startswith(SIGNATURE) else 'JPEG'} {'x'.join(map(str, look.shape))} {len(content)} bytes"


def csv_cell(text: str) -> str:
    """A text as one CSV field."""
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\r\n') else text
