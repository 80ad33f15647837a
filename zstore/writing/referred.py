"""What references to payloads lead to: values in the order of rows, from a source, or from the store that has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import xxhash
from numpy.typing import NDArray

from zstore.format.rowarrays import array_names, byte_names, origin_name
from zstore.format.schema import Field
from zstore.format.trust import MOST_ROW_BYTES
from zstore.reading.version import StoredVersion
from zstore.writing.sort import Spill
from zstore.writing.sources.payloads import (
    NO_ORIGIN,
    STORED,
    BadPayload,
    Outcome,
    Payload,
    PayloadError,
    PayloadFaultError,
    PayloadReader,
)

Value = TypeVar("Value")

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
            origins = self._origins(low, high)
            for value, digest, origin in zip(stored.astype(self.field.dtype, copy=False), known, origins, strict=True):
                yield Payload(value, digest.tobytes(), origin=origin.tobytes())

    def _bytes(self, positions: Sequence[int]) -> Iterator[Payload]:
        objects, (values, first, size, digests) = self.store.objects, byte_names(self.field.variable)
        for low, high in _stretches(positions, _ROWS):
            parts = [objects.stored(variable, low, high) for variable in (first, size, digests)]
            for begin, n_bytes, digest, origin in zip(*parts, self._origins(low, high), strict=True):
                value = objects.stored(values, int(begin), int(begin + n_bytes))
                yield Payload(value, digest.tobytes(), origin=origin.tobytes())

    def _origins(self, low: int, high: int) -> NDArray[np.uint8]:
        """(place, 16) origins of neighbours; zeros where the store has none."""
        if not self.field.origins:
            return np.zeros((high - low, len(NO_ORIGIN)), np.uint8)
        origins: NDArray[np.uint8] = self.store.objects.stored(origin_name(self.field.variable), low, high)
        return origins

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
    keep_bad
        Whether payloads that cannot be stored are told, so that their rows can be left out, instead of refused.
    """

    name: str
    reader: PayloadReader | None
    stored: StoredPayloads | None
    holders: Sequence[str]
    row_start: Any
    keep_bad: bool = False

    def of(self, references: References, start: int, stop: int) -> Iterator[Outcome]:
        """What comes of the payloads of rows ``[start, stop)``; neighbours in one holder are read together."""
        for first, last, holder, positions in self._runs(references, start, stop):
            if holder is None:
                yield from [None] * (last - first)
            else:
                yield from self._read(holder, positions)

    def sizes(self, references: References, start: int, stop: int) -> tuple[NDArray[np.int64], list[BadPayload]]:
        """(row,) bytes of the payloads of rows ``[start, stop)`` of a field of bytes; 0 where a row has none.

        Returns
        -------
        The bytes; and payloads that are not there, have no bytes, or too many, where those are kept.

        Raises
        ------
        PayloadFaultError
            If there is one, and they are not kept.
        """
        sizes, bad = np.zeros(stop - start, np.int64), []
        for first, last, holder, positions in self._runs(references, start, stop):
            if holder is None:
                continue
            if holder == STORED and self.stored is not None:
                sizes[first:last] = self.stored.n_bytes(positions)
                continue
            for row, n_bytes in enumerate(each_at(partial(self._source(holder).n_bytes, holder), positions), first):
                if isinstance(n_bytes, int) and not 0 < n_bytes <= MOST_ROW_BYTES:
                    n_bytes = PayloadError(f"a value of {n_bytes:,} bytes", f"1 to {MOST_ROW_BYTES:,}")
                if isinstance(n_bytes, PayloadError):
                    bad.append(self.bad(references, start + row, n_bytes))
                else:
                    sizes[row] = n_bytes
        return sizes, list(dict.fromkeys(bad))

    def fingerprint(self, references: References, start: int, stop: int, *about: object) -> str:
        """What tells, without reading them, whether the payloads of rows ``[start, stop)`` are those of a run before.

        Parameters
        ----------
        references, start, stop
            The rows.
        about
            What else the work on them depends on.
        """
        hasher = xxhash.xxh3_128(repr((self.name, start, stop, *about)).encode())
        for first, last, holder, positions in self._runs(references, start, stop):
            hasher.update(repr((first, last, holder, positions)).encode())
            if holder is not None and holder != STORED:
                hasher.update(b"".join(self._source(holder).origins(holder, positions)))
        return hasher.hexdigest()

    def bad(self, references: References, row: int, error: PayloadError) -> BadPayload:
        """The payload of a row, which cannot be stored.

        Raises
        ------
        PayloadFaultError
            If such are not kept.
        """
        codes, positions = references.read(row, row + 1)
        holder, position = self.holders[int(codes[0])], int(positions[0])
        place = self._reader(holder).show(holder, position)
        if self.keep_bad:
            return BadPayload(self.name, holder, position, place, error.reason, error.expected)
        series = int(np.searchsorted(self.row_start, row, side="right")) - 1
        time = references.time(row)
        raise PayloadFaultError(self.name, series, time, place, error.reason, error.expected) from error

    def _runs(self, references: References, start: int, stop: int) -> Iterator[tuple[int, int, str | None, list[int]]]:
        """Neighbours in one holder: their rows, counted from `start`, the holder, and their positions in there."""
        codes, positions = references.read(start, stop)
        borders = np.flatnonzero(np.diff(codes, prepend=-2, append=-2))
        for first, last in pairwise(borders.tolist()):
            holder = None if codes[first] < 0 else self.holders[int(codes[first])]
            yield first, last, holder, positions[first:last].tolist()

    def _read(self, holder: str, positions: Sequence[int]) -> Iterator[Payload | PayloadError]:
        try:
            reader = self._reader(holder)
        except PayloadError as error:
            return iter([error] * len(positions))
        return each_at(partial(reader.read, holder), positions)

    def _source(self, holder: str) -> PayloadReader:
        """What reads payloads of sources."""
        if self.reader is None:
            raise PayloadError(f"a payload in {holder!r}", "one that something reads")
        return self.reader

    def _reader(self, holder: str) -> PayloadReader | StoredPayloads:
        reader = self.stored if holder == STORED else self.reader
        if reader is None:
            raise PayloadError(f"a payload in {holder!r}", "one that something reads")
        return reader


def each_at(
    read: Callable[[Sequence[int]], Iterator[Value]], positions: Sequence[int]
) -> Iterator[Value | PayloadError]:
    """What is read at each position; behind one where nothing can be, reading begins anew."""
    done, failed = 0, dict[int, PayloadError]()
    while done < len(positions):
        begun = done
        try:
            for value in read(positions[done:]):
                yield value
                done += 1
            return
        except PayloadError as error:
            alone = error.whole or done == begun == len(positions) - 1
            outcome = error if alone else _alone(read, positions[done])
        yield outcome
        done += 1
        if isinstance(outcome, PayloadError):
            failed[positions[done - 1]] = outcome
            while done < len(positions) and (outcome.whole or positions[done] in failed):
                yield failed.get(positions[done], outcome)
                done += 1


def _alone(read: Callable[[Sequence[int]], Iterator[Value]], position: int) -> Value | PayloadError:
    """What is read at one position, so that what is wrong at another is not told of it."""
    try:
        return next(read([position]))
    except PayloadError as error:
        return error
