"""What a run says when it ends: why a fit stopped, and the test metrics as files."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor

from lightning_app.data.batches.loader import WindowLoader
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.models.base import TaskModel
from zstore import NotFiniteError, counted

logger = logging.getLogger(__name__)

_NUMBERS = ("all", "persistence")  # groups of a report with one number for each name


class Stopping(EarlyStopping):
    """Early stopping that lets a fit end before its first validation; a `monitor` that validation lacks is an error."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the monitored metric, once there was a validation."""
        if not self.monitor.startswith("val/") or any(name.startswith("val/") for name in trainer.callback_metrics):
            super().on_train_epoch_end(trainer, pl_module)


class FiniteMonitors(pl.Callback):
    """Ends a fit where what early stopping or checkpoints go by is not finite; to stand before them."""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at what validation logged."""
        if trainer.training and not trainer.sanity_checking:
            self._require(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at what training logged."""
        self._require(trainer)

    def _require(self, trainer: pl.Trainer) -> None:
        callbacks = [*trainer.early_stopping_callbacks, *trainer.checkpoint_callbacks]
        for monitor in dict.fromkeys(getattr(callback, "monitor", None) for callback in callbacks):
            value = trainer.callback_metrics.get(monitor) if monitor is not None else None
            if value is not None and not bool(value.isfinite().all()):
                raise NotFiniteError(
                    f"{monitor} is {float(value)} after epoch {trainer.current_epoch}, step {trainer.global_step:,}",
                    expected="a finite number, which early stopping and checkpoints go by",
                    fix="another --early_stopping.monitor and --checkpoint.monitor, or a smaller learning rate",
                )


class FitReport(pl.Callback):
    """Says, at the end of a fit, why it ended and where its best checkpoint is.

    A fit without validation has no best checkpoint; one that an earlier fit left in its folder is set aside then, as
    ``best-earlier.ckpt``, since `test` and `predict` would take it for this fit's. With ``fast_dev_run`` nothing is
    saved, and checkpoints stay as they are.
    """

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log one or two lines."""
        if not trainer.is_global_zero:
            return
        stopping = trainer.early_stopping_callback
        if stopping is not None and stopping.stopped_epoch > 0:
            logger.info(
                f"stopped early after {counted(stopping.stopped_epoch + 1, 'epoch')}: {stopping.monitor} did not "
                f"improve on {float(stopping.best_score):.4f} for {counted(stopping.patience, 'epoch')}"
            )
        else:
            logger.info(f"fitted {counted(trainer.current_epoch, 'epoch')}, {counted(trainer.global_step, 'step')}")
        checkpoint = cast(ModelCheckpoint | None, trainer.checkpoint_callback)
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            logger.info("no checkpoint, for fast_dev_run saves none")
        elif checkpoint is not None and checkpoint.best_model_path and checkpoint.best_model_score is not None:
            score = float(checkpoint.best_model_score)
            logger.info(f"best {checkpoint.monitor} {score:.4f}: {checkpoint.best_model_path}")
        elif checkpoint is not None and checkpoint.dirpath is not None and not checkpoint.best_model_path:
            stale = Path(checkpoint.dirpath) / "best.ckpt"
            if stale.exists():
                stale.replace(stale.with_name("best-earlier.ckpt"))
                logger.info("the best checkpoint of an earlier fit is now best-earlier.ckpt")
            if checkpoint.last_model_path:
                logger.info(f"no validation, so no best checkpoint; the last one: {checkpoint.last_model_path}")


class TestReport(pl.Callback):
    """Writes ``test_metrics.json``, and ``test_series.csv`` where series have scores, to the run folder.

    Parameters
    ----------
    folder
        The run folder.
    """

    __test__ = False  # not a test class

    def __init__(self, folder: Path) -> None:
        self.path = folder / "test_metrics.json"

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write and say so."""
        if not trainer.is_global_zero:
            return
        data = cast(WindowDataModule, trainer.datamodule)  # type: ignore[attr-defined]
        model = pl_module if isinstance(pl_module, TaskModel) else None
        found, line = _logged(trainer) if model is None else _of_task(model)
        document = {
            **found,
            "targets": data.targets,
            "model": type(pl_module).__name__,
            "horizon": data.window.horizon,
            "n_windows": _loader(trainer).n_windows(int(trainer.num_test_batches[0])),
            "n_windows_of_split": len(_loader(trainer).index),
            "store": {"uuid": data.store.schema.uuid, "version": data.store.version},
            "split": data.split.digest(),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(document, indent=1) + "\n")
        logger.info(f"{type(pl_module).__name__} on {shown_windows(trainer)}: {line}")
        if model is not None and "by_series" in model.report:
            self._write_series(data, model.report["by_series"])
        logger.info(f"wrote {self.path}")

    def _write_series(self, data: WindowDataModule, scores: dict[str, Tensor]) -> None:
        """Scores of each series and target as CSV."""
        path = self.path.with_name("test_series.csv")
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "target", *scores])
            columns = [values.reshape(data.n_series, len(data.targets)).tolist() for values in scores.values()]
            for position, id_ in enumerate(data.store.ids.tolist()):
                for number, target in enumerate(data.targets):
                    writer.writerow([id_, target, *(column[position][number] for column in columns)])
        logger.info(f"wrote {path}")


def shown_windows(trainer: pl.Trainer) -> str:
    """How many test windows were seen, and of how many, if not all of them were."""
    loader = _loader(trainer)
    n_windows, n_all = loader.n_windows(int(trainer.num_test_batches[0])), len(loader.index)
    return f"{n_windows:,} test windows" if n_windows == n_all else f"{n_windows:,} of {n_all:,} test windows"


def _of_task(model: TaskModel) -> tuple[dict[str, Any], str]:
    """What a task measured: all of it, and a line."""
    task = model.task
    found = {
        **model.exact,
        **{name: _plain(group) for name, group in model.report.items() if name not in (*_NUMBERS, "by_series", "roc")},
        **{name: _numbers(model.report[name]) for name in _NUMBERS[1:] if name in model.report},
        **({"units": task.unit.removesuffix(" units")} if task.unit else {}),
        **({"classes": model.shape.classes} if model.shape.classes else {}),
        "task": type(task).__name__,
    }
    beside = [] if model.intervals is None else model.intervals.shown
    names = [f"test/{name}" for name in (*task.shown, *task.also, *beside) if f"test/{name}" in model.exact]
    line = "  ".join(f"{name} {model.exact[name]:.4f}" for name in names)
    return found, line + (f" ({task.unit})" if task.unit else "")


def _logged(trainer: pl.Trainer) -> tuple[dict[str, Any], str]:
    """What a module without a task logged, likewise."""
    found = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return found, "  ".join(f"{name} {value:.4f}" for name, value in found.items())


def _plain(values: dict[str, Tensor]) -> dict[str, list[float]]:
    return {name: value.reshape(-1).tolist() for name, value in values.items()}  # torchmetrics gives one step as ()


def _numbers(values: dict[str, Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}


def _loader(trainer: pl.Trainer) -> WindowLoader:
    return cast(WindowLoader, trainer.test_dataloaders)
