"""Batches made by all threads together, or several at once by one thread each: whichever is faster now."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from math import inf
from time import perf_counter
from typing import Generic, TypeVar

import torch

Item = TypeVar("Item")

_TRIAL = 32  # tasks that tell how long one takes
_TERM = 64  # trials for which the faster way is kept before the other one is tried again
_SLOWER = 3.0  # times what a task took: a way that has become so slow is not kept any longer


def made(tasks: Iterator[Callable[[], Item]], n_threads: int) -> Iterator[Item]:
    """The results of tasks, in their order, made in the way that is faster at the moment.

    Parameters
    ----------
    tasks
        Iterated on the calling thread. What they give must not depend on the number of threads.
    n_threads
        Threads that PyTorch uses for one task, or tasks that are done at once.

    Raises
    ------
    Exception
        What a task raises, in the place of its result.

    Notes
    -----
    Threads that share a batch share its memory, which stays in their caches, but they wait for each other: while
    another process holds a core, for milliseconds. Threads that make a batch each wait for nobody, and need more
    memory. Both ways are tried, and the time that tasks took decides.
    """
    with _one_thread_each(n_threads) as pool:
        while True:
            apart, together = _Stint(tasks, _TRIAL), _Stint(tasks, _TRIAL)
            yield from _at_once(apart, pool, n_threads)  # the first tasks are slow: they touch rows for the first time
            yield from (task() for task in together)
            if together.seconds() <= apart.seconds() / n_threads:
                stint = _Stint(tasks, _TRIAL * _TERM, together.seconds() * _SLOWER)
                yield from (task() for task in stint)
            else:
                stint = _Stint(tasks, _TRIAL * _TERM, apart.seconds() * _SLOWER)
                yield from _at_once(stint, pool, n_threads)
            if stint.ended:
                return


class _Stint(Generic[Item]):
    """The next of some tasks, with the time that each takes.

    Parameters
    ----------
    tasks
        Where they are taken from.
    n
        How many at most.
    too_long
        Seconds; when the last ones took longer, there are no more.
    """

    def __init__(self, tasks: Iterator[Callable[[], Item]], n: int, too_long: float = inf) -> None:
        self.ended = False
        self._tasks, self._n, self._too_long = tasks, n, too_long
        self._spent: deque[float] = deque(maxlen=_TRIAL)

    def __iter__(self) -> Iterator[Callable[[], Item]]:
        for number in range(self._n):
            if number % _TRIAL == 0 and number and self.seconds() > self._too_long:
                return
            task = next(self._tasks, None)
            if task is None:
                self.ended = True
                return
            yield partial(self._timed, task)

    def seconds(self) -> float:
        """The mean of the last tasks, without the slowest eighth."""
        spent = sorted(self._spent)
        kept = spent[: len(spent) - len(spent) // 8]
        return sum(kept) / len(kept) if kept else 0.0

    def _timed(self, task: Callable[[], Item]) -> Item:
        began = perf_counter()
        result = task()
        self._spent.append(perf_counter() - began)
        return result


def _at_once(tasks: _Stint[Item], pool: ThreadPoolExecutor, n_threads: int) -> Iterator[Item]:
    """The results of tasks that are done on a pool of threads, one more of them than there are threads."""
    coming: deque[Future[Item]] = deque()
    try:
        for task in tasks:
            coming.append(pool.submit(task))
            if len(coming) > n_threads:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    finally:
        for future in coming:
            future.cancel()


@contextmanager
def _one_thread_each(n_threads: int) -> Iterator[ThreadPoolExecutor]:
    """Threads inside each of which PyTorch has no others; they start when there is something to do."""
    pool = ThreadPoolExecutor(n_threads, "batch", initializer=_alone, initargs=(n_threads,))
    try:
        yield pool
    finally:
        pool.shutdown()


def _alone(n_threads: int) -> None:
    """Let this thread do the work of PyTorch alone, and leave the others their `n_threads`."""
    torch.get_num_threads()  # which a thread is given when it first asks, whatever was set before
    torch.set_num_threads(1)
    restore = threading.Thread(target=torch.set_num_threads, args=(n_threads,))  # for threads to come
    restore.start()
    restore.join()
