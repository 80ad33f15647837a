"""A learning rate to begin with, found by a short fit whose rate rises with each step."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import LearningRateFinder
from pytorch_lightning.tuner import lr_finder
from torch import Tensor

from zstore import NotFiniteError, UsageError

logger = logging.getLogger(__name__)

_FIRST = 10  # rates, whose losses say little


class RateFinder(LearningRateFinder):
    """Tries learning rates before a fit, and says at which the loss falls fastest.

    The rate rises from one step to the next by the same factor, as in Smith 2017, "Cyclical learning rates for training
    neural networks"; the rate that is suggested is that where the smoothed loss falls most for a tenfold rate. After
    that weights, optimizer, random numbers and the order of windows are as before: the fit is that without this.

    Parameters
    ----------
    min_lr, max_lr
        The first and the last rate. Rates beyond that at which the loss is several times the best are not tried.
    steps
        How many rates are tried, each for a batch.
    use
        Whether the fit is to begin with the rate that is suggested, in place of that of the optimizer.

    Notes
    -----
    Nothing is tried where a fit goes on from a checkpoint. Cost: `steps` steps of a fit.
    """

    def __init__(self, min_lr: float = 1e-5, max_lr: float = 1.0, steps: int = 100, use: bool = False) -> None:
        super().__init__(min_lr, max_lr, steps, update_attr=False)
        self.use = use
        if not 0 < min_lr < max_lr or steps < 2 * _FIRST:
            raise UsageError(
                f"{steps} rates from {min_lr} to {max_lr}",
                expected=f"{2 * _FIRST} or more, from a small rate above 0 to a larger one",
                fix="correct RateFinder",
            )

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Try rates, and say which one."""
        if trainer.ckpt_path is not None:
            return
        with _as_long_as_it_takes(trainer):
            try:
                self.lr_find(trainer, pl_module)
            except NotFiniteError as error:
                raise UsageError(
                    f"rates up to {self._max_lr:g}, at one of which the loss is not finite",
                    expected="rates at which it grows, but stays a number",
                    fix="lower max_lr of RateFinder",
                ) from error
        if self.optimal_lr is None:  # a fast_dev_run
            return
        rate = suggested(*(torch.tensor(self.optimal_lr.results[name]).double() for name in ("lr", "loss")))
        logger.info(
            f"suggested learning rate {rate:.3g}" + (", which is taken" if self.use else f": --optimizer.lr {rate:.3g}")
        )
        if self.use:
            for group in (group for optimizer in trainer.optimizers for group in optimizer.param_groups):
                group["lr"] = group["initial_lr"] = rate
            for config in trainer.lr_scheduler_configs:
                config.scheduler.base_lrs = [rate] * len(config.scheduler.base_lrs)


@contextmanager
def _as_long_as_it_takes(trainer: pl.Trainer) -> Iterator[None]:
    """Try all rates, in several epochs if need be; no bar where nobody sees it."""
    n_epochs, bar = trainer.fit_loop.max_epochs, lr_finder.tqdm  # type: ignore[attr-defined]
    trainer.fit_loop.max_epochs, lr_finder.tqdm = -1, partial(bar, disable=None)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        trainer.fit_loop.max_epochs, lr_finder.tqdm = n_epochs, bar  # type: ignore[attr-defined]


def suggested(rates: Tensor, losses: Tensor) -> float:
    """The rate around which the loss falls most for a tenfold rate.

    Parameters
    ----------
    rates, losses
        (n,) as they were tried: rates rise by the same factor, losses are smoothed.

    Returns
    -------
    That in the middle of the fifth of the rates over which the line falls most steeply. The first ten count for
    nothing: their smoothed losses are of few batches.

    Raises
    ------
    UsageError
        If there are too few rates.
    """
    keep = losses.isfinite()
    logs, losses = rates[keep].log10()[_FIRST:], losses[keep][_FIRST:]
    width = max(len(logs) // 10, 1)
    if len(logs) < _FIRST:
        raise UsageError(
            f"{int(keep.sum())} rates before the loss grew too large",
            expected=f"{2 * _FIRST} or more",
            fix="lower min_lr of RateFinder, or take more steps",
        )
    slopes = (losses[2 * width :] - losses[: -2 * width]) / (logs[2 * width :] - logs[: -2 * width])
    return float(10 ** logs[width + int(slopes.argmin())])
