"""One thread makes what another uses, so that a database goes on answering while its rows are written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Full, Queue
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_WAIT_S = 0.1
_END, _BROKEN = object(), object()


class BrokenHandoverError(Exception):
    """What made the items has failed, so there will be no more."""


def handed_over(use: Callable[[Iterator[Item]], Result], items: Iterable[Item]) -> Result:
    """What a function makes of some items: this thread makes them, and another runs the function.

    Parameters
    ----------
    use
        Takes all items. It gets a `BrokenHandoverError` from their iterator where making them has failed.
    items
        Made in this thread, for connections and their cursors may not be used in another.

    Notes
    -----
    One item waits while another is made and a third is used. What either raises is raised here, once the other thread
    is done.
    """
    queue: Queue[Any] = Queue(1)
    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(use, _received(queue))
        try:
            for item in items:
                if not _put(queue, item, made):
                    break
            _put(queue, _END, made)
        except BaseException:
            _put(queue, _BROKEN, made)
            raise
        return made.result()


def _put(queue: Queue[Any], item: Any, made: Future[Any]) -> bool:
    """Hand an item over; False if nobody takes it, since the function has ended."""
    while not made.done():
        try:
            queue.put(item, timeout=_WAIT_S)
            return True
        except Full:
            continue
    return False


def _received(queue: Queue[Any]) -> Iterator[Any]:
    while (item := queue.get()) is not _END:
        if item is _BROKEN:
            raise BrokenHandoverError
        yield item
