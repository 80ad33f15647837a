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
Result = TypeVar("Result")

_TRIAL_S = 0.03  # of work, after which the time of a task is known
_LEAST = 8  # tasks of a trial
_TERM = 64  # trials for which the faster way is kept before the other one is tried again
_SLOWER = 3.0  # times what a task took: a way that has become so slow is not kept any longer
_LAST = 64  # tasks, over which times are averaged


def made(tasks: Iterator[Callable[[], Item]], n_threads: int, n_at_once: int | None = None) -> Iterator[Item]:
    """The results of tasks, in their order, made in the way that is faster at the moment.

    Parameters
    ----------
    tasks
        Iterated on the calling thread. What they give must not depend on the number of threads.
    n_threads
        Threads that PyTorch uses for one task.
    n_at_once
        Tasks that are done at once, by one thread each; None for `n_threads`.

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
    n_at_once = n_at_once or n_threads
    with one_thread_each(n_at_once, n_threads) as pool:
        while True:
            apart, together = _Stint(tasks, _TRIAL_S), _Stint(tasks, _TRIAL_S)
            yield from _at_once(apart, pool, n_at_once)  # first: these tasks touch rows for the first time
            yield from _one_by_one(together)
            if together.mean() <= apart.mean() / n_at_once:
                stint = _Stint(tasks, _TRIAL_S * _TERM, together.mean() * _SLOWER)
                yield from _one_by_one(stint)
            else:
                stint = _Stint(tasks, _TRIAL_S * _TERM, apart.mean() * _SLOWER)
                yield from _at_once(stint, pool, n_at_once)
            if stint.ended:
                return


def made_ahead(tasks: Iterator[Callable[[], Item]], n_threads: int, n_at_once: int) -> Iterator[Item]:
    """The results of tasks, in their order, made by threads beside a model that uses the last one.

    Parameters
    ----------
    tasks
        Iterated on the calling thread.
    n_threads
        Threads that PyTorch has for the model.
    n_at_once
        Tasks that are done at once, by one thread each; one more is ready or waits.

    Raises
    ------
    Exception
        What a task raises, in the place of its result.
    """
    with one_thread_each(n_at_once, n_threads) as pool:
        yield from _in_order(tasks, pool, n_at_once)


class _Stint(Generic[Item]):
    """The next of some tasks, done in one way, and how long they take.

    Parameters
    ----------
    tasks
        Where they are taken from.
    seconds
        Of work, after which there are no more.
    too_long
        Seconds; when the last ones took longer, there are no more.
    """

    def __init__(self, tasks: Iterator[Callable[[], Item]], seconds: float, too_long: float = inf) -> None:
        self.ended = False
        self._tasks, self._seconds, self._too_long = tasks, seconds, too_long
        self._n, self._total = 0, 0.0
        self._last: deque[float] = deque(maxlen=_LAST)

    def __iter__(self) -> Iterator[Callable[[], tuple[Item, float]]]:
        while not self._is_over():
            task = next(self._tasks, None)
            if task is None:
                self.ended = True
                return
            yield partial(_timed, task)

    def took(self, result: Item, seconds: float) -> Item:
        """A result, whose time is counted."""
        self._n, self._total = self._n + 1, self._total + seconds
        self._last.append(seconds)
        return result

    def took_timed(self, timed: tuple[Item, float]) -> Item:
        """The same, of a result with its seconds."""
        return self.took(*timed)

    def mean(self) -> float:
        """Seconds of one of the last tasks."""
        return sum(self._last) / len(self._last) if self._last else 0.0

    def _is_over(self) -> bool:
        enough = self._n >= _LEAST and self._total >= self._seconds
        return enough or (self._n > 0 and self._n % _LEAST == 0 and self.mean() > self._too_long)


def _timed(task: Callable[[], Item]) -> tuple[Item, float]:
    began = perf_counter()
    return task(), perf_counter() - began


def _one_by_one(tasks: _Stint[Item]) -> Iterator[Item]:
    """The results of tasks that are done on the calling thread, and on those of PyTorch."""
    for task in tasks:
        yield tasks.took(*task())


def _at_once(tasks: _Stint[Item], pool: ThreadPoolExecutor, n_at_once: int) -> Iterator[Item]:
    """The results of tasks that are done on a pool of threads, one more of them than there are threads."""
    yield from map(tasks.took_timed, _in_order(iter(tasks), pool, n_at_once))  # which holds none of them


def _in_order(tasks: Iterator[Callable[[], Result]], pool: ThreadPoolExecutor, n_at_once: int) -> Iterator[Result]:
    """The results of tasks that are done on a pool of threads; held by nobody here once they are given."""
    coming: deque[Future[Result]] = deque()
    try:
        for task in tasks:
            coming.append(pool.submit(task))
            if len(coming) > n_at_once:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    finally:
        for future in coming:
            future.cancel()


@contextmanager
def one_thread_each(n_at_once: int, n_threads: int) -> Iterator[ThreadPoolExecutor]:
    """Threads inside each of which PyTorch has no others; they start when there is something to do."""
    pool = ThreadPoolExecutor(n_at_once, "batch", initializer=_alone, initargs=(n_threads,))
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
