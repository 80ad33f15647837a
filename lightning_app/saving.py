"""When a fit saves checkpoints: the best one after it was measured, the last one always."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.trainer.states import TrainerFn

from zstore import UsageError


class BestAndLast(ModelCheckpoint):
    """Lightning's, whose `last.ckpt` is where the fit has got to, and whose best checkpoint is one that was measured.

    Lightning saves `last.ckpt` when the monitored metric improves, so that a fit that goes on from there does epochs
    again; saves by steps or by time wait for that metric, and are compared by one of earlier weights. Here the last
    checkpoint is saved after each epoch (or each `every_n_epochs`), at the end of a fit, after a validation in
    mid-epoch, and at the steps or times that are asked for. Checkpoints are compared when their own metric is there:
    after each validation, or as training logs it.

    Parameters
    ----------
    dirpath
        Folder of checkpoints; from the command line by default ``checkpoints`` in the run folder.
    filename
        Name of the best checkpoint, without ``.ckpt``. It may name metrics, as Lightning has it, such as
        ``{epoch}-{val/loss:.2f}``.
    monitor
        Metric by which checkpoints are compared. None to keep the last weights, and to compare nothing.
    save_last
        Whether to keep ``last.ckpt``, from which a fit goes on: the state at the latest end of an epoch, save in
        mid-epoch or end of the fit, whether or not the metric improved. ``link`` makes it a symbolic link where the
        best checkpoint is of the same step, and a file where it is not.
    save_on_exception
        Whether to save ``last.ckpt`` when the fit ends by an error or an interrupt, too.
    every_n_train_steps
        Steps from one save of ``last.ckpt`` in mid-epoch to the next, beside those at the ends of epochs. None for no
        saves in mid-epoch.
    train_time_interval
        Time from one save in mid-epoch to the next, in place of steps, such as ``00:10:00``. None for no such saves.
    every_n_epochs
        Epochs from one save to the next. None for 1.
    more
        As of Lightning's ``ModelCheckpoint``: how many best checkpoints are kept, and how they are named.
    """

    _last_saved_at = _compared_at = _validated_at = 0  # steps; before the first one there is nothing to save

    def __init__(
        self,
        dirpath: str | Path | None = None,
        filename: str | None = None,
        monitor: str | None = None,
        save_last: bool | Literal["link"] | None = True,
        save_on_exception: bool = False,
        every_n_train_steps: int | None = None,
        train_time_interval: timedelta | None = None,
        every_n_epochs: int | None = None,
        **more: Any,
    ) -> None:
        super().__init__(
            dirpath=dirpath,
            filename=filename,
            monitor=monitor,
            save_last=save_last,
            save_on_exception=save_on_exception,
            every_n_train_steps=every_n_train_steps,
            train_time_interval=train_time_interval,
            every_n_epochs=every_n_epochs,
            **more,
        )

    @property
    def state_key(self) -> str:
        """That of Lightning's own, so that checkpoints of earlier releases go on."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save where steps or time ask for it; after the last batch of an epoch, its end does."""
        if self._is_due(trainer) and not trainer.is_last_batch:
            self._save_best(trainer)
            self._save_last(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare what was measured, unless the end of the epoch does."""
        if not _saves(trainer):
            return
        self._validated_at = trainer.global_step
        if not self._should_save_on_train_epoch_end(trainer):
            if self._is_epoch_due(trainer):
                self._save_best(trainer)
            if not trainer.is_last_batch:
                self._save_last(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare, and save where the fit has got to."""
        if self._is_epoch_due(trainer) and self._should_save_on_train_epoch_end(trainer):
            self._save_best(trainer)
        if self._is_epoch_due(trainer) or _ends(trainer):
            self._save_last(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Save where the fit has got to, if that is asked for; Lightning would save it as the best one, too."""
        if self.save_on_exception:
            self._save_last(trainer)

    def _is_due(self, trainer: pl.Trainer) -> bool:
        """Whether steps or time ask for a checkpoint now; on all processes alike."""
        if self._train_time_interval is None:
            return self._every_n_train_steps > 0 and trainer.global_step % self._every_n_train_steps == 0
        now, since = time.monotonic(), self._last_time_checked
        is_due = since is None or now - since >= self._train_time_interval.total_seconds()
        is_due = trainer.strategy.broadcast(is_due)
        if is_due:
            self._last_time_checked = now
        return is_due

    def _is_epoch_due(self, trainer: pl.Trainer) -> bool:
        """Whether this epoch counts: all do where checkpoints are asked for by steps or time."""
        return self._every_n_epochs < 1 or (trainer.current_epoch + 1) % self._every_n_epochs == 0

    def _save_best(self, trainer: pl.Trainer) -> None:
        """Compare these weights, once, if the metric is theirs."""
        step = trainer.global_step
        if not _saves(trainer) or self._compared_at == step:
            return
        own = trainer._logger_connector.metrics["callback"]  # of the loop that runs; callback_metrics keeps older ones
        if self.monitor is None or self.monitor in own or self._validated_at == step:
            self._compared_at = step
            candidates = self._monitor_candidates(trainer)
            if self.monitor is not None and self.monitor not in candidates:
                raise UsageError(
                    f"checkpoints compared by {self.monitor}, which is never logged",
                    expected=f"one of {', '.join(sorted(set(candidates) - {'epoch', 'step'})) or 'what is logged'}",
                    fix="name it in --checkpoint.monitor, or pass null to save without comparing",
                )
            self._save_topk_checkpoint(trainer, candidates)

    def _save_last(self, trainer: pl.Trainer) -> None:
        step = trainer.global_step
        if not _saves(trainer) or self._last_saved_at == step:
            return
        self._last_saved_at = step
        asked = self.save_last
        if asked == "link" and self._last_global_step_saved != step:
            self.save_last = True  # there is no checkpoint of this step that a link could lead to
        self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))
        self.save_last = asked


def _saves(trainer: pl.Trainer) -> bool:
    """Whether this is a fit that saves."""
    return trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking and not trainer.fast_dev_run  # type: ignore[attr-defined]


def _ends(trainer: pl.Trainer) -> bool:
    """Whether a fit ends with this epoch."""
    is_last_epoch = trainer.current_epoch + 1 == trainer.max_epochs
    return trainer.should_stop or is_last_epoch or trainer.global_step == trainer.max_steps
