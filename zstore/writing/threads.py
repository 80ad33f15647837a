"""Independent tasks on threads of this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_POLL_S = 0.2


def on_threads(
    function: Callable[[Item], Result], items: Sequence[Item], n_threads: int, finished: Callable[[int, Result], None]
) -> list[Result]:
    """Run a task for each item; when this returns or raises, none is running any more.

    Parameters
    ----------
    function
        What to do with an item.
    items
        Tasks are started in their order.
    n_threads
        Tasks that run at once.
    finished
        Called on the calling thread with the number of an item and its result as soon as that is there.

    Returns
    -------
    Results in the order of `items`.

    Raises
    ------
    Exception
        The first that a task raises, or what `finished` raises. Tasks that were not started then never are.
    """
    done: SimpleQueue[Future[Result]] = SimpleQueue()
    with ThreadPoolExecutor(n_threads) as pool:
        number_of = {pool.submit(function, item): number for number, item in enumerate(items)}
        try:
            for future in number_of:
                future.add_done_callback(done.put)
            for _ in items:
                future = _next_done(done)
                finished(number_of[future], future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        return [future.result() for future in number_of]


def _next_done(done: SimpleQueue[Future[Result]]) -> Future[Result]:
    """The next task that is done; a wait without an end could not be interrupted on Windows."""
    while True:
        try:
            return done.get(timeout=_POLL_S)
        except Empty:
            continue
