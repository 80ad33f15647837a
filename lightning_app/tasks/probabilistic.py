"""Forecasts that say how sure they are: quantiles of each target, all of one fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor

from lightning_app.batch import Batch, BatchShape
from lightning_app.metrics import MaskedErrors, reported
from lightning_app.quantile_errors import QuantileErrors, central_pairs
from lightning_app.tasks.base import STAGES, Host, Report, Task
from lightning_app.tasks.distributions import DISTRIBUTIONS
from lightning_app.tasks.forecast import Units
from zstore import UsageError

_LEAST = 0.001
_LEVELS = [0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975]


class ProbabilisticForecast(Task):
    """Quantiles of each target: the median is the forecast, and pairs of the others are intervals.

    Parameters
    ----------
    distribution
        ``quantiles``: one output for each level, of any distribution, which never cross. ``normal`` or ``student_t``:
        the parameters of that distribution, trained by its likelihood.
    levels
        Of the quantiles, each from 0.001 to 0.999. Default: 0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975, which are the
        central intervals of 50, 80 and 95 %.
    units
        Units of the metrics: ``scaled`` as the model sees them, or ``source``, in float64.
    """

    monitor = "val/crps"
    shown: ClassVar = ("crps", "mae", "rmse")
    listed: ClassVar = (
        *shown,
        "pinball",
        "coverage_50",
        "coverage_80",
        "coverage_95",
        "width_50",
        "width_80",
        "width_95",
    )

    def __init__(
        self,
        distribution: Literal["quantiles", "normal", "student_t"] = "quantiles",
        levels: list[float] | None = None,
        units: Units = "scaled",
    ) -> None:
        super().__init__()
        self.distribution, self.units = distribution, units
        self.levels = sorted(set(_LEVELS if levels is None else levels))
        alike = len({f"{level:.6g}" for level in self.levels}) < len(self.levels)  # as columns are named
        if alike or not self.levels or not all(_LEAST <= level <= 1 - _LEAST for level in self.levels):
            raise UsageError(
                f"levels {levels}",
                expected="numbers from 0.001 to 0.999, such as 0.1, that differ in their first six digits",
                fix="correct --model.task",
            )
        self._read = DISTRIBUTIONS[distribution](self.levels)
        self.roles = self._read.roles
        self.of_outputs = ("distribution", "levels") if distribution == "quantiles" else ("distribution",)
        self.measures_source = units == "source"

    def suit(self, shape: BatchShape) -> None:
        """Make room for errors of each target."""
        super().suit(shape)
        if any(shape.classes):
            raise UsageError("quantiles of classes", expected="targets that are numbers", fix="drop --data.classes")
        sizes = shape.horizon, shape.n_targets
        for stage in STAGES:
            self.metrics[f"{stage}_errors"] = MaskedErrors(*sizes)
            self.metrics[f"{stage}_quantiles"] = QuantileErrors(*sizes, self.levels)

    @property
    def n_outputs(self) -> int:
        """Those of the distribution, for each target."""
        return self.shape.n_targets * self._read.n_outputs

    @property
    def unit(self) -> str:
        """``scaled units`` or ``source units``."""
        return f"{self.units} units"

    def loss_of(self, outputs: Tensor, windows: Batch, host: Host) -> Tensor:
        """The mean over the observed targets; 0 without any."""
        mask = windows["mask"]
        observed = torch.where(mask, windows["y"], 0.0)
        losses = self._read.loss(self._by_target(outputs), observed)
        n = mask.sum()
        return torch.where(mask, losses, 0.0).sum() / n.clamp(min=1) * host.share(n)

    def update(self, stage: str, outputs: Tensor, windows: Batch, host: Host) -> None:
        """Add errors of the median, and of all quantiles."""
        mask = windows["mask"]
        if self.units == "source":
            observed = windows["y_source"].view(torch.float64)
            median, quantiles = self.predictions(outputs, windows, host), self.quantiles(outputs, windows, host)
        else:
            observed, by_target = windows["y"], self._by_target(outputs)
            median, quantiles = self._read.centre(by_target), self._read.quantiles(by_target)
        cast(MaskedErrors, self.metrics[f"{stage}_errors"]).update(median, observed, mask)
        cast(QuantileErrors, self.metrics[f"{stage}_quantiles"]).update(quantiles, observed, mask)

    def measured(self, stage: str, host: Host) -> Report:
        """Errors of the median and of the quantiles over everything, `by_step` and `by_target`; `calibration`."""
        errors = cast(MaskedErrors, self.metrics[f"{stage}_errors"])
        of_quantiles = cast(QuantileErrors, self.metrics[f"{stage}_quantiles"])
        first, second = reported(errors.compute(), self.units), of_quantiles.compute()
        n_targets, shares = float(of_quantiles.count.sum()), of_quantiles.calibration()
        errors.reset()
        of_quantiles.reset()
        report: Report = {group: {**first[group], **second[group]} for group in first}
        report["calibration"] = {"level": shares.new_tensor(self.levels), "share": shares}
        crps = float(report["all"]["crps"])
        if n_targets and not math.isfinite(crps):
            when = f" after step {host.global_step:,}" if stage == "val" and host.trainer.training else ""
            raise host.not_finite(f"{stage}/crps is {crps}{when}")
        return report

    def mean_of(self, outputs: Tensor) -> Tensor:
        """The means of quantiles; of Student's distributions, whose quantiles no such one has, of their parameters."""
        return self._read.mean(self._by_target(outputs)).flatten(-2)

    def predictions(self, outputs: Tensor, windows: Batch, host: Host) -> Tensor:
        """The medians, in source units."""
        return host.data.to_source(self._read.centre(self._by_target(outputs)), windows["series"], floored=True)

    def quantiles(self, outputs: Tensor, windows: Batch, host: Host) -> Tensor:
        """(batch, horizon, target, level) float64 in source units: every scaler keeps the order of values."""
        scaled = self._read.quantiles(self._by_target(outputs))
        found = [host.data.to_source(level, windows["series"], floored=True) for level in scaled.unbind(dim=-1)]
        return torch.stack(found, dim=-1)

    def require_ends(self, levels: Sequence[float]) -> None:
        """Raise UsageError where there are no two quantiles that an interval lies between."""
        for level in levels:
            if self._pair(level) is None:
                known = ", ".join(f"{float(name) / 100:g}" for name in central_pairs(self.levels))
                low, high = (f"{end:.6g}" for end in ((1 - level) / 2, (1 + level) / 2))
                raise UsageError(
                    f"an interval of {100 * level:g} % without the quantiles {low} and {high}",
                    expected=f"one of {known}" if known else "levels of the task in pairs, such as 0.1 and 0.9",
                    fix="change --intervals.levels, or the levels of --model.task",
                )

    def ends(self, outputs: Tensor, levels: Sequence[float]) -> tuple[Tensor, Tensor]:
        """The central pair of quantiles of each level."""
        found, pairs = self._read.quantiles(self._by_target(outputs)), [self._pair(level) for level in levels]
        low, high = [found[..., [pair[side] for pair in pairs if pair is not None]] for side in (0, 1)]
        return low, high

    def _pair(self, level: float) -> tuple[int, int] | None:
        """Positions of the two quantiles that a central interval lies between."""
        return central_pairs(self.levels).get(f"{100 * level:.6g}")

    def _by_target(self, outputs: Tensor) -> Tensor:
        """(batch, horizon, target, output)."""
        return outputs.float().reshape(*outputs.shape[:-1], self.shape.n_targets, self._read.n_outputs)
