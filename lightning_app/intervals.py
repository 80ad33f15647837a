"""Intervals around the forecasts of a model, on the series of one store."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lightning_app.batch import Batch, DataOfModels
from lightning_app.quantile_errors import QuantileErrors
from lightning_app.radii import Float64, Radii
from lightning_app.tasks import Task
from lightning_app.tasks.base import Report

ROUNDING = 2 * float(torch.finfo(torch.float32).eps)
"""How far float32 may move an end and a target apart, relative to their sizes: a few roundings of each."""


def levels_of(levels: Sequence[float]) -> list[float]:
    """(2 × level,) the quantiles that central intervals lie between, ascending."""
    return [*((1 - level) / 2 for level in reversed(levels)), *((1 + level) / 2 for level in levels)]


def errors_outside(task: Task, outputs: Tensor, windows: Batch, levels: Sequence[float]) -> Tensor:
    """(batch, horizon, target, level or 1) how far targets lie outside of what a forecast says, NaN where not observed.

    Parameters
    ----------
    task
        Says what the outputs are.
    outputs
        (batch, horizon, output).
    windows
        Of single series.
    levels
        (level,) ascending.

    Notes
    -----
    Rounded away from the forecast, by `ROUNDING`: counts and readings have many errors that are the same, and half of
    the targets that lie on the end of an interval would fall out of it by the last digit.
    """
    low, high = task.ends(outputs, levels)
    observed = windows["y"].float()[..., None]
    size = torch.maximum(torch.maximum(low.abs(), high.abs()), observed.abs())
    outside = torch.maximum(low - observed, observed - high) + ROUNDING * size
    return torch.where(windows["mask"][..., None], outside, torch.nan)


class Intervals:
    """Intervals by series and step, and how often they hold the target.

    Parameters
    ----------
    radii
        By id.
    ids
        (series,) of the store whose series batches count.
    offsets
        (series, target) how far 0 of the source is from 0 of scaled units: values are rounded before they are scaled.
    device
        Where batches are.
    """

    def __init__(self, radii: Radii, ids: Sequence[str], offsets: Float64, device: torch.device) -> None:
        self.levels = radii.levels
        rounded = 2 * ROUNDING * offsets[:, None, :, None]  # of this target, and of those that the radius is from
        self._radii = torch.from_numpy(np.ascontiguousarray(radii.of(ids) + rounded, np.float32)).to(device)
        n_steps, n_targets = radii.plain.shape[:2]
        self._errors = QuantileErrors(n_steps, n_targets, levels_of(self.levels)).to(device)

    @property
    def shown(self) -> list[str]:
        """Names of the shares that were held, for the line of a test."""
        return [f"interval_coverage_{100 * level:.6g}" for level in self.levels]

    @property
    def listed(self) -> list[str]:
        """Names of all that is measured."""
        return [*self.shown, *(f"interval_width_{100 * level:.6g}" for level in self.levels)]

    def bounds(self, task: Task, outputs: Tensor, windows: Batch) -> tuple[Tensor, Tensor]:
        """Twice (batch, horizon, target, level) in scaled units: ends that cross are where they meet."""
        low, high = task.ends(outputs, self.levels)
        middle = 0.5 * (low + high)
        radius = self._radii[windows["series"]]
        radius = radius + ROUNDING * (torch.maximum(low.abs(), high.abs()) + radius.abs())
        return torch.minimum(low - radius, middle), torch.maximum(high + radius, middle)

    def in_source(self, task: Task, outputs: Tensor, windows: Batch, data: DataOfModels) -> tuple[Tensor, Tensor]:
        """Likewise in source units, float64: every scaler keeps the order of values."""
        low, high = (
            torch.stack([data.to_source(each, windows["series"], floored=True) for each in ends.unbind(dim=-1)], dim=-1)
            for ends in self.bounds(task, outputs, windows)
        )
        return low, high

    def update(self, task: Task, outputs: Tensor, windows: Batch, data: DataOfModels) -> None:
        """Add a batch to what is measured, in the units that the task measures in."""
        if task.units == "source":
            (low, high), observed = self.in_source(task, outputs, windows, data), windows["y_source"]
            observed = observed.view(torch.float64)
        else:
            (low, high), observed = self.bounds(task, outputs, windows), windows["y"]
        self._errors.update(torch.cat([low.flip(-1), high], dim=-1), observed, windows["mask"])

    def reset(self) -> None:
        """Measure anew."""
        self._errors.reset()

    def measured(self) -> Report:
        """``interval_coverage_80`` and ``interval_width_80`` of each level, over all, `by_step` and `by_target`."""
        report = self._errors.compute()
        self._errors.reset()
        return {
            group: {f"interval_{name}": value for name, value in values.items() if name[:5] in ("cover", "width")}
            for group, values in report.items()
        }
