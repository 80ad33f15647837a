"""Intervals of a run: found once on the validation windows with the weights in use, kept, and given to the model."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from lightning_app.batch import by_series
from lightning_app.checkpoints import read_checkpoint
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.intervals import Intervals, errors_outside
from lightning_app.models.base import TaskModel
from lightning_app.models.rebuild import noted_arguments
from lightning_app.radii import IntervalOptions, Radii, find_radii, least_errors
from zstore import UsageError, ZstoreError

logger = logging.getLogger(__name__)

FOLDER = "intervals"
"""Of a run folder, where they are kept, by the name of the checkpoint."""


class Calibration(pl.Callback):
    """Finds the intervals of a model, keeps them in the run folder, and has tests and forecasts use them.

    Parameters
    ----------
    folder
        The run folder.
    options
        Which intervals; none without levels.
    """

    def __init__(self, folder: Path, options: IntervalOptions) -> None:
        self.options, self._folder = options, folder / FOLDER
        self._parts = folder / ".intervals.parts"
        self._radii: Radii | None = None
        self._about: dict[str, Any] | None = None  # of what is being found
        self._path = self._folder  # where that is kept

    def require(self, model: pl.LightningModule, data: WindowDataModule) -> None:
        """Raise UsageError where intervals are asked for that the model cannot have, or nothing is validated on."""
        levels = self.options.levels
        if not levels:
            return
        if not isinstance(model, TaskModel):
            raise UsageError(
                f"intervals of {type(model).__name__}, which is no TaskModel",
                expected="a model that says by its task what its outputs are",
                fix="drop --intervals.levels",
            )
        model.task.require_ends(levels)
        if data.split.is_empty("val"):
            raise UsageError(
                "intervals without validation windows",
                expected="a split with val, whose errors they are made of",
                fix="change --data.split, or drop --intervals.levels",
            )

    def prepare(
        self, trainer: pl.Trainer, model: pl.LightningModule, data: WindowDataModule, checkpoint: str | Path | None
    ) -> None:
        """Have the intervals of some weights: those that are kept, or else found by a pass over the validation windows.

        Parameters
        ----------
        trainer
            That this callback is of.
        model, data
            As for Lightning's ``validate``.
        checkpoint
            The file of the weights; None for a model that has none.

        Raises
        ------
        UsageError
            If there can be none: see :meth:`require` and :func:`~lightning_app.radii.find_radii`.
        StoreError
            If kept intervals cannot be read.
        """
        self._radii = None
        if not self.options.levels or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self.require(model, data)
        model = cast(TaskModel, model)
        path = kept_at(self._folder.parent, checkpoint, model)
        about = {
            "weights": weights_of(model, checkpoint, data),
            "by": self.options.by,
            "targets": data.targets,
            "horizon": data.window.horizon,
            "split": data.split.digest(),
        }
        if path.is_file():
            kept = Radii.read(path)
            if kept.matches({**about, "levels": self.options.levels}):
                self._radii = kept
                return
        self._about, self._path = about, path
        before = trainer.loggers, trainer.limit_val_batches
        trainer.loggers, trainer.limit_val_batches = [], 1.0  # windows come in order: some are no sample of all
        try:
            trainer.validate(
                model, datamodule=data, ckpt_path=None if checkpoint is None else str(checkpoint), verbose=False
            )
        finally:
            self._about = None
            trainer.loggers, trainer.limit_val_batches = before

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make room for errors."""
        if self._about is None:
            return
        if trainer.is_global_zero:
            shutil.rmtree(self._parts, ignore_errors=True)
            self._parts.mkdir(parents=True)
        trainer.strategy.barrier("intervals")

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Append the errors of one batch to this process' part."""
        if self._about is None:
            return
        model = cast(TaskModel, pl_module)
        if not isinstance(outputs, dict) or "outputs" not in outputs:
            raise UsageError(
                f"intervals of {type(model).__name__}, whose validation_step does not give its outputs",
                expected="what TaskModel.validation_step gives",
                fix="return super().validation_step(batch, batch_idx), or drop --intervals.levels",
            )
        windows = by_series(batch) if model.shape.n_nodes else batch
        errors = errors_outside(model.task, outputs["outputs"], windows, self.options.levels)
        part = self._parts / str(trainer.global_rank)
        with part.with_suffix(".series").open("ab") as file:
            windows["series"].to("cpu", torch.int64).numpy().tofile(file)
        with part.with_suffix(".errors").open("ab") as file:
            errors.to("cpu", torch.float32).contiguous().numpy().tofile(file)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find the radii on the first process, for all.

        Raises
        ------
        UsageError
            On all processes, if there are too few errors.
        """
        if self._about is None:
            return
        trainer.strategy.barrier("intervals")
        found: Radii | ZstoreError | None = None
        if trainer.is_global_zero:
            try:
                found = self._found(cast(TaskModel, pl_module), trainer.datamodule, trainer.world_size)  # type: ignore[attr-defined]
                found.write(self._path)  # before others may ask whether it is there
                logger.info(f"wrote {self._path}")
            except ZstoreError as error:
                found = error
            shutil.rmtree(self._parts)
        found = trainer.strategy.broadcast(found)
        if isinstance(found, ZstoreError):
            raise found
        self._radii = found

    def _found(self, model: TaskModel, data: WindowDataModule, world: int) -> Radii:
        levels, shape = self.options.levels, model.shape
        n_ends = model.task.ends(torch.zeros(1, shape.horizon, model.n_outputs), levels)[0].shape[-1]
        size = (-1, shape.horizon, shape.n_targets, n_ends)
        first, *others = (self._parts / str(rank) for rank in range(world))
        for suffix in (".series", ".errors"):  # of all processes, behind each other
            with first.with_suffix(suffix).open("ab") as file:
                for other in others:
                    with other.with_suffix(suffix).open("rb") as part:
                        shutil.copyfileobj(part, file)
        series = np.fromfile(first.with_suffix(".series"), np.int64)
        errors = np.memmap(first.with_suffix(".errors"), np.float32, "r").reshape(size)
        spread = data.target_spread
        found = find_radii(errors, series, data.store.ids.tolist(), spread, levels, self.options.by)
        shares = ", ".join(f"{100 * level:g}" for level in levels)
        chosen, note = data.view.members if data.view.nodes is None else data.view.nodes, ""
        own = found.own if chosen is None else found.own[chosen]  # also of series that val does not have
        n_lacking = int(np.isnan(own).any(axis=(1, 2, 3)).sum())
        if self.options.by == "series" and n_lacking:
            note = (
                f"; {n_lacking:,} of {len(own):,} series have fewer than {least_errors(levels[-1])} at some step, "
                "and take there the radius of all series, as a multiple of their spread"
            )
        logger.info(f"intervals of {shares} % from the errors of {len(series):,} validation windows{note}")
        return Radii(**{**vars(found), "about": self._about})

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the model its intervals, for the series of this store."""
        self._give(trainer, pl_module)

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Likewise."""
        self._give(trainer, pl_module)

    def _give(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._radii is not None:
            model = cast(TaskModel, pl_module)
            data = cast(WindowDataModule, trainer.datamodule)  # type: ignore[attr-defined]
            ids = data.store.ids.tolist()
            model.intervals = Intervals(self._radii, ids, data.target_offsets, model.device)


def kept_at(folder: Path, checkpoint: str | Path | None, model: TaskModel) -> Path:
    """Where a run folder keeps the intervals of a checkpoint, or of a model without weights."""
    return folder / FOLDER / f"{type(model).__name__ if checkpoint is None else Path(checkpoint).stem}.npz"


def weights_of(model: TaskModel, checkpoint: str | Path | None, data: WindowDataModule) -> str:
    """16 hex digits that name the weights of a checkpoint, which is of one scaler and one shape of batches.

    Of a model without weights they name its arguments, and what the numbers in its batches mean on this store.
    """
    if checkpoint is None:
        arguments, _ = noted_arguments(type(model).__init__, model._given)
        content = [arguments, model.shape.to_json(), data.meaning.to_json(), data.scaler.to_json()]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    return digest_of_weights(read_checkpoint(checkpoint, mmap=True)["state_dict"])


def digest_of_weights(weights: Mapping[str, Tensor]) -> str:
    """16 hex digits that name some weights."""
    found = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]
