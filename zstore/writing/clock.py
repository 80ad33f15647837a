"""How long the stages of a writer take."""

from __future__ import annotations

import logging
from dataclasses import replace
from time import perf_counter, time_ns

from zstore.writing.receipt import Receipt

logger = logging.getLogger(__name__)


class Clock:
    """Seconds of each stage, and when the first one began, in nanoseconds since 1970."""

    def __init__(self) -> None:
        self._last, self.began_ns = perf_counter(), time_ns()
        self.laps: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        """End a stage, or one more time that it took."""
        now = perf_counter()
        self.laps[stage] = round(self.laps.get(stage, 0) + now - self._last, 3)
        logger.info("%s took %.1f s", stage, now - self._last)
        self._last = now

    def on(self, receipt: Receipt) -> Receipt:
        """A receipt with the seconds of each stage, and of all."""
        return replace(receipt, seconds={**self.laps, "total": round(sum(self.laps.values()), 3)})
