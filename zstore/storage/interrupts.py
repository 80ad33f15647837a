"""What a command that the user interrupts is not to wait for, such as answers of a network that come no more."""

from __future__ import annotations

from typing import Protocol
from weakref import WeakSet


class Endable(Protocol):
    """Something that threads may wait for."""

    def end(self) -> None:
        """Fail what is waited for, and whatever is asked for from now on."""
        ...


_ENDED_BY_INTERRUPTS: WeakSet[Endable] = WeakSet()


def end_by_interrupt(waited_for: Endable) -> None:
    """Let something be ended by :func:`end_all`, for as long as it lives."""
    _ENDED_BY_INTERRUPTS.add(waited_for)


def end_all() -> None:
    """End what threads wait for: Python waits for all threads before it exits."""
    for each in list(_ENDED_BY_INTERRUPTS):
        each.end()
