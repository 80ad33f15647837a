"""How well classes are told apart: the ROC curve of each class against all others."""

from __future__ import annotations

from typing import Any

from lightning_app.data.columns.classes import names_of
from lightning_app.data.datamodule import WindowDataModule
from lightning_app.look.style import GUIDE, dress, legend
from lightning_app.models.base import TaskModel
from zstore import shown

_MOST_NAMED = 12  # curves in a legend


def roc_curves(model: TaskModel, data: WindowDataModule) -> Any:
    """The share of a class that is found against the share of all others that is taken for it, at every threshold.

    Parameters
    ----------
    model
        After a test that measured curves: its report has a group ``roc``.
    data
        Names of targets and classes.

    Returns
    -------
    Matplotlib's figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=GUIDE, linewidth=1, linestyle="--")
    curves = model.report["roc"]
    for key, (wrong, right) in curves.items():
        target, number = map(int, key.split("/"))
        name = names_of(model.shape.classes[target])[number]
        area = float(((wrong[1:] - wrong[:-1]) * (right[1:] + right[:-1]) / 2).sum())
        axes.plot(
            wrong.numpy(), right.numpy(), linewidth=1.5, label=shown(f"{data.targets[target]} {name}: {area:.3f}")
        )
    wrong, found = "others that are taken for it (false positive rate)", "found (true positive rate)"
    dress(axes, "ROC, and the area below it", wrong, found)
    axes.set_aspect("equal")
    if 0 < len(curves) <= _MOST_NAMED:
        legend(axes, loc="lower right")
    return figure
