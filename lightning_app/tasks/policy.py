r"""Policies: targets are chunks of actions, learned from demonstrations (behaviour cloning).

The loss is that of one chunk, such as the mean absolute error of ACT (Zhao et al. 2023, "Learning fine-grained
bimanual manipulation with low-cost hardware"), or, of a mixture over chunks, the negative log likelihood

.. math:: -\frac{\sum_i \log p_i(y_i)}{\sum_i n_i}

over the windows i of a batch, :math:`n_i` the numbers of a chunk that count. What is padded or missing counts in no
loss and no metric.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, cast

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_app.batch import Batch, BatchShape
from lightning_app.losses import MAE, Loss
from lightning_app.metrics import MaskedErrors
from lightning_app.tasks.base import STAGES, Host, Report, Task
from lightning_app.tasks.mixture import ChunkMixture
from zstore import UsageError


class LogLikelihood(Metric):
    """Summed log densities of chunks, and how many numbers they are of; exact over batches and ranks."""

    full_state_update = False
    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(2, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logs: Tensor, mask: Tensor) -> None:
        """Add (window,) log densities, and the (window, …) bool mask of the numbers that they are of."""
        self.sums += torch.stack([logs.double().sum(), mask.sum().double()])

    def compute(self) -> Tensor:
        """The negative log likelihood of a number, in nats; NaN without any."""
        return -self.sums[0] / self.sums[1]


class Policy(Task):
    """Chunks of actions; metrics are of actions in source units.

    Parameters
    ----------
    modes
        Modes of a mixture over chunks, each a whole chunk with a weight of its own, trained by its likelihood. Default:
        one chunk, trained by `loss`.
    loss
        What training minimises over the actions of a single chunk, scaled. Default: the mean absolute error.
    relative_to
        For each target, the input channel from whose value at the last input row the action counts, such as the
        position of a hand: ``[state.0, state.1]``; null for a target that stays absolute. Metrics and predictions
        are of absolute actions all the same. Default: all are absolute.
    least_deviation
        The smallest deviation of a mode, in scaled units; a smaller one could make the likelihood of a training chunk
        as large as it likes.
    """

    monitor = "val/mae"
    measures_source = True
    of_outputs = ("relative_to", "least_deviation")
    shown: ClassVar = ("mae", "mse", "rmse", "nll")
    listed: ClassVar = shown

    def __init__(
        self,
        modes: int | None = None,
        loss: Loss | None = None,
        relative_to: list[str | None] | None = None,
        least_deviation: float = 0.01,
    ) -> None:
        super().__init__()
        if modes is not None and modes < 1:
            raise UsageError(f"a mixture of {modes} modes", expected="1 or more", fix="change --model.task")
        if modes is not None and loss is not None:
            raise UsageError(
                f"a loss ({type(loss).__name__}) beside modes", expected="one of them", fix="drop one from --model.task"
            )
        if loss is not None and loss.by_series:
            raise UsageError(
                f"the loss {type(loss).__name__} of actions", expected="one that counts all alike", fix="MAE or MSE"
            )
        if not 0 < least_deviation < math.inf:
            raise UsageError(f"least_deviation {least_deviation}", expected="above 0", fix="change --model.task")
        self.modes, self.loss, self.least_deviation = modes, loss, least_deviation
        self.relative_to = relative_to
        self._single = loss or MAE()

    def suit(self, shape: BatchShape) -> None:
        """Make room for errors of each row of a chunk."""
        super().suit(shape)
        if any(shape.classes):
            raise UsageError("a policy whose actions are classes", expected="numbers", fix="drop --data.classes")
        if self.relative_to is not None and len(self.relative_to) != shape.n_targets:
            raise UsageError(
                f"relative_to with {len(self.relative_to)} channels",
                expected=f"one, or null, for each of {shape.n_targets} targets",
                fix="change --model.task",
            )
        for stage in STAGES:
            self.metrics[f"{stage}_errors"] = MaskedErrors(shape.horizon, shape.n_targets)
            if self.modes is not None:
                self.metrics[f"{stage}_likelihood"] = LogLikelihood()

    @property
    def n_outputs(self) -> int:
        """One for each target, or those of a mixture."""
        n_targets = self.shape.n_targets
        return n_targets if self.modes is None else ChunkMixture.n_outputs(self.modes, n_targets)

    @property
    def unit(self) -> str:
        """Of errors."""
        return "source units"

    def loss_of(self, outputs: Tensor, windows: Batch, host: Host) -> Tensor:
        """Over the actions that are neither padded nor missing; 0 without any."""
        actions, mask = self._relative(windows, host), windows["mask"]
        n = mask.sum()
        if self.modes is None:
            found: Tensor = self._single(outputs, actions, mask, None)
        else:
            found = -self._mixture(outputs).log_probability(actions, mask).sum() / n.clamp(min=1)
        return found * host.share(n)

    def update(self, stage: str, outputs: Tensor, windows: Batch, host: Host) -> None:
        """Add the errors of the likeliest chunk, and the likelihood of what was done."""
        mask = windows["mask"]
        found, done = self.predictions(outputs, windows, host), windows["y_source"].view(torch.float64)
        cast(MaskedErrors, self.metrics[f"{stage}_errors"]).update(found, done, mask)
        if self.modes is not None:
            logs = self._mixture(outputs).log_probability(self._relative(windows, host), mask)
            cast(LogLikelihood, self.metrics[f"{stage}_likelihood"]).update(logs, mask)

    def measured(self, stage: str, host: Host) -> Report:
        """Errors over everything, `by_step` and `by_target`; and ``nll``, the negative log likelihood of a number."""
        errors = cast(MaskedErrors, self.metrics[f"{stage}_errors"])
        report: Report = errors.compute()
        if self.modes is not None:
            likelihood = cast(LogLikelihood, self.metrics[f"{stage}_likelihood"])
            report["all"]["nll"] = likelihood.compute()
            likelihood.reset()
        n_actions = float(errors.moments[0].sum())
        errors.reset()
        for name in ("mae", "nll"):
            value = float(report["all"].get(name, 0.0))
            if n_actions and not math.isfinite(value):
                when = f" after step {host.global_step:,}" if stage == "val" and host.trainer.training else ""
                raise host.not_finite(f"{stage}/{name} is {value}{when}")
        return report

    def predictions(self, outputs: Tensor, windows: Batch, host: Host) -> Tensor:
        """The likeliest chunk."""
        return self.chunks(outputs, windows, host)

    def chunks(self, outputs: Tensor, windows: Batch, host: Host, draws: Tensor | None = None) -> Tensor:
        """Chunks to be done.

        Parameters
        ----------
        outputs, windows, host
            As for :meth:`loss_of`.
        draws
            (batch,) numbers in [0, 1) that a mode is drawn by for each window; None for the likeliest one.

        Returns
        -------
        (batch, horizon, target) float64, absolute, in source units.
        """
        scaled = outputs
        if self.modes is not None:
            mixture = self._mixture(outputs)
            scaled = mixture.likeliest() if draws is None else mixture.drawn(draws)
        return self._absolute(scaled, windows, host)

    def all_chunks(self, outputs: Tensor, windows: Batch, host: Host) -> tuple[Tensor, Tensor]:
        """Every mode: of a policy without a mixture, the only one.

        Returns
        -------
        (batch, mode) weights that add up to 1, and (batch, mode, horizon, target) float64 chunks, absolute, in source
        units.
        """
        if self.modes is None:
            return outputs.new_ones(len(outputs), 1), self._absolute(outputs, windows, host)[:, None]
        mixture = self._mixture(outputs)
        found = [self._absolute(means, windows, host) for means in mixture.means.unbind(dim=1)]
        return mixture.log_weights.exp(), torch.stack(found, dim=1)

    def _absolute(self, scaled: Tensor, windows: Batch, host: Host) -> Tensor:
        """(batch, horizon, target) as the model gives it, in source units."""
        if self.relative_to is not None:
            scaled = scaled + host.data.last_inputs(self._names, windows["x"], windows["series"])[:, None]
        return host.data.to_source(scaled, windows["series"])

    @property
    def _names(self) -> Sequence[str | None]:
        return self.relative_to or ()

    def _mixture(self, outputs: Tensor) -> ChunkMixture:
        return ChunkMixture.of(outputs, self.modes or 1, self.least_deviation)

    def _relative(self, windows: Batch, host: Host) -> Tensor:
        """(batch, horizon, target) scaled actions, less where they count from."""
        if self.relative_to is None:
            return windows["y"]
        return windows["y"] - host.data.last_inputs(self._names, windows["x"], windows["series"])[:, None]
