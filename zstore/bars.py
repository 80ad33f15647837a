"""A bar for each phase of long work, on a terminal and in a notebook that has ipywidgets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from zstore.amounts import resident_bytes, show_amount, show_done, show_size


@contextmanager
def shown_bars() -> Iterator[Callable[[str, int, int, str], None]]:
    """Reports as a bar per phase; as nothing where nobody sees bars."""
    console = Console(stderr=True)
    if not console.is_terminal and not (console.is_jupyter and find_spec("ipywidgets") is not None):
        yield lambda *_: None  # not a Progress that is disabled: one of rich 13 ends with an empty line
        return
    columns = (
        TextColumn("{task.description:>10}"),
        BarColumn(),
        _Amount(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        _Memory(),
    )
    with Progress(*columns, console=console) as bars:
        phases: list[str] = []

        def report(phase: str, done: int, total: int, unit: str) -> None:
            if phase not in phases:
                phases.append(phase)
                bars.add_task(phase, total=total or None, unit=unit)
            task = bars.task_ids[phases.index(phase)]
            if total:
                bars.update(task, completed=done, total=total)
            else:  # a bar that moves to and fro
                bars.update(task, completed=done)

        yield report
        bars.refresh()  # rich leaves a notebook with what was shown last


class _Amount(ProgressColumn):
    """Done of all, and the rate."""

    def render(self, task: Task) -> Text:
        unit = task.fields["unit"]
        rate = task.finished_speed or task.speed
        per_second = f", {show_amount(rate, unit)}/s" if rate else ""
        return Text(f"{show_done(task.completed, task.total or 0, unit)}{per_second}")


class _Memory(ProgressColumn):
    """What the process holds now; at the end of a phase, what it held then."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        if task.finished:
            return Text("")
        return Text(f"memory {show_size(resident_bytes())}", style="dim")
