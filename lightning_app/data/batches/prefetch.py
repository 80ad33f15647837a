"""The next items made on a thread while the last one is used."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import TypeVar

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
