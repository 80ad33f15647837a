"""What a test of a policy looks like: the chunks that were demonstrated, and those that the policy means instead."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from lightning_app.batch import Batch
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.look.style import FORECAST, OBSERVED, dress, legend
from lightning_app.models.base import TaskModel
from lightning_app.tasks import Policy
from zstore import shown

_MOST_TARGETS = 4
_LEAST_WEIGHT = 0.05  # of a mode that is drawn beside the likeliest one


def chunks(model: TaskModel, data: WindowDataModule, windows: list[Batch]) -> Any:
    """Some windows of the first four targets, in source units; before them the last image that was seen, if any.

    The likeliest chunk is a line of full colour; of a mixture, other modes are paler lines, the paler the smaller
    their weight. Padded and missing actions are left out.

    Parameters
    ----------
    model
        With a task `Policy`, in evaluation.
    data
        Names and scales of targets.
    windows
        Batches of one window each.

    Returns
    -------
    Matplotlib's figure.
    """
    from matplotlib.figure import Figure

    assert isinstance(model.task, Policy)
    images, targets = _images(model), data.targets[:_MOST_TARGETS]
    n_columns = len(targets) + bool(images)
    figure = Figure(figsize=(2.9 * n_columns, 2.3 * len(windows)), layout="constrained")
    grid = figure.subplots(len(windows), n_columns, squeeze=False)
    steps = model.shape.delay + 1 + model.shape.target_stride * np.arange(model.shape.horizon)
    for row, window in zip(grid, windows, strict=True):
        with torch.no_grad():
            outputs, flat = model.outputs(window)
            weights, meant = model.task.all_chunks(outputs, flat, model)
        if images:
            _draw_image(row[0], window[images[0]][0, -1].cpu().numpy(), images[0])  # type: ignore[literal-required]
        done = data.to_source(flat["y"], flat["series"])[0].cpu().numpy()
        done = np.where(flat["mask"][0].cpu().numpy(), done, np.nan)
        shares, lines = weights[0].cpu().numpy(), meant[0].cpu().numpy()
        for number, axes in enumerate(row[-len(targets) :]):
            axes.plot(steps, done[:, number], color=OBSERVED, linewidth=1.8, label="demonstrated")
            for mode in np.argsort(shares)[:-1]:
                if shares[mode] >= _LEAST_WEIGHT:
                    axes.plot(
                        steps, lines[mode, :, number], color=FORECAST, linewidth=1, alpha=0.2 + 0.5 * shares[mode]
                    )
            likeliest = lines[shares.argmax(), :, number]
            label = "predicted" if len(shares) == 1 else f"likeliest, {shares.max():.0%}"
            axes.plot(steps, likeliest, color=FORECAST, linewidth=1.8, label=label)
            units = data.store.channel(targets[number]).units
            dress(axes, shown(targets[number]) + (f" ({shown(units)})" if units else ""))
        legend(row[-1])
        id_ = shown(data.store.ids[int(flat["series"][0])])
        row[0].set_ylabel(id_, fontsize=8, parse_math=False)
    for axes in grid[-1, -len(targets) :]:
        axes.set_xlabel("rows from the last input row", fontsize=8)
    return figure


def _images(model: TaskModel) -> list[str]:
    """Fields of the batches that can be shown as images: uint8 of two axes, and perhaps 1, 3 or 4 colours."""
    shape = model.shape
    found = []
    for name, axes in shape.field_axes.items():
        has_colours = axes[-1:] == ["colour"]
        n_colours = shape.fields[name][-1] if has_colours else 1
        if len(axes) - has_colours == 2 and n_colours in (1, 3, 4) and shape.field_dtypes[name] == "uint8":
            found.append(name)
    return found


def _draw_image(axes: Any, image: Any, name: str) -> None:
    """As the model has it: cropped."""
    axes.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray", interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(shown(name), loc="left", fontsize=8, parse_math=False)
