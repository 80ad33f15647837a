"""What the data module knows of the process it runs in, and of those beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from lightning_app.data.windows.plan import EpochOrder
from zstore import UsageError


@dataclass(frozen=True)
class Process:
    """One of the processes that train together.

    Parameters
    ----------
    rank, world
        Which one, of how many.
    n_local
        Processes of this machine, which share what rows may take.
    device
        What it trains on.
    fitting
        Whether it fits, so that the order of a checkpoint matters; tests and predictions have their own.
    trains
        Whether a trainer fits a model while batches are made.
    same_order
        Whether each epoch has the order of epoch 0.
    epoch
        Asked for the number of the epoch; None where epochs count up from 0.
    n_batches
        Asked for how many batches of an epoch are taken; None where all are.
    evaluates_all
        Whether all batches of an evaluation are taken.
    """

    rank: int = 0
    world: int = 1
    n_local: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    fitting: bool = True
    trains: bool = False
    same_order: bool = False
    epoch: Callable[[], int] | None = None
    n_batches: Callable[[], float] | None = None
    evaluates_all: bool = True

    @classmethod
    def of(cls, trainer: Any) -> Process:
        """That of a trainer; without one a single process on the CPU."""
        if trainer is None:
            return cls()
        return cls(
            trainer.global_rank,
            trainer.world_size,
            trainer.num_devices,
            trainer.strategy.root_device,
            trainer.state.fn == "fit",
            trainer.state.fn == "fit",
            bool(trainer.overfit_batches),
            lambda: trainer.current_epoch,
            lambda: trainer.num_training_batches,
            all(_is_all(getattr(trainer, f"limit_{stage}_batches", 1.0)) for stage in ("val", "test", "predict")),
        )


def refuse_other_orders(trainer: Any, order: EpochOrder | None) -> None:
    """Refuse a fit whose processes have not all the same order of windows.

    Parameters
    ----------
    trainer
        Lightning's; None for a single process.
    order
        That of this process; None where nothing says so.

    Raises
    ------
    UsageError
        On all processes, if one has another order than the first.
    """
    if trainer is None or trainer.world_size == 1 or order is None:
        return
    own = order.to_json()
    first = trainer.strategy.broadcast(own)
    if not trainer.strategy.reduce_boolean_decision(own == first, all=True):
        raise UsageError(
            f"processes with different windows ({own['n_windows']:,} of version {own['version']} here, "
            f"{first['n_windows']:,} of version {first['version']} on the first)",
            expected="the same store and options on all",
            where=order.store,
            fix="start again, with --data.version if the store grows meanwhile",
        )


def _is_all(limit: float) -> bool:
    """Whether a limit of a trainer is none: as a share, 1.0 is all batches; as a count, 1 is one, and 0 none at all."""
    return limit == 0 or (isinstance(limit, float) and limit == 1.0)
