"""Objects read in their order, many ahead of use where each would have to be waited for."""

from __future__ import annotations

import errno
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Generic, TypeVar

from zstore.format.manifest import ObjectRecord

Result = TypeVar("Result")

_MOST_BYTES = 1 << 27
_AT_ONCE = 48
_LOOK_S = 0.5  # after which who waits looks whether reading was interrupted


class Ahead(Generic[Result]):
    """Objects that are taken in about their order, on any thread.

    Parameters
    ----------
    read
        Reads one.
    records
        Which there are, in the order in which they are taken.
    remote
        Whether they are read ahead; else each is read when it is taken.

    Notes
    -----
    At most 128 MiB of objects are read and not yet taken, or one that is longer.
    """

    def __init__(self, read: Callable[[ObjectRecord], Result], records: Iterable[ObjectRecord], remote: bool) -> None:
        self._read, self._lock = read, threading.Lock()
        self._records = {record.key: record for record in records}
        self._left = deque(self._records if remote else ())
        self._coming: dict[str, Future[Result]] = {}
        self._n_held, self._interrupted = 0, False
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="read ahead")

    def __enter__(self) -> Ahead[Result]:
        self._begin(0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._interrupted = error is not None  # then nobody waits for a network
        self._threads.shutdown(wait=error is None, cancel_futures=True)

    def take(self, key: str) -> Result:
        """One of them. Raises what reading it raises, and `InterruptedError` once this was left by an exception."""
        record = self._records[key]
        with self._lock:
            coming = self._coming.pop(key, None)
            if coming is None and key in self._left:  # somebody is much quicker than the others
                self._left.remove(key)
        if coming is None:
            return self._read(record)
        try:
            while not wait([coming], _LOOK_S).done:
                if self._interrupted:
                    raise InterruptedError(errno.EINTR, "reading was interrupted", key)
            return coming.result()
        finally:
            self._begin(record.n_bytes)

    def _begin(self, n_taken: int) -> None:
        with self._lock:
            self._n_held -= n_taken
            while self._left:
                record = self._records[self._left[0]]
                if self._coming and self._n_held + record.n_bytes > _MOST_BYTES:
                    return
                self._left.popleft()
                self._n_held += record.n_bytes
                self._coming[record.key] = self._threads.submit(self._read, record)
