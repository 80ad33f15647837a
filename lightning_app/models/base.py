"""What all models share: the loss, the metrics, and the way back to source units."""

from __future__ import annotations

from typing import Any, Literal, cast

import pytorch_lightning as pl
import torch
from torch import Tensor

from lightning_app.batch import Batch, BatchShape, ScalesTargets
from lightning_app.metrics import MaskedErrors
from zstore import UsageError


class ForecastModel(pl.LightningModule):
    """A model from a batch to targets.

    Parameters
    ----------
    shape
        Lengths and widths of the batches; linked from the data by the command line.
    units
        Units of the metrics: ``scaled`` as the model sees them, or ``source`` as the CSV has them. The
        loss is always of scaled values.
    """

    def __init__(self, shape: BatchShape, units: Literal["scaled", "source"] = "scaled") -> None:
        super().__init__()
        self.shape, self.units = shape, units
        self.val_errors, self.test_errors = MaskedErrors(), MaskedErrors()

    def forward(self, batch: Batch) -> Tensor:
        """Scaled predictions, (batch, horizon, target)."""
        raise NotImplementedError

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean squared error over the observed targets of one batch."""
        squared = (self(batch) - batch["y"]).square() * batch["mask"]
        loss: Tensor = squared.sum() / batch["mask"].sum().clamp(min=1)
        self.log("train/loss", loss, on_step=True, on_epoch=False, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add one batch to the validation metrics."""
        self._update(self.val_errors, batch)

    def on_validation_epoch_end(self) -> None:
        """Log and reset the validation metrics."""
        self._log(self.val_errors, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add one batch to the test metrics."""
        self._update(self.test_errors, batch)

    def on_test_epoch_end(self) -> None:
        """Log and reset the test metrics."""
        self._log(self.test_errors, "test")

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Predictions in source units, (batch, horizon, target)."""
        return self.to_source(self(batch))

    def to_source(self, scaled: Tensor) -> Tensor:
        """Scaled targets to source units, in float32."""
        scale, offset = (tensor.to(scaled.device) for tensor in self._data.target_scale)
        return scaled.float() * scale + offset

    def configure_optimizers(self) -> Any:
        """Adam with its defaults, unless the configuration has an `optimizer`."""
        if not any(parameter.requires_grad for parameter in self.parameters()):
            raise UsageError(
                f"{type(self).__name__} has nothing to fit",
                expected="a model with parameters",
                fix="go straight to: python -m lightning_app test --config …",
            )
        return torch.optim.Adam(self.parameters())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note what the model was built for."""
        checkpoint["lightning_app"] = {"model": type(self).__name__, "shape": self.shape.to_json()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Compare that with this model.

        Raises
        ------
        UsageError
            If the checkpoint is of another model or shape, or has other weights.
        """
        noted = checkpoint.get("lightning_app", {})
        mine = {"model": type(self).__name__, **self.shape.to_json()}
        theirs = {"model": noted.get("model"), **noted.get("shape", {})}
        for name, value in mine.items():
            if theirs.get(name) != value:
                raise _misfit(f"checkpoint with {name} {theirs.get(name)}", f"{value}, as this configuration has")
        sizes = {name: tuple(tensor.shape) for name, tensor in checkpoint["state_dict"].items()}
        for name, tensor in self.state_dict().items():
            if sizes.pop(name, None) != tuple(tensor.shape):
                raise _misfit(f"checkpoint without weights {name} {tuple(tensor.shape)}", "the weights of this model")
        if sizes:
            raise _misfit(f"checkpoint with further weights {', '.join(sizes)}", "the weights of this model")

    @property
    def _data(self) -> ScalesTargets:
        return cast(ScalesTargets, self.trainer.datamodule)  # type: ignore[attr-defined]

    def _update(self, errors: MaskedErrors, batch: Batch) -> None:
        predicted, observed = self(batch), batch["y"]
        if self.units == "source":
            predicted, observed = self.to_source(predicted), self.to_source(observed)
        errors.update(predicted.float(), observed, batch["mask"])

    def _log(self, errors: MaskedErrors, stage: str) -> None:
        # float64 survives in callback_metrics; `log` would round it to float32.
        values = {f"{stage}/{name}": value for name, value in errors.compute().items()}
        logged = {name: value.float() for name, value in values.items()}
        self.log_dict(logged, prog_bar=stage == "val", sync_dist=True)
        self.exact = {name: float(value) for name, value in values.items()}
        errors.reset()


def _misfit(what: str, expected: str) -> UsageError:
    return UsageError(what, expected=expected, fix="the --config and flags it was trained with, or another --ckpt_path")
