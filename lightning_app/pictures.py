"""What a test looks like: forecasts, chunks, errors by step, scores on a map, classes, volumes; the run on one page."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger, MLFlowLogger

from lightning_app.batch import Batch
from lightning_app.callbacks import shown_windows
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.look.chunks import chunks
from lightning_app.look.classes import confusion
from lightning_app.look.curves import roc_curves
from lightning_app.look.forecasts import calibration, errors_by_step, forecasts, scores_map
from lightning_app.look.summary import summary
from lightning_app.look.volumes import volume_fields, volumes
from lightning_app.models.base import TaskModel
from lightning_app.tasks import Forecast, Policy, ProbabilisticForecast

logger = logging.getLogger(__name__)

_N_WINDOWS = 4
_OF_NUMBERS = (Forecast, ProbabilisticForecast)


class Pictures(pl.Callback):
    """Draws what a test found: of forecasts ``forecast.png`` and ``error_by_step.png``, of classes ``roc.png``.

    Of series with scores and places also ``scores_map.png``; of volumes with a class or a value ``volumes.png``; of
    policies ``chunks.png``; of quantiles ``calibration.png``, and their intervals as bands in ``forecast.png``.

    Of targets that are classes it draws ``confusion.png``; of several such, ``confusion_0.png`` and so on.

    They are written to the run folder at the end of `test`, into TensorBoard's logs beside them, and into
    ``summary.md``; loggers that take images, such as those of Weights & Biases and MLflow, get them too. Without
    matplotlib only the summary is written.

    Parameters
    ----------
    folder
        The run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._windows: list[Batch] = []

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the windows of an earlier test."""
        self._windows = []

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep a window of some batches, evenly spread."""
        n_batches = int(trainer.num_test_batches[0])
        wanted = np.linspace(0, n_batches - 1, min(_N_WINDOWS, n_batches)).astype(int)
        if trainer.is_global_zero and batch_idx in wanted:
            n_each = 1 if isinstance(cast(TaskModel, pl_module).task, _OF_NUMBERS) else -(-_N_WINDOWS // len(wanted))
            for at in range(min(n_each, len(batch["y"]))):
                one = {name: part[at : at + 1].detach().clone() for name, part in batch.items()}
                self._windows.append(cast(Batch, one))

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw, and say what was drawn."""
        if not trainer.is_global_zero:
            return
        model = cast(TaskModel, pl_module)
        data = cast(WindowDataModule, trainer.datamodule)  # type: ignore[attr-defined]
        self.folder.mkdir(parents=True, exist_ok=True)
        drawn = self._draw(model, data, trainer.loggers) if importlib.util.find_spec("matplotlib") else []
        page = self.folder / "summary.md"
        page.write_text(summary(model, data, drawn, shown_windows(trainer)), encoding="utf-8")
        logger.info(f"wrote {page}" + (f", with {', '.join(drawn)}" if drawn else ""))

    def _draw(self, model: TaskModel, data: WindowDataModule, loggers: list[Logger]) -> list[str]:
        from matplotlib.figure import Figure  # only who draws needs it
        from torch.utils.tensorboard.writer import SummaryWriter

        figures: dict[str, Figure] = {}
        if self._windows and isinstance(model.task, _OF_NUMBERS):
            figures["forecast"] = forecasts(model, data, self._windows)
        if self._windows and isinstance(model.task, Policy):
            figures["chunks"] = chunks(model, data, self._windows)
        if model.shape.horizon > 1 and "by_step" in model.report:
            figures["error_by_step"] = errors_by_step(model, data)
        if "calibration" in model.report:
            figures["calibration"] = calibration(model)
        if "roc" in model.report:
            figures["roc"] = roc_curves(model, data)
        if self._windows and volume_fields(model) and not isinstance(model.task, _OF_NUMBERS):
            figures["volumes"] = volumes(model, data, self._windows)
        coordinates = data.store.coordinates
        if "by_series" in model.report and coordinates is not None:
            figures["scores_map"] = scores_map(model.report["by_series"]["nse"], coordinates, data.targets)
        for number, (key, counts) in enumerate(model.report.get("confusion", {}).items()):
            drawn = confusion(counts.cpu().numpy(), model.shape.classes[number], data.targets[number])
            figures[key.replace("counts", "confusion")] = drawn
        with SummaryWriter(str(self.folder / "logs")) as writer:
            for name, figure in figures.items():
                figure.savefig(self.folder / f"{name}.png", dpi=120)
                writer.add_figure(f"test/{name}", figure, close=False)
        for logger in loggers:
            for name in figures:
                _show(logger, name, self.folder / f"{name}.png")
        return [f"{name}.png" for name in figures]


def _show(logger: Logger, name: str, path: Path) -> None:
    """Hand a picture to a logger, if it takes any."""
    if hasattr(logger, "log_image"):  # of Weights & Biases
        logger.log_image(f"test/{name}", [str(path)])
    elif isinstance(logger, MLFlowLogger):
        logger.experiment.log_artifact(logger.run_id, str(path))
