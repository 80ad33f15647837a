"""Objects of a bucket on the disk of this machine: fetched once, ahead of use, and shared by all processes.

Each lies in the cache folder under its digest, so that versions and stores share what they have in common, and a file
needs no note to tell what it should be.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from zstore.format.manifest import ObjectRecord
from zstore.reading.compared import compare, reading_errors
from zstore.reading.eviction import Cache, room_for
from zstore.reading.heldfile import HeldFile
from zstore.reading.objectfiles import object_path
from zstore.reading.rownotes import FileState, refuse_stranger
from zstore.storage.fetched import Fetched
from zstore.storage.locks import mark_used, sole_writer
from zstore.storage.protocol import Opened, Storage

logger = logging.getLogger(__name__)

_AT_ONCE = 48
_AHEAD_BYTES = 1 << 30  # on the disk
_AHEAD_SHARE = 4  # of the limit of the cache
_MEMORY_BYTES = 1 << 26  # ahead of use, where the disk has no room
_STEPS_OF_LIMIT, _MOST_STEP_BYTES = 64, 1 << 30
_LOOK_AGAIN_S, _TOUCH_S = 10.0, 600.0


class CannotKeepError(Exception):
    """The disk of the cache takes nothing more."""


class KeptObject:
    """An object in the cache folder, held open."""

    def __init__(self, file: HeldFile) -> None:
        self._file, self._n_bytes = file, file.status.st_size

    def read(self, start: int = 0, stop: int | None = None) -> bytes:
        """The bytes ``[start, stop)``."""
        stop = self._n_bytes if stop is None else min(stop, self._n_bytes)
        content = bytearray(max(stop - start, 0))
        return bytes(memoryview(content)[: self._file.read_into(memoryview(content), start)])

    def identity(self) -> None:
        """Nothing needs to tell: the cache does."""


class ObjectCache:
    """Objects of one store.

    Parameters
    ----------
    storage
        Where they come from.
    cache
        Where they are kept, and how much of everything may be. Where there is no room, objects live in memory while
        they are used, and 64 MiB of them ahead of use.

    Notes
    -----
    The bytes of a file are compared with its digest when a process first opens it, and again once the system says that
    it was changed. One that differs is removed and fetched again. Of several processes that want an object at once,
    one fetches it. Limits are looked at after each 64th part of the limit, so several processes together may exceed it
    by that part each.
    """

    def __init__(self, storage: Storage, cache: Cache) -> None:
        self._storage, self._cache = storage, cache
        self._changed = threading.Condition()
        self._coming: dict[str, Future[Opened]] = {}
        self._unused: dict[str, int] = {}
        self._known: dict[str, FileState] = {}
        self._run: _Run | None = None
        self._most_ahead = _MEMORY_BYTES
        self._room_lock, self._allowance, self._full_since = threading.Lock(), 0, -_LOOK_AGAIN_S

    @property
    def has_room(self) -> bool:
        """Whether objects go to the disk, as far as that is known."""
        return time.monotonic() - self._full_since >= _LOOK_AGAIN_S

    def open(self, record: ObjectRecord) -> Opened:
        """An object, fetched if it is not there.

        Raises
        ------
        CorruptionError
            If what is in the bucket differs from the record.
        StoreError
            If the bucket does not answer, or the file belongs to a stranger.
        """
        coming, is_new = self._claim(record)
        if is_new:
            self._load(record, coming)
        try:
            return coming.result()
        finally:
            with self._changed:
                if self._coming.get(record.digest) is coming:
                    del self._coming[record.digest]
                self._unused.pop(record.digest, None)
                self._changed.notify_all()

    def expect(self, records: Iterable[ObjectRecord]) -> None:
        """Fetch objects that will be opened, in this order, until others are expected.

        Notes
        -----
        At most 1 GiB, or a quarter of the limit of the cache, are fetched and not yet opened.
        """
        run = _Run(iter(records))
        with self._changed:
            if self._run is not None:
                self._run.stopped.set()
            self._run, self._unused = run, {}
            self._coming = {digest: coming for digest, coming in self._coming.items() if not coming.done()}
            self._changed.notify_all()
        self._another(run)

    def discard(self, record: ObjectRecord) -> Path | None:
        """Remove the copy of an object that could not be decoded, if its bytes are not right; where it was, if so."""
        path = object_path(self._cache.folder, record.digest)
        with suppress(OSError):
            file = HeldFile.open(path)
            if file is not None and file.digest() != record.digest:
                self._known.pop(record.digest, None)
                path.unlink()
                return path
        return None

    def close(self) -> None:
        """Expect nothing any more."""
        self.expect(())

    def _claim(self, record: ObjectRecord) -> tuple[Future[Opened], bool]:
        """What an object comes by, and whether the caller is to load it."""
        with self._changed:
            coming = self._coming.get(record.digest)
            if coming is not None:
                return coming, False
            coming = self._coming[record.digest] = Future()
            return coming, True

    def _load(self, record: ObjectRecord, coming: Future[Opened]) -> None:
        try:
            coming.set_result(self._found(record))
        except BaseException as error:
            coming.set_exception(error)

    def _another(self, run: _Run) -> None:
        """One more thread that fetches, if there are not enough."""
        if run.n_threads < _AT_ONCE:
            run.n_threads += 1
            threading.Thread(target=self._work, args=(run,), name="fetch ahead", daemon=True).start()

    def _work(self, run: _Run) -> None:
        while True:
            with run.turn:
                record = self._next(run)
                if record is None:
                    return
                coming, is_new = self._claim(record)
                self._another(run)
            if not is_new:  # whoever opens it fetches it already
                with self._changed:
                    self._unused.pop(record.digest, None)
                continue
            self._load(record, coming)
            failed = coming.exception() is not None
            with self._changed:
                if failed or isinstance(coming.result(), KeptObject):  # who opens it finds it there, or fails likewise
                    self._coming.pop(record.digest, None)
                if failed:
                    self._unused.pop(record.digest, None)
                self._changed.notify_all()

    def _next(self, run: _Run) -> ObjectRecord | None:
        """The next object that is not there; None at the end, or where others are expected."""
        try:
            for record in run.records:
                if run.stopped.is_set():
                    return None
                if record.digest in self._coming or object_path(self._cache.folder, record.digest).exists():
                    continue
                with self._changed:
                    while not (run.stopped.is_set() or self._fits(record.n_bytes)):
                        self._changed.wait()
                    if run.stopped.is_set():
                        return None
                    self._unused[record.digest] = record.n_bytes
                return record
        except Exception as error:
            logger.warning("nothing more is fetched ahead of use (%s)", error)  # told where it is opened
        return None

    def _fits(self, n_bytes: int) -> bool:
        most = self._most_ahead if self.has_room else _MEMORY_BYTES
        return not self._unused or sum(self._unused.values()) + n_bytes <= most

    def _kept(self, record: ObjectRecord) -> KeptObject | None:
        """An object that is on the disk, if its bytes are right. Raises `CannotKeepError` where it cannot be read."""
        path = object_path(self._cache.folder, record.digest)
        with _on_disk():
            file = HeldFile.open(path)
            if file is None:
                return None
            refuse_stranger(file)
            state = FileState.of(file)
            known = state == self._known.get(record.digest)
            right = known or (state.n_bytes == record.n_bytes and file.digest() == record.digest)
        if not right:
            logger.warning("the object %s in the cache is not what was fetched, and is fetched again", path)
            with suppress(OSError):
                path.unlink()
            return None
        if not known or abs(time.time() - state.mtime_ns / 1e9) > _TOUCH_S:  # clocks go back, too
            with suppress(OSError):  # of another user, or a disk that is only read
                os.utime(path)
            self._known[record.digest] = FileState.of(file)
        return KeptObject(file)

    def _found(self, record: ObjectRecord) -> Opened:
        """An object from the disk or, where it is not there, from the bucket."""
        try:
            if (known := self._kept(record)) is not None:
                return known
            if self._has_room_for(record.n_bytes):
                with reading_errors(self._storage, record):
                    kept = self._fetch(record)
                if kept is not None:
                    return kept
        except CannotKeepError as error:
            logger.warning("objects of %s are not kept in %s (%s)", self._storage, self._cache.folder, error)
            self._full_since = time.monotonic()
        return Fetched(compare(self._storage, record), None)

    def _fetch(self, record: ObjectRecord) -> KeptObject | None:
        """An object brought to the disk; None if what came is not it.

        Raises
        ------
        CannotKeepError
            If the disk refuses it.
        OSError
            If the bucket does.
        """
        path = object_path(self._cache.folder, record.digest)
        partial, writing = path.with_suffix(".partial"), threading.Lock()
        with ExitStack() as stack:
            with _on_disk():
                path.parent.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context(sole_writer(partial))
            left = stack.enter_context(_removed(partial))
            kept = self._kept(record)  # by another process, while this one waited
            if kept is not None:
                return kept

            def write(offset: int, content: memoryview) -> None:
                with _on_disk(), writing:
                    file.seek(offset)
                    file.write(content)

            whole = self._storage.fetch(record.key, record.n_bytes, write)
            with _on_disk():
                file.truncate(record.n_bytes)
                file.flush()
                mark_used(file.fileno())
                if whole:
                    os.replace(partial, path)
                    left.pop_all()  # that name may be another writer's from now on
            return self._kept(record) if whole else None

    def _has_room_for(self, n_bytes: int) -> bool:
        """Whether an object may be put on the disk; makes room for it."""
        with self._room_lock:
            if n_bytes > self._allowance:
                if not self.has_room:
                    return False
                with _on_disk():
                    self._cache.folder.mkdir(parents=True, exist_ok=True)
                    limit = self._cache.limit_here
                    step = max(n_bytes, min(limit // _STEPS_OF_LIMIT, _MOST_STEP_BYTES))
                    if n_bytes <= limit:  # else nothing that leaves would make room for it
                        self._allowance = min(room_for(self._cache, step), step)
                self._most_ahead = min(_AHEAD_BYTES, limit // _AHEAD_SHARE)
                if n_bytes > self._allowance:
                    self._full_since = time.monotonic()
                    return False
            self._allowance -= n_bytes
            return True


class _Run:
    """What is expected: one order of objects, and the threads that fetch them."""

    def __init__(self, records: Iterator[ObjectRecord]) -> None:
        self.records, self.turn, self.n_threads = records, threading.Lock(), 0
        self.stopped = threading.Event()


@contextmanager
def _removed(path: Path) -> Iterator[ExitStack]:
    """Remove a file in the end, unless told otherwise."""
    with ExitStack() as stack:
        stack.callback(path.unlink, missing_ok=True)
        yield stack


@contextmanager
def _on_disk() -> Iterator[None]:
    """Tell what the disk refuses from what the bucket does."""
    try:
        yield
    except OSError as error:
        raise CannotKeepError(error.strerror or str(error)) from error
