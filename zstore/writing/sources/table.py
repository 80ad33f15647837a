"""What every kind of source hands on: blocks of bytes going in, typed columns coming out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


@dataclass(frozen=True)
class Source:
    """One file as the user named it.

    Parameters
    ----------
    name
        Its path, for messages and the receipt.
    path
        Where its plain bytes lie: itself, or an inflated copy in the scratch folder.
    header
        Its column names, in its own order.
    body
        Byte of the first record after the header.
    quoted
        Whether its first bytes hold a quote.
    """

    name: str
    path: Path
    header: tuple[str, ...]
    body: int
    quoted: bool


@dataclass(frozen=True)
class Block:
    """A record-aligned byte range ``[start, stop)`` of a source."""

    source: Source
    start: int
    stop: int


@dataclass(frozen=True)
class TableSpec:
    """What the columns mean, decided once before any block is read.

    Parameters
    ----------
    delimiter
        Between fields.
    id
        Id column; None when all rows are one series.
    time
        Time column.
    time_unit
        ``s``, ``ms``, ``us`` or ``ns`` for ISO times; None for plain integer steps.
    channels
        Channel columns, in the store's order.
    missing
        Texts that mean a missing number. Never applied to ids.
    """

    delimiter: str
    id: str | None
    time: str
    time_unit: str | None
    channels: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def needed(self) -> list[str]:
        """Columns that are read."""
        return [*([self.id] if self.id else []), self.time, *self.channels]


@dataclass(frozen=True)
class BadRow:
    """A record that cannot be stored as written."""

    source: str
    line: int
    byte: int
    reason: str
    expected: str
    raw: str


@dataclass(frozen=True)
class Columns:
    """The typed columns of one block, in source order.

    Parameters
    ----------
    ids
        (id,) distinct ids, sorted by their UTF-8 bytes.
    codes
        (row,) int32 position in `ids`.
    times
        (row,) int64.
    channels
        One (row,) float64 array per channel; NaN is missing.
    bad
        Records left out.
    """

    ids: pa.Array
    codes: NDArray[np.int32]
    times: NDArray[np.int64]
    channels: list[NDArray[np.float64]]
    bad: tuple[BadRow, ...]

    @property
    def n_rows(self) -> int:
        """Rows read."""
        return len(self.times)


def as_numpy(column: Any, dtype: str) -> NDArray[Any]:
    """A numeric Arrow column as numpy, without a copy unless values are missing; those become NaN.

    Arrow's own ``to_numpy`` imports pandas, which takes longer than parsing a small file.
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):  # no chunk at all
        return np.zeros(0, dtype)
    validity, values = array.buffers()
    found = np.frombuffer(values, dtype, len(array), array.offset * np.dtype(dtype).itemsize)
    if array.null_count:
        known = np.unpackbits(np.frombuffer(validity, np.uint8), bitorder="little")
        found = found.copy()
        found[known[array.offset : array.offset + len(array)] == 0] = np.nan
    return found


def text_array(texts: Sequence[str]) -> Any:
    """An Arrow array of texts, made without ``pa.array``, which imports pandas (a quarter of a second)."""
    encoded = [text.encode() for text in texts]
    offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    return pa.StringArray.from_buffers(len(texts), pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded)))
