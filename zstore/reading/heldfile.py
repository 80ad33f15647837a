"""A file that is held open, so that its bytes cannot change under its readers when its name goes."""

from __future__ import annotations

import mmap
import os
import stat
import weakref
from pathlib import Path
from threading import Lock
from typing import Any

import xxhash
from numpy.typing import NDArray

from zstore.storage.locks import mark_used

_BUFFER_BYTES = 1 << 22
_SAMPLES = 32


class HeldFile:
    """A file that is open to be read, and counts as in use, as long as this object or a mapping of it lives.

    Parameters
    ----------
    path
        Where it was opened.
    descriptor
        Closed with this object.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self.descriptor, self._lock = path, descriptor, Lock()
        weakref.finalize(self, os.close, descriptor).atexit = False  # threads may still read then
        mark_used(descriptor)

    @classmethod
    def open(cls, path: Path) -> HeldFile | None:
        """Open a file; None if there is none, or what is there is a link, a folder, a pipe or a device.

        Raises
        ------
        OSError
            If it cannot be opened.
        """
        flags = os.O_RDONLY
        for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):  # of those that this system has
            flags |= getattr(os, name, 0)
        try:
            descriptor = os.open(path, flags)
        except FileNotFoundError:  # there may be one by now, which another process has just built
            return None
        except OSError:
            if path.is_symlink() or not path.is_file():
                return None
            raise
        held = cls(path, descriptor)
        return held if stat.S_ISREG(held.status.st_mode) else None

    @property
    def status(self) -> os.stat_result:
        """What the system says of it now."""
        return os.fstat(self.descriptor)

    def read_into(self, out: memoryview, offset: int) -> int:
        """Fill as much of some memory as there are bytes from `offset` on; from any thread. Returns how many."""
        n_bytes, n_read = 0, -1
        while n_bytes < len(out) and n_read:
            n_read = self._read(out[n_bytes:], offset + n_bytes)
            n_bytes += n_read
        return n_bytes

    def fill(self, out: NDArray[Any], offset: int) -> None:
        """Fill a contiguous array with the bytes from `offset` on.

        Raises
        ------
        OSError
            If the file ends before.
        """
        if out.nbytes and self.read_into(out.data.cast("B"), offset) < out.nbytes:
            raise OSError(f"{self.path} ends before byte {offset + out.nbytes:,}")

    def digest(self) -> str:
        """xxh3-128 of all its bytes; some 0.1 s a GB in memory."""
        buffer, digest, offset = memoryview(bytearray(_BUFFER_BYTES)), xxhash.xxh3_128(), 0
        while n_read := self.read_into(buffer, offset):
            digest.update(buffer[:n_read])
            offset += n_read
        return digest.hexdigest()

    def is_in_memory(self) -> bool:
        """Whether the system has its bytes in memory, as far as a few samples tell; False if that cannot be told."""
        if not hasattr(os, "RWF_NOWAIT"):
            return False
        sample, size = [bytearray(1)], self.status.st_size
        try:
            return all(os.preadv(self.descriptor, sample, size * n // _SAMPLES, os.RWF_NOWAIT) for n in range(_SAMPLES))
        except OSError:  # it would have to be fetched, or the file system does not say
            return False

    def mapped(self) -> mmap.mmap:
        """All of it in memory, page by page as it is used; what is changed stays in this process."""
        return mmap.mmap(self.descriptor, 0, access=mmap.ACCESS_COPY)

    def _read(self, out: memoryview, offset: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self.descriptor, [out], offset)
        with self._lock:  # Windows: one place to read from for all threads
            os.lseek(self.descriptor, offset, os.SEEK_SET)
            content = os.read(self.descriptor, len(out))
        out[: len(content)] = content
        return len(content)
