"""The cache folder: what lies in it, how much it may hold, and what leaves it when something new comes."""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from zstore.errors import UsageError
from zstore.format.outside import check_outside
from zstore.reading.heldfile import HeldFile
from zstore.reading.objectfiles import damaged_objects, object_files, remove_object
from zstore.reading.rownotes import SUFFIX, CacheEntry, lock_path, note_path, read_note
from zstore.sizes import parse_size
from zstore.storage.locks import file_lock, unused

logger = logging.getLogger(__name__)

_NAME = re.compile(r"rows-[0-9a-f]{32}")
_SHARE = 0.2  # of the disk
_DAYS = 90.0
_DAY_S = 86_400


@dataclass(frozen=True)
class Cache:
    """A folder of row files and objects of buckets, and how much it may hold.

    Parameters
    ----------
    folder
        Where it is.
    limit
        Bytes that are kept: a size such as ``50GiB``, or a share of its disk such as ``0.2``. Default:
        ``$ZSTORE_CACHE_LIMIT``, or 0.2.
    days
        Days for which a file is kept that nobody opens. Default: ``$ZSTORE_CACHE_DAYS``, or 90.

    Notes
    -----
    When a file is built or fetched, those that were not used for `days` leave the folder, and then, the one first that
    was used longest ago, as many as it takes to stay within `limit` and to have the disk space that the new one needs.
    A file that a living process has open stays, even beyond the limit: on Linux and macOS removing it would free
    nothing before that process ends, and the next process would write it anew.
    """

    folder: Path
    limit: str | float | None = None
    days: float | None = None

    def __post_init__(self) -> None:
        check_outside(self.folder, "cache")
        self.limit_on(1)
        self.unused_s  # noqa: B018  # refused where it is given

    @classmethod
    def of(cls, cache: Cache | str | Path | None) -> Cache:
        """The cache in a folder; None for :func:`cache_folder`."""
        return cache if isinstance(cache, Cache) else cls(Path(cache) if cache else cache_folder())

    @property
    def unused_s(self) -> float:
        """Seconds for which a file is kept that nobody opens.

        Raises
        ------
        UsageError
            If they are no number, or a negative one.
        """
        given = os.environ.get("ZSTORE_CACHE_DAYS") or _DAYS if self.days is None else self.days
        with suppress(ValueError):
            if (days := float(given)) >= 0:  # nor NaN
                return days * _DAY_S
        raise UsageError(
            f"days {given!r} of a cache", expected="a number, 0 or more", fix="change ZSTORE_CACHE_DAYS or --days"
        )

    @property
    def limit_here(self) -> int:
        """Bytes that it may hold on its disk; raises as :meth:`limit_on`."""
        return self.limit_on(shutil.disk_usage(self.folder).total)

    def limit_on(self, disk_bytes: int) -> int:
        """Bytes that it may hold on a disk of some size.

        Raises
        ------
        UsageError
            If the limit is neither a size nor a share.
        """
        given = os.environ.get("ZSTORE_CACHE_LIMIT") or _SHARE if self.limit is None else self.limit
        with suppress(ValueError):
            if 0 <= (share := float(given)) <= 1:
                return int(share * disk_bytes)
        text = str(given)
        if not text.replace(".", "").isdecimal():  # a number without a unit could be meant in any
            with suppress(UsageError):
                return parse_size(text)
        raise UsageError(
            f"limit {given!r} of a cache",
            expected="a share of its disk such as 0.2, or a size such as 50GiB",
            fix="change ZSTORE_CACHE_LIMIT, --limit or --data.cache_limit",
        )


def cache_folder() -> Path:
    """``$ZSTORE_CACHE``, or ``zstore`` under the user's cache folder."""
    named = os.environ.get("ZSTORE_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(named) if named else base / "zstore"


def cache_entries(cache: Path | None = None) -> list[CacheEntry]:
    """The files of a cache folder, the one used last first."""
    notes = [read_note(path) for path in _row_files(cache or cache_folder()) if path.exists()]
    return sorted((note.entry for note in notes if note), key=lambda entry: (-entry.used, entry.path))


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
    Files and bytes removed. Those that a process has open, and those that are being built, are left alone.
    """
    folder, limit = cache or cache_folder(), time.time() - older_than_s
    removed = [_remove(path) for path in _row_files(folder) if not older_than_s or _used(path) <= limit]
    removed += [remove_object(each.path) for each in object_files(folder) if not older_than_s or each.used <= limit]
    return sum(1 for n_bytes in removed if n_bytes), sum(removed)


def verify_cache(cache: Path | None = None) -> tuple[int, list[CacheEntry]]:
    """Compare every file of a cache folder with its digest, and remove those that differ.

    Parameters
    ----------
    cache
        The folder; None for :func:`cache_folder`.

    Returns
    -------
    How many were compared, and those that were removed. Processes that have one of those open keep it: they should be
    started again.

    Notes
    -----
    Opening a file does not read it, so a disk that has changed bytes by itself is found by this alone. Cost: all
    files are read.
    """
    damaged, entries = [], cache_entries(cache)
    for entry in entries:
        path = Path(entry.path)
        file = HeldFile.open(path)
        if file is None or file.digest() == entry.digest:
            continue  # evicted meanwhile, or sound
        with file_lock(lock_path(path)):  # not while it is built anew
            now = HeldFile.open(path)
            if now is not None and now.status.st_ino == file.status.st_ino:
                damaged.append(entry)
                _unlinked(path)
                _unlinked(note_path(path))
    n_objects, wrong = damaged_objects(cache or cache_folder())
    for each in wrong:
        each.path.unlink(missing_ok=True)
        damaged.append(CacheEntry(str(each.path), "an object of a bucket", 0, (), 0, each.n_bytes, each.path.stem))
    return len(entries) + n_objects, damaged


def make_room(cache: Cache, n_bytes: int, for_: Path | None = None) -> tuple[int, int]:
    """Evict files until the folder may take some bytes more; see :class:`Cache`.

    Parameters
    ----------
    cache
        The folder and its limit.
    n_bytes
        Bytes that are to come.
    for_
        The file that they are for, whose place they take.

    Returns
    -------
    Files and bytes removed.
    """
    limit, (held, _, n_files, n_removed) = cache.limit_here, _evict(cache, n_bytes, for_)
    if held + n_bytes > limit:
        logger.warning(
            "the cache %s takes %.1f MB with what is built now, %.1f MB more than its limit: what is in use stays",
            cache.folder,
            (held + n_bytes) / 1e6,
            (held + n_bytes - limit) / 1e6,
        )
    return n_files, n_removed


def room_for(cache: Cache, n_bytes: int) -> int:
    """Evict files until the folder may take some bytes more, and say how many it may take now; 0 or more."""
    cache.folder.mkdir(parents=True, exist_ok=True)
    held, free, _, _ = _evict(cache, n_bytes, None)
    return max(min(cache.limit_here - held, free), 0)


def _evict(cache: Cache, n_bytes: int, for_: Path | None) -> tuple[int, int, int, int]:
    """Bytes that are held and that are free, and files and bytes removed, see :func:`make_room`."""
    disk, now = shutil.disk_usage(cache.folder), time.time()
    limit, free = cache.limit_on(disk.total), disk.free
    rows = [(_used(path), path, _size(path), _remove) for path in _row_files(cache.folder) if path != for_]
    objects = [(each.used, each.path, each.n_bytes, remove_object) for each in object_files(cache.folder)]
    known = sorted([*rows, *objects], key=lambda each: each[:2])
    held = sum(size for _, _, size, _ in known)
    n_files = n_removed = 0
    for used, path, _, remove in known:
        fits = held + n_bytes <= limit and n_bytes <= free
        if fits and now - used <= cache.unused_s:
            break
        removed = remove(path)
        n_files, n_removed = n_files + bool(removed), n_removed + removed
        held, free = held - removed, free + removed
    if n_files:
        logger.info("evicted %d files, %.1f MB, from %s", n_files, n_removed / 1e6, cache.folder)
    return held, free, n_files, n_removed


def remove_partials(path: Path) -> int:
    """Remove what builders of a row file that died have left, and say how many bytes; its lock must be held."""
    n_bytes = 0
    for partial in path.parent.glob(f"{path.stem}*.partial*"):
        with unused(partial) as free:
            if free:
                n_bytes += _unlinked(partial)
    return n_bytes


def _row_files(folder: Path) -> list[Path]:
    """Every row file that there is, or of which something is left; what others have put there is not ours to remove."""
    names = {name for file in folder.glob("rows-*") if _NAME.fullmatch(name := file.name.split(".")[0])}
    return [folder / f"{name}{SUFFIX}" for name in sorted(names)]


def _status(path: Path) -> os.stat_result | None:
    """Of a file, or of a link itself; None if it is gone."""
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def _used(path: Path) -> float:
    """When a row file, or what is left of it, was last used; a time to come counts as now."""
    times = [status.st_mtime for file in (note_path(path), path) if (status := _status(file))]
    return min(times[0], time.time()) if times else 0.0


def _size(path: Path) -> int:
    return sum(status.st_size for file in path.parent.glob(f"{path.stem}.*") if (status := _status(file)))


def _remove(path: Path) -> int:
    """Remove a row file, unless it is in use or being built, and say how many bytes it had."""
    n_bytes = 0
    with suppress(OSError), file_lock(lock_path(path), wait=False) as held:
        if not held:
            return 0
        n_bytes = remove_partials(path)
        if path.exists() and not path.is_symlink():
            with unused(path) as free:
                if not free:
                    return n_bytes
                n_bytes += _unlinked(path)
        else:
            n_bytes += _unlinked(path)
        n_bytes += _unlinked(note_path(path))  # last, for a file that is open on Windows stays, and keeps its note
        lock_path(path).unlink(missing_ok=True)
    return n_bytes


def _unlinked(path: Path) -> int:
    """Remove a file, and say how many bytes it had."""
    status = _status(path)
    path.unlink(missing_ok=True)
    return status.st_size if status else 0
