"""h5py, which is an extra, and files as it reads them: through our own reads, never by a path of its choice."""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from io import SEEK_CUR, SEEK_SET
from typing import Any

from zstore.errors import SourceError, UsageError
from zstore.storage.file import File
from zstore.writing.sources.files import read_source
from zstore.writing.sources.typed.damage import damage_told

KIND = "HDF5 file"
_PAGE_BYTES = 1 << 16
_MOST_PAGES = 32
_SMALL = 1 << 14  # bytes of a read that is served from pages
_HEAP = b"GCOL\x01\0\0\0"  # of texts of variable length: then its bytes, then objects
_HEAP_BYTES = len(_HEAP) + 8
_OBJECT = struct.Struct("<H6xQ")  # index, 0 of free space, and bytes; those of free space with this
_CACHE_BYTES = 1 << 24  # of decoded chunks, for each data set


def h5py_of(what: object) -> Any:
    """The package h5py.

    Raises
    ------
    UsageError
        If it is not installed.
    """
    try:
        import h5py  # it takes 100 ms, and is an extra
    except ImportError as error:
        raise UsageError(
            f"no way to read {what} ({error})", expected="h5py", fix="pip install 'zstore[hdf5]'"
        ) from error
    return h5py


@contextmanager
def opened(file: File, cache_bytes: int = _CACHE_BYTES) -> Iterator[Any]:
    """A file, opened to be read within a ``with``: the handle is never kept, so no fork and no pickle has it.

    Parameters
    ----------
    file
        Where it is; a file that changes meanwhile is refused.
    cache_bytes
        Bytes of decoded chunks that are kept in memory, for each data set.

    Raises
    ------
    SourceError
        If it is damaged, or cannot be read; also by what is read of it within the ``with``.
    """
    h5py, octets = h5py_of(file), _Bytes(file)
    with damage_told(str(file), KIND):
        try:
            with h5py.File(octets, "r", rdcc_nbytes=cache_bytes) as handle:
                handle.known_groups = {}  # by path, for those who find objects: most lie in the same few groups
                yield handle
            if octets.failure is not None:
                raise octets.failure
        except (OSError, RuntimeError, KeyError) as error:  # what h5py says of damage
            if octets.failure is not None:  # and of this, in its own words
                raise octets.failure from error
            raise ValueError(str(error)) from error


class _Bytes:
    """A file for HDF5: small reads, which metadata need many of, are served from a few pages."""

    def __init__(self, file: File) -> None:
        self._file, self._position = file, 0
        self._pages: OrderedDict[int, bytes] = OrderedDict()
        self.failure: SourceError | None = None
        """Why the file could not be read, if it could not."""

    def seek(self, position: int, whence: int = SEEK_SET) -> int:
        """Go to a position."""
        base = {SEEK_SET: 0, SEEK_CUR: self._position}.get(whence, self._file.n_bytes)
        self._position = base + position
        return self._position

    def tell(self) -> int:
        """The position."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, as far as there are bytes."""
        start, stop = self._position, min(self._position + len(buffer), self._file.n_bytes)
        if stop <= start:
            return 0
        content = self._from_pages(start, stop) if stop - start <= _SMALL else self._read(start, stop)
        if content[:_HEAP_BYTES].startswith(_HEAP):
            self._check_heap(start)
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)

    def read(self, n_bytes: int = -1) -> bytes:
        """The next bytes. By this h5py knows a file."""
        stop = self._file.n_bytes if n_bytes < 0 else min(self._position + n_bytes, self._file.n_bytes)
        content = self._read(self._position, stop) if stop > self._position else b""
        self._position += len(content)
        return content

    def flush(self) -> None:
        """Nothing is written."""

    def _from_pages(self, start: int, stop: int) -> bytes:
        first, last = start // _PAGE_BYTES, (stop - 1) // _PAGE_BYTES
        content = b"".join(self._page(number) for number in range(first, last + 1))
        return content[start - first * _PAGE_BYTES : stop - first * _PAGE_BYTES]

    def _page(self, number: int) -> bytes:
        if number in self._pages:
            self._pages.move_to_end(number)
            return self._pages[number]
        start = number * _PAGE_BYTES
        page = self._read(start, min(start + _PAGE_BYTES, self._file.n_bytes))
        self._pages[number] = page
        if len(self._pages) > _MOST_PAGES:
            self._pages.popitem(last=False)
        return page

    def _check_heap(self, start: int) -> None:
        """Refuse a heap of texts with an object of no bytes among its free ones, on which HDF5 would read for ever."""
        if start + _HEAP_BYTES > self._file.n_bytes:  # of which HDF5 says that it ends too early
            return
        (n_bytes,) = struct.unpack("<Q", self._from_pages(start + len(_HEAP), start + _HEAP_BYTES))
        at, stop = start + _HEAP_BYTES, min(start + n_bytes, self._file.n_bytes)
        while at + _OBJECT.size <= stop:
            index, size = _OBJECT.unpack(self._from_pages(at, at + _OBJECT.size))
            if not index and not size:
                self.failure = SourceError(
                    f"damage in a heap of texts at byte {start:,}",
                    expected="bytes as they were written",
                    where=str(self._file),
                )
                raise self.failure
            at += _OBJECT.size + -(-size // 8) * 8 if index else size

    def _read(self, start: int, stop: int) -> bytes:
        try:
            return read_source(self._file, start, stop)
        except SourceError as error:
            self.failure = error
            raise
