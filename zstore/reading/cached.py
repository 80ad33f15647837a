"""Files of decoded values in a cache folder: built once under a lock, checked by digest, shared by all processes."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import mmap
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import xxhash
from numpy.typing import NDArray

from zstore.errors import StoreError
from zstore.memory import free_memory

logger = logging.getLogger(__name__)

Opened = TypeVar("Opened")
Values = NDArray[np.float32]
Observed = NDArray[np.bool_]

_MADV_POPULATE_READ = 22  # of Linux; mmap has no name for it


@dataclass(frozen=True)
class CacheEntry:
    """One file of a cache folder.

    Parameters
    ----------
    path
        The file.
    store, version
        Where its values come from, as it was named when the file was built.
    channels
        Its columns.
    n_rows, n_bytes
        Its size.
    digest
        xxh3-128 of its bytes.
    used
        Seconds since 1970 when it was last opened.
    """

    path: str
    store: str
    version: int
    channels: tuple[str, ...]
    n_rows: int
    n_bytes: int
    digest: str
    used: float = field(default=0.0, compare=False)


def cache_folder() -> Path:
    """``$ZSTORE_CACHE``, or ``zstore`` under the user's cache folder."""
    named = os.environ.get("ZSTORE_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(named) if named else base / "zstore"


def open_cached(entry: CacheEntry, build: Callable[[Path], None], read: Callable[[Path], Opened]) -> Opened:
    """Open a file of the cache, built on first use.

    Parameters
    ----------
    entry
        What it is to be; its digest is found here.
    build
        Writes the values into a file that has the full size already.
    read
        Opens the file.

    Raises
    ------
    StoreError
        If the file cannot be written.

    Notes
    -----
    Built under a lock beside its final name and renamed when whole, with its digest in a file beside it. Each opening
    compares the digest, some 0.1 s a GB in memory; a file that differs is built anew.
    """
    path = Path(entry.path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            if not _is_whole(path, entry.n_bytes):
                _build(entry, build)
            os.utime(_note(path))
            return read(path)
    except OSError as error:
        raise StoreError(
            f"cannot write the row file, {entry.n_bytes:,} bytes ({error.strerror})",
            where=str(path),
            fix="free some space (zstore cache clear), or name another folder with --data.cache or ZSTORE_CACHE",
        ) from error


def cache_entries(cache: Path | None = None) -> list[CacheEntry]:
    """The files of a cache folder, the one used last first."""
    found = []
    for note in (cache or cache_folder()).glob("rows-*.json"):
        document = _read_note(note)
        if document is not None and note.with_suffix(".f4").exists():
            path, used = str(note.with_suffix(".f4")), note.stat().st_mtime
            found.append(
                CacheEntry(**{**document, "channels": tuple(document["channels"]), "path": path, "used": used})
            )
    return sorted(found, key=lambda entry: (-entry.used, entry.path))


def clear_cache(cache: Path | None = None, older_than_s: float = 0.0) -> tuple[int, int]:
    """Remove the files of a cache folder, and what builders that died have left.

    Parameters
    ----------
    cache
        The folder; None for :func:`cache_folder`.
    older_than_s
        Only those that were not opened for so long.

    Returns
    -------
    Files and bytes removed. Processes that have one open keep it; one that is being built is left alone.
    """
    folder, n_files, n_bytes = cache or cache_folder(), 0, 0
    limit = time.time() - older_than_s
    for path in sorted({file.with_suffix(".f4") for file in folder.glob("rows-*")}):
        with _locked(path, wait=False) as free:
            there = [file for file in (path, _note(path), path.with_suffix(".partial")) if file.exists()]
            if not free or any(file.stat().st_mtime > limit for file in there[:2] if older_than_s):
                continue
            n_files += path.exists()
            n_bytes += sum(file.stat().st_size for file in there)
            for file in (*there, path.with_suffix(".lock")):
                file.unlink(missing_ok=True)
    return n_files, n_bytes


def map_values(path: Path, shape: tuple[int, int], masked: bool) -> tuple[Values, Observed | None]:
    """Values, (row, column), and whether each was observed, to be read; what is changed stays in this process."""
    n_values = shape[0] * shape[1]
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    if len(mapped) < free_memory() // 2:
        # All pages at once, in 60 ms a GB, where random reads would meet them one by one in the first epoch.
        with suppress(OSError):  # a kernel before 5.14
            mapped.madvise(_MADV_POPULATE_READ)
    values = np.frombuffer(mapped, np.float32, n_values).reshape(shape)
    return values, np.frombuffer(mapped, np.bool_, n_values, values.nbytes).reshape(shape) if masked else None


def _build(entry: CacheEntry, build: Callable[[Path], None]) -> None:
    path, began = Path(entry.path), time.perf_counter()
    temporary = path.with_suffix(".partial")
    with temporary.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, entry.n_bytes)
    build(temporary)
    document = {**asdict(entry), "digest": _digest(temporary)}
    note = _note(path).with_suffix(".partial-json")
    note.write_text(json.dumps({name: document[name] for name in document if name not in ("path", "used")}))
    os.replace(note, _note(path))
    os.replace(temporary, path)
    logger.info("built the row file %s: %.1f MB in %.1f s", path, entry.n_bytes / 1e6, time.perf_counter() - began)


def _is_whole(path: Path, n_bytes: int) -> bool:
    """Whether a row file is there, and is what its builder wrote."""
    document = _read_note(_note(path))
    if document is None or not path.exists() or path.stat().st_size != n_bytes:
        return False
    if _digest(path) == document["digest"]:
        return True
    logger.warning("the row file %s differs from its digest and is built anew", path)
    return False


def _read_note(path: Path) -> dict[str, Any] | None:
    try:
        document: dict[str, Any] = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return document


def _note(path: Path) -> Path:
    return path.with_suffix(".json")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()


@contextmanager
def _locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a row file; without waiting, say whether it was free."""
    lock = path.with_suffix(".lock")
    while True:
        with lock.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            if lock.exists() and os.fstat(file.fileno()).st_ino == lock.stat().st_ino:  # else it was cleared meanwhile
                yield True
                return
