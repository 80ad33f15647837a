"""Where the time of batches goes: decoding, gathering, copying to a device, and how long whoever asks has waited."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Literal, TypeVar

import torch
from torch import Tensor

Phase = Literal["decode", "gather", "copy"]
Result = TypeVar("Result")

PHASES: tuple[Phase, ...] = ("decode", "gather", "copy")


class Phases:
    """Seconds that batches of a loader took, by phase, added up over all threads that make them.

    Attributes
    ----------
    wait_s
        Seconds for which whoever iterates the loader was held up, the first batch of each epoch included.

    Notes
    -----
    ``decode``: chunks and encoded images are read and decoded, or pieces of a stream are waited for. ``copy``: from
    memory to the device that trains; of a GPU as it tells by its own clock. ``gather``: all else, above all the copy of
    windows out of decoded rows, with the reading of mapped rows from the disk where they are not in memory yet.
    """

    def __init__(self) -> None:
        self.wait_s = 0.0
        self._seconds: dict[Phase, float] = dict.fromkeys(PHASES, 0.0)
        self._lock, self._within = threading.Lock(), threading.local()
        self._copies: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()

    @contextmanager
    def timed(self, phase: Phase) -> Iterator[None]:
        """Count what is done on this thread as one phase, less what is counted as another one meanwhile."""
        outer = getattr(self._within, "seconds", 0.0)
        self._within.seconds, began = 0.0, perf_counter()
        try:
            yield
        finally:
            elapsed = perf_counter() - began
            own = elapsed - self._within.seconds
            self._within.seconds = outer + elapsed
            with self._lock:
                self._seconds[phase] += own

    def timing(self, phase: Phase, work: Callable[[], Result]) -> Callable[[], Result]:
        """The same work, counted when it is done."""

        def counted() -> Result:
            with self.timed(phase):
                return work()

        return counted

    def waiting_for(self, items: Iterator[Result]) -> Result:
        """The next item; what that takes is waited for."""
        began = perf_counter()
        try:
            return next(items)
        finally:
            self.wait_s += perf_counter() - began

    def moved(self, values: Tensor, target: torch.device) -> Tensor:
        """A copy on a device."""
        with self.timed("copy"):
            if target.type != "cuda":
                return values.to(target)
            begun, ended, stream = _event(), _event(), torch.cuda.current_stream(target)
            begun.record(stream)
            copied = values.to(target, non_blocking=True)
            ended.record(stream)
        with self._lock:
            self._copies.append((begun, ended))
        return copied

    def seconds(self) -> dict[Phase, float]:
        """By phase; copies to a GPU once they are done."""
        with self._lock:
            while self._copies and self._copies[0][1].query():  # type: ignore[no-untyped-call]
                begun, ended = self._copies.popleft()
                self._seconds["copy"] += begun.elapsed_time(ended) / 1000
            return dict(self._seconds)


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
