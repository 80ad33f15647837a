"""What a test looks like, drawn with matplotlib: some forecasts, errors by horizon step, scores on the map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_app.batch import Batch
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.intervals import levels_of
from lightning_app.look.style import FORECAST, GUIDE, OBSERVED, SECOND, dress, legend
from lightning_app.models.base import TaskModel
from lightning_app.quantile_errors import central_pairs
from zstore import shown

_CONTEXT = 3  # horizons of input rows that are drawn before a forecast


def forecasts(model: TaskModel, data: WindowDataModule, windows: list[Batch]) -> Any:
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
            predicted, flat = model.outputs(window)
        place = number * len(flat["y"]) // len(windows)  # of a panel, another series in each
        series = flat["series"][place : place + 1]

        def source(values: Tensor, place: int = place, series: Tensor = series) -> Any:
            return data.to_source(values[place : place + 1], series)[0, :, 0].cpu().numpy()

        ahead = shape.target_rows
        observed = np.where(flat["mask"][place, :, 0].cpu().numpy(), source(flat["y"]), np.nan)
        if -1 not in model.shape.target_inputs:
            n_rows = min(shape.lookback, max(_CONTEXT * shape.target_span, 24))
            past = source(flat["x"][..., model.shape.target_inputs])[-n_rows:]
            if "x_pad" in flat:
                past[flat["x_pad"][place, -n_rows:].cpu().numpy()] = np.nan
            axes.plot(np.arange(-n_rows, 0) - shape.delay, past, color=OBSERVED, alpha=0.5, linewidth=1)
        marker = "o" if shape.horizon == 1 else None
        axes.plot(ahead, observed, color=OBSERVED, linewidth=1.6, marker=marker, label="observed")
        said = model.task.predictions(predicted, flat, model)[place, :, 0].cpu().numpy()
        axes.plot(ahead, said, color=FORECAST, linewidth=1.6, marker=marker, label="forecast")
        quantiles = model.task.quantiles(predicted, flat, model)
        if model.intervals is not None:
            low, high = model.intervals.in_source(model.task, predicted, flat, data)
            ends = torch.cat([low.flip(-1), high], dim=-1)[place, :, 0].cpu().numpy()
            _bands(axes, ahead, ends, levels_of(model.intervals.levels))
        elif quantiles is not None:
            _bands(axes, ahead, quantiles[place, :, 0].cpu().numpy(), model.task.levels)
        id_ = data.store.ids[int(series[0])]
        when = "" if not axis.rule.regular else f" from {axis.show(int(flat['time'][place]))}"
        title = f"{shown(id_)}{when}" if data.store.n_series > 1 else when.strip()
        dress(axes, title, x=f"{_steps(data)} from the first target")
        axes.axvline(-0.5, color=GUIDE, linewidth=0.8)
        axes.margins(x=0.01)
    figure.supylabel(_in_units(data, data.targets[0]), fontsize=9, parse_math=False)
    legend(grid[0])
    return figure


def _steps(data: WindowDataModule) -> str:
    """What one row is further than the one before."""
    rule = data.store.schema.time.rule
    return f"steps of {rule}" if rule.regular else "rows"


def _in_units(data: WindowDataModule, target: str) -> str:
    """A target, and the units that the store knows of it."""
    units = data.store.channel(target).units
    return shown(target) + (f" ({shown(units)})" if units else "")


def _bands(axes: Any, ahead: Any, quantiles: Any, levels: Sequence[float]) -> None:
    """Central intervals, (step, level), the wider the paler."""
    for name, (low, high) in reversed(central_pairs(levels).items()):
        edges = quantiles[:, low], quantiles[:, high]
        if len(ahead) == 1:
            axes.plot([ahead[0], ahead[0]], [edge[0] for edge in edges], color=FORECAST, alpha=0.3, linewidth=4)
        else:
            axes.fill_between(ahead, *edges, color=FORECAST, alpha=0.16, linewidth=0, label=f"{name} %")


def calibration(model: TaskModel) -> Any:
    """The share of targets that are not above each quantile, against its level, a matplotlib figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 4.0), layout="constrained")
    axes = figure.subplots()
    found = {name: values.cpu().numpy() for name, values in model.report["calibration"].items()}
    axes.plot([0, 1], [0, 1], color=GUIDE, linewidth=1, linestyle="--")
    axes.plot(found["level"], found["share"], color=FORECAST, linewidth=1.6, marker="o", markersize=4)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    title = "calibration: on the line, quantiles are what they say"
    dress(axes, title, "level of the quantile", "share of targets at or below it")
    return figure


def errors_by_step(model: TaskModel, data: WindowDataModule) -> Any:
    """RMSE and MAE over horizon steps, and below them those of persistence, if it is known; a matplotlib figure."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.subplots()
    steps = np.arange(1, model.shape.horizon + 1)
    marker = "o" if len(steps) <= 24 else None
    baseline = model.report.get("persistence_by_step", {})
    for name, colour in (("rmse", FORECAST), ("mae", SECOND)):
        values = model.report["by_step"][name].cpu().numpy()
        label = f"{name.upper()} of {type(model).__name__}"
        axes.plot(steps, values, color=colour, linewidth=1.8, marker=marker, markersize=3, label=label)
        if name in baseline:
            values, label = baseline[name].cpu().numpy(), f"{name.upper()} of the last value"
            axes.plot(steps, values, color=colour, linewidth=1.2, linestyle=(0, (4, 2)), alpha=0.75, label=label)
    dress(axes, "error by horizon step", _steps(data) + " ahead", f"error ({_unit(model, data)})")
    axes.set_xlim(1 - 0.02 * len(steps), len(steps) * 1.02)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(axes)
    return figure


def _unit(model: TaskModel, data: WindowDataModule) -> str:
    """Units of errors: of the targets, where all have the same ones and errors are in these."""
    units = {data.store.channel(target).units or "" for target in data.targets}
    known = len(units) == 1 and all(units) and model.task.unit == "source units"
    return shown(units.pop()) if known else model.task.unit


def scores_map(scores: Tensor, coordinates: Any, targets: list[str]) -> Any:
    """NSE of the first target of each series on the map, a matplotlib figure.

    Parameters
    ----------
    scores
        (series, target) NSE, NaN where there is none.
    coordinates
        (series, 2) latitude and longitude.
    targets
        Names of the targets.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    axes, values = figure.subplots(), scores.cpu().numpy().reshape(len(coordinates), -1)[:, 0]
    order = np.argsort(-np.nan_to_num(values, nan=-np.inf))  # the worst on top
    drawn = axes.scatter(
        coordinates[order, 1], coordinates[order, 0], c=values[order], s=14, cmap="viridis", vmin=0, vmax=1
    )
    figure.colorbar(drawn, ax=axes, label="NSE", extend="min")
    axes.set_aspect(1 / max(np.cos(np.deg2rad(np.nanmean(coordinates[:, 0]))), 0.1))
    median = np.nanmedian(values) if np.isfinite(values).any() else np.nan
    title = f"NSE of {shown(targets[0])}, {np.isfinite(values).sum():,} series, median {median:.3f}"
    dress(axes, title, "longitude", "latitude", grid=False)
    return figure
