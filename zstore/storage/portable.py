"""Where operating systems differ: reads at an offset, flushes, folders that change places, cores.

Linux and macOS have calls for all of it. Elsewhere (Windows) a missing call is replaced by one that does the same more
slowly, or, where there is none, by a weaker promise that its function states.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import threading
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

OPEN_TO_READ = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
"""Flags of `os.open` for bytes as they are, which no child inherits."""

_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux
_SWAP = 2  # RENAME_SWAP of macOS
_SEEKING = threading.Lock()
FLUSHES_FOLDERS = os.name != "nt"
"""Whether the names in a folder are flushed: Windows cannot, whose file system keeps a journal of them."""
OPEN_TO_FLUSH = os.O_RDONLY if FLUSHES_FOLDERS else os.O_RDWR
"""Flags of `os.open`: Windows flushes only what can be written."""


def n_cores() -> int:
    """Cores that this process may use; those of the machine where the system does not tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_at(descriptor: int, n_bytes: int, offset: int) -> bytes:
    """At most `n_bytes` from `offset` on, whatever other threads read; empty at the end of the file.

    Notes
    -----
    Without `os.pread` one thread reads at a time.
    """
    if hasattr(os, "pread"):
        return os.pread(descriptor, n_bytes, offset)
    with _SEEKING:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, n_bytes)


def flush_descriptor(descriptor: int) -> None:
    """Let the bytes of an open file, or the names in an open folder, reach the disk."""
    full = getattr(fcntl, "F_FULLFSYNC", None)  # macOS, whose fsync leaves bytes in the memory of the disk
    if full is not None:
        try:
            fcntl.fcntl(descriptor, full)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EINVAL, errno.ENOTTY):
                raise
        else:
            return
    os.fsync(descriptor)


def exchange(a: Path, b: Path, aside: Path) -> None:
    """Let two folders change places: in one step on Linux and macOS.

    Parameters
    ----------
    a, b
        The folders, in one file system.
    aside
        Where `b` is for a moment, if the system has no such step; nothing may be there. If the process dies then, `b`
        is missing and `aside` has what it was.

    Raises
    ------
    OSError
        If the system refuses; `b` is then what it was.
    """
    if _exchanged(a, b):
        return
    os.rename(b, aside)
    try:
        os.rename(a, b)
    except OSError:
        os.rename(aside, b)
        raise
    os.rename(aside, a)


def _exchanged(a: Path, b: Path) -> bool:
    """Whether the system has a call for it, and it went well."""
    if sys.platform not in ("linux", "darwin"):
        return False
    here = ctypes.CDLL(None, use_errno=True)
    first, second = os.fsencode(a), os.fsencode(b)
    if hasattr(here, "renameat2"):
        return bool(here.renameat2(_HERE, first, _HERE, second, _EXCHANGE) == 0)
    return hasattr(here, "renamex_np") and bool(here.renamex_np(first, second, _SWAP) == 0)
