"""What a test of volumes looks like: slices of some of them, with what is known and what is predicted."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_app.batch import Batch
from lightning_app.data.columns.classes import names_of
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.models.base import TaskModel
from zstore import shown

_AXES = 3


def volume_fields(model: TaskModel) -> list[str]:
    """Fields of the batches that are volumes: of three axes, colours aside."""
    shape = model.shape
    return [name for name, axes in shape.field_axes.items() if len(axes) - (axes[-1:] == ["colour"]) == _AXES]


def volumes(model: TaskModel, data: WindowDataModule, windows: list[Batch]) -> Any:
    """The middle slices of some volumes along each axis, the last step of a window; above them truth and prediction.

    Parameters
    ----------
    model
        In evaluation.
    data
        Names of targets and classes.
    windows
        Batches of one window each.

    Returns
    -------
    Matplotlib's figure.
    """
    from matplotlib.figure import Figure

    name = volume_fields(model)[0]
    figure = Figure(figsize=(6.4, 2.3 * len(windows)), layout="constrained")
    grid = figure.subplots(len(windows), _AXES, squeeze=False)
    for row, window in zip(grid, windows, strict=True):
        values = window[name][0, -1].cpu().float().numpy()  # type: ignore[literal-required]
        if model.shape.field_axes[name][-1] == "colour":
            values = values.mean(axis=-1)
        for axis, (axes, slice_) in enumerate(zip(row, _middle(values), strict=True)):
            axes.imshow(slice_, cmap="gray", vmin=values.min(), vmax=values.max(), interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_xlabel(f"middle along {model.shape.field_axes[name][axis]}", fontsize=7)
        row[0].set_title(_told(model, data, window), loc="left", fontsize=8, parse_math=False)  # an id may have a $
    return figure


def _middle(values: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """The slice in the middle of each axis."""
    return [np.take(values, values.shape[axis] // 2, axis=axis) for axis in range(_AXES)]


def _told(model: TaskModel, data: WindowDataModule, window: Batch) -> str:
    """The id, and of each target what was observed and what is predicted of its first row."""
    with torch.no_grad():
        outputs, flat = model.outputs(window)
        predicted = model.task.predictions(outputs, flat, model)[0, 0].tolist()
        probabilities = model.task.probabilities(outputs)
    observed = data.to_source(flat["y"], flat["series"])[0, 0].tolist()
    rest = [] if probabilities is None else probabilities[0, 0].tolist()
    lines = [shown(data.store.ids[int(flat["series"][0])])]
    classes = dict(enumerate(model.shape.classes))
    for number, target in enumerate(data.targets):
        own, is_known = list(classes.get(number, ())), bool(flat["mask"][0, 0, number])
        if own:
            likely = _position(own, predicted[number])
            truth = names_of(own)[_position(own, float(flat["y"][0, 0, number]))] if is_known else "unknown"
            guess = names_of(own)[likely] + (f" ({rest[likely]:.0%})" if rest else "")
            rest = rest[len(own) :]
        else:
            truth = f"{observed[number]:.4g}" if is_known else "unknown"
            guess = f"{predicted[number]:.4g}"
        lines.append(f"{shown(target)}: {shown(truth)}, predicted {shown(guess)}")
    return "\n".join(lines)


def _position(classes: list[Any], value: float) -> int:
    """Of a class as the store has it: the code of a word, or the nearest number."""
    if isinstance(classes[0], str):
        return int(value)
    return int(np.abs(np.array(classes, np.float64) - value).argmin())
