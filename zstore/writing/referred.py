"""What references to payloads lead to: values in the order of rows, from a source, or from the store that has them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.format.rowarrays import array_names, byte_names
from zstore.format.schema import Field
from zstore.format.trust import MOST_ROW_BYTES
from zstore.reading.version import StoredVersion
from zstore.writing.sort import Spill
from zstore.writing.sources.payloads import (
    STORED,
    Payload,
    PayloadError,
    PayloadFaultError,
    PayloadLook,
    PayloadReader,
)

_ROWS = 1 << 10  # whose places are read together


@dataclass(frozen=True)
class References:
    """Where the payloads of one field lie, for the rows of a shard of channels, on scratch space.

    Parameters
    ----------
    spill
        Holders and positions of all fields.
    column
        Of the spill: the holders of this field, whose positions are behind them.
    start
        Number of the first row.
    """

    spill: Spill
    column: int
    start: int

    def read(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(row,) number of the holder, -1 where a row has no payload, and position in it, of rows ``[start, stop)``."""
        low, high = start - self.start, stop - self.start
        holders, positions = (self.spill.read(column, low, high) for column in (self.column, self.column + 1))
        codes = np.where(holders < 0, -1, holders).astype(np.int64)
        return codes, np.where(codes < 0, 0, positions).astype(np.int64)

    def time(self, row: int) -> int:
        """Time of a row."""
        return int(self.spill.read(0, row - self.start, row - self.start + 1)[0])


@dataclass(frozen=True)
class StoredPayloads:
    """Payloads that a store has already, by their places in its arrays.

    Parameters
    ----------
    store
        Which.
    field
        Of its fields, which.
    """

    store: StoredVersion
    field: Field

    def read(self, holder: str, positions: Sequence[int]) -> Iterator[Payload]:
        """As of a :class:`PayloadReader`: neighbours are read together, a chunk at a time."""
        if self.field.n_bytes is not None:
            yield from self._bytes(positions)
            return
        values, digests = array_names(self.field.variable)
        most = self.field.grid.chunk_rows if self.field.grid is not None else 1
        for low, high in _stretches(positions, most):
            stored = self.store.objects.stored(values, low, high)
            known = self.store.objects.stored(digests, low, high)
            for value, digest in zip(stored.astype(self.field.dtype, copy=False), known, strict=True):
                yield Payload(value, digest.tobytes())

    def _bytes(self, positions: Sequence[int]) -> Iterator[Payload]:
        objects, (values, first, size, digests) = self.store.objects, byte_names(self.field.variable)
        for low, high in _stretches(positions, _ROWS):
            parts = [objects.stored(variable, low, high) for variable in (first, size, digests)]
            for begin, n_bytes, digest in zip(*parts, strict=True):
                yield Payload(objects.stored(values, int(begin), int(begin + n_bytes)), digest.tobytes())

    def n_bytes(self, positions: Sequence[int]) -> list[int]:
        """Bytes of each value of a field of bytes."""
        size = byte_names(self.field.variable)[2]
        parts = [self.store.objects.stored(size, low, high) for low, high in _stretches(positions, _ROWS)]
        return [int(n) for part in parts for n in part]

    def show(self, holder: str, position: int) -> str:
        """Where a payload lies, for messages."""
        return f"{self.store.path}, {self.field.variable}, place {position:,}"


def _stretches(positions: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    """Positions as ranges of neighbours that ascend, at most so long, in their order."""
    low = high = positions[0]
    for position in positions:
        if position != high or high - low == most:
            if high > low:
                yield low, high
            low = high = position
        high += 1
    yield low, high


@dataclass(frozen=True)
class Payloads:
    """Payloads of one field, row by row.

    Parameters
    ----------
    name
        Of the field.
    reader
        Reads those of sources; None where there are none.
    stored
        Reads those that a store has already; None where there is none.
    holders
        (holder,) names that references have as numbers.
    row_start
        (series + 1,) first row of each series.
    """

    name: str
    reader: PayloadReader | None
    stored: StoredPayloads | None
    holders: Sequence[str]
    row_start: Any

    def of(self, references: References, start: int, stop: int) -> Iterator[Payload | None]:
        """The payloads of rows ``[start, stop)``; None where a row has none.

        Neighbours in one holder are read together.

        Raises
        ------
        PayloadFaultError
            If one cannot be read.
        """
        codes, positions = references.read(start, stop)
        borders = np.flatnonzero(np.diff(codes, prepend=-2, append=-2))
        for first, last in pairwise(borders.tolist()):
            if codes[first] < 0:
                yield from [None] * (last - first)
                continue
            row = start + first
            try:
                holder = self.holders[int(codes[first])]
                for payload in self._reader(holder).read(holder, positions[first:last].tolist()):
                    yield payload
                    row += 1
            except PayloadError as error:
                raise self.fault(references, min(row, start + last - 1), error) from error

    def look(self, references: References, start: int, stop: int) -> PayloadLook | None:
        """What the first payload of rows ``[start, stop)`` will be; None where there is none.

        Raises
        ------
        PayloadFaultError
            If there is none where one should be.
        """
        codes, positions = references.read(start, stop)
        rows = np.flatnonzero(codes >= 0)
        if not len(rows):
            return None
        row = int(rows[0])
        try:
            holder = self.holders[int(codes[row])]
            return self._source(holder).look(holder, int(positions[row]))
        except PayloadError as error:
            raise self.fault(references, start + row, error) from error

    def sizes(self, references: References, start: int, stop: int) -> NDArray[np.int64]:
        """(row,) bytes of the payloads of rows ``[start, stop)`` of a field of bytes; 0 where a row has none.

        Raises
        ------
        PayloadFaultError
            If one is not there, has no bytes, or too many.
        """
        codes, positions = references.read(start, stop)
        sizes = np.zeros(len(codes), np.int64)
        borders = np.flatnonzero(np.diff(codes, prepend=-2, append=-2))
        for first, last in pairwise(borders.tolist()):
            if codes[first] < 0:
                continue
            holder, some = self.holders[int(codes[first])], positions[first:last].tolist()
            if holder == STORED and self.stored is not None:
                sizes[first:last] = self.stored.n_bytes(some)
                continue
            for row, position in enumerate(some, first):
                try:
                    n_bytes = self._source(holder).look(holder, position).n_bytes
                    if not 0 < n_bytes <= MOST_ROW_BYTES:
                        raise PayloadError(f"a value of {n_bytes:,} bytes", f"1 to {MOST_ROW_BYTES:,}")
                except PayloadError as error:
                    raise self.fault(references, start + row, error) from error
                sizes[row] = n_bytes
        return sizes

    def _source(self, holder: str) -> PayloadReader:
        """What reads payloads of sources."""
        if self.reader is None:
            raise PayloadError(f"a payload in {holder!r}", "one that something reads")
        return self.reader

    def fault(self, references: References, row: int, error: PayloadError) -> PayloadFaultError:
        """What is wrong with the payload of a row."""
        codes, positions = references.read(row, row + 1)
        holder = self.holders[int(codes[0])]
        place = self._reader(holder).show(holder, int(positions[0]))
        series = int(np.searchsorted(self.row_start, row, side="right")) - 1
        return PayloadFaultError(self.name, series, references.time(row), place, error.reason, error.expected)

    def _reader(self, holder: str) -> PayloadReader | StoredPayloads:
        reader = self.stored if holder == STORED else self.reader
        if reader is None:
            raise PayloadError(f"a payload in {holder!r}", "one that something reads")
        return reader
