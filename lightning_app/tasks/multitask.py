r"""Several targets at once, classes and numbers, each of which may be missing: a scan's diagnosis and a measurement.

With :math:`L_t` the mean loss over the observed targets t of a batch and :math:`v_t` the weight of t, training
minimises :math:`\sum_t v_t L_t / \sum_t v_t`. Of classes L is that of :mod:`lightning_app.tasks.classification`; of
numbers a loss of :mod:`lightning_app.losses` on scaled values. Of two classes one output z is enough: its logits are
(0, z), and the cross-entropy is then the binary one, :math:`-\log \sigma(z)` or :math:`-\log(1 - \sigma(z))`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_app.batch import Batch, BatchShape
from lightning_app.losses import MSE, Loss
from lightning_app.metrics import MaskedErrors
from lightning_app.tasks.base import STAGES, Host, Report, Task
from lightning_app.tasks.class_metrics import Confusion, Curves
from lightning_app.tasks.classification import (
    balanced,
    class_losses,
    codes_of,
    is_unweighted,
    likeliest,
    require_classes,
    stored_values,
)
from zstore import UsageError

_OF_CLASSES = ("accuracy", "f1", "balanced_accuracy", "auroc", "average_precision")
_OF_VALUES = ("mae", "rmse", "r2")


class MeanLoss(Metric):
    """The mean loss of the targets that were observed; exact over batches and ranks."""

    full_state_update = False
    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(2, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, losses: Tensor) -> None:
        """Add (n,) losses."""
        self.sums += torch.stack([losses.double().sum(), losses.new_tensor(losses.numel()).double()])

    def compute(self) -> dict[str, Tensor]:
        """``loss``, NaN where nothing was observed, and ``n``, how many were."""
        return {"loss": self.sums[0] / self.sums[1], "n": self.sums[1].clone()}


class MultiTask(Task):
    """A class or a number for each target; what is missing of one says nothing of the others.

    Which targets are classes is said by ``--data.classes``; numbers are forecast scaled, and measured in source units.

    Parameters
    ----------
    loss
        Of targets that are numbers, on scaled values. Default: the mean squared error.
    class_loss
        Of targets that are classes. ``cross_entropy``: an output for each class. ``binary``: one output for each
        target, all of which have two classes.
    class_weights
        Of classes in the loss. ``balanced``: inversely to how often the training targets are of each, with mean 1 over
        these. Or by name of a class, 1 where it is not named: ``{"0": 0.2}``. Default: all alike.
    label_smoothing
        Share of the probability, in [0, 1), that targets of the loss leave to all classes alike.
    weights
        Of the targets in the loss, in their order. Default: all alike.
    curves
        Whether AUROC and average precision are measured too; they need memory for every probability.
    """

    shown: ClassVar = ("loss", *_OF_CLASSES, "mae", "r2")
    listed: ClassVar = ("loss", *_OF_CLASSES, *_OF_VALUES)

    def __init__(
        self,
        loss: Loss | None = None,
        class_loss: Literal["cross_entropy", "binary"] = "cross_entropy",
        class_weights: Literal["balanced"] | dict[str, float] | None = None,
        label_smoothing: float = 0.0,
        weights: list[float] | None = None,
        curves: bool = True,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise UsageError(f"label_smoothing {label_smoothing}", expected="in [0, 1)", fix="change --model.task")
        numbers = [*(class_weights.values() if isinstance(class_weights, dict) else ()), *(weights or ())]
        if not all(0 <= number < math.inf for number in numbers) or (weights and not sum(weights)):
            raise UsageError(
                f"class_weights {class_weights}, weights {weights}",
                expected="0 or more each, and one target above 0",
                fix="change --model.task",
            )
        if loss is not None and loss.by_series:
            raise UsageError(
                f"the loss {type(loss).__name__}, which weights series",
                expected="MSE, MAE, Huber or Quantile",
                fix="change loss of --model.task",
            )
        self.loss = loss or MSE()
        self.class_loss, self.class_weights, self.label_smoothing = class_loss, class_weights, label_smoothing
        self.weights, self.curves = weights, curves
        self._of_classes: dict[int, Tensor] | None = None

    def suit(self, shape: BatchShape) -> None:
        """Make room for the metrics of each target."""
        super().suit(shape)
        if self.weights is not None and len(self.weights) != shape.n_targets:
            raise UsageError(
                f"{len(self.weights)} weights of {shape.n_targets} targets",
                expected="one for each, in their order",
                fix="change weights of --model.task",
            )
        classes = dict(enumerate(shape.classes))
        self._classes = [list(classes.get(number, ())) for number in range(shape.n_targets)]
        require_classes(self.class_weights, self._classes)
        many = next((own for own in self._classes if len(own) > 2), None)
        if self.class_loss == "binary" and many is not None:
            raise UsageError(
                f"a binary loss of {len(many)} classes",
                expected="two classes for each target",
                fix="class_loss: cross_entropy in --model.task",
            )
        self.measures_source = not all(self._classes)
        for number, own in enumerate(self._classes):
            if own:
                self.register_buffer(f"values_{number}", stored_values(own), persistent=False)
            for stage in STAGES:
                self._make_room(f"{stage}_{number}", len(own))

    def _make_room(self, name: str, n_classes: int) -> None:
        """Metrics of a target of a stage."""
        if not n_classes:
            self.metrics[name] = MaskedErrors(self.shape.horizon, 1)
            self.metrics[f"{name}_loss"] = MeanLoss()
            return
        self.metrics[name] = Confusion(n_classes)
        if self.curves:
            self.metrics[f"{name}_curves"] = Curves(n_classes)

    @property
    def sizes(self) -> list[int]:
        """(target,) outputs for each."""
        return [1 if self.class_loss == "binary" else max(len(own), 1) for own in self._classes]

    @property
    def n_outputs(self) -> int:
        """One for each number, and for each class or target of two classes."""
        return sum(self.sizes)

    def loss_of(self, outputs: Tensor, windows: Batch, host: Host) -> Tensor:
        """The weighted mean of the losses of the targets; a target that the batch has not counts 0."""
        total, shares = outputs.new_zeros((), dtype=torch.float32), self.weights or [1.0] * len(self._classes)
        for number, own, mask in self._parts(outputs, windows):
            every = self._losses(number, own, windows["y"][..., number], host, self.label_smoothing)
            losses, weights = (torch.where(mask, each, 0.0) for each in every)  # waits for no GPU
            n = weights.sum()
            mean = losses.sum() / n.clamp(min=torch.finfo(torch.float32).tiny)
            total = total + shares[number] * host.share(n) * mean
        return total / sum(shares)

    def update(self, stage: str, outputs: Tensor, windows: Batch, host: Host) -> None:
        """Count what was observed of each target."""
        source = self._in_source_units(outputs, windows, host) if self.measures_source else None
        for number, own, mask in self._parts(outputs, windows):
            metric, name = self.metrics[f"{stage}_{number}"], f"{stage}_{number}"
            every = self._losses(number, own, windows["y"][..., number], host, 0.0)
            losses, weights = (each[mask] for each in every)
            if isinstance(metric, Confusion):
                logits, codes = own[mask], self._codes(number, windows["y"][..., number][mask])
                metric.update(logits.argmax(-1), codes, losses, weights)
                if self.curves:
                    cast(Curves, self.metrics[f"{name}_curves"]).update(logits.float().softmax(-1), codes)
            else:
                assert source is not None  # as there is a number among the targets
                at = slice(number, number + 1)
                observed = windows["y_source"].view(torch.float64)[..., at]
                cast(MaskedErrors, metric).update(source[..., at], observed, mask[..., None])
                cast(MeanLoss, self.metrics[f"{name}_loss"]).update(losses)

    def measured(self, stage: str, host: Host) -> Report:
        """Means over the targets in `all`, with MAE and RMSE of a single number; `by_target`, NaN for the others.

        With curves there is `roc` too, as for `Classification`.
        """
        found = [self._measured(f"{stage}_{number}") for number in range(len(self._classes))]
        for number, report in enumerate(found):
            unweighted = False
            if own := self._classes[number]:
                n = report.pop("n_by_class")
                unweighted = bool(n.sum()) and is_unweighted(stage, n, self._weights_of(host)[number], own, host)
            if int(report["n"]) and not unweighted and not math.isfinite(loss := float(report["loss"])):
                when = f" after step {host.global_step:,}" if stage == "val" and host.trainer.training else ""
                raise host.not_finite(f"{stage}/loss of target {number + 1} is {loss}{when}")
        names = [name for name in ("loss", *_OF_CLASSES, *_OF_VALUES, "n") if any(name in each for each in found)]
        nan = torch.tensor(torch.nan, dtype=torch.float64)
        by_target = {name: torch.stack([each.get(name, nan).double().cpu() for each in found]) for name in names}
        n_numbers = sum(not own for own in self._classes)
        shares = torch.tensor(self.weights or [1.0] * len(found), dtype=torch.float64)
        shares = torch.where(by_target["n"] > 0, shares, 0.0)
        overall = {
            name: values.nanmean()
            for name, values in by_target.items()
            if name not in ("loss", "n") and (n_numbers == 1 or name not in ("mae", "rmse"))
        }
        overall["loss"] = (shares * by_target["loss"].nan_to_num()).sum() / shares.sum()
        roc = {
            f"{number}/{own}": points
            for number in range(len(found))
            if f"{stage}_{number}_curves" in self.metrics
            for own, points in cast(Curves, self.metrics[f"{stage}_{number}_curves"]).points.items()
        }
        return {"all": overall, "by_target": by_target, **({"roc": roc} if roc else {})}

    def predictions(self, outputs: Tensor, windows: Batch, host: Host) -> Tensor:
        """Numbers in source units; of classes the likeliest one, as the store has it."""
        found = self._in_source_units(outputs, windows, host)
        for number, own in self._split(outputs):
            if self._classes[number]:
                found[..., number] = likeliest(own, self.get_buffer(f"values_{number}"))
        return found

    def probabilities(self, outputs: Tensor) -> Tensor | None:
        """(batch, horizon, class) of each class of each target that is one; None where none is."""
        logits = [own for number, own in self._split(outputs) if self._classes[number]]
        return torch.cat([own.float().softmax(-1) for own in logits], dim=-1) if logits else None

    def _measured(self, name: str) -> dict[str, Tensor]:
        """Metrics of a target of a stage, which are then reset; `n` of it were observed."""
        metric = self.metrics[name]
        if isinstance(metric, Confusion):
            report = metric.compute()
            found = report["all"] | {"n": report["by_class"]["n"].sum(), "n_by_class": report["by_class"]["n"]}
            if self.curves:
                curves = cast(Curves, self.metrics[f"{name}_curves"])
                found |= curves.compute()
                curves.reset()
        else:
            errors, losses = cast(MaskedErrors, metric), cast(MeanLoss, self.metrics[f"{name}_loss"])
            every = errors.compute()["all"]
            found = {each: every[each] for each in _OF_VALUES} | losses.compute()
            losses.reset()
        cast(Metric, metric).reset()
        return found

    def _parts(self, outputs: Tensor, windows: Batch) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Of each target its number, (batch, horizon, class) logits or (batch, horizon, 1) values, and its mask."""
        for number, own in self._split(outputs):
            yield number, own, windows["mask"][..., number]

    def _split(self, outputs: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Of each target its number, and (batch, horizon, class) logits or (batch, horizon, 1) values."""
        for number, own in enumerate(torch.split(outputs, self.sizes, dim=-1)):
            one = self._classes[number] and own.shape[-1] == 1
            yield number, torch.cat([torch.zeros_like(own), own], dim=-1) if one else own

    def _losses(
        self, number: int, own: Tensor, observed: Tensor, host: Host, smoothing: float
    ) -> tuple[Tensor, Tensor]:
        """(batch, horizon) losses of a target, and weights; where it was not observed they are anything finite."""
        if not self._classes[number]:
            losses = self.loss.each(own[..., 0].float() - observed.float())
            return losses, torch.ones_like(losses)
        of_classes = self._weights_of(host)
        of_classes[number] = of_classes[number].to(own.device)  # copied once
        return class_losses(own, self._codes(number, observed), of_classes[number], smoothing)

    def _codes(self, number: int, observed: Tensor) -> Tensor:
        """(…) int64 classes of observed values of a target, (…)."""
        values = self.get_buffer(f"values_{number}")
        return codes_of(observed.to(values.device), values)

    def _weights_of(self, host: Host) -> dict[int, Tensor]:
        """(class,) float32 weights of each target of classes; a pass over the training targets if they are balanced."""
        if self._of_classes is None:
            given = self.class_weights if isinstance(self.class_weights, dict) else {}
            found = {
                number: torch.tensor([float(given.get(str(name), 1.0)) for name in own])
                for number, own in enumerate(self._classes)
                if own
            }
            if self.class_weights == "balanced":
                counts = {number: torch.zeros(len(own), dtype=torch.int64) for number, own in found.items()}
                for rows in host.data.training_rows():
                    for number, own in counts.items():
                        codes = self._codes(number, rows["y"][..., number][rows["mask"][..., number]])
                        own += torch.bincount(codes, minlength=len(own)).cpu()
                found = {number: balanced(own) for number, own in counts.items()}
            self._of_classes = found
        return self._of_classes

    def _in_source_units(self, outputs: Tensor, windows: Batch, host: Host) -> Tensor:
        """(batch, horizon, target) float64: numbers in source units, anything for classes."""
        firsts = torch.stack([own[..., 0] for own in torch.split(outputs, self.sizes, dim=-1)], dim=-1)
        return host.data.to_source(firsts, windows["series"], floored=True)
