"""Whether a worker of a cluster can do the work: it sees the folders that all write to, and has room for a task."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from zstore.errors import StoreError
from zstore.format.layout import MARKER, ROOT
from zstore.format.manifest import digest as digest_of
from zstore.memory import total_memory
from zstore.storage.file import File
from zstore.storage.protocol import Storage
from zstore.writing.site import Site

Item = TypeVar("Item")
Result = TypeVar("Result")

_PATIENCE_S, _POLL_S = 5, 0.2  # until a file of another machine is there: folders of networks are not always in step
_SEEN: set[Mark] = set()  # in the process of a worker
_ROOMS: dict[tuple[str, int], threading.BoundedSemaphore] = {}
_LOCK = threading.Lock()


@dataclass(frozen=True)
class Mark:
    """An object that tells who reads it whether he sees the place that is meant, and not another of its name.

    Parameters
    ----------
    place, key
        Where it is.
    digest
        Of its content; ``""`` if it is enough that it is there.
    fix
        What to do where it is not seen.
    is_of_file
        Whether it is a file that is meant, and not its place.
    """

    place: Storage
    key: str
    digest: str
    fix: str
    is_of_file: bool = False

    def check(self, worker: str) -> None:
        """Look at it, once in each process.

        Parameters
        ----------
        worker
            Address of this worker.

        Raises
        ------
        StoreError
            If it is not there, or another one.
        """
        if self in _SEEN:
            return
        end = time.monotonic() + _PATIENCE_S
        while not self._is_seen():
            if time.monotonic() > end:
                where = self.place.locate(self.key) if self.is_of_file else str(self.place)
                raise StoreError(
                    f"worker {worker} of the cluster does not see {where}",
                    expected="the same folder on all workers as on this machine",
                    fix=self.fix,
                )
            time.sleep(_POLL_S)
        _SEEN.add(self)

    def _is_seen(self) -> bool:
        try:
            if not self.digest:
                return self.place.n_bytes(self.key) is not None
            return digest_of(self.place.read(self.key)) == self.digest
        except OSError:
            return False


def marks_of(site: Site, files: Sequence[Any]) -> tuple[Mark, ...]:
    """Marks on where a version is built and on its scratch space, and the first of some files to read.

    Places in object storage need none: they have one name everywhere.
    """
    token = uuid.uuid4().hex.encode()
    fix = "mount its folder there, or read from a folder or bucket that all workers see"
    marks = [Mark(file.storage, file.key, "", fix, True) for file in files[:1] if isinstance(file, File)]
    site.scratch.write_stream(key := f"seen-{token.decode()}", (token,))
    fix = "mount it there, or name a folder or s3://… that all workers see with --scratch"
    marks.append(Mark(site.scratch, key, digest_of(token), fix))
    if not site.root.leased:
        site.root.write(MARKER, token)
        fix = "mount it there, or choose a STORE in a folder or bucket that all workers see"
        marks.append(Mark(site.root, MARKER, digest_of(token), fix))
    return tuple(mark for mark in marks if not mark.place.remote)


def mark_of(store: Storage) -> tuple[Mark, ...]:
    """The mark of a store that is only read: its root document."""
    fix = "mount it there, or leave out --scheduler"
    return () if store.remote else (Mark(store, ROOT, "", fix),)


@dataclass(frozen=True)
class Task:
    """A function as the workers of a cluster run it.

    Parameters
    ----------
    function
        Of one item.
    marks
        What its worker must see.
    n_bytes
        Memory that it takes at most.
    """

    function: Callable[[Any], Any]
    marks: tuple[Mark, ...]
    n_bytes: int

    def __call__(self, item: Any) -> Any:
        """Run it, once there is room."""
        from distributed import get_worker  # heavy, and only on clusters

        worker = get_worker()
        for mark in self.marks:
            mark.check(worker.address)
        with _room(worker, self.n_bytes):
            return self.function(item)


def _room(worker: Any, n_bytes: int) -> threading.BoundedSemaphore:
    """What lets as many tasks of a worker run at once as its memory has room for, and one at least."""
    limit = getattr(worker.memory_manager, "memory_limit", None) or total_memory()
    fitting = max(int(limit) // 4 * 3 // n_bytes, 1)
    with _LOCK:
        return _ROOMS.setdefault((worker.address, fitting), threading.BoundedSemaphore(fitting))
