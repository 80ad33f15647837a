"""Requests in flight: many at once, bounded in bytes, and a second one where an answer is late."""

from __future__ import annotations

import asyncio
import atexit
import errno
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import lru_cache
from typing import Any, TypeVar

from zstore.errors import UsageError
from zstore.sizes import parse_size
from zstore.storage.interrupts import end_by_interrupt
from zstore.storage.remote import ATTEMPTS, ERRORS, WAIT_S, failed_for_good, given_up

Result = TypeVar("Result")

PART_BYTES = 1 << 22
"""Bytes that one request asks for at most; what is longer is fetched in parts, several at once."""

MOST_BYTES = 1 << 26
OWN_OPTIONS = ("in_flight", "hedge")
"""Storage options that are not obstore's."""

_MOST_REQUESTS = 64
_FIRST_BYTES, _LEAST_BYTES = 1 << 24, 1 << 23
_SLOW_S, _FAST_S = 10.0, 5.0  # an answer that takes this long has too many others beside it; or may have more
_REMEMBERED, _KNOWN_FROM = 128, 16
_QUANTILE, _TIMES, _LEAST_S, _FIRST_S = 0.95, 2.0, 0.1, 3.0
_FREE_HEDGES, _HEDGED_SHARE = 4, 20  # a twentieth of all requests, and a few to begin with


class Patience:
    """How long to wait for an answer before it is asked for a second time: twice the 95th percentile of the last ones.

    Notes
    -----
    At most one request in twenty is sent twice, so that a server that becomes slow as a whole is not asked for double.
    """

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=_REMEMBERED)
        self._limit, self._n_sent, self._n_new = _FIRST_S, 0, 0
        self.n_hedged = 0

    def add(self, seconds: float) -> None:
        """Note how long an answer took."""
        self._seconds.append(seconds)
        self._n_sent, self._n_new = self._n_sent + 1, self._n_new + 1
        if self._n_new >= _KNOWN_FROM:
            ordered, self._n_new = sorted(self._seconds), 0
            self._limit = max(_LEAST_S, _TIMES * ordered[int(_QUANTILE * (len(ordered) - 1))])

    @property
    def limit_s(self) -> float:
        """Seconds after which a second request is sent."""
        return self._limit

    @property
    def may_hedge(self) -> bool:
        """Whether few enough requests were sent twice so far."""
        return self.n_hedged < _FREE_HEDGES + self._n_sent // _HEDGED_SHARE


class InFlight:
    """All requests of a process that read, on one thread that waits for their answers.

    Parameters
    ----------
    most_bytes
        Bytes of answers that are waited for, or not yet used, at any time.
    hedge
        Whether a late answer is asked for a second time; whichever comes first is taken.

    Notes
    -----
    Requests are sent in the order in which they are asked for. Where answers take longer than ten seconds, fewer bytes
    are asked for at once, down to 8 MiB, so that a slow network does not run into time-outs of its own making.
    """

    def __init__(self, most_bytes: int = MOST_BYTES, hedge: bool = True) -> None:
        self.most_bytes, self._hedge, self.patience = most_bytes, hedge, Patience()
        self._window, self._held, self._n_held = min(_FIRST_BYTES, most_bytes), 0, 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self.peak_bytes = 0
        self._loop = asyncio.new_event_loop()
        self._ended = False
        threading.Thread(target=self._loop.run_forever, name="requests", daemon=True).start()
        atexit.register(self._cancel_all)
        end_by_interrupt(self)

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Wait on this thread for what is done on that of the requests. Raises `InterruptedError` after :meth:`end`."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            if self._ended:
                raise InterruptedError(errno.EINTR, "interrupted")
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def ask(
        self,
        where: str,
        n_bytes: int,
        request: Callable[[], Awaitable[Result]],
        use: Callable[[Result], None] | None = None,
    ) -> Result:
        """The answer to a request, sent again where that may help.

        Parameters
        ----------
        where
            For messages.
        n_bytes
            Bytes that are asked for.
        request
            Sends it.
        use
            What is done with the answer, on another thread, while its bytes still count as in flight.

        Raises
        ------
        FileNotFoundError, PreconditionError, PermissionError, OSError
            As :func:`zstore.storage.remote.send`.
        """
        n_bytes = min(n_bytes, self.most_bytes)
        await self._enter(n_bytes)
        try:
            answer = await self._answer(where, n_bytes, request)
            if use is not None:
                await self._loop.run_in_executor(None, use, answer)
            return answer
        finally:
            self._leave(n_bytes)

    async def _answer(self, where: str, n_bytes: int, request: Callable[[], Awaitable[Result]]) -> Result:
        failed: Exception | None = None
        for attempt in range(ATTEMPTS):
            began = time.monotonic()
            try:
                answer = await self._first_of_two(n_bytes, request)
            except ERRORS as error:
                failed = failed_for_good(error, where)
                await asyncio.sleep(WAIT_S * 2**attempt)
            else:
                self._learn(time.monotonic() - began)
                return answer
        raise given_up(failed, where)

    async def _first_of_two(self, n_bytes: int, request: Callable[[], Awaitable[Result]]) -> Result:
        """The answer to a request or, where it is late, to another one like it."""
        tasks: set[asyncio.Future[Result]] = {asyncio.ensure_future(request())}
        try:
            done, _ = await asyncio.wait(tasks, timeout=self.patience.limit_s if self._hedge else None)
            second = not done and self.patience.may_hedge and self._held + n_bytes <= self.most_bytes
            if second:
                self.patience.n_hedged += 1
                self._take(n_bytes)
                tasks.add(asyncio.ensure_future(request()))
            try:
                return await _first_good(tasks)
            finally:
                if second:
                    self._leave(n_bytes)
        finally:
            for task in tasks:
                task.cancel()

    def _learn(self, seconds: float) -> None:
        self.patience.add(seconds)
        if seconds > _SLOW_S:
            self._window = max(self._window // 2, min(_LEAST_BYTES, self.most_bytes))
        elif seconds < _FAST_S:
            self._window = min(self._window + PART_BYTES, self.most_bytes)

    def _fits(self, n_bytes: int) -> bool:
        return not self._n_held or (self._held + n_bytes <= self._window and self._n_held < _MOST_REQUESTS)

    def _take(self, n_bytes: int) -> None:
        self._held, self._n_held = self._held + n_bytes, self._n_held + 1
        self.peak_bytes = max(self.peak_bytes, self._held)

    async def _enter(self, n_bytes: int) -> None:
        if not self._waiting and self._fits(n_bytes):
            self._take(n_bytes)
            return
        turn = self._loop.create_future()
        self._waiting.append((n_bytes, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave(n_bytes)
            raise

    def _leave(self, n_bytes: int) -> None:
        self._held, self._n_held = self._held - n_bytes, self._n_held - 1
        while self._waiting and (self._waiting[0][1].done() or self._fits(self._waiting[0][0])):
            n_next, turn = self._waiting.popleft()
            if not turn.done():  # else nobody waits for it any more
                self._take(n_next)
                turn.set_result(None)

    def end(self) -> None:
        """Cancel all requests, and send no more: the user has interrupted the command, and the process ends."""
        self._ended = True
        self._loop.call_soon_threadsafe(self._cancel_tasks)

    def _cancel_all(self) -> None:
        """Leave no request behind that would answer a process that has ended."""

        async def cancel() -> None:
            self._cancel_tasks()

        with suppress(Exception):  # the process ends, whatever becomes of them
            asyncio.run_coroutine_threadsafe(cancel(), self._loop).result(1)

    def _cancel_tasks(self) -> None:
        for task in asyncio.all_tasks(self._loop) - {asyncio.current_task(self._loop)}:
            task.cancel()


async def _first_good(tasks: set[asyncio.Future[Result]]) -> Result:
    """The first answer that is none of an error; the error where there is no other."""
    pending = tasks
    while True:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        good = [task for task in done if task.exception() is None]
        if good or not pending:
            return (good or list(done))[0].result()


def requests_of(process: int, options: tuple[tuple[str, str], ...]) -> InFlight:
    """What sends the requests of a process to a bucket with these options.

    Raises
    ------
    UsageError
        If :data:`OWN_OPTIONS` cannot be meant.
    """
    given = dict(options)
    n_bytes = parse_size(given.get("in_flight", f"{MOST_BYTES}"))
    hedge = str(given.get("hedge", "true")).lower()
    if hedge not in ("true", "false"):
        raise UsageError(f"storage option hedge={hedge}", expected="true or false", fix="correct --storage-options")
    if n_bytes < PART_BYTES:
        raise UsageError(
            f"storage option in_flight={given['in_flight']}", expected="4MiB or more", fix="correct --storage-options"
        )
    return _requests(process, n_bytes, hedge == "true")


@lru_cache(maxsize=16)
def _requests(process: int, most_bytes: int, hedge: bool) -> InFlight:
    """One for each process, for none survives a fork."""
    return InFlight(most_bytes, hedge)
