"""Payloads of HDF5: rows of data sets as arrays, or as the bytes of encoded images, read along chunks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from zstore.errors import SourceError
from zstore.format.payloads.images import decode_image
from zstore.storage.file import File
from zstore.storage.protocol import Storage
from zstore.writing.sources.hdf5.episodes import FieldData
from zstore.writing.sources.hdf5.layout import read_rows
from zstore.writing.sources.hdf5.library import opened
from zstore.writing.sources.hdf5.objects import DataSet, ObjectError, find_data
from zstore.writing.sources.payloads import NO_ORIGIN, Payload, PayloadError, PayloadLook

MOST_BYTES = 1 << 30
_AT_ONCE_BYTES = 1 << 24
_MOST_CAMERAS = 1000
_TRIED = 16  # frames that tell which row of lengths is that of a camera


@dataclass(frozen=True)
class ArrayReader:
    """Rows of a data set as arrays, see :class:`~zstore.writing.sources.payloads.PayloadReader`.

    Parameters
    ----------
    storages
        Where files lie.
    path
        Of the data set, from the group of the episode, or, with a slash before it, from the root.
    most_bytes
        Bytes of a payload at most.
    """

    storages: tuple[Storage, ...]
    path: str
    most_bytes: int = MOST_BYTES

    def look(self, holder: str, position: int) -> PayloadLook:
        """Shape and type of a row."""
        with _opened(self.storages, holder) as (root, file, group):
            data = self._data(root, file, group)
            _check(data, position)
            dtype = data.dtype.newbyteorder("=")
            return PayloadLook(data.shape[1:], dtype.name, data.row_bytes)

    def n_bytes(self, holder: str, positions: Sequence[int]) -> Iterator[int]:
        """All have as many."""
        yield from [self.look(holder, position).n_bytes for position in positions]

    def read(self, holder: str, positions: Sequence[int]) -> Iterator[Payload]:
        """Rows in the order asked for, neighbours in one go."""
        with _opened(self.storages, holder) as (root, file, group):
            data = self._data(root, file, group)
            for row in _rows(data, positions):
                octets = np.ascontiguousarray(row)
                digest = xxhash.xxh3_128(octets.data).digest()
                yield Payload(octets.astype(octets.dtype.newbyteorder("="), copy=False), digest)

    def origins(self, holder: str, positions: Sequence[int]) -> list[bytes]:
        """Nothing: the ledger of sources knows every byte."""
        return [NO_ORIGIN] * len(positions)

    def show(self, holder: str, position: int) -> str:
        """File, data set and row."""
        return _show(holder, self.path, position)

    def to_json(self) -> dict[str, Any]:
        """What it reads."""
        return {"kind": "hdf5", "data": self.path}

    def _data(self, root: Any, file: File, group: str) -> DataSet:
        data = find_data(root, self.path, group, file.n_bytes)
        if data.row_bytes > self.most_bytes:
            raise PayloadError(f"{data.row_bytes:,} bytes in a row of {data.path}", f"at most {self.most_bytes:,}")
        return data


@dataclass(frozen=True)
class EncodedReader:
    """Images as their bytes, which lie in rows of equal length with zeros behind them.

    Parameters
    ----------
    storages, path, most_bytes
        As for :class:`ArrayReader`.
    lengths
        (camera, row) data set of the bytes of each image. It does not say which row is whose: the zeros do.
    """

    storages: tuple[Storage, ...]
    path: str
    lengths: str
    most_bytes: int = MOST_BYTES

    def look(self, holder: str, position: int) -> PayloadLook:
        """Bytes of an image."""
        with _opened(self.storages, holder) as (root, file, group):
            data, lengths = self._data(root, file, group)
            _check(data, position)
            return PayloadLook(None, "uint8", int(lengths[position]))

    def n_bytes(self, holder: str, positions: Sequence[int]) -> Iterator[int]:
        """Bytes of images, for which the file is opened once."""
        with _opened(self.storages, holder) as (root, file, group):
            data, lengths = self._data(root, file, group)
            for position in positions:
                _check(data, position)
                yield int(lengths[position])

    def read(self, holder: str, positions: Sequence[int]) -> Iterator[Payload]:
        """Images in the order asked for, each compared with its length, and decoded to prove that it is whole."""
        with _opened(self.storages, holder) as (root, file, group):
            data, lengths = self._data(root, file, group)
            for position, row in zip(positions, _rows(data, positions), strict=True):
                octets = _image(row, int(lengths[position]), f"{data.path} row {position:,}", self.most_bytes)
                yield Payload(octets, xxhash.xxh3_128(octets.data).digest())

    def origins(self, holder: str, positions: Sequence[int]) -> list[bytes]:
        """Nothing: the ledger of sources knows every byte."""
        return [NO_ORIGIN] * len(positions)

    def show(self, holder: str, position: int) -> str:
        """File, data set and row."""
        return _show(holder, self.path, position)

    def to_json(self) -> dict[str, Any]:
        """What it reads."""
        return {"kind": "hdf5", "data": self.path, "lengths": self.lengths}

    def _data(self, root: Any, file: File, group: str) -> tuple[DataSet, NDArray[np.int64]]:
        """The images, and the bytes of each."""
        data = find_data(root, self.path, group, file.n_bytes)
        if len(data.shape) != 2 or data.dtype != np.uint8:
            raise PayloadError(f"{data.dtype} of shape {data.shape} in {data.path}", "(row, byte) bytes of images")
        if data.row_bytes > self.most_bytes:
            raise PayloadError(f"{data.row_bytes:,} bytes in a row of {data.path}", f"at most {self.most_bytes:,}")
        table = find_data(root, self.lengths, group, file.n_bytes)
        n_cameras = table.shape[0] if len(table.shape) == 2 else 0
        if not 0 < n_cameras <= _MOST_CAMERAS or table.shape[1] != data.n_rows or table.dtype.kind not in "iuf":
            raise PayloadError(
                f"{table.dtype} of shape {table.shape} in {table.path}", f"(camera, {data.n_rows:,}) lengths"
            )
        lengths = read_rows(table, None, 0, n_cameras).astype(np.float64)
        if not ((lengths >= 0) & (lengths <= data.shape[1]) & (lengths == np.rint(lengths))).all():
            raise PayloadError(f"lengths in {table.path}", f"whole numbers, up to {data.shape[1]:,}")
        tried = np.unique(np.linspace(0, data.n_rows - 1, _TRIED, dtype=np.int64)).tolist() if data.n_rows else []
        ends = {position: end for position in tried if (end := _end_at(data, position)) is not None}
        n_alike = [sum(int(camera[position] == end) for position, end in ends.items()) for camera in lengths]
        best = int(np.argmax(n_alike))
        if 2 * n_alike[best] <= len(ends) and tried:  # some images may be damaged, but not most
            reason = f"no row of {table.path} has the lengths of {data.path}"
            raise PayloadError(reason, "the bytes of each of its images", whole=True)
        return data, lengths[best].astype(np.int64)


def reader_of(field: FieldData, storages: tuple[Storage, ...]) -> ArrayReader | EncodedReader:
    """What reads a field."""
    if field.way.lengths is None:
        return ArrayReader(storages, field.way.data.path)
    return EncodedReader(storages, field.way.data.path, field.way.lengths)


def _show(holder: str, path: str, position: int) -> str:
    name, group = json.loads(holder)
    return f"{name}: {path if path.startswith('/') else group.rstrip('/') + '/' + path}, row {position:,}"


@contextmanager
def _opened(storages: tuple[Storage, ...], holder: str) -> Iterator[tuple[Any, File, str]]:
    """The file of a holder, open, and its group; what is wrong with it as a `PayloadError`."""
    name, group = json.loads(holder)
    try:
        file = _file(storages, name)
        with opened(file) as root:
            yield root, file, group
    except ObjectError as error:
        raise PayloadError(error.reason, error.expected) from error
    except SourceError as error:
        raise PayloadError(f"{error.what} in {name}", error.expected, whole=True) from error


def _file(storages: tuple[Storage, ...], name: str) -> File:
    """A file by its name, in its present state."""
    for storage in storages:
        remote = "://" in str(storage)
        if remote and not name.startswith(f"{storage}/"):
            continue
        key = name[len(str(storage)) + 1 :] if remote else name
        state = storage.state(key)
        if state is not None:
            return File(storage, key, *state)
    raise PayloadError(f"no file {name}", "the file that the rows came from", whole=True)


def _check(data: DataSet, position: int) -> None:
    if not 0 <= position < data.n_rows:
        raise PayloadError(f"row {position:,} of {data.path}, which has {data.n_rows:,}", "a row that is there")


def _rows(data: DataSet, positions: Sequence[int]) -> Iterator[NDArray[Any]]:
    """Some rows, in the order asked for; those that follow each other closely are read at once."""
    most = max(_AT_ONCE_BYTES // max(data.row_bytes, 1), 1)
    reach = max(data.chunk_rows or 1, 1)
    number = 0
    while number < len(positions):
        first = last = positions[number]
        stop = number + 1
        while stop < len(positions) and last < positions[stop] <= last + reach and positions[stop] - first < most:
            last = positions[stop]
            stop += 1
        _check(data, first)
        _check(data, last)
        try:
            read = read_rows(data, None, first, last + 1)
        except ObjectError:  # of one of them
            yield from (read_rows(data, None, position, position + 1)[0] for position in positions[number:stop])
        else:
            yield from (read[position - first] for position in positions[number:stop])
        number = stop


def _end_at(data: DataSet, position: int) -> int | None:
    """Bytes of the image at a position; None where it cannot be read."""
    try:
        return _end(read_rows(data, None, position, position + 1)[0])
    except ObjectError:
        return None


def _end(row: NDArray[np.uint8]) -> int:
    """Bytes of a row up to the zeros behind."""
    known = np.flatnonzero(row)
    return int(known[-1]) + 1 if len(known) else 0


def _image(row: NDArray[np.uint8], n_bytes: int, where: str, most_bytes: int) -> NDArray[np.uint8]:
    """The bytes of an image, after it was proved that they can be decoded."""
    end = _end(row)
    if not n_bytes or not end:
        raise PayloadError(f"no image in {where}", "its bytes")
    if end > n_bytes:
        raise PayloadError(f"bytes behind the {n_bytes:,} of the image in {where}", "zeros")
    octets = row[:n_bytes].copy()
    try:
        decode_image(octets.tobytes(), most_bytes)
    except PayloadError as error:
        raise PayloadError(f"{error.reason} in {where}", error.expected) from error
    return octets
