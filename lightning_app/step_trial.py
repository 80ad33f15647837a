"""Some steps of a fit, to see what limits it: part of ``zstore plan``."""

from __future__ import annotations

import argparse
import logging
import warnings
from contextlib import closing
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import pytorch_lightning as pl
from jsonargparse import ArgumentParser, set_parsing_settings

import lightning_app.models  # noqa: F401  # lets configurations name its classes
from lightning_app.arguments import without_secrets
from lightning_app.batch import Batch, BatchShape
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.limits import StepTimes, advice
from lightning_app.models.base import TaskModel
from lightning_app.monitor import Monitor
from zstore import UsageError, bound_yaml

_LEAST = 8  # steps that are counted, however long they take


@dataclass(frozen=True)
class StepTrial:
    """What some steps of a fit took.

    Parameters
    ----------
    times
        Where their time went.
    advice
        What limits, and what to change.
    """

    times: StepTimes
    advice: str


class _Steps(Monitor):
    """Ends a fit after some seconds, and keeps what it took while its rows are open."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.found: StepTrial | None = None
        self._seconds, self._ends = seconds, 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The clock starts."""
        self._ends = perf_counter() + self._seconds

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Enough, or not yet."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self.total.n_batches >= _LEAST and perf_counter() > self._ends:
            trainer.should_stop = True

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep what was measured."""
        data, times = trainer.datamodule, self.times(trainer)  # type: ignore[attr-defined]
        self.found = StepTrial(times, advice(times, data))


def try_steps(data: dict[str, Any], model: dict[str, Any], trainer: dict[str, Any], seconds: float) -> StepTrial | None:
    """Fit a model for some seconds, and keep nothing of it.

    Parameters
    ----------
    data, model, trainer
        Sections of a configuration. Of `trainer` the accelerator and the precision count.
    seconds
        How long; at least eight steps beside three that warm up.

    Returns
    -------
    None for a model without anything to fit.

    Raises
    ------
    UsageError
        If the sections do not fit each other, or the store.
    """
    bound_yaml()
    set_parsing_settings(subclasses_enabled=[BatchShape])
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(WindowDataModule, "data")
    parser.add_subclass_arguments(TaskModel, "model")
    parser.link_arguments("data", "model.init_args.shape", lambda found: found.shape, apply_on="instantiate")
    try:
        found = parser.instantiate(parser.parse_object({"data": data, "model": model}))
    except argparse.ArgumentError as error:
        raise UsageError(
            f"model options ({without_secrets(str(error))})", expected="those of fit", fix="correct the configuration"
        ) from error
    with closing(found.data):
        return _tried(found.data, found.model, trainer, seconds) if found.model.fitted else None


def _tried(data: WindowDataModule, model: TaskModel, trainer: dict[str, Any], seconds: float) -> StepTrial | None:
    steps = _Steps(seconds)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
        pl.Trainer(
            accelerator=trainer.get("accelerator") or "auto",
            precision=trainer.get("precision"),
            devices=1,
            max_epochs=-1,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[steps],
        ).fit(model, data)
    return steps.found
