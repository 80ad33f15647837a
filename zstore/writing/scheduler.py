"""Runs one phase of tasks: on threads of this machine, or as a Dask graph on the workers of a cluster."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

import pyarrow as pa

from zstore.errors import StoreError, UsageError
from zstore.memory import total_memory
from zstore.storage.portable import n_cores
from zstore.writing.threads import on_threads

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")
Progress = Callable[[str, int, int, str], None]
"""Called with a phase's name, how much of it is done, how much there is in all, and of what."""

LOCAL = "local"
THREAD_BYTES = 1 << 28
"""Memory of a task at most: blocks are cut so, and a shard takes less."""
_CONNECT_S, _SETTLE_S = 10, 60
_LOOK_S, _ALONE_S, _POLL_S = 5, 300, 0.1  # how often to look for workers, and how long to wait for one
_DEATHS = 50  # of workers that a task may be running on, before it is taken for their cause
_AWAY = "1 hour"  # after which a worker that died is given up; 15 s, as is usual, are few on a busy machine


class Scheduler:
    """Maps a function over items, one task each: on threads, or on the workers of a Dask cluster.

    Parameters
    ----------
    workers
        Threads, or processes of a cluster on this machine; None for one per core.
    address
        ``tcp://…`` of a Dask cluster that sees the same files; ``local`` for one that is started here, of processes;
        None for threads.
    progress
        Called as tasks finish.
    memory_limit
        Bytes of memory to stay under, of this process or of each worker of a cluster; None for what all workers may
        need, but at most half of the memory that there is.
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
        address: str | None = None,
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
        self.address = address
        self.memory_limit = THREAD_BYTES if memory_limit is None else memory_limit
        if address is None:
            self._fit(memory_limit, max(task_bytes, THREAD_BYTES))
        self._progress = progress or (lambda phase, done, total, unit: None)
        self._stack = ExitStack()
        self._client: Any = None

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
        self._stack.close()

    @property
    def shared(self) -> bool:
        """Whether other processes than this one work."""
        return self.address is not None

    @property
    def sharers(self) -> int:
        """Threads among which a limit of memory is divided: all of this process, or those of one worker."""
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
            If the cluster cannot be reached, or its workers die again and again.
        """
        if not items:
            return []
        name = f"zstore-{phase}-{uuid.uuid4().hex}"  # other runs may use the same cluster
        # Tasks that need no other are started in the reverse order of their names, so that files are read in theirs.
        keys = [f"{name}-{number:09}" for number in reversed(range(len(items)))]
        size_of = {name: 0, **dict(zip(keys, sizes or [1] * len(items), strict=True))}
        number_of = {key: number for number, key in enumerate(keys)}
        total, done = sum(size_of.values()), 0

        def finished(key: str, result: Any, *_: object) -> None:
            nonlocal done
            done += size_of[key]
            self._progress(phase, done, total, unit)
            if seen is not None and key in number_of:
                seen(number_of[key], result)

        self._progress(phase, 0, total, unit)
        if self.shared:
            tasks = {key: (partial(_apply, item), name) for key, item in zip(keys, items, strict=True)}
            graph = {name: (_Held(function),), **tasks}
            return self._on_cluster(name, graph, keys, finished, seen is not None)
        # Not dask.threaded, which takes a twentieth of a second to import.
        results = on_threads(function, items, self.workers, lambda number, result: finished(keys[number], result))
        pa.default_memory_pool().release_unused()  # what threads that have ended left there
        return results

    def report(self, phase: str, done: int, total: int, unit: str) -> None:
        """Show how much of a phase is done that is no list of tasks; `total` is 0 as long as nobody knows it."""
        self._progress(phase, done, total, unit)

    def _on_cluster(
        self, name: str, graph: dict[str, Any], keys: list[str], finished: Callable[[str, Any], None], seen: bool
    ) -> list[Any]:
        from distributed import KilledWorker, as_completed  # heavy, and only for clusters

        client = self._connected()
        futures = client.get(graph, keys, sync=False)
        try:
            for future in _finished(as_completed(futures, loop=client.loop), client, self.address):  # type: ignore[no-untyped-call]
                if seen or future.status == "error":
                    finished(future.key, future.result())
                else:
                    finished(future.key, None)
            gathered: list[Any] = client.gather(futures)
            return gathered
        except KilledWorker as error:
            raise StoreError(
                f"workers died again and again ({error})",
                expected="a cluster that lasts",
                where=str(self.address),
                fix="give each worker more memory, or a smaller --memory-limit or --blocksize",
            ) from error
        finally:
            client.cancel(futures, force=True)
            end = time.monotonic() + _SETTLE_S
            while time.monotonic() < end and any(client.run(_n_tasks, name, on_error="ignore").values()):
                time.sleep(0.05)

    def _connected(self) -> Any:
        """The client of this run."""
        if self._client is None:
            import dask.config
            from distributed import Client, LocalCluster

            try:
                if self.address == LOCAL:
                    patience = {
                        "distributed.scheduler.allowed-failures": _DEATHS,
                        "distributed.deploy.lost-worker-timeout": _AWAY,
                    }
                    self._stack.enter_context(dask.config.set(patience))
                    options = {"threads_per_worker": 1, "memory_limit": 0, "dashboard_address": "127.0.0.1:0"}
                    cluster: Any = LocalCluster(self.workers, **options)  # type: ignore[no-untyped-call]
                    self._stack.enter_context(cluster)
                else:
                    cluster = self.address
                client: Any = Client(cluster, set_as_default=False, timeout=_CONNECT_S)  # type: ignore[no-untyped-call]
                self._client = self._stack.enter_context(client)
                client.wait_for_workers(1, timeout=_CONNECT_S)
            except (OSError, ValueError, TimeoutError) as error:
                raise StoreError(
                    f"no cluster ({error})",
                    expected="a Dask scheduler with workers",
                    where=str(self.address),
                    fix="check --scheduler, as tcp://host:8786, or local for processes on this machine",
                ) from error
        return self._client


def _finished(coming: Any, client: Any, address: str | None) -> Iterator[Any]:
    """Tasks as they are done, as long as there are workers to do them.

    Raises
    ------
    StoreError
        If the cluster has had none for some minutes.
    """
    alone_since, next_look, told = time.monotonic(), time.monotonic() + _LOOK_S, False
    while not coming.is_empty():
        if coming.has_ready():
            yield next(coming)
            continue
        with coming.thread_condition:
            coming.thread_condition.wait(_POLL_S)
        now = time.monotonic()
        if now < next_look:
            continue
        next_look = now + _LOOK_S
        if client.scheduler_info()["workers"]:
            alone_since, told = now, False
        elif now - alone_since > _ALONE_S:
            raise StoreError(
                f"a cluster without a worker for {_ALONE_S // 60} minutes",
                expected="workers that come, and stay",
                where=str(address),
                fix="look at the logs of its workers, and run the same command again: it goes on from there",
            )
        elif not told:
            logger.warning("the cluster %s has no worker; waiting for one", address)
            told = True


class _Held:
    """What every task of a phase needs, as a node of the graph of its own."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __call__(self) -> Any:
        return self._value


def _apply(item: Item, function: Callable[[Item], Result]) -> Result:
    return function(item)


def _n_tasks(name: str, dask_worker: Any = None) -> int:
    """Tasks of a phase that a worker still has."""
    return sum(str(key).startswith(name) for key in dask_worker.state.tasks)
