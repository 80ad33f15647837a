"""Runs one phase of tasks on Dask: threads on this machine, or the workers of a cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import dask.threaded
from dask.callbacks import Callback

Item = TypeVar("Item")
Result = TypeVar("Result")
Progress = Callable[[str, int, int], None]
"""Called with a phase's name, the tasks done and the tasks in all."""


class Scheduler:
    """Maps a function over items as a Dask graph, one task each.

    Parameters
    ----------
    workers
        Threads on this machine; None for one per core.
    address
        ``tcp://…`` of a Dask cluster that sees the same files; None for threads.
    progress
        Called as tasks finish.
    """

    def __init__(
        self, workers: int | None = None, address: str | None = None, progress: Progress | None = None
    ) -> None:
        self.workers = workers or len(os.sched_getaffinity(0))
        self.address = address
        self._progress = progress or (lambda phase, done, total: None)

    def map(self, phase: str, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Results in the order of `items`; the first exception of a task is raised here.

        When this returns or raises, no task is running any more.
        """
        keys = [f"{phase}-{number}" for number in range(len(items))]
        graph = {key: (partial(function, item),) for key, item in zip(keys, items, strict=True)}
        self._progress(phase, 0, len(items))
        if not items:
            return []
        if self.address is not None:
            return self._on_cluster(graph, keys)
        done = 0

        def finished(*_: object) -> None:
            nonlocal done
            done += 1
            self._progress(phase, done, len(items))

        with ThreadPoolExecutor(self.workers) as pool, Callback(posttask=finished):  # type: ignore[no-untyped-call]
            return list(dask.threaded.get(graph, keys, pool=pool))

    def _on_cluster(self, graph: Mapping[str, tuple[Callable[[], Result]]], keys: list[str]) -> list[Result]:
        from distributed import Client  # heavy, and only for clusters

        with Client(self.address, set_as_default=False) as client:  # type: ignore[no-untyped-call]
            return list(client.get(dict(graph), keys))
