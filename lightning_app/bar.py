"""The bar of a fit in a terminal: time left, windows per second, the metric that is watched, the loss."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from time import monotonic
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint, ProgressBar, RichProgressBar
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from lightning_app.monitor import Monitor

_BETWEEN_S = 0.5  # updates of the words
_SPACE = "  "  # between two of them


class LiveBar(RichProgressBar):
    """One line: epoch, batches, time left, windows per second, the watched metric and the loss: as much as fits.

    The time left is of the whole fit, validation included, as long as it goes on as it did: early stopping may end it
    sooner. Other bars, such as that of a test, have their own time left. Epochs are counted from 1.
    """

    def __init__(self) -> None:
        super().__init__(refresh_rate=5)
        self.words: list[str] = []
        self.left = ""
        self._began = self._told = 0.0
        self._done = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Time runs from here."""
        super().on_train_start(trainer, pl_module)
        self._began, self._told, self._done = monotonic(), 0.0, 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count, and twice a second say how things go."""
        self._done += 1
        now = monotonic()
        if now - self._told > _BETWEEN_S:
            self._told = now
            self.words = list(_words(trainer))
            remaining = _batches_left(trainer, batch_idx + 1)
            if remaining is not None:
                left = timedelta(seconds=int((now - self._began) / self._done * remaining))
                self.left = f"{str(left).removeprefix('0:')} left"
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The metric is known anew."""
        super().on_validation_end(trainer, pl_module)
        if not trainer.sanity_checking:
            self.words = list(_words(trainer))

    def configure_columns(self, trainer: pl.Trainer) -> list[ProgressColumn]:
        """What a line is made of; words without room are left out."""
        return [
            TextColumn("{task.description}"),
            BarColumn(bar_width=8),
            MofNCompleteColumn(),
            _Left(self),
            _Words(self),
        ]

    def _get_train_description(self, current_epoch: int) -> str:
        n_epochs = self.trainer.max_epochs
        return f"Epoch {current_epoch + 1}" + (f"/{n_epochs}" if n_epochs is not None and n_epochs > 0 else "")

    def _update_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning's own words stay empty: it would ask for every metric after every batch."""


class _Left(TimeRemainingColumn):
    """Of the whole fit beside its own bar; else of what the bar is of."""

    def __init__(self, bar: LiveBar) -> None:
        super().__init__(compact=True)
        self._bar = bar

    def render(self, task: Task) -> Text:
        if task.id == self._bar.train_progress_bar_id:
            return Text(self._bar.left)
        return super().render(task)


class _Words(ProgressColumn):
    """Beside the bar of the fit."""

    def __init__(self, bar: LiveBar) -> None:
        super().__init__()
        self._bar = bar

    def render(self, task: Task) -> RenderableType:
        return Whole(self._bar.words if task.id == self._bar.train_progress_bar_id else [])


class Whole:
    """Words on one line, the last of which are left out where there is no room: half a number is another number."""

    def __init__(self, words: list[str]) -> None:
        self._words = words

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """From nothing to all."""
        return Measurement(0, len(_SPACE.join(self._words)))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """As many as fit."""
        words = list(self._words)
        while words and len(_SPACE.join(words)) > options.max_width:
            words.pop()
        yield Text(_SPACE.join(words), no_wrap=True)


def _words(trainer: pl.Trainer) -> Iterator[str]:
    """How a fit goes: speed, loss and the watched metric, as far as they are known."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Monitor):
            speed = callback.total.figures().get("perf/windows_per_s")
            if speed is not None:
                yield f"{speed:,.0f} windows/s"
    known = trainer.callback_metrics
    watched = {callback.monitor for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)}
    for name in sorted(name for name in watched if name in known and name != "train/loss"):
        yield f"{name} {float(known[name]):.4g}"
    if "train/loss" in known:
        yield f"loss {float(known['train/loss']):.3g}"


def _batches_left(trainer: pl.Trainer, of_epoch: int) -> int | None:
    """Training batches that a fit has before it at most; None where it has no end, or its epochs have none."""
    each, left = trainer.num_training_batches, []
    if trainer.max_epochs is not None and trainer.max_epochs > 0 and each != float("inf"):
        left.append((trainer.max_epochs - trainer.current_epoch) * int(each) - of_epoch)
    if trainer.max_steps > 0:
        left.append((trainer.max_steps - trainer.global_step) * trainer.accumulate_grad_batches)
    return max(min(left), 0) if left else None


def with_bar(callbacks: Any) -> list[pl.Callback]:
    """The callbacks that were asked for, None, one or a list, and a `LiveBar`, unless one of them is a bar."""
    some = callbacks if isinstance(callbacks, list) else [] if callbacks is None else [callbacks]
    return some if any(isinstance(callback, ProgressBar) for callback in some) else [*some, LiveBar()]
