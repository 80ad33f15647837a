"""One writer at a time: a lock on the folder of a store, which the system drops when its holder dies.

On Linux and macOS the folder itself is locked, so that nothing lies beside a store. Elsewhere folders cannot be locked,
and a file beside the store is, ``.NAME.lock``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from zstore.errors import StoreError
from zstore.storage.locks import file_lock
from zstore.storage.portable import OPEN_TO_READ
from zstore.storage.refusals import conflict

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a store's folder, which must exist.

    Raises
    ------
    ConflictError
        If another process writes to the store.
    StoreError
        If the file system has no locks.
    """
    with _folder_locked(folder) if fcntl is not None else _file_locked(folder):
        yield


@contextmanager
def _folder_locked(folder: Path) -> Iterator[None]:
    try:
        descriptor = os.open(folder, OPEN_TO_READ | getattr(os, "O_DIRECTORY", 0))
    except FileNotFoundError:
        raise conflict(str(folder)) from None  # another writer that failed took the folder away
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise conflict(str(folder)) from None
        except OSError as error:
            raise _no_lock(folder, error) from error
        if not _is_at(descriptor, folder):
            raise conflict(str(folder))
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _file_locked(folder: Path) -> Iterator[None]:
    path = Path(os.path.realpath(folder))  # the same for every name of the folder
    with ExitStack() as stack:
        try:
            held = stack.enter_context(file_lock(path.with_name(f".{path.name}.lock"), wait=False))
        except OSError as error:
            raise _no_lock(folder, error) from error
        if not held or not folder.is_dir():  # else another writer that failed took the folder away
            raise conflict(str(folder))
        yield


def _no_lock(folder: Path, error: OSError) -> StoreError:
    return StoreError(
        f"cannot lock {folder} ({error.strerror or error})",
        expected="a file system with locks, so that one process writes at a time",
        fix="check its permissions, or write the store to a local disk and copy it",
    )


def _is_at(descriptor: int, store: Path) -> bool:
    """Whether the folder that was opened is still the one at this path, neither replaced nor removed."""
    try:
        return os.fstat(descriptor).st_ino == store.stat().st_ino
    except FileNotFoundError:
        return False
