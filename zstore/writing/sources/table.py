"""What every kind of source hands on: blocks of bytes going in, typed columns coming out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zstore.format.storage import File
from zstore.writing.sources.times import TimeSpec


@dataclass(frozen=True)
class Source:
    """One file as the user named it.

    Parameters
    ----------
    name
        Its path, for messages and the receipt.
    file
        Where its plain UTF-8 bytes lie: itself, or a copy in the scratch folder.
    header
        Its column names, in its own order.
    body
        Byte of the first record after the header.
    quoted
        Whether its first bytes hold a quote.
    id
        Id of all its rows, where that is taken from its path; else None.
    """

    name: str
    file: File
    header: tuple[str, ...]
    body: int
    quoted: bool
    id: str | None = None


@dataclass(frozen=True)
class Block:
    """A record-aligned byte range ``[start, stop)`` of a source."""

    source: Source
    start: int
    stop: int


@dataclass(frozen=True)
class ChannelSpec:
    """One channel of the store to be.

    Parameters
    ----------
    column
        Column of the source; in a wide table of series, the name of the one channel.
    name
        Its name in the store.
    text
        Whether it holds categories.
    units
        Units to record, if any.
    """

    column: str
    name: str
    text: bool = False
    units: str | None = None


@dataclass(frozen=True)
class TableSpec:
    """What the columns mean, decided once before any block is read.

    Parameters
    ----------
    delimiter
        Between fields.
    decimal
        ``.`` or ``,``.
    id
        Id column; None when all rows of a file are one series.
    time
        How times are written.
    channels
        The channels, in the store's order.
    series
        In a wide table of series, its columns of series; else empty.
    missing
        Texts that mean a missing value. Never applied to ids.
    largest
        Largest number that is stored.
    """

    delimiter: str
    decimal: str
    id: str | None
    time: TimeSpec
    channels: tuple[ChannelSpec, ...]
    series: tuple[str, ...]
    missing: tuple[str, ...]
    largest: float

    @property
    def numbers(self) -> tuple[str, ...]:
        """Columns of numbers."""
        return self.series or tuple(channel.column for channel in self.channels if not channel.text)

    @property
    def texts(self) -> tuple[str, ...]:
        """Columns of categories."""
        return () if self.series else tuple(channel.column for channel in self.channels if channel.text)

    @property
    def needed(self) -> list[str]:
        """Columns that are read."""
        return list(dict.fromkeys([*([self.id] if self.id else []), *self.time.columns, *self.numbers, *self.texts]))


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
class Categories:
    """A column of categories.

    Parameters
    ----------
    codes
        (row,) int32 position in `words`; -1 where missing.
    words
        (word,) distinct texts.
    """

    codes: NDArray[np.int32]
    words: pa.Array


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
        Per channel (row,) float64 with NaN for missing, or categories.
    bad
        Records left out.
    n_records
        Records read, bad ones included. In a wide table of series each makes a row per series.
    """

    ids: pa.Array
    codes: NDArray[np.int32]
    times: NDArray[np.int64]
    channels: list[NDArray[np.float64] | Categories]
    bad: tuple[BadRow, ...]
    n_records: int

    @property
    def n_rows(self) -> int:
        """Rows read."""
        return len(self.times)
