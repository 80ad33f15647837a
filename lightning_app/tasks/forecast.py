"""Forecasts: targets are numbers, and so are outputs, scaled; errors are of scaled or of source units."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_app.batch import Batch, BatchShape
from lightning_app.losses import MSE, Loss
from lightning_app.metrics import MaskedErrors, SeriesScores, reported
from lightning_app.scaled_errors import RootScaledErrors, ScaledErrors
from lightning_app.tasks.base import STAGES, Host, Report, Task
from lightning_app.tasks.extra import add_observed, named_metrics, one_number
from zstore import UsageError

logger = logging.getLogger(__name__)

Units = Literal["scaled", "source"]


class Forecast(Task):
    """Numbers in, numbers out: a scaled value for each target.

    Parameters
    ----------
    units
        Units of the metrics: ``scaled`` as the model sees them, or ``source``: forecasts are brought to source units in
        float64 and compared with the values of the store. MAPE and sMAPE are of ``source`` units only.
    loss
        What training minimises. Default: the mean squared error.
    loss_units
        Of the values that the loss is of: ``scaled``, or ``source``; in float64 then. Weights by series are of targets
        in the same units.
    series_scores
        Whether NSE, KGE, log-NSE and bias of each series are measured too, in source units.
    series_least
        Targets that a series must have for its scores to count in medians and quantiles.
    mase_season
        Rows of a season, such as 24 for a day of hours: measures MASE and RMSSE too, scaled by the error that repeating
        the last season has on the training rows of each series, in source units; 1 is the RMSSE of the M5 competition.
        Default: neither.
    extra_metrics
        Further metrics by name, of torchmetrics or of one's own, such as
        ``{peak: {class_path: mymodule.PeakError}}``. Each takes ``update(predicted, observed)`` of all observed
        targets, (n,), in `units`; its ``compute()`` is one number. Default: none.
    """

    monitor = "val/mse"
    roles = ("location",)
    shown: ClassVar = ("mse", "mae", "rmse", "mase", "nse_median", "kge_median", "bias_median")
    listed: ClassVar = (*shown[:3], "mape", "smape", "mase", "rmsse", "r2", *shown[4:])

    def __init__(
        self,
        units: Units = "scaled",
        loss: Loss | None = None,
        loss_units: Units = "scaled",
        series_scores: bool = False,
        series_least: int = 2,
        mase_season: int | None = None,
        extra_metrics: dict[str, Metric] | None = None,
    ) -> None:
        super().__init__()
        self.units, self.loss_units = units, loss_units
        self.loss = loss or MSE()
        self.series_scores, self.series_least = series_scores, series_least
        if mase_season is not None and mase_season < 1:
            raise UsageError(
                f"mase_season {mase_season}",
                expected="1 row or more, such as 24 for a day of hours",
                fix="change --model.mase_season",
            )
        self.mase_season = mase_season
        self.extra_metrics = named_metrics(extra_metrics)
        self.also = tuple(self.extra_metrics)
        self.measures_source = units == "source" or series_scores or mase_season is not None

    def suit(self, shape: BatchShape) -> None:
        """Make room for errors of each target."""
        super().suit(shape)
        sizes = shape.horizon, shape.n_targets
        for stage in STAGES:
            self.metrics[f"{stage}_errors"] = MaskedErrors(*sizes)
            if self.mase_season is not None:
                self.metrics[f"{stage}_scaled"] = ScaledErrors(*sizes)
            for name, metric in self.extra_metrics.items():
                self.metrics[f"{stage}_extra_{name}"] = metric.clone()

    @property
    def n_outputs(self) -> int:
        """One for each target."""
        return self.shape.n_targets

    @property
    def unit(self) -> str:
        """``scaled units`` or ``source units``."""
        return f"{self.units} units"

    def begin(self, host: Host) -> None:
        """Make room for what is measured by series, once their number is known."""
        if self.mase_season is not None and "val_roots" not in self.metrics:
            sizes = host.data.n_series, self.shape.horizon, self.shape.n_targets
            self.metrics.update({f"{stage}_roots": RootScaledErrors(*sizes) for stage in STAGES})
        if self.series_scores and "val_scores" not in self.metrics:
            of_series = {"n_series": host.data.n_series, "n_targets": self.shape.n_targets, "least": self.series_least}
            self.metrics.update({f"{stage}_scores": SeriesScores(**of_series) for stage in STAGES})
        super().begin(host)

    def loss_of(self, outputs: Tensor, windows: Batch, host: Host) -> Tensor:
        """A mean over the observed targets; 0 without any."""
        predicted, observed, series = outputs, windows["y"], windows["series"]
        std = None
        if self.loss.by_series:
            of_series = host.data.source_std if self.loss_units == "source" else host.data.target_std
            std = of_series.to(host.device)[series]
        if self.loss_units == "source":
            predicted, observed = (host.data.to_source(values, series) for values in (predicted, observed))
        found: Tensor = self.loss(predicted, observed, windows["mask"], std)
        return found * host.share(windows["mask"].sum())

    def update(self, stage: str, outputs: Tensor, windows: Batch, host: Host) -> None:
        """Add errors, and what else is asked for."""
        mask, errors = windows["mask"], cast(MaskedErrors, self.metrics[f"{stage}_errors"])
        if self.measures_source:
            source = (
                host.data.to_source(outputs, windows["series"], floored=True),
                windows["y_source"].view(torch.float64),
            )
        predicted, observed = source if self.units == "source" else (outputs, windows["y"])
        errors.update(predicted, observed, mask)
        for name in self.extra_metrics:
            metric = cast(Metric, self.metrics[f"{stage}_extra_{name}"])
            add_observed(metric, name, predicted[mask], observed[mask])
        if self.series_scores:
            cast(SeriesScores, self.metrics[f"{stage}_scores"]).update(*source, mask, windows["series"])
        if self.mase_season is not None:
            series = windows["series"]
            scales = [scale.to(mask.device)[series] for scale in host.data.seasonal_errors(self.mase_season)]
            cast(ScaledErrors, self.metrics[f"{stage}_scaled"]).update(*source, mask, scales[0])
            cast(RootScaledErrors, self.metrics[f"{stage}_roots"]).update(*source, mask, scales[1], series)

    def measured(self, stage: str, host: Host) -> Report:
        """Errors over everything, `by_step` and `by_target`; scores `by_series`."""
        errors = cast(MaskedErrors, self.metrics[f"{stage}_errors"])
        report: Report = reported(errors.compute(), self.units)
        n_targets, mse = float(errors.moments[0].sum()), float(report["all"]["mse"])
        errors.reset()
        if n_targets and not math.isfinite(mse):
            when = f" after step {host.global_step:,}" if stage == "val" and host.trainer.training else ""
            raise host.not_finite(f"{stage}/mse is {mse}{when}")
        if self.series_scores:
            scores = cast(SeriesScores, self.metrics[f"{stage}_scores"])
            found = scores.compute()
            scores.reset()
            self._require_scores(stage, found["all"], host)
            report = {**report, **found, "all": {**report["all"], **found["all"]}}
        if self.mase_season is not None:
            for group, values in self._mase(stage, host).items():
                report[group] = {**report[group], **values}
        return {**report, "all": {**report["all"], **self._extra(stage, report["all"], host)}}

    def predictions(self, outputs: Tensor, windows: Batch, host: Host) -> Tensor:
        """In source units."""
        return host.data.to_source(outputs, windows["series"], floored=True)

    def require_ends(self, levels: Sequence[float]) -> None:
        """Raise UsageError where a target is a class."""
        if any(self.shape.classes):
            raise UsageError("intervals of classes", expected="targets that are numbers", fix="drop --intervals.levels")

    def ends(self, outputs: Tensor, levels: Sequence[float]) -> tuple[Tensor, Tensor]:
        """The forecast, twice."""
        values = outputs.float()[..., None]
        return values, values

    def _extra(self, stage: str, report: dict[str, Tensor], host: Host) -> dict[str, Tensor]:
        """The extra metrics of a stage, which are then reset."""
        found = {}
        for name in self.extra_metrics:
            if name in report:
                raise UsageError(
                    f"extra metric {name!r}",
                    expected=f"another name than those that are measured anyway ({', '.join(report)})",
                    fix="rename it in --model.extra_metrics",
                )
            metric = cast(Metric, self.metrics[f"{stage}_extra_{name}"])
            found[name] = one_number(metric, name, host.trainer.world_size)
            metric.reset()
        return found

    def _mase(self, stage: str, host: Host) -> Report:
        """MASE and RMSSE of a stage, then reset; refused where targets were observed and none of them has a MASE."""
        errors, roots = (cast(Metric, self.metrics[f"{stage}_{name}"]) for name in ("scaled", "roots"))
        mase, rmsse = errors.compute(), roots.compute()
        mase = {group: {**values, **rmsse[group]} for group, values in mase.items()}
        errors.reset()
        roots.reset()
        n_left_out = int(mase["all"]["mase_left_out"])
        if n_left_out and bool(mase["all"]["mase"].isnan()) and not host.trainer.sanity_checking:
            raise UsageError(
                f"no {stage} target with a MASE for a season of {self.mase_season:,} rows",
                expected="series with observed training rows a season apart that are not all the same",
                where=host.data.where,
                fix="change --model.mase_season or --data.split, or drop --model.mase_season",
            )
        if n_left_out and stage == "test":
            logger.warning(
                f"MASE and RMSSE leave out {n_left_out:,} test targets: the error that repeating the last season of"
                f" {self.mase_season:,} rows has on the training rows of their series is 0 or unknown"
            )
        return mase

    def _require_scores(self, stage: str, found: dict[str, Tensor], host: Host) -> None:
        """Refuse medians over no series: early stopping would take them for the end, and checkpoints for the best."""
        if not host.trainer.sanity_checking and all(bool(value.isnan()) for value in found.values()):
            raise UsageError(
                f"no series with {self.series_least} observed {stage} targets",
                expected="one at least, for the medians of series scores",
                fix=f"lower --model.series_least, or make the {stage} split longer",
            )
