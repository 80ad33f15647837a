"""What a test looks like: some forecasts, errors by horizon step, scores on the map; and the run on one page."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from lightning_app.batch import Batch
from lightning_app.callbacks import shown_windows
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.models.base import ForecastModel
from zstore import shown

logger = logging.getLogger(__name__)

_N_WINDOWS = 4
_CONTEXT = 3  # horizons of input rows that are drawn before a forecast
_OBSERVED, _PREDICTED = "#6a8caf", "#b3123b"
_SHOWN = ("mse", "mae", "rmse", "mape", "r2", "nse_median", "kge_median", "bias_median")


class Pictures(pl.Callback):
    """Draws ``forecast.png``, ``error_by_step.png`` and, of series with scores and places, ``scores_map.png``.

    They are written to the run folder at the end of `test`, into TensorBoard's logs beside them, and into
    ``summary.md``. Without matplotlib only the summary is written.

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
            self._windows.append(cast(Batch, {name: part[:1].detach().clone() for name, part in batch.items()}))

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw, and say what was drawn."""
        if not trainer.is_global_zero:
            return
        model = cast(ForecastModel, pl_module)
        data = cast(WindowDataModule, trainer.datamodule)  # type: ignore[attr-defined]
        self.folder.mkdir(parents=True, exist_ok=True)
        drawn = self._draw(model, data) if importlib.util.find_spec("matplotlib") else []
        page = self.folder / "summary.md"
        page.write_text(summary(model, data, drawn, shown_windows(trainer)), encoding="utf-8")
        logger.info(f"wrote {page}" + (f", with {', '.join(drawn)}" if drawn else ""))

    def _draw(self, model: ForecastModel, data: WindowDataModule) -> list[str]:
        from matplotlib.figure import Figure  # only who draws needs it
        from torch.utils.tensorboard.writer import SummaryWriter

        figures: dict[str, Figure] = {}
        if self._windows:
            figures["forecast"] = forecasts(model, data, self._windows)
        if model.shape.horizon > 1:
            figures["error_by_step"] = errors_by_step(model, data)
        places = data.store.places
        if "by_series" in model.report and places is not None:
            figures["scores_map"] = scores_map(model.report["by_series"]["nse"], places, data.targets)
        with SummaryWriter(str(self.folder / "logs")) as writer:
            for name, figure in figures.items():
                figure.savefig(self.folder / f"{name}.png", dpi=120)
                writer.add_figure(f"test/{name}", figure, close=False)
        return [f"{name}.png" for name in figures]


def forecasts(model: ForecastModel, data: WindowDataModule, windows: list[Batch]) -> Any:
    """Some windows of the first target, in source units: what came before, what was observed, what was forecast.

    Returns
    -------
    Matplotlib's figure.
    """
    from matplotlib.figure import Figure

    columns = 2 if len(windows) > 1 else 1
    figure = Figure(figsize=(5.5 * columns, 2.6 * -(-len(windows) // columns)), layout="constrained")
    grid = np.ravel(figure.subplots(-(-len(windows) // columns), columns, squeeze=False))
    for axes in grid[len(windows) :]:
        axes.set_visible(False)
    axis, shape = data.store.schema.time, data.window
    for number, (axes, window) in enumerate(zip(grid, windows, strict=False)):
        with torch.no_grad():
            predicted, flat = model.forecast(window)
        place = number * len(flat["y"]) // len(windows)  # of a panel, another series in each
        series = flat["series"][place : place + 1]

        def source(values: Tensor, place: int = place, series: Tensor = series) -> Any:
            return data.to_source(values[place : place + 1], series)[0, :, 0].cpu().numpy()

        ahead = np.arange(shape.horizon)
        observed = np.where(flat["mask"][place, :, 0].cpu().numpy(), source(flat["y"]), np.nan)
        if -1 not in model.shape.target_inputs:
            n_rows = min(shape.lookback, max(_CONTEXT * shape.horizon, 24))
            past = source(flat["x"][..., model.shape.target_inputs])[-n_rows:]
            axes.plot(np.arange(-n_rows, 0) - shape.delay, past, color=_OBSERVED, alpha=0.5, linewidth=1)
        marker = "o" if shape.horizon == 1 else None
        axes.plot(ahead, observed, color=_OBSERVED, linewidth=1.6, marker=marker, label="observed")
        axes.plot(ahead, source(predicted), color=_PREDICTED, linewidth=1.6, marker=marker, label="forecast")
        id_ = data.store.ids[int(series[0])]
        when = "" if not axis.rule.regular else f" from {axis.show(int(flat['time'][place]))}"
        title = f"{shown(id_)}{when}" if data.store.n_series > 1 else when.strip()
        axes.set_title(title, loc="left", fontsize=9, parse_math=False)  # an id may have a $
        axes.set_xlabel("steps from the first target", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.01)
    units = data.store.channel(data.targets[0]).units
    figure.supylabel(data.targets[0] + (f" ({units})" if units else ""), fontsize=9)
    grid[0].legend(frameon=False, fontsize=8)
    return figure


def errors_by_step(model: ForecastModel, data: WindowDataModule) -> Any:
    """RMSE and MAE over horizon steps, a matplotlib figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.subplots()
    steps = np.arange(1, model.shape.horizon + 1)
    for name, colour in (("rmse", _PREDICTED), ("mae", _OBSERVED)):
        values = model.report["by_step"][name].cpu().numpy()
        axes.plot(steps, values, color=colour, linewidth=1.8, marker="o" if len(steps) <= 24 else None, markersize=3)
        axes.annotate(
            name.upper(), (steps[-1], values[-1]), (4, 0), textcoords="offset points", color=colour, va="center"
        )
    axes.set(xlabel="horizon step", ylabel=f"error ({model.units} units)", xlim=(1, None))
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"{type(model).__name__}: error by horizon step", loc="left", fontsize=10)
    return figure


def scores_map(scores: Tensor, places: Any, targets: list[str]) -> Any:
    """NSE of each series, (series, target), of the first target at its place, a matplotlib figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    axes, values = figure.subplots(), scores.cpu().numpy().reshape(len(places), -1)[:, 0]
    order = np.argsort(-np.nan_to_num(values, nan=-np.inf))  # the worst on top
    drawn = axes.scatter(places[order, 1], places[order, 0], c=values[order], s=14, cmap="viridis", vmin=0, vmax=1)
    figure.colorbar(drawn, ax=axes, label="NSE", extend="min")
    axes.set(xlabel="longitude", ylabel="latitude")
    axes.set_aspect(1 / max(np.cos(np.deg2rad(np.nanmean(places[:, 0]))), 0.1))
    median = np.nanmedian(values) if np.isfinite(values).any() else np.nan
    axes.set_title(
        f"NSE of {targets[0]}, {np.isfinite(values).sum():,} series, median {median:.3f}", loc="left", fontsize=10
    )
    return figure


def summary(model: ForecastModel, data: WindowDataModule, drawn: list[str], windows: str) -> str:
    """The run on one page of Markdown; `windows` says how many were tested."""
    store, window = data.store, data.window
    kind = f"panels of {data.view.n_nodes:,} series" if data.view.n_nodes else f"windows of {store.n_series:,} series"
    lines = [
        f"# {type(model).__name__} on {Path(store.path).name}",
        "",
        f"- {kind}: lookback {window.lookback:,}, delay {window.delay:,}, horizon {window.horizon:,}",
        f"- metrics of {windows}",
        f"- inputs: {', '.join(data.inputs)}; targets: {', '.join(data.targets)}"
        + (f"; static attributes: {model.shape.n_static:,} columns" if model.shape.n_static else ""),
        f"- store {store.schema.uuid} version {store.version}",
        f"- split {data.split.digest()}; scaler {data.scaler.fitted_on}",
        f"- {sum(weight.numel() for weight in model.parameters()):,} parameters; loss {type(model.loss).__name__}",
        "",
        f"| metric, {model.units} units | test |",
        "|---|---|",
        *(f"| {name} | {model.exact[f'test/{name}']:.4f} |" for name in _SHOWN if f"test/{name}" in model.exact),
        "",
        *(f"![{name.removesuffix('.png').replace('_', ' ')}]({name})\n" for name in drawn),
    ]
    return "\n".join(lines)
