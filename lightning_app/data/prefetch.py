"""The next batches made on threads while the last one is used."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

import torch

Item = TypeVar("Item")

_LOOK_S = 0.1


def prefetched(items: Iterator[Item], depth: int) -> Iterator[Item]:
    """The same items, made up to `depth` ahead on a thread of their own.

    Parameters
    ----------
    items
        Iterated on that thread only; closed when this iterator is.
    depth
        Items that may be ready; 0 for no thread.

    Raises
    ------
    Exception
        What making an item raises, in the place of that item.
    """
    if not depth:
        yield from items
        return
    ready: queue.Queue[tuple[Item | None, BaseException | None, bool]] = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: Item | None, error: BaseException | None, last: bool) -> None:
        waiting = True
        while waiting and not stopped.is_set():
            with suppress(queue.Full):
                ready.put((item, error, last), timeout=_LOOK_S)
                waiting = False

    def work() -> None:
        try:
            for item in items:
                put(item, None, False)
                if stopped.is_set():
                    break
            put(None, None, True)
        except BaseException as error:  # raised where the item is asked for
            put(None, error, True)

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item, error, last = ready.get()
            if error is not None:
                raise error
            if last:
                return
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()


def in_flight(tasks: Iterator[Callable[[], Item]], n_threads: int) -> Iterator[Item]:
    """The results of tasks, in their order; each is done by one thread, and as many at once as there are threads.

    Parameters
    ----------
    tasks
        Iterated on the calling thread; one more than `n_threads` are taken ahead.
    n_threads
        Threads. PyTorch has only one thread inside each of them: a task waits for no other core, which may be busy.

    Raises
    ------
    Exception
        What a task raises, in the place of its result.
    """
    pool = ThreadPoolExecutor(n_threads, "batch", initializer=_alone, initargs=(torch.get_num_threads(),))
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
        pool.shutdown()


def _alone(n_threads: int) -> None:
    """Let this thread do the work of PyTorch alone, and leave the others their `n_threads`."""
    torch.get_num_threads()  # which a thread is given when it first asks, whatever was set before
    torch.set_num_threads(1)
    restore = threading.Thread(target=torch.set_num_threads, args=(n_threads,))  # for threads to come
    restore.start()
    restore.join()
