"""Long work shows itself: bars on a terminal, lines in a log file, nothing elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from time import monotonic

from zstore.amounts import resident_bytes, show_amount, show_done, show_size

logger = logging.getLogger(__name__)

Report = Callable[[str, int, int, str], None]
"""Called with a phase, how much of it is done, how much there is in all, and of what: ``bytes``, ``rows``, …; there are
0 in all as long as nobody knows how many."""

_LOG_SECONDS = 10.0


@contextmanager
def shown_progress(quiet: bool = False) -> Iterator[Report]:
    """Reports as a bar per phase, on a terminal and in a notebook that has ipywidgets, and as lines in the log.

    Parameters
    ----------
    quiet
        No bars.
    """
    phases: dict[str, _Phase] = {}
    with ExitStack() as stack:
        if quiet:
            shown = None
        else:
            from zstore.bars import shown_bars  # rich takes 40 ms to import: only where its bars may be seen

            shown = stack.enter_context(shown_bars())

        def report(phase: str, done: int, total: int, unit: str) -> None:
            if shown is not None:
                shown(phase, done, total, unit)
            phases.setdefault(phase, _Phase(phase, unit)).log(done, total)

        yield report


class _Phase:
    """The lines of one phase in the log."""

    def __init__(self, name: str, unit: str) -> None:
        self._name, self._unit = name, unit
        self._started = self._logged = monotonic()

    def log(self, done: int, total: int) -> None:
        now = monotonic()
        if (done < total or not total) and now - self._logged < _LOG_SECONDS:
            return
        self._logged = now
        rate = done / max(now - self._started, 1e-3)
        left = f", {(total - done) / rate:,.0f} s left" if 0 < done < total else ""
        logger.info(
            "%s: %s, %s/s%s, %s in memory",
            self._name,
            show_done(done, total, self._unit),
            show_amount(rate, self._unit),
            left,
            show_size(resident_bytes()),
        )
