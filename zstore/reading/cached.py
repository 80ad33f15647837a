"""Files of decoded values in a cache folder: built once, opened in constant time, shared by all processes."""

from __future__ import annotations

import errno
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from zstore.errors import CorruptionError, StoreError
from zstore.memory import free_memory
from zstore.reading.eviction import Cache, make_room, remove_partials
from zstore.reading.heldfile import HeldFile
from zstore.reading.rownotes import (
    CacheEntry,
    FileState,
    RowNote,
    boot_id,
    is_known,
    lock_path,
    note_path,
    partial_path,
    read_note,
    refuse_stranger,
    remember_use,
)
from zstore.storage.locks import file_lock, mark_used

logger = logging.getLogger(__name__)

Opened = TypeVar("Opened")
Values = NDArray[np.float32]
Observed = NDArray[np.bool_]

_BUILDS = 2  # of one file before giving up: a disk that does not keep what is written is no reason to go on
_AHEAD_BYTES, _ZEROS_BYTES = 1 << 20, 1 << 22
_LEAST_PRIORITY = 19


def open_cached(
    entry: CacheEntry, build: Callable[[Path], None], read: Callable[[HeldFile], Opened], cache: Cache
) -> Opened:
    """Open a file of the cache, built on first use.

    Parameters
    ----------
    entry
        What it is to be; its digest is worked out here.
    build
        Writes the values into a file that has the full size already.
    read
        Takes what it needs of the open file.
    cache
        The folder, and how much it may hold.

    Raises
    ------
    StoreError
        If the file cannot be written, or belongs to a stranger (see :func:`refuse_stranger`).
    CorruptionError
        If the disk does not keep what is written to it.

    Notes
    -----
    Opening costs two small reads and no lock, whatever the size: the note beside the file says how the system
    described the file when its digest was taken. Where that differs (the file was edited, cut off, copied or
    restored), its bytes are compared with the digest, some 0.1 s a GB in memory, and it is built anew if they differ.
    A builder writes under a name of its own and renames when all is there, so one that dies leaves nothing that is
    taken for whole. Of several that start at once one builds and the others wait; where the folder has no locks, each
    builds its own and the last one stays. Nobody waits for the disk: a file that was not surely on it when the system
    stopped has its bytes compared when it is next opened.
    """
    path = Path(entry.path)
    try:
        file = _open_whole(path, entry)
        if file is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _sole_builder(path):
                file = _built(path, entry, build, cache)
        remember_use(path)
        return read(file)
    except OSError as error:
        raise StoreError(
            f"cannot use the row file, {entry.n_bytes:,} bytes ({error.strerror or error})",
            expected=f"a folder that can be written to, with {entry.n_bytes:,} bytes free",
            where=str(path),
            fix="free some space (zstore cache clear), or name another folder with --data.cache or ZSTORE_CACHE",
        ) from error


def map_values(file: HeldFile, shape: tuple[int, int], masked: bool) -> tuple[Values, Observed | None]:
    """Values, (row, column), and whether each was observed, to be read; what is changed stays in this process.

    The file counts as in use while a mapping of it lives. Cost: none; what is not in memory is read ahead on a thread.
    """
    n_values = shape[0] * shape[1]
    mapped = file.mapped()
    if hasattr(os, "posix_fadvise") and not file.is_in_memory() and _fits(len(mapped)):
        threading.Thread(target=_read_ahead, args=(file.path, len(mapped)), name="read ahead", daemon=True).start()
    values = np.frombuffer(mapped, np.float32, n_values).reshape(shape)
    return values, np.frombuffer(mapped, np.bool_, n_values, values.nbytes).reshape(shape) if masked else None


def _fits(n_bytes: int) -> bool:
    """Whether so much may be read ahead without pushing out what others need."""
    return n_bytes < free_memory() // 2


def _read_ahead(path: Path, n_bytes: int) -> None:
    """Have the pages of a file read in their order, where random reads would fetch them one by one."""
    if sys.platform == "linux":  # where threads have priorities of their own: nobody who works is to wait for this one
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LEAST_PRIORITY)
    with suppress(OSError), path.open("rb") as file:  # an opening of its own, which does not count as a use
        for offset in range(0, n_bytes, _AHEAD_BYTES):  # the system reads a stretch at a time
            os.posix_fadvise(file.fileno(), offset, _AHEAD_BYTES, os.POSIX_FADV_WILLNEED)


def _open_whole(path: Path, entry: CacheEntry) -> HeldFile | None:
    """The row file, if it is there and is what its builder wrote."""
    note = read_note(path)
    if note is None or (note.entry.n_rows, note.entry.n_bytes) != (entry.n_rows, entry.n_bytes):
        return None
    file = HeldFile.open(path)
    if file is None:
        return None
    refuse_stranger(file)
    if is_known(file, note):
        return file
    logger.warning("the row file %s is not what was written, and is built anew", path)
    return None


@contextmanager
def _sole_builder(path: Path) -> Iterator[None]:
    """Build while nobody else builds the same file; alone under a name of one's own where there are no locks."""
    with ExitStack() as stack:
        try:
            if not stack.enter_context(file_lock(lock_path(path), wait=False)):
                logger.info("waiting for another process that builds the row file %s", path)
                stack.enter_context(file_lock(lock_path(path)))
        except OSError as error:
            logger.info("no lock for the row file %s (%s); it is built without one", path, error.strerror or error)
        yield


def _built(path: Path, entry: CacheEntry, build: Callable[[Path], None], cache: Cache) -> HeldFile:
    """The row file, built unless another process has built it meanwhile."""
    for _ in range(_BUILDS):
        file = _open_whole(path, entry)
        if file is not None:
            return file
        _build(path, entry, build, cache)
    file = _open_whole(path, entry)
    if file is None:
        raise CorruptionError(
            f"the row file differs from what was written to it, {_BUILDS} times",
            expected="a disk that keeps what is written",
            where=str(path),
            fix="look at the disk, or name another folder with --data.cache or ZSTORE_CACHE",
        )
    return file


def _build(path: Path, entry: CacheEntry, build: Callable[[Path], None], cache: Cache) -> None:
    began, temporary = time.perf_counter(), partial_path(path)
    remove_partials(path)
    make_room(cache, entry.n_bytes, path)
    try:
        with temporary.open("x+b") as file:
            mark_used(file.fileno())
            _allocate(file, entry.n_bytes)
            build(temporary)
            boot = boot_id()
            if boot is None:  # else others need not wait for the disk
                os.fsync(file.fileno())
            inode = os.fstat(file.fileno()).st_ino
        entry = replace(entry, digest=_digest(temporary))
        os.utime(temporary, ns=(time.time_ns(),) * 2)  # finer than the clock of the file system
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    done = HeldFile.open(path)
    if done is not None and done.status.st_ino == inode:  # else another builder's, who writes the note
        RowNote(entry, FileState.of(done), boot).write()
        threading.Thread(target=_flush, args=(path, inode), name="flush", daemon=True).start()
    logger.info("built the row file %s: %.1f MB in %.1f s", path, entry.n_bytes / 1e6, time.perf_counter() - began)


def _flush(path: Path, inode: int) -> None:
    """Have a new row file written to the disk, and forget it if the disk refuses it."""
    with suppress(OSError), path.open("r+b") as file:  # an opening of its own, which does not count as a use
        if os.fstat(file.fileno()).st_ino != inode:
            return
        try:
            os.fsync(file.fileno())
        except OSError as error:
            logger.error("the disk does not keep the row file %s (%s); it is not used again", path, error.strerror)
            note_path(path).unlink(missing_ok=True)


def _digest(path: Path) -> str:
    """Of a file that this process has just written."""
    file = HeldFile.open(path)
    if file is None:
        raise FileNotFoundError(errno.ENOENT, "it was removed while it was built", str(path))
    return file.digest()


def _allocate(file: BinaryIO, n_bytes: int) -> None:
    """Give a file its size on the disk now: writing through a mapping to a disk that is full kills the process."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), 0, n_bytes)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
        else:
            return
    zeros = memoryview(bytes(min(n_bytes, _ZEROS_BYTES)))
    for offset in range(0, n_bytes, _ZEROS_BYTES):
        file.write(zeros[: n_bytes - offset])
    file.flush()
