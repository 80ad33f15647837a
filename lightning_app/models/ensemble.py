r"""Ensemble: the mean of several models that differ only in the weights they begin with.

.. math:: \hat y = \frac1K \sum_k f_k(x), \qquad \text{trained on} \quad \frac1K \sum_k L(f_k(x), y)

so that each member learns as it would alone, on the same batches. What members find by chance cancels out: Hansen &
Salamon 1990, "Neural network ensembles"; of LSTMs for catchments, Kratzert et al. 2019, HESS 23. Of quantiles it is the
mean of each: Lichtendahl, Grushka-Cockayne & Winkler 2013, "Is it better to average probabilities or quantiles?"
"""

from __future__ import annotations

import importlib
from typing import Any, cast

import torch
from torch import Tensor, nn

from lightning_app.batch import Batch, BatchShape
from lightning_app.models.base import TaskModel
from zstore import UsageError


class Ensemble(TaskModel):
    """Several models of one kind, side by side; predicts their mean.

    Parameters
    ----------
    shape
        Lengths and widths of the batches; linked from the data by the command line.
    member
        Class of the members, such as ``LSTM``.
    members
        How many.
    member_args
        Arguments of each, such as ``{hidden: 64}``.
    options
        See `TaskModel`: units, loss, scores and task are those of the ensemble.

    Notes
    -----
    Cost: that of its members, one after another.
    """

    of_weights = ("member_args",)

    def __init__(
        self,
        shape: BatchShape,
        member: str = "LSTM",
        members: int = 4,
        member_args: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(shape, **options)
        module, _, name = member.rpartition(".")
        kind = getattr(importlib.import_module(module or "lightning_app.models"), name, None)
        if not (isinstance(kind, type) and issubclass(kind, TaskModel) and kind.fitted) or members < 1:
            raise UsageError(
                f"an ensemble of {members} x {member}",
                expected="one or more of a model with weights, such as LSTM",
                fix="correct --model.member and --model.members",
            )
        own = {**(member_args or {}), **({"task": options["task"]} if options.get("task") is not None else {})}
        try:
            self.members = nn.ModuleList(kind(shape, **own) for _ in range(members))
        except TypeError as error:
            raise UsageError(
                f"arguments of {member} ({error})", expected="those of its class", fix="correct --model.member_args"
            ) from None
        self.panels = kind.panels  # type: ignore[misc]  # as its members are

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Compare it with this model, whose members may be imported from elsewhere, but have to be called alike."""
        super().on_load_checkpoint(checkpoint)
        own, arguments = type(self.members[0]).__name__, (checkpoint.get("lightning_app") or {}).get("arguments") or {}
        fitted = str(arguments.get("member", own)).rpartition(".")[2]
        if fitted != own:
            raise UsageError(
                f"checkpoint of members {fitted}", expected=own, fix="--model.member as it was fitted with"
            )

    def setup(self, stage: str) -> None:
        """Let members know the epoch: what they draw in training is of it."""
        super().setup(stage)
        for member in self.members:
            cast(TaskModel, member).trainer = self._trainer

    def forward(self, batch: Batch) -> Tensor:
        """The mean of what the members predict."""
        return self.task.mean_of(torch.stack([cast(TaskModel, member)(batch) for member in self.members]))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The mean of the losses of the members, each by itself."""
        losses = [self.loss_of(cast(TaskModel, member), batch) for member in self.members]
        loss = torch.stack(losses).mean()
        self.watch(loss)
        self.log("train/loss", loss, on_step=True, on_epoch=False, prog_bar=True)
        return loss
