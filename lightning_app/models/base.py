"""What all models share: a task, steps of a trainer, and what a checkpoint says of them."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any, ClassVar, cast

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_app.batch import Batch, BatchShape, DataOfModels, by_series, part_by_panel, part_by_series
from lightning_app.checkpoints import read_checkpoint, told
from lightning_app.intervals import Intervals
from lightning_app.losses import Loss
from lightning_app.models.finite import WatchedModel, not_finite
from lightning_app.models.rebuild import (
    Remembers,
    arguments_of,
    noted_arguments,
    require_same_model,
    shipped_class,
)
from lightning_app.persistence import persistence_of
from lightning_app.tasks import Forecast, Task
from lightning_app.tasks.base import Report
from lightning_app.tasks.forecast import Units
from zstore import NotFiniteError, UsageError

_FORECAST = tuple(option.default for option in signature(Forecast).parameters.values())


class TaskModel(WatchedModel, metaclass=Remembers):
    """A model from a batch to what its task makes of it: forecasts, classes.

    Windows are of single series. Those of a panel are taken apart for models that do not read panels as such, and for
    losses and metrics: each model works on both.

    Parameters
    ----------
    shape
        Lengths and widths of the batches; linked from the data by the command line.
    units, loss, loss_units, series_scores, series_least, mase_season, extra_metrics
        See :class:`lightning_app.tasks.Forecast`, which they are options of; not with another task.
    compile_with
        Backend of ``torch.compile``, such as ``inductor``. Default: not compiled.
    task
        What the model is for. Default: `Forecast`, with the options above.

    Raises
    ------
    UsageError
        If the task does not suit the batches, or has options beside it that are of forecasts.
    """

    fitted: ClassVar[bool] = True
    """Whether there is anything to fit."""
    _given: tuple[tuple[Any, ...], dict[str, Any]]
    intervals: Intervals | None = None
    """Of forecasts in tests and predictions, if they were asked for."""
    only_forecasts: ClassVar[bool] = False
    """Whether outputs are numbers of targets, whatever the task: no other task than a forecast is taken then."""
    of_weights: ClassVar[tuple[str, ...]] = ()
    """Arguments that say what weights do, though not their shapes: a checkpoint with others is refused."""
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
        task: Task | None = None,
        extra_metrics: dict[str, Metric] | None = None,
    ) -> None:
        super().__init__()
        self.shape = shape
        if self.panels and not shape.n_nodes:
            raise UsageError(
                f"{type(self).__name__} without a panel", expected="all series side by side", fix="--data.panel"
            )
        forecast = (units, loss, loss_units, series_scores, series_least, mase_season, extra_metrics)
        if task is not None and forecast != _FORECAST:
            raise UsageError(
                f"options of forecasts beside the task {type(task).__name__}",
                expected="units, loss and scores as arguments of the task itself, if it has them",
                fix="move them to --model.task, or drop them",
            )
        self.task = Forecast(*forecast) if task is None else task
        if self.only_forecasts and not isinstance(self.task, Forecast):
            raise UsageError(
                f"{type(self).__name__} for a {type(self.task).__name__}",
                expected="a forecast, which is all that it can do",
                fix="another model, such as LSTM",
            )
        self.task.suit(shape)
        self.persistence = persistence_of(self.task, shape)
        self._compile_with = compile_with
        self._predict: Callable[[Batch], Tensor] = self.forward
        self.exact: dict[str, float] = {}
        self.report: Report = {}

    @property
    def n_outputs(self) -> int:
        """Numbers for each target row: one for each target of a forecast."""
        return self.task.n_outputs

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **options: Any) -> Any:
        """A model with the weights of a checkpoint, built with the arguments that it was fitted with.

        Of `TaskModel` itself, whichever model of this package the checkpoint is of; no data module is needed.

        Parameters
        ----------
        checkpoint_path
            Its file. Nothing but tensors and plain values is loaded, and no module is imported that it names.
        args, options
            As for Lightning's method; arguments of the model replace those of the checkpoint.

        Raises
        ------
        StoreError
            If it is damaged, or is no checkpoint.
        UsageError
            If the checkpoint is of another model, or of a release that did not note arguments, and `shape` is not
            passed; or if an argument is not passed that a checkpoint cannot hold, such as a loss of one's own.
        """
        with told(checkpoint_path, f"one of {cls.__name__}"):
            noted = read_checkpoint(checkpoint_path).get("lightning_app")
            if cls is TaskModel:
                return shipped_class(noted, TaskModel).load_from_checkpoint(checkpoint_path, *args, **options)
            if "shape" not in options:
                options = {**arguments_of(noted, cls.__name__, options), **options}
            return super().load_from_checkpoint(checkpoint_path, *args, **{"weights_only": True, **options})

    def setup(self, stage: str) -> None:
        """Measure anew; compile."""
        self.task.begin(self)
        if self._compile_with is not None and self._predict == self.forward:
            self._predict = torch.compile(self.forward, backend=self._compile_with)

    def forward(self, batch: Batch) -> Tensor:
        """(batch, horizon, output): scaled predictions, (batch, horizon, target), where the task is a forecast."""
        raise UsageError(
            f"{type(self).__name__} without forward(batch)",
            expected="a method that returns outputs, (batch, horizon, output)",
            fix="define it in the class",
        )

    def outputs(self, batch: Batch) -> tuple[Tensor, Batch]:
        """Outputs, (batch, horizon, output), and their windows: those of single series.

        Raises
        ------
        UsageError
            If `forward` gives outputs of another shape: losses would spread them over the targets without a word.
        """
        if self.shape.n_nodes and self.panels:
            outputs, windows = part_by_series(self._predict(batch)), by_series(batch)
        else:
            windows = by_series(batch) if self.shape.n_nodes else batch
            outputs = self._predict(windows)
        expected = (windows["y"].shape[0], self.shape.horizon, self.n_outputs)
        if tuple(outputs.shape) != expected:
            raise UsageError(
                f"{type(self).__name__} whose outputs have the shape {tuple(outputs.shape)}",
                expected=f"{expected}: (batch, horizon, output)",
                fix="correct forward",
            )
        return outputs, windows

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss over the observed targets of one batch.

        Raises
        ------
        UsageError
            If no weight of the model has a part in it.
        """
        loss = self.loss_of(self, batch)
        if not loss.requires_grad and torch.is_grad_enabled():
            raise UsageError(
                f"a training loss of {type(self).__name__} that no weight has a part in",
                expected="outputs that are computed with parameters of the model, and not detached",
                fix="correct forward, or the loss",
            )
        self.watch(loss)
        self.log("train/loss", loss, on_step=True, on_epoch=False, prog_bar=self._shows_progress)
        return loss

    @property
    def _shows_progress(self) -> bool:
        """Whether there is a bar: Lightning waits for the GPU in each step to show a loss, even where it is off."""
        return self._trainer is None or self.trainer.progress_bar_callback is not None

    def share(self, n: Tensor) -> Tensor | float:
        """By what the mean over n targets of this process counts: n over the mean n of all processes that train.

        Parameters
        ----------
        n
            () targets, or their weights.

        Returns
        -------
        () float32: 0 where no process has any; 1 on a single process, and outside training.

        Notes
        -----
        One number is summed over the processes, so all of them have to ask. Lightning's own reduction would wait for
        the device.
        """
        if self._n_processes == 1 or not self.training:
            return 1.0
        own = n.detach().float()
        everywhere = own.clone()
        torch.distributed.all_reduce(everywhere)
        return own * self._n_processes / everywhere.clamp(min=torch.finfo(own.dtype).tiny)

    def not_finite(self, what: str) -> NotFiniteError:
        """The error of a loss or metric that is not finite."""
        floats = [name for name, dtype in self.shape.field_dtypes.items() if "float" in dtype]
        return not_finite(what, self.data.infinite_channels, self.data.where, fields=floats)

    def loss_of(self, model: TaskModel, batch: Batch) -> Tensor:
        """The loss of what this model, or a member of it, gives."""
        return self.task.loss_of(*model.outputs(batch), self)

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Add one batch to the validation metrics; gives its ``outputs``, (batch, horizon, output)."""
        return {"outputs": self._update("val", batch)}

    def on_validation_epoch_end(self) -> None:
        """Log and reset the validation metrics."""
        self._log("val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add one batch to the test metrics."""
        self._update("test", batch)

    def on_test_epoch_end(self) -> None:
        """Log the test metrics, in full in `report`, and reset them."""
        self._log("test")

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor | dict[str, Tensor]:
        """Predictions in source units, (batch, horizon, target) or (batch, horizon, node, target), float64.

        Of tasks with classes these are ``predictions``, beside ``probabilities``, (batch, horizon, …, class) of all
        classes of the first target that has any, then those of the next one. Of tasks with quantiles they are beside
        ``quantiles``, (batch, horizon, …, level) of all levels of the first target, then those of the next one. With
        intervals they are beside their ends, ``lower`` and ``upper``, of the same shape.
        """
        outputs, windows = self.outputs(batch)
        parts = {"predictions": self.task.predictions(outputs, windows, self)}
        probabilities = self.task.probabilities(outputs)
        if probabilities is not None:
            parts["probabilities"] = probabilities
        quantiles = self.task.quantiles(outputs, windows, self)
        if quantiles is not None:
            parts["quantiles"] = quantiles.flatten(2)
        if self.intervals is not None:
            ends = self.intervals.in_source(self.task, outputs, windows, self.data)
            parts |= {name: each.flatten(2) for name, each in zip(("lower", "upper"), ends, strict=True)}
        if self.shape.n_nodes:
            parts = {name: part_by_panel(part, self.shape.n_nodes) for name, part in parts.items()}
        return parts if len(parts) > 1 else parts["predictions"]

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
        arguments, unsaid = noted_arguments(type(self).__init__, self._given)
        noted = {"model": type(self).__name__, "shape": self.shape.to_json(), "arguments": arguments, "unsaid": unsaid}
        checkpoint["lightning_app"] = noted

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Compare that with this model.

        Raises
        ------
        UsageError
            If the checkpoint is of another model or shape, or has other weights.
        """
        given, _ = noted_arguments(type(self).__init__, self._given)
        require_same_model(self, self.shape, self.panels, given, checkpoint)

    @property
    def measures_source(self) -> bool:
        """Whether metrics are of source units, so that batches of an evaluation need `y_source`."""
        return self.task.measures_source

    def attach(self, data: DataOfModels) -> None:
        """Use a data module without a trainer."""
        self.__dict__["_attached"] = data

    @property
    def data(self) -> DataOfModels:
        """The data module of the trainer, or one that is attached."""
        if "_attached" in self.__dict__:
            return cast(DataOfModels, self.__dict__["_attached"])
        return cast(DataOfModels, self.trainer.datamodule)  # type: ignore[attr-defined]

    def _update(self, stage: str, batch: Batch) -> Tensor:
        outputs, windows = self.outputs(batch)
        self.task.update(stage, outputs, windows, self)
        if stage == "test":
            if self.intervals is not None:
                self.intervals.update(self.task, outputs, windows, self.data)
            if self.persistence is not None:
                self.persistence.update(windows, self.data)
        return outputs

    def _log(self, stage: str) -> None:
        # float64 survives in `exact`; `log` would round it to float32.
        self.report = self.task.measured(stage, self)
        if stage == "test" and self.intervals is not None:
            for group, values in self.intervals.measured().items():
                self.report[group] = {**self.report[group], **values}
        if stage == "test" and self.persistence is not None:
            self.report |= self.persistence.measured()
        named = {f"{stage}/{name}": value for name, value in self.report["all"].items()}
        self.log_dict({name: value.float() for name, value in named.items()})
        self.exact = {name: float(value) for name, value in named.items()}


def require_input_targets(shape: BatchShape, model: str) -> None:
    """Refuse targets that are no inputs, for models that map each channel to itself."""
    if -1 in shape.target_inputs:
        raise UsageError(
            f"{model} with a target that is no input",
            expected="every target among the inputs",
            fix="add it to --data.channels, or take a model that mixes channels, such as LSTM",
        )
