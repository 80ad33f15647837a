"""An epoch of a shipped configuration, timed alike whoever makes the batches."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import import_module
from itertools import islice
from typing import Any

import pytorch_lightning as pl

from lightning_app import models, tasks
from lightning_app.batch import BatchShape
from lightning_app.models import TaskModel
from lightning_app.monitor import Monitor

from .field_peers import endless, paced


class Stopwatch(pl.Callback):
    """Seconds from the start of the training to the end of its epoch."""

    seconds = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seconds = -time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seconds += time.perf_counter()


def made(given: dict[str, Any], *arguments: Any) -> Any:
    """What ``class_path`` and ``init_args`` of a configuration name; short names are of models and tasks."""
    module, _, name = given["class_path"].rpartition(".")
    source: Any = import_module(module) if module else (models if hasattr(models, name) else tasks)
    options = {
        key: made(value) if isinstance(value, dict) and "class_path" in value else value
        for key, value in given.get("init_args", {}).items()
    }
    return getattr(source, name)(*arguments, **options)


def fit(
    config: dict[str, Any],
    shape: BatchShape,
    data: pl.LightningDataModule,
    most: int | None,
    adapt: Callable[[TaskModel], None] = lambda model: None,
) -> dict[str, float]:
    """Train for an epoch, or so many batches of it, with the model, optimiser and callbacks of a configuration.

    Parameters
    ----------
    config
        What a configuration says.
    shape
        Of batches.
    data
        Makes them.
    most
        Batches, more than the three that the monitor does not count; None for all.
    adapt
        Makes the model fit for batches of another form.
    """
    pl.seed_everything(0)
    model: TaskModel = made(config["model"], shape)
    adapt(model)
    optimizer = made(config["optimizer"], model.parameters())
    model.configure_optimizers = lambda: optimizer  # type: ignore[method-assign]
    watch, monitor, options = Stopwatch(), Monitor(), config["trainer"]
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_train_batches=most,
        limit_val_batches=0,
        gradient_clip_val=options.get("gradient_clip_val"),
        callbacks=[watch, *(made(each) for each in options.get("callbacks", ())), monitor],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, datamodule=data)
    total = monitor.total
    share = total.figures()["perf/wait_share"]
    step_ms = 1000 * total.step_s / total.n_batches
    return {"epoch_s": watch.seconds, "wait_share": share, "step_ms": step_ms, "n_batches": trainer.global_step}


def measured(open_loader: Callable[[], Any], began: float, seconds: float | None) -> dict[str, float]:
    """Seconds to the first batch and, unless `seconds` is None, samples a second of the loader alone.

    Parameters
    ----------
    open_loader
        Opens what batches are made of.
    began
        When the command did.
    seconds
        How long batches are counted.
    """
    take = endless(loader := open_loader())
    take()
    found = {"first_s": time.perf_counter() - began}
    if seconds is None:
        return found
    return {**found, **paced(take, seconds), "n_batches_of_epoch": len(loader)}


def batches_of(loader: Any) -> list[Any]:
    """The first batch, and one from the middle."""
    return [next(iter(loader)), next(islice(loader, len(loader) // 2, None))]
