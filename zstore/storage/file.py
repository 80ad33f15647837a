"""One object of known length, such as a source, as a file to read from."""

from __future__ import annotations

import errno
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from zstore.storage.protocol import Storage

_PIECE_BYTES = 1 << 22


@dataclass(frozen=True)
class File:
    """One object of known length, such as a source.

    Parameters
    ----------
    storage, key
        Where it is.
    n_bytes
        Its length.
    etag
        Which state of the object is meant, from :meth:`Storage.state`; None for any.
    """

    storage: Storage
    key: str
    n_bytes: int
    etag: str | None = None

    def __str__(self) -> str:
        return f"{self.storage}/{self.key}" if "://" in str(self.storage) else self.key

    @property
    def path(self) -> PurePosixPath:
        """Its key as a path, for name and suffix."""
        return PurePosixPath(Path(self.key).as_posix())

    def read(self, start: int = 0, stop: int | None = None) -> bytes:
        """The bytes ``[start, stop)``; raises as :meth:`Storage.read`, and where there are fewer of them."""
        stop = self.n_bytes if stop is None else min(stop, self.n_bytes)
        content = self.storage.read(self.key, start, stop, self.etag) if stop > start else b""
        if len(content) < stop - start:
            raise OSError(errno.ESTALE, f"it ends after {start + len(content):,} of {self.n_bytes:,} bytes", str(self))
        return content

    def check(self) -> None:
        """Raise an `OSError` (ESTALE) if the object is no longer in the state that is meant."""
        if self.etag is not None and self.storage.state(self.key) != (self.n_bytes, self.etag):
            raise OSError(errno.ESTALE, "the file was changed while it was read", str(self))

    def pieces(self, start: int = 0, stop: int | None = None, piece_bytes: int = _PIECE_BYTES) -> Iterator[bytes]:
        """The bytes ``[start, stop)`` piece by piece."""
        stop = self.n_bytes if stop is None else min(stop, self.n_bytes)
        for first in range(start, stop, piece_bytes):
            yield self.read(first, min(first + piece_bytes, stop))

    def open(self) -> io.BufferedReader:
        """As a file of Python, to read from."""
        return io.BufferedReader(_Stream(self), _PIECE_BYTES)


class _Stream(io.RawIOBase):
    """A file read in order."""

    def __init__(self, file: File) -> None:
        self._file, self._position = file, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        found = self._file.read(self._position, self._position + len(buffer))
        buffer[: len(found)] = found
        self._position += len(found)
        return len(found)
