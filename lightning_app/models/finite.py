"""A loss, metric or forecast that is not finite ends a run: what comes after it, or is chosen by it, means nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from zstore import NotFiniteError

_NEVER = 2**62
_CALMER = "a smaller learning rate, --trainer.gradient_clip_val 1, or another --data.scaler"


class LossWatch:
    """Remembers the first step whose loss was not finite, without waiting for a GPU.

    Attributes
    ----------
    first
        () int64 number of that step, on the device of the loss; a large number while there is none.
    """

    def __init__(self) -> None:
        self.first: Tensor | None = None

    def see(self, loss: Tensor, step: int) -> None:
        """Look at the loss of a step."""
        number = torch.where(loss.detach().isfinite(), _NEVER, step)
        self.first = number if self.first is None else torch.minimum(self.first.to(number.device), number)

    def step(self, gather: Any = None) -> int | None:
        """The first step of any process whose loss was not finite; None if there is none.

        Parameters
        ----------
        gather
            Lightning's `all_gather`, where there are several processes; all of them must ask then.
        """
        if self.first is None:
            return None
        first = int((self.first if gather is None else gather(self.first)).min())
        return None if first == _NEVER else first


class WatchedModel(pl.LightningModule):
    """A model that nothing is saved of, or chosen by, once a training loss was not finite."""

    def __init__(self) -> None:
        super().__init__()
        self._watch = LossWatch()

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
            raise self.not_finite(f"the training loss of step {step:,} (epoch {self.current_epoch}) is not finite")

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

    def not_finite(self, what: str) -> NotFiniteError:
        """The error of a loss or metric that is not finite."""
        raise NotImplementedError


def not_finite(
    what: str, infinite: Sequence[str], where: str, fix: str = _CALMER, fields: Sequence[str] = ()
) -> NotFiniteError:
    """The error of a loss, a metric or a forecast.

    Parameters
    ----------
    what
        Which, of which step, and its value.
    infinite
        Channels in use that have infinite values somewhere in the store.
    where
        The store.
    fix
        What to do where no channel has infinite values. Default: train more gently.
    fields
        Of floats that are in use, whose values models read as they are, missing ones (NaN) too.
    """
    if infinite:
        names = ", ".join(map(repr, infinite))
        return NotFiniteError(
            what,
            expected="a finite number, for which inputs and targets must be finite",
            where=f"infinite values in channel {names} of {where}",
            fix="correct the source, or ingest it with those values as missing; or leave the channel out with "
            "--data.channels and --data.targets",
        )
    if fields:
        fix = f"{fix}; or fill what is NaN or infinite in {', '.join(map(repr, fields))}, which is read as it is stored"
    return NotFiniteError(what, expected="a finite number", where=where, fix=fix)
