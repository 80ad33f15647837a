"""Batches made on the calling thread, whose large copies other threads do behind its back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from lightning_app.data.batches.making import one_thread_each
from lightning_app.data.lasting import lasting

Item = TypeVar("Item")
Copies = list[Callable[[], object]]


def copied_behind(tasks: Iterator[Callable[[Copies], Item]], n_threads: int) -> Iterator[Item]:
    """The results of tasks, in their order, each with its copies done.

    Parameters
    ----------
    tasks
        Iterated and called on the calling thread. Each adds to a list what is still to be done before its result may be
        used.
    n_threads
        Threads in all, 2 or more: the calling one, and those that do what was added.

    Raises
    ------
    Exception
        What a copy raises, in the place of its result; what a task raises when it is called, a few results ahead.

    Notes
    -----
    Of small batches with images, half of the time goes into many small steps that hold Python's lock, and half into
    one large copy that does not. Threads that make a batch each wait for that lock at each of these steps; here it
    changes hands once or twice a batch.
    """
    n_copying = n_threads - 1
    coming: deque[tuple[Item, Future[None]]] = deque()
    with one_thread_each(n_copying, n_threads) as pool:
        try:
            for task in tasks:
                coming.append(_begun(task, pool))
                if len(coming) > n_copying + 1:
                    yield _finished(coming)
            while coming:
                yield _finished(coming)
        finally:
            for _, future in coming:
                future.cancel()


def _begun(task: Callable[[Copies], Item], pool: ThreadPoolExecutor) -> tuple[Item, Future[None]]:
    copies: Copies = []
    with lasting():  # a test is in inference mode, whose tensors no thread may fill that is not
        item = task(copies)
    return item, pool.submit(_do, copies)


def _do(copies: Copies) -> None:
    for copy in copies:
        copy()


def _finished(coming: deque[tuple[Item, Future[None]]]) -> Item:
    """The next result; held by nobody here once it is given, so that its memory can be used again."""
    item, future = coming.popleft()
    future.result()
    return item
