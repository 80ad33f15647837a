"""What all models share: the loss, the metrics, and what a checkpoint says of them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_app.batch import Batch, BatchShape, DataOfModels, by_series, part_by_panel, part_by_series
from lightning_app.checkpoints import read_checkpoint, told
from lightning_app.losses import MSE, Loss
from lightning_app.metrics import MaskedErrors, ScaledErrors, SeriesScores
from lightning_app.models.finite import LossWatch, not_finite
from lightning_app.models.rebuild import Remembers, arguments_of, plain_arguments, require_same_model
from zstore import NotFiniteError, UsageError

logger = logging.getLogger(__name__)

Units = Literal["scaled", "source"]

_STAGES = ("val", "test")


class ForecastModel(pl.LightningModule, metaclass=Remembers):
    """A model from a batch to targets.

    Windows are of single series. Those of a panel are taken apart for models that do not read panels as such, and for
    losses and metrics: each model works on both.

    Parameters
    ----------
    shape
        Lengths and widths of the batches; linked from the data by the command line.
    units
        Units of the metrics: ``scaled`` as the model sees them, or ``source``: forecasts are brought to source units in
        float64 and compared with the values of the store.
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
        Rows of a season, such as 24 for a day of hours: measures MASE too, scaled by the error that repeating the last
        season has on the training rows of each series, in source units. Default: no MASE.
    compile_with
        Backend of ``torch.compile``, such as ``inductor``. Default: not compiled.
    """

    fitted: ClassVar[bool] = True
    """Whether there is anything to fit."""
    _given: tuple[tuple[Any, ...], dict[str, Any]]
    panels: ClassVar[bool] = False
    """Whether `forward` reads panels: (batch, lookback, node, channel) to (batch, horizon, node, target)."""

    def __init__(
        self,
        shape: BatchShape,
        units: Units = "scaled",
        loss: Loss | None = None,
        loss_units: Units = "scaled",
        series_scores: bool = False,
        series_least: int = 2,
        compile_with: str | None = None,
        mase_season: int | None = None,
    ) -> None:
        super().__init__()
        self.shape, self.units, self.loss_units = shape, units, loss_units
        if self.panels and not shape.n_nodes:
            raise UsageError(
                f"{type(self).__name__} without a panel", expected="all series side by side", fix="--data.panel"
            )
        self.loss = loss or MSE()
        self.errors = nn.ModuleDict({stage: MaskedErrors(shape.horizon, shape.n_targets) for stage in _STAGES})
        self.series_scores, self.scores = series_scores, nn.ModuleDict()
        self._series_least = series_least
        if mase_season is not None and mase_season < 1:
            raise UsageError(
                f"mase_season {mase_season}",
                expected="1 row or more, such as 24 for a day of hours",
                fix="change --model.mase_season",
            )
        self.mase_season, self.scaled_errors = mase_season, nn.ModuleDict()
        if mase_season is not None:
            self.scaled_errors.update({stage: ScaledErrors(shape.horizon, shape.n_targets) for stage in _STAGES})
        self._compile_with = compile_with
        self._predict: Callable[[Batch], Tensor] = self.forward
        self.exact: dict[str, float] = {}
        self._watch = LossWatch()
        self.report: dict[str, dict[str, Tensor]] = {}

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **options: Any) -> Any:
        """A model with the weights of a checkpoint, built with the arguments that it was fitted with.

        Parameters
        ----------
        checkpoint_path
            Its file. Nothing but tensors and plain values is loaded.
        args, options
            As for Lightning's method; arguments of the model replace those of the checkpoint.

        Raises
        ------
        StoreError
            If it is damaged, or is no checkpoint.
        UsageError
            If the checkpoint is of another model, or of a release that did not note arguments, and `shape` is not
            passed.
        """
        with told(checkpoint_path, f"one of {cls.__name__}"):
            checkpoint = read_checkpoint(checkpoint_path)
            if "shape" not in options:
                options = {**arguments_of(checkpoint.get("lightning_app"), cls.__name__), **options}
            return super().load_from_checkpoint(checkpoint_path, *args, **{"weights_only": True, **options})

    def setup(self, stage: str) -> None:
        """Make room for what is measured, anew: that of an earlier stage may be of inference mode; compile."""
        if self.series_scores and not self.scores:
            sizes = {"n_series": self._data.n_series, "n_targets": self.shape.n_targets, "least": self._series_least}
            self.scores.update({stage: SeriesScores(**sizes) for stage in _STAGES})
        for measured in (self.errors, self.scores, self.scaled_errors):
            for metric in measured.values():
                cast(Metric, metric).reset()
        if self._compile_with is not None and self._predict == self.forward:
            self._predict = torch.compile(self.forward, backend=self._compile_with)

    def forward(self, batch: Batch) -> Tensor:
        """Scaled predictions, (batch, horizon, target)."""
        raise NotImplementedError

    def forecast(self, batch: Batch) -> tuple[Tensor, Batch]:
        """Scaled predictions, (batch, horizon, target), and their windows: those of single series."""
        if not self.shape.n_nodes:
            return self._predict(batch), batch
        if self.panels:
            return part_by_series(self._predict(batch)), by_series(batch)
        flat = by_series(batch)
        return self._predict(flat), flat

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss over the observed targets of one batch."""
        loss = self.loss_of(self, batch)
        self.watch(loss)
        self.log("train/loss", loss, on_step=True, on_epoch=False, prog_bar=True)
        return loss

    def watch(self, loss: Tensor) -> None:
        """Refuse a loss that is not finite: at once on a CPU; else when steps are logged, and before a checkpoint.

        Raises
        ------
        NotFiniteError
            It names the step.
        """
        self._watch.see(loss, self.global_step)
        if loss.device.type == "cpu" and self._n_processes == 1:
            self.require_finite_losses()

    @property
    def _n_processes(self) -> int:
        """Processes that train together; 1 in a loop of one's own, without a trainer."""
        return 1 if self._trainer is None else self.trainer.world_size

    def require_finite_losses(self) -> None:
        """Refuse what was trained on with a loss that was not finite; on every process at once."""
        if self._watch.first is None:
            return
        step = self._watch.step(self.all_gather if self._n_processes > 1 else None)
        if step is not None:
            raise self._not_finite(f"the training loss of step {step:,} (epoch {self.current_epoch}) is not finite")

    def on_fit_start(self) -> None:
        """Forget the losses of an earlier fit."""
        self._watch = LossWatch()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Look at the losses of some steps, where that was not done at once."""
        if (batch_idx + 1) % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self.require_finite_losses()

    def on_validation_start(self) -> None:
        """Do not validate what was trained on with such a loss."""
        self.require_finite_losses()

    def _not_finite(self, what: str) -> NotFiniteError:
        return not_finite(what, self._data.infinite_channels, self._data.where)

    def loss_of(self, model: ForecastModel, batch: Batch) -> Tensor:
        """The loss of what this model, or a member of it, forecasts."""
        predicted, windows = model.forecast(batch)
        observed, series = windows["y"], windows["series"]
        std = None
        if self.loss.by_series:
            of_series = self._data.source_std if self.loss_units == "source" else self._data.target_std
            std = of_series.to(self.device)[series]
        if self.loss_units == "source":
            predicted, observed = (self._data.to_source(values, series) for values in (predicted, observed))
        loss: Tensor = self.loss(predicted, observed, windows["mask"], std)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add one batch to the validation metrics."""
        self._update("val", batch)

    def on_validation_epoch_end(self) -> None:
        """Log and reset the validation metrics."""
        self._log("val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add one batch to the test metrics."""
        self._update("test", batch)

    def on_test_epoch_end(self) -> None:
        """Log the test metrics, in full in `report`, and reset them."""
        self._log("test")

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Predictions in source units, (batch, horizon, target) or (batch, horizon, node, target), float64."""
        predicted, windows = self.forecast(batch)
        found = self._data.to_source(predicted, windows["series"])
        return part_by_panel(found, self.shape.n_nodes) if self.shape.n_nodes else found

    def configure_optimizers(self) -> Any:
        """Adam with its defaults, unless the configuration has an `optimizer`."""
        if not self.fitted:
            raise UsageError(
                f"{type(self).__name__} has nothing to fit",
                expected="a model with parameters",
                fix="go straight to: python -m lightning_app test --config …",
            )
        return torch.optim.Adam(self.parameters())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note what the model was built for; nothing is saved after a loss that is not finite."""
        self.require_finite_losses()
        arguments = plain_arguments(type(self).__init__, self._given)
        noted = {"model": type(self).__name__, "shape": self.shape.to_json(), "arguments": arguments}
        checkpoint["lightning_app"] = noted

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Compare that with this model.

        Raises
        ------
        UsageError
            If the checkpoint is of another model or shape, or has other weights.
        """
        require_same_model(self, self.shape, self.panels, checkpoint)

    @property
    def measures_source(self) -> bool:
        """Whether metrics are of source units, so that batches of an evaluation need `y_source`."""
        return self.units == "source" or self.series_scores or self.mase_season is not None

    @property
    def _data(self) -> DataOfModels:
        return cast(DataOfModels, self.trainer.datamodule)  # type: ignore[attr-defined]

    def _update(self, stage: str, batch: Batch) -> None:
        predicted, batch = self.forecast(batch)
        mask, errors = batch["mask"], cast(MaskedErrors, self.errors[stage])
        if self.measures_source:
            source = self._data.to_source(predicted, batch["series"]), batch["y_source"].view(torch.float64)
        errors.update(*(source if self.units == "source" else (predicted, batch["y"])), mask)
        if self.series_scores:
            cast(SeriesScores, self.scores[stage]).update(*source, mask, batch["series"])
        if self.mase_season is not None:
            scale = self._data.seasonal_error(self.mase_season).to(mask.device)[batch["series"]]
            cast(ScaledErrors, self.scaled_errors[stage]).update(*source, mask, scale)

    def _log(self, stage: str) -> None:
        # float64 survives in `exact`; `log` would round it to float32.
        errors = cast(MaskedErrors, self.errors[stage])
        self.report = errors.compute()
        n_targets, mse = float(errors.moments[0].sum()), float(self.report["all"]["mse"])
        errors.reset()
        if n_targets and not math.isfinite(mse):
            when = f" after step {self.global_step:,}" if stage == "val" and self.trainer.training else ""
            raise self._not_finite(f"{stage}/mse is {mse}{when}")
        if self.series_scores:
            scores = cast(SeriesScores, self.scores[stage])
            found = scores.compute()
            scores.reset()
            self._require_scores(stage, found["all"])
            self.report = {**self.report, **found, "all": {**self.report["all"], **found["all"]}}
        if self.mase_season is not None:
            for group, values in self._mase(stage).items():
                self.report[group] = {**self.report[group], **values}
        named = {f"{stage}/{name}": value for name, value in self.report["all"].items()}
        self.log_dict({name: value.float() for name, value in named.items()})
        self.exact = {name: float(value) for name, value in named.items()}

    def _mase(self, stage: str) -> dict[str, dict[str, Tensor]]:
        """The MASE of a stage, which is then reset; refused where targets were observed and none of them has one."""
        errors = cast(ScaledErrors, self.scaled_errors[stage])
        mase = errors.compute()
        errors.reset()
        n_left_out = int(mase["all"]["mase_left_out"])
        if n_left_out and bool(mase["all"]["mase"].isnan()) and not self.trainer.sanity_checking:
            raise UsageError(
                f"no {stage} target with a MASE for a season of {self.mase_season:,} rows",
                expected="series with observed training rows a season apart that are not all the same",
                where=self._data.where,
                fix="change --model.mase_season or --data.split, or drop --model.mase_season",
            )
        if n_left_out and stage == "test":
            logger.warning(
                f"MASE leaves out {n_left_out:,} test targets: the error that repeating the last season of"
                f" {self.mase_season:,} rows has on the training rows of their series is 0 or unknown"
            )
        return mase

    def _require_scores(self, stage: str, found: dict[str, Tensor]) -> None:
        """Refuse medians over no series: early stopping would take them for the end, and checkpoints for the best."""
        if not self.trainer.sanity_checking and all(bool(value.isnan()) for value in found.values()):
            raise UsageError(
                f"no series with {self._series_least} observed {stage} targets",
                expected="one at least, for the medians of series scores",
                fix=f"lower --model.series_least, or make the {stage} split longer",
            )


def require_input_targets(shape: BatchShape, model: str) -> None:
    """Refuse targets that are no inputs, for models that map each channel to itself."""
    if -1 in shape.target_inputs:
        raise UsageError(
            f"{model} with a target that is no input",
            expected="every target among the inputs",
            fix="add it to --data.channels, or take a model that mixes channels, such as LSTM",
        )
