"""Long work shows itself: bars on a terminal, lines in a log file, nothing elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from time import monotonic

import psutil
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

logger = logging.getLogger(__name__)

Report = Callable[[str, int, int, str], None]
"""Called with a phase, how much of it is done, how much there is in all, and of what: ``bytes``, ``rows``, …"""

_LOG_SECONDS = 10.0


def show_size(n_bytes: float) -> str:
    """Bytes as a person writes them."""
    size, units = float(n_bytes), ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
    while size >= 1024 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size:.0f} {units[0]}" if units[0] == "B" else f"{size:.1f} {units[0]}"


def show_amount(amount: float, unit: str) -> str:
    """An amount of something as a person writes it."""
    return show_size(amount) if unit == "bytes" else f"{amount:,.0f} {unit}"


def resident_bytes() -> int:
    """Memory that this process holds."""
    return int(psutil.Process().memory_info().rss)


@contextmanager
def shown_progress(quiet: bool = False) -> Iterator[Report]:
    """Reports as a bar per phase, on a terminal and in a notebook that has ipywidgets, and as lines in the log.

    Parameters
    ----------
    quiet
        No bars.
    """
    console = Console(stderr=True)
    seen = console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)
    columns = (
        TextColumn("{task.description:>10}"),
        BarColumn(),
        _Amount(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        _Memory(),
    )
    with Progress(*columns, console=console, disable=quiet or not seen) as bars:
        phases: dict[str, _Phase] = {}

        def report(phase: str, done: int, total: int, unit: str) -> None:
            if phase not in phases:
                phases[phase] = _Phase(phase, unit)
                bars.add_task(phase, total=total, unit=unit)
            bars.update(bars.task_ids[list(phases).index(phase)], completed=done, total=total)
            phases[phase].log(done, total)

        yield report
        bars.refresh()  # rich leaves a notebook with what was shown last


class _Phase:
    """The lines of one phase in the log."""

    def __init__(self, name: str, unit: str) -> None:
        self._name, self._unit = name, unit
        self._started = self._logged = monotonic()

    def log(self, done: int, total: int) -> None:
        now = monotonic()
        if done < total and now - self._logged < _LOG_SECONDS:
            return
        self._logged = now
        rate = done / max(now - self._started, 1e-3)
        left = f", {(total - done) / rate:,.0f} s left" if 0 < done < total else ""
        logger.info(
            "%s: %s of %s, %s/s%s, %s in memory",
            self._name,
            show_amount(done, self._unit),
            show_amount(total, self._unit),
            show_amount(rate, self._unit),
            left,
            show_size(resident_bytes()),
        )


class _Amount(ProgressColumn):
    """Done of all, and the rate."""

    def render(self, task: Task) -> Text:
        unit = task.fields["unit"]
        rate = task.finished_speed or task.speed
        per_second = f", {show_amount(rate, unit)}/s" if rate else ""
        return Text(f"{show_amount(task.completed, unit)} of {show_amount(task.total or 0, unit)}{per_second}")


class _Memory(ProgressColumn):
    """What the process holds now; at the end of a phase, what it held then."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        if task.finished:
            return Text("")
        return Text(f"memory {show_size(resident_bytes())}", style="dim")
