"""One writer at a time: a lock on the folder of a store, which the system drops when its holder dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zstore.errors import ConflictError


@contextmanager
def locked(store: Path) -> Iterator[None]:
    """Hold the lock of a store's folder, which must exist.

    Raises
    ------
    ConflictError
        If another process writes to the store.
    """
    try:
        descriptor = os.open(store, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        raise _conflict(store) from None  # another writer that failed took the folder away
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _conflict(store) from None
        if not _is_at(descriptor, store):
            raise _conflict(store)
        yield
    finally:
        os.close(descriptor)


def _is_at(descriptor: int, store: Path) -> bool:
    """Whether the folder that was opened is still the one at this path, neither replaced nor removed."""
    try:
        return os.fstat(descriptor).st_ino == store.stat().st_ino
    except FileNotFoundError:
        return False


def _conflict(store: Path) -> ConflictError:
    return ConflictError(
        f"another process is writing to {store}",
        expected="one writer at a time",
        fix="wait for it to finish, then run again; nothing of either is lost",
    )
