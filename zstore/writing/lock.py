"""One writer at a time: a lock on a folder, which the system drops when its holder dies, or a lease on a bucket.

On Linux and macOS the folder itself is locked, so that nothing lies beside a store. Elsewhere folders cannot be locked,
and a file beside the store is, ``.NAME.lock``.
"""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from zstore.errors import ConflictError, StoreError
from zstore.format.commit import conflict, owner_of
from zstore.format.layout import MARKER, ROOT
from zstore.format.locks import file_lock
from zstore.format.portable import OPEN_TO_READ

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from zstore.format.bucket import Bucket

logger = logging.getLogger(__name__)

_LEASE_S, _BEAT_S = 60.0, 1.0


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


@contextmanager
def leased(bucket: Bucket) -> Iterator[tuple[Bucket, bool]]:
    """Hold the lease of a store in a bucket: the mark in its root document, and a sign of life now and then.

    Yields
    ------
    The bucket with this writer's mark, and whether a writer died that had the lease before.

    Raises
    ------
    ConflictError
        If another writer holds it, whose last sign of life is less than a minute (``ZSTORE_LEASE_S`` seconds) old.

    Notes
    -----
    A clock that is wrong can take a living writer for dead, or a dead one for living. It costs that writer its commit,
    or a wait; never a row, for a commit needs the mark (see :mod:`zstore.format.bucket`).
    """
    lease_s = float(os.environ.get("ZSTORE_LEASE_S") or _LEASE_S)
    held = replace(bucket, owner=uuid.uuid4().hex)
    found = bucket.root()
    before = owner_of(found[0]) if found else ""
    if before:
        ages = [head[2] for head in (bucket.head(ROOT), bucket.head(MARKER)) if head]
        if min(ages, default=lease_s) < lease_s:
            raise conflict(bucket.url)
    held.claim(found)
    try:
        with _Heartbeat(held, MARKER, max(lease_s / 4, _BEAT_S)):
            yield held, bool(before)
    finally:
        try:
            held.release(MARKER)
        except StoreError as error:
            logger.warning("%s stays marked as written to for %.0f s: %s", bucket.url, lease_s, error)


def _is_at(descriptor: int, store: Path) -> bool:
    """Whether the folder that was opened is still the one at this path, neither replaced nor removed."""
    try:
        return os.fstat(descriptor).st_ino == store.stat().st_ino
    except FileNotFoundError:
        return False


class _Heartbeat:
    """Writes an object again and again, so that others see that its writer lives.

    Parameters
    ----------
    bucket, key
        Where.
    every_s
        Seconds between two signs of life.
    """

    def __init__(self, bucket: Bucket, key: str, every_s: float) -> None:
        self._stop = threading.Event()
        self._bucket, self._key, self._every_s = bucket, key, every_s
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> None:
        self._bucket.replace(self._key, self._bucket.owner.encode())
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._stop.wait(self._every_s):
            try:
                self._bucket.check_held()
                self._bucket.replace(self._key, self._bucket.owner.encode())
            except ConflictError as error:  # taken for dead; the commit will be refused
                logger.warning("%s", error)
                return
            except StoreError as error:  # the next one may get through
                logger.info("no sign of life: %s", error)
