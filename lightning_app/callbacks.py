"""What a run says when it ends: why a fit stopped, and the test metrics as a file."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import cast

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint

from lightning_app.data.datamodule import WindowDataModule
from lightning_app.models.base import ForecastModel

logger = logging.getLogger(__name__)


class FitReport(pl.Callback):
    """Says, at the end of a fit, why it ended and where its best checkpoint is."""

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log one or two lines."""
        if not trainer.is_global_zero:
            return
        stopping = trainer.early_stopping_callback
        if stopping is not None and stopping.stopped_epoch > 0:
            logger.info(
                f"stopped early after {stopping.stopped_epoch + 1} epochs: {stopping.monitor} did not improve on "
                f"{float(stopping.best_score):.4f} for {stopping.patience} epochs"
            )
        else:
            logger.info(f"fitted {trainer.current_epoch} epochs, {trainer.global_step:,} steps")
        checkpoint = cast(ModelCheckpoint | None, trainer.checkpoint_callback)
        if checkpoint is not None and checkpoint.best_model_path and checkpoint.best_model_score is not None:
            score = float(checkpoint.best_model_score)
            logger.info(f"best {checkpoint.monitor} {score:.4f}: {checkpoint.best_model_path}")


class TestReport(pl.Callback):
    """Writes ``test_metrics.json`` to the run folder.

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
        model = cast(ForecastModel, pl_module)
        data = cast(WindowDataModule, trainer.datamodule)  # type: ignore[attr-defined]
        document = {
            **model.exact,
            "units": model.units,
            "model": type(model).__name__,
            "n_windows": len(data.index("test")),
            "store": {"uuid": data.store.schema.uuid, "version": data.store.version},
            "split": data.split.digest(),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(document, indent=1) + "\n")
        shown = "  ".join(f"{name} {value:.4f}" for name, value in model.exact.items())
        logger.info(f"{type(model).__name__} on {document['n_windows']:,} test windows: {shown} ({model.units} units)")
        logger.info(f"wrote {self.path}")
