"""Runs one phase of tasks: on threads of this process, or by Dask on the workers of a cluster."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

import pyarrow as pa

from zstore.errors import UsageError
from zstore.memory import total_memory
from zstore.storage.portable import n_cores
from zstore.storage.protocol import Storage
from zstore.writing.cluster import Cluster, ClusterClient
from zstore.writing.sight import Mark, Task, mark_of, marks_of
from zstore.writing.site import Site
from zstore.writing.threads import on_threads

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")
Progress = Callable[[str, int, int, str], None]
"""Called with a phase's name, how much of it is done, how much there is in all, and of what."""

THREAD_BYTES = 1 << 28
"""Memory of a task at most: blocks are cut so, and a shard takes less."""


class Scheduler:
    """Maps a function over items as a Dask graph, one task each.

    Parameters
    ----------
    workers
        Threads, or processes of a cluster on this machine; None for one per core.
    address
        ``tcp://…`` of a Dask cluster that sees the same files, or a client of it; ``local`` for one that is started
        here, of processes; None for threads.
    progress
        Called as tasks finish.
    memory_limit
        Bytes of memory to stay under, of this process or of each task on a cluster; None for what all workers may need,
        but at most half of the memory that there is.
    task_bytes
        Memory of a task, at most.

    Raises
    ------
    UsageError
        If there is no worker, or not memory enough for one.

    Notes
    -----
    A context, which ends the cluster that it has started. A worker that is lost takes nothing with it: its tasks run
    again, and each writes the same bytes, or objects of its own.
    """

    def __init__(
        self,
        workers: int | None = None,
        address: str | ClusterClient | None = None,
        progress: Progress | None = None,
        memory_limit: int | None = None,
        task_bytes: int = THREAD_BYTES,
    ) -> None:
        if workers is not None and workers < 1:
            raise UsageError(f"{workers} workers", expected="one or more", fix="correct --workers")
        if memory_limit is not None and memory_limit < THREAD_BYTES:
            raise UsageError(
                f"memory limit of {memory_limit:,} bytes",
                expected=f"at least {THREAD_BYTES:,} (256MiB), for one thread",
                fix="a larger --memory-limit",
            )
        self.workers = workers or n_cores()
        self._cluster = None if address is None else Cluster(address, self.workers)
        self._marks: tuple[Mark, ...] = ()
        self.memory_limit = THREAD_BYTES if memory_limit is None else memory_limit
        self._task_bytes = max(self.memory_limit, task_bytes)
        if address is None:
            self._fit(memory_limit, max(task_bytes, THREAD_BYTES))
        self._progress = progress or (lambda phase, done, total, unit: None)

    def _fit(self, memory_limit: int | None, task_bytes: int) -> None:
        """Take no more memory than there is, and no more threads than it has room for."""
        there = total_memory()
        wanted = memory_limit or min(self.workers * task_bytes, there // 2)
        self.memory_limit = min(wanted, there // 4 * 3)
        fitting = max(self.memory_limit // task_bytes, 1)
        if fitting < self.workers:
            logger.info(
                "%d threads instead of %d: %s bytes of memory, %s for each",
                fitting,
                self.workers,
                f"{self.memory_limit:,}",
                f"{task_bytes:,}",
            )
            self.workers = fitting

    def __enter__(self) -> Scheduler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._cluster is not None:
            self._cluster.close()

    @property
    def shared(self) -> bool:
        """Whether other processes than this one work."""
        return self._cluster is not None

    def require(self, site: Site, files: Sequence[Any] = ()) -> None:
        """Let only workers do the tasks to come that see where a version is built, and the first of its files."""
        if self.shared:
            self._marks = marks_of(site, files)

    def require_store(self, store: Storage) -> None:
        """Let only workers do the tasks to come that see a store."""
        self._marks = mark_of(store) if self.shared else ()

    @property
    def sharers(self) -> int:
        """Threads among which a limit of memory is divided: all of this process, or the one of a task on a cluster."""
        return 1 if self.shared else self.workers

    @property
    def shares(self) -> list[int]:
        """What decides how work is cut: the memory, among how many it is divided, and how many work."""
        return [self.memory_limit, self.sharers, self.workers]

    def map(
        self,
        phase: str,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        sizes: Sequence[int] | None = None,
        unit: str = "tasks",
        seen: Callable[[int, Result], None] | None = None,
    ) -> list[Result]:
        """Run one phase; when this returns or raises, no task is running any more.

        Parameters
        ----------
        phase
            Its name.
        function
            What to do with an item. What it holds is sent to each worker of a cluster once.
        items
            One task each.
        sizes, unit
            How much of what each item is, to show progress; None to count tasks.
        seen
            Called with the number of an item and its result as soon as that is there, in no order; what it raises
            ends the phase.

        Returns
        -------
        Results in the order of `items`. The first exception of a task is raised.

        Raises
        ------
        StoreError
            If the cluster cannot be reached, its workers die again and again, or cannot do the work: they do not see
            the folders, or have another release of zstore.
        """
        if not items:
            return []
        name = f"zstore-{phase}-{uuid.uuid4().hex}"  # other runs may use the same cluster
        # Tasks that need no other are started in the reverse order of their names, so that files are read in theirs.
        keys = [f"{name}-{number:09}" for number in reversed(range(len(items)))]
        size_of = dict(zip(keys, sizes or [1] * len(items), strict=True))
        number_of = {key: number for number, key in enumerate(keys)}
        total, done = sum(size_of.values()), 0

        def finished(key: str, result: Any, *_: object) -> None:
            nonlocal done
            done += size_of[key]
            self._progress(phase, done, total, unit)
            if seen is not None and key in number_of:
                seen(number_of[key], result)

        self._progress(phase, 0, total, unit)
        if self._cluster is not None:
            # Not of the group of the tasks, as Dask tells groups by names: it would take them for tasks that had best
            # run where what they need lies, and have one worker do all of them.
            held = f"zstore-held-{uuid.uuid4().hex}"
            tasks = {key: (partial(_apply, item), held) for key, item in zip(keys, items, strict=True)}
            graph = {held: (_Held(Task(function, self._marks, self._task_bytes)),), **tasks}
            return self._cluster.run(name, graph, keys, finished, seen is not None)
        # Not dask.threaded, which takes a twentieth of a second to import.
        results = on_threads(function, items, self.workers, lambda number, result: finished(keys[number], result))
        pa.default_memory_pool().release_unused()  # what threads that have ended left there
        return results

    def report(self, phase: str, done: int, total: int, unit: str) -> None:
        """Show how much of a phase is done that is no list of tasks; `total` is 0 as long as nobody knows it."""
        self._progress(phase, done, total, unit)


class _Held:
    """What every task of a phase needs, as a node of the graph of its own."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __call__(self) -> Any:
        return self._value


def _apply(item: Item, function: Callable[[Item], Result]) -> Result:
    return function(item)
