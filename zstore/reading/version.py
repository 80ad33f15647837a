"""One version of a store as it lies there: what it says of its rows, and the rows by number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from zstore.errors import CorruptionError, StoreError, UsageError
from zstore.format.layout import TIME, shard_key, shards_of
from zstore.format.rowarrays import DIGEST_BYTES, array_names, byte_names, origin_name
from zstore.format.trust import MOST_ROW_BYTES
from zstore.reading.described import DescribedVersion
from zstore.reading.eviction import Cache
from zstore.storage.protocol import Storage

Int64 = NDArray[np.int64]

_FEW_PIECES = 8
_TOGETHER_BYTES = 1 << 24


class StoredVersion(DescribedVersion):
    """One version of a store: what functions take that need its schema, index and objects, and no more.

    Parameters and errors are those of :class:`~zstore.reading.described.DescribedVersion`.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (type(self), self.storage, self.version, self.digest)  # another process opens it anew

    def with_cache(self, cache: Cache | str | Path | None = None) -> Self:
        """The same version, whose rows are read from a copy of its shards on the disk of this machine.

        Parameters
        ----------
        cache
            Folder of the copies, with how much it may hold if that is not the usual; None for :func:`cache_folder`.

        Returns
        -------
        This store itself, if it is on this machine.

        Notes
        -----
        A shard is fetched whole when a row of it is first read, compared with its digest, and kept until the cache
        needs its room: another epoch, or another process, reads the disk.
        """
        if not self.storage.remote:
            return self
        near = copy(self)
        near.objects = self.objects.with_cache(Cache.of(cache))
        return near

    def expect(self, channels: Sequence[str], starts: Int64, stops: Int64, times: bool = False) -> None:
        """Fetch what rows will be read from, ahead of use, on threads of its own; until others are expected.

        Parameters
        ----------
        channels
            Whose rows.
        starts, stops
            (part,) rows ``[start, stop)``, in the order in which they will be read.
        times
            Whether their times will be read too.

        Notes
        -----
        Does nothing without :meth:`with_cache`. At most 1 GiB is fetched and not read yet.
        """
        variables = [self.channel(name).variable for name in channels] + [TIME] * times
        self.objects.expect(self.shards_of(variables, starts, stops))

    def shards_of(self, variables: Sequence[str], starts: Int64, stops: Int64) -> Iterator[str]:
        """Keys of the shards of some variables over `row` that rows lie in, part by part; some more than once."""
        for start, stop in zip(starts, stops, strict=True):
            places = self.index.places(int(start), int(stop))
            for variable in variables:
                size, n_axes = self.objects.shard_rows(variable), len(self.objects.nodes[variable]["shape"])
                for low, high in places:
                    yield from (shard_key(variable, shard, n_axes) for shard in shards_of(low, high, size))

    def read(self, channel: str, start: int, stop: int) -> NDArray[Any]:
        """Rows ``[start, stop)`` of one channel as floats, NaN where missing.

        Raises
        ------
        CorruptionError
            If a shard differs from its digest.
        """
        wanted = self.channel(channel)
        return wanted.encoding.unpack(self.read_stored(channel, start, stop), wanted.dtype)

    def read_stored(self, channel: str, start: int, stop: int) -> NDArray[Any]:
        """Rows ``[start, stop)`` of one channel as they are stored: packed integers, codes or floats."""
        return self._stored(self.channel(channel).variable, start, stop)

    def read_field(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Rows ``[start, stop)`` of a field, (row, …), as they are stored; zeros where a row has no value.

        Floats that are all whole numbers from 0 to 255 are stored, and come, as uint8.

        Raises
        ------
        CorruptionError
            If a shard differs from its digest.

        Notes
        -----
        Cost: the chunks that hold these rows are decoded, see :attr:`Field.grid`; memory for the rows.
        """
        field = self.field(name)
        if field.n_bytes is not None:
            raise UsageError(f"field {name!r} of bytes as an array", expected="a field of one shape", fix="read_bytes")
        return self._stored(field.variable, start, stop)

    def byte_ranges(self, name: str, start: int, stop: int) -> NDArray[np.int64]:
        """(row, 2) first byte, and the byte behind the last one, of rows ``[start, stop)`` of a field of bytes.

        Raises
        ------
        CorruptionError
            If one lies outside the array.
        """
        field = self.field(name)
        _, first, size, _ = byte_names(field.variable)
        low, n_bytes = self._stored(first, start, stop), self._stored(size, start, stop)
        most = field.n_bytes or 0
        if np.any((low < 0) | (low > most) | (n_bytes < 0) | (n_bytes > MOST_ROW_BYTES) | (n_bytes > most - low)):
            raise CorruptionError(
                f"bytes of a row of {name!r} that lie outside the {most:,} there are",
                expected="rows inside the array",
                where=self.path,
                fix="restore the store from a copy, or ingest again",
            )
        return np.stack([low, low + n_bytes], axis=1)

    def read_bytes(self, name: str, start: int, stop: int) -> list[bytes]:
        """Rows ``[start, stop)`` of a field of bytes, such as encoded images as they were; empty where a row has none.

        Raises
        ------
        CorruptionError
            If a shard differs from its digest.

        Notes
        -----
        Cost: the bytes, and the chunks that they lie in. Neighbours are read together.
        """
        variable, ranges = self.field(name).variable, self.byte_ranges(name, start, stop)
        parts: list[bytes] = []
        for low, high, some in _joined(ranges):
            content = self.objects.stored(variable, low, high).tobytes() if high > low else b""
            parts += [content[first - low : last - low] for first, last in some]
        return parts

    def payload_digests(self, name: str, start: int, stop: int) -> NDArray[np.uint8]:
        """(row, 16) xxh3-128 of the bytes that rows ``[start, stop)`` of a field were read from; zeros for none."""
        return self._stored(array_names(self.field(name).variable)[1], start, stop)

    def payload_origins(self, name: str, start: int, stop: int) -> NDArray[np.uint8]:
        """(row, 16) what tells the files that rows ``[start, stop)`` of a field were read from; zeros for nothing."""
        field = self.field(name)
        if not field.origins:
            return np.zeros((stop - start, DIGEST_BYTES), np.uint8)
        return self._stored(origin_name(field.variable), start, stop)

    def times(self, start: int, stop: int) -> NDArray[np.int64]:
        """Times of rows ``[start, stop)`` as int64 in the units of ``schema.time``."""
        return self._stored(TIME, start, stop)

    def _stored(self, variable: str, start: int, stop: int) -> NDArray[Any]:
        """Stored values of rows ``[start, stop)``. Many short pieces are picked out of whole shards."""
        size, places = self.objects.shard_rows(variable), self.index.places(start, stop)
        if len(places) <= _FEW_PIECES:
            parts = [self.objects.stored(variable, low, high) for low, high in places]
            return parts[0] if len(parts) == 1 else np.concatenate([self.objects.empty(variable), *parts])
        lengths = np.array([high - low for low, high in places])
        place = np.repeat([low for low, _ in places], lengths)
        place += np.arange(len(place)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        found = self.objects.empty(variable, len(place))
        shard_of = place // size
        for shard in np.unique(shard_of).tolist():
            mine = shard_of == shard
            low, high = int(place[mine].min()), int(place[mine].max()) + 1
            found[mine] = self.objects.stored(variable, low, high)[place[mine] - low]
        return found


def _joined(ranges: NDArray[np.int64]) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
    """Neighbours that follow each other, some megabytes together: where they begin and end, and each of them."""
    some: list[tuple[int, int]] = []
    for low, high in ranges.tolist():
        if some and (low != some[-1][1] or high - some[0][0] > _TOGETHER_BYTES):
            yield some[0][0], some[-1][1], some
            some = []
        some.append((low, high))
    if some:
        yield some[0][0], some[-1][1], some


def _reopened(kind: type[StoredVersion], storage: Storage, version: int, digest: str) -> StoredVersion:
    """The same version in another process.

    Raises
    ------
    StoreError
        If the store was replaced, or restored from a copy and written to, meanwhile.
    """
    store = kind(storage, version)
    if store.digest != digest:
        raise StoreError(
            f"version {version} of {storage} is another one than when it was opened",
            expected="the rows that were there then",
            fix="open the store again",
        )
    return store
