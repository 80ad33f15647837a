"""Locks on files, which end with their holder: for one at a time, or for all who use a file."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

try:
    import fcntl as _fcntl
except ImportError:  # Windows, which refuses to remove a file that somebody has open
    _flock: Any = None
else:
    _flock = _fcntl


@contextmanager
def file_lock(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the exclusive lock that a file stands for.

    Parameters
    ----------
    path
        The file: created if it is not there, and left there.
    wait
        Whether to wait for another holder, a thread or a process.

    Yields
    ------
    Whether it is held: True after waiting; without waiting, False where another one holds it.

    Raises
    ------
    OSError
        If the file cannot be created or opened for writing, or its file system has no locks.

    Notes
    -----
    The system drops the lock when its holder dies, however it dies. Where a system has no locks of files, the file
    names its holder, and the next one takes over once that process is gone. Waiting looks again every 50 ms.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="only soft file lock")  # said once, where it is imported first
        from filelock import FileLock, Timeout  # 30 ms, which reading a store does without
    lock = FileLock(path)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def mark_used(descriptor: int) -> None:
    """Mark an open file as in use, for as long as this opening of it lives: its descriptors, and mappings made of them.

    Any number of users do not disturb each other. See :func:`unused`.
    """
    if _flock is not None:
        with suppress(OSError):  # a file system without locks, where nothing is ever taken for unused
            _flock.flock(descriptor, _flock.LOCK_SH | _flock.LOCK_NB)


@contextmanager
def unused(path: Path) -> Iterator[bool]:
    """Find out whether nobody uses a file; if so, keep new users from marking it meanwhile.

    Yields
    ------
    True if no process has marked it. False if one has, or that cannot be told: the file cannot be opened for writing,
    or its file system has no locks. Always True on a system without shared locks, where removing a file either fails
    while it is open or leaves it to those who have it open.
    """
    if _flock is None:
        yield True
        return
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)  # NFS locks writers only
    except OSError:
        yield False
        return
    try:
        try:
            _flock.flock(descriptor, _flock.LOCK_EX | _flock.LOCK_NB)
        except OSError:
            yield False
            return
        yield True
    finally:
        os.close(descriptor)


@contextmanager
def sole_writer(path: Path) -> Iterator[BinaryIO]:
    """Open a file to be written by this opening alone; waits for another one, a thread's or a process's.

    Yields
    ------
    The file, created if it is not there, with whatever a writer that died has left in it.

    Raises
    ------
    OSError
        If it cannot be opened, or is a link.

    Notes
    -----
    Where a system or its file system has no locks, there may be several. :func:`mark_used` makes of a writer a user.
    """
    flags = os.O_RDWR | os.O_CREAT
    for name in ("O_NOFOLLOW", "O_CLOEXEC", "O_BINARY"):
        flags |= getattr(os, name, 0)
    while True:
        with os.fdopen(os.open(path, flags, 0o666), "r+b") as file:
            if _flock is not None:
                with suppress(OSError):
                    _flock.flock(file.fileno(), _flock.LOCK_EX)
            same = False  # if who held it before has renamed it
            with suppress(FileNotFoundError):
                same = os.path.samestat(os.fstat(file.fileno()), os.stat(path))
            if same:
                yield file
                return
