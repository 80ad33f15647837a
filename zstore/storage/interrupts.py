"""What a command that the user interrupts is not to wait for, such as answers of a network that come no more."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol
from weakref import WeakSet


class Endable(Protocol):
    """Something that threads may wait for."""

    def end(self) -> None:
        """Fail what is waited for, and whatever is asked for from now on."""
        ...


_ENDED_BY_INTERRUPTS: WeakSet[Endable] = WeakSet()


def end_by_interrupt(waited_for: Endable) -> None:
    """Let something be ended by :func:`ending_waits`, for as long as it lives."""
    _ENDED_BY_INTERRUPTS.add(waited_for)


@contextmanager
def ending_waits() -> Iterator[None]:
    """While a command runs: Ctrl-C fails what threads wait for, and then raises `KeyboardInterrupt` as ever.

    Whoever handles that may wait for the threads: they end at once. Nothing changes where interrupts are ignored, or
    handled by somebody else, or on another thread than the main one, which gets no signals.
    """
    default = signal.default_int_handler
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is not default:
        yield
        return
    signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is _interrupt:
            signal.signal(signal.SIGINT, default)


def _interrupt(number: int, frame: FrameType | None) -> None:
    for each in list(_ENDED_BY_INTERRUPTS):
        each.end()
    signal.default_int_handler(number, frame)
