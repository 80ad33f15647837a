r"""Classification: targets are classes, of a window, of a row, or of many rows (sequence labelling).

A model gives a number (logit) :math:`z_c` for each class of each target; the probability of a class is
:math:`\exp z_c / \sum_k \exp z_k`, and the loss of a target that is of class c is :math:`-w_c \log p_c`, the mean of
which is taken with the weights w over all observed targets of a batch. Its metrics are those of
:mod:`lightning_app.tasks.class_metrics`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor

from lightning_app.batch import Batch, BatchShape
from lightning_app.tasks.base import STAGES, Host, Report, Task
from lightning_app.tasks.class_metrics import Confusion, Curves
from zstore import UsageError


def require_classes(weights: Literal["balanced"] | dict[str, float] | None, classes: Sequence[Sequence[Any]]) -> None:
    """Raise UsageError if weights name a class that no target, (target, class), has."""
    known = {str(name) for own in classes for name in own}
    strange = sorted(set(weights) - known) if isinstance(weights, dict) else []
    if strange:
        raise UsageError(
            f"weights of classes {', '.join(strange)}",
            expected=f"some of {', '.join(sorted(known)) or 'none, for no target is a class'}",
            fix="change --model.task",
        )


def is_unweighted(stage: str, n: Tensor, weights: Tensor, classes: Sequence[Any], host: Host) -> bool:
    """Whether all that was observed counts nothing in the loss, in the few batches of a sanity check.

    Parameters
    ----------
    stage
        ``val`` or ``test``.
    n
        (class,) targets of each.
    weights
        (class,) of each in the loss.
    classes
        Their names.
    host
        The model.

    Raises
    ------
    UsageError
        If it is so, and not in a sanity check: such a stage has no loss.
    """
    observed = n.cpu() > 0
    if bool(weights.cpu()[observed].any()):
        return False
    if host.trainer.sanity_checking:
        return True
    names = [str(own) for own, there in zip(classes, observed.tolist(), strict=True) if there]
    raise UsageError(
        f"{stage}/loss of {int(n.sum()):,} targets that are all of class {', '.join(names)}, whose weight is 0",
        expected="some of a class that training targets are of, which gives it a weight",
        fix="change --data.split, or the weights of --model.task",
    )


class Classification(Task):
    """A class for each target: cross-entropy, and how often, and for which classes, the likeliest one is right.

    Parameters
    ----------
    weights
        Of classes in the loss. ``balanced``: inversely to how often the training targets are of each, with mean 1 over
        these. Or by name of a class, 1 where it is not named: ``{"0": 0.2}``. Default: all alike.
    label_smoothing
        Share of the probability, in [0, 1), that targets of the loss leave to all classes alike.
    curves
        Whether AUROC and average precision are measured too; they need memory for every probability.
    """

    shown: ClassVar = ("loss", "accuracy", "f1", "balanced_accuracy", "auroc", "average_precision")
    listed: ClassVar = shown

    def __init__(
        self,
        weights: Literal["balanced"] | dict[str, float] | None = None,
        label_smoothing: float = 0.0,
        curves: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise UsageError(f"label_smoothing {label_smoothing}", expected="in [0, 1)", fix="change --model.task")
        if isinstance(weights, dict) and not all(0 <= value < math.inf for value in weights.values()):
            raise UsageError(f"class weights {weights}", expected="0 or more each", fix="change --model.task")
        self.weights, self.label_smoothing, self.curves = weights, label_smoothing, curves
        self._weights: list[Tensor] | None = None

    def suit(self, shape: BatchShape) -> None:
        """Make room for a confusion matrix of each target."""
        super().suit(shape)
        if not shape.classes or not all(shape.classes):
            raise UsageError(
                "classification of targets that are numbers",
                expected="targets that are classes",
                fix="name them all in --data.classes",
            )
        require_classes(self.weights, shape.classes)
        for number, classes in enumerate(shape.classes):
            self.register_buffer(f"values_{number}", stored_values(classes), persistent=False)
            for stage in STAGES:
                self.metrics[f"{stage}_{number}"] = Confusion(len(classes))
                if self.curves:
                    self.metrics[f"{stage}_{number}_curves"] = Curves(len(classes))

    @property
    def sizes(self) -> list[int]:
        """(target,) classes of each."""
        return [len(classes) for classes in self.shape.classes]

    @property
    def n_outputs(self) -> int:
        """One for each class of each target."""
        return sum(self.sizes)

    def loss_of(self, outputs: Tensor, windows: Batch, host: Host) -> Tensor:
        """Cross-entropy over the observed targets; 0 if there are none."""
        sums = torch.zeros(2, device=outputs.device)
        for logits, observed, weights, mask in self._targets(outputs, windows, host):
            found = class_losses(logits, observed, weights, self.label_smoothing)
            sums = sums + torch.stack([torch.where(mask, each, 0.0).sum() for each in found])  # waits for no GPU
        return sums[0] / sums[1].clamp(min=torch.finfo(sums.dtype).tiny) * host.share(sums[1])

    def update(self, stage: str, outputs: Tensor, windows: Batch, host: Host) -> None:
        """Count."""
        for number, (every, classes, weights, mask) in enumerate(self._targets(outputs, windows, host)):
            logits, observed = every[mask], classes[mask]
            losses = class_losses(logits, observed, weights, 0.0)
            cast(Confusion, self.metrics[f"{stage}_{number}"]).update(logits.argmax(-1), observed, *losses)
            if self.curves:
                cast(Curves, self.metrics[f"{stage}_{number}_curves"]).update(logits.float().softmax(-1), observed)

    def measured(self, stage: str, host: Host) -> Report:
        """The mean over the targets in `all`; `by_target`; `confusion`; of one target, `by_class`; with curves, `roc`.

        The last has ``TARGET/CLASS``, both by number, and their :attr:`Curves.points`. `confusion` has (class, class)
        `counts` of a single target: entry ``[c, p]`` counts targets of class c that were predicted as p. Of several
        targets there are ``counts_0`` and so on.
        """
        reports: list[Report] = []
        roc: dict[str, Tensor] = {}
        counts: dict[str, Tensor] = {}
        for number in range(len(self.sizes)):
            confusion = cast(Confusion, self.metrics[f"{stage}_{number}"])
            report: Report = confusion.compute()
            if self.curves:
                curves = cast(Curves, self.metrics[f"{stage}_{number}_curves"])
                report["all"] |= curves.compute()
                roc |= {f"{number}/{own}": points for own, points in curves.points.items()}
                curves.reset()
            n_targets, unweighted = int(report["by_class"]["n"].sum()), False
            if n_targets:
                own = self.shape.classes[number]
                unweighted = is_unweighted(stage, report["by_class"]["n"], self._of(host)[number], own, host)
            counts["counts" if len(self.sizes) == 1 else f"counts_{number}"] = report["confusion"]["counts"]
            confusion.reset()
            if n_targets and not unweighted and not math.isfinite(loss := float(report["all"]["loss"])):
                when = f" after step {host.global_step:,}" if stage == "val" and host.trainer.training else ""
                raise host.not_finite(f"{stage}/loss is {loss}{when}")
            reports.append(report)
        by_target = {name: torch.stack([report["all"][name].cpu() for report in reports]) for name in reports[0]["all"]}
        overall = {name: values.nanmean() for name, values in by_target.items()}
        beside = {"by_class": reports[0]["by_class"]} if len(reports) == 1 else {}
        return {"all": overall, "by_target": by_target, **beside, "confusion": counts, **({"roc": roc} if roc else {})}

    def predictions(self, outputs: Tensor, windows: Batch, host: Host) -> Tensor:
        """The likeliest class of each target: its number in the store, or its code."""
        values = (self.get_buffer(f"values_{number}") for number in range(len(self.sizes)))
        parts = zip(torch.split(outputs, self.sizes, dim=-1), values, strict=True)
        return torch.stack([likeliest(logits, own) for logits, own in parts], dim=-1)

    def probabilities(self, outputs: Tensor) -> Tensor:
        """(batch, horizon, class) of each class of each target."""
        return torch.cat([logits.float().softmax(-1) for logits in torch.split(outputs, self.sizes, dim=-1)], dim=-1)

    def _targets(self, outputs: Tensor, windows: Batch, host: Host) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Of each target (batch, horizon, class) logits, (batch, horizon) classes, (class,) weights, and its mask."""
        self._weights = [weights.to(outputs.device) for weights in self._of(host)]  # copied once
        found, parts = [], torch.split(outputs, self.sizes, dim=-1)
        for number, (logits, weights) in enumerate(zip(parts, self._weights, strict=True)):
            classes = codes_of(windows["y"][..., number], self.get_buffer(f"values_{number}"))
            found.append((logits, classes, weights, windows["mask"][..., number]))
        return found

    def _of(self, host: Host) -> list[Tensor]:
        """(class,) float32 weights of each target; a pass over the training targets where they are balanced."""
        if self._weights is None:
            if self.weights == "balanced":
                self._weights = [balanced(counts) for counts in self._counts(host)]
            else:
                given = self.weights or {}
                classes = self.shape.classes
                self._weights = [torch.tensor([float(given.get(str(name), 1.0)) for name in own]) for own in classes]
        return self._weights

    def _counts(self, host: Host) -> list[Tensor]:
        """(class,) training targets of each class, of each target."""
        counts = [torch.zeros(size, dtype=torch.int64) for size in self.sizes]
        for rows in host.data.training_rows():
            for number, own in enumerate(counts):
                values = rows["y"][..., number][rows["mask"][..., number]].cpu()
                own += torch.bincount(codes_of(values, self.get_buffer(f"values_{number}").cpu()), minlength=len(own))
        return counts


def class_losses(logits: Tensor, observed: Tensor, weights: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """(…) weighted losses, and (…) weights, of (…, class) logits, (…) classes and (class,) weights."""
    logs, own = logits.float().log_softmax(-1), weights[observed]
    losses = -logs.gather(-1, observed[..., None])[..., 0]
    return own * ((1 - smoothing) * losses - smoothing * logs.mean(-1)), own


def stored_values(classes: Sequence[str | float]) -> Tensor:
    """(class,) float64 what the store has of classes: codes of words, or the numbers themselves, ascending."""
    values = [float(code) if isinstance(value, str) else float(value) for code, value in enumerate(classes)]
    return torch.tensor(values, dtype=torch.float64)


def likeliest(logits: Tensor, values: Tensor) -> Tensor:
    """(…) float64 of (…, class) logits that of :func:`stored_values` which is likeliest; NaN where one is NaN."""
    return torch.where(logits.isnan().any(-1), torch.nan, values[logits.argmax(-1)])


def codes_of(observed: Tensor, values: Tensor) -> Tensor:
    """(…) int64 places of observed classes, (…) float32, among :func:`stored_values`."""
    return torch.searchsorted(values.float(), observed.contiguous()).clamp(max=len(values) - 1)


def balanced(counts: Tensor) -> Tensor:
    """(class,) inverse shares with mean 1 over the targets; 0 for a class without any."""
    present = counts > 0
    return torch.where(present, counts.sum() / (present.sum() * counts.clamp(min=1)), 0.0).float()
