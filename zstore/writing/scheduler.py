"""Runs one phase of tasks on Dask: threads on this machine, or the workers of a cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import dask.threaded
from dask.callbacks import Callback

from zstore.errors import UsageError

Item = TypeVar("Item")
Result = TypeVar("Result")
Progress = Callable[[str, int, int, str], None]
"""Called with a phase's name, how much of it is done, how much there is in all, and of what."""


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
        if workers is not None and workers < 1:
            raise UsageError(f"{workers} workers", expected="one or more", fix="mend --workers")
        self.workers = workers or len(os.sched_getaffinity(0))
        self.address = address
        self._progress = progress or (lambda phase, done, total, unit: None)

    def map(
        self,
        phase: str,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        sizes: Sequence[int] | None = None,
        unit: str = "tasks",
    ) -> list[Result]:
        """Run one phase; when this returns or raises, no task is running any more.

        Parameters
        ----------
        phase
            Its name.
        function
            What to do with an item.
        items
            One task each.
        sizes, unit
            How much of what each item is, to show progress; None to count tasks.

        Returns
        -------
        Results in the order of `items`. The first exception of a task is raised.
        """
        if not items:
            return []
        keys = [f"{phase}-{number}" for number in range(len(items))]
        graph = {key: (partial(function, item),) for key, item in zip(keys, items, strict=True)}
        size_of = dict(zip(keys, sizes or [1] * len(items), strict=True))
        total = sum(size_of.values())
        self._progress(phase, 0, total, unit)
        if self.address is not None:
            return self._on_cluster(graph, keys)
        done = 0

        def finished(key: str, *_: object) -> None:
            nonlocal done
            done += size_of[key]
            self._progress(phase, done, total, unit)

        with ThreadPoolExecutor(self.workers) as pool, Callback(posttask=finished):  # type: ignore[no-untyped-call]
            return list(dask.threaded.get(graph, keys, pool=pool))

    def _on_cluster(self, graph: Mapping[str, tuple[Callable[[], Result]]], keys: list[str]) -> list[Result]:
        from distributed import Client  # heavy, and only for clusters

        with Client(self.address, set_as_default=False) as client:  # type: ignore[no-untyped-call]
            return list(client.get(dict(graph), keys))
