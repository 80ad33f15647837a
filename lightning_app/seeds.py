"""What a step of a fit draws at random: a function of the seed, the process, the epoch and the batch, and of no more.

Dropout, and whatever else draws from the generators of PyTorch, NumPy and Python, would depend on all draws since the
process began: a fit that goes on from a checkpoint would draw otherwise than one that was not killed. So these
generators are seeded anew for each batch. Nothing has to be saved for that but one number, a kill may come at any
moment, each process draws for itself, and any number of them may go on.
"""

from __future__ import annotations

import os
import random
import secrets
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import xxhash

_BITS = 62  # of a seed that nobody chose


class BatchSeeds(pl.Callback):
    """Seeds the generators of PyTorch (that of the CPU and of the device), NumPy and Python for each batch of a fit.

    The seed is that of ``seed_everything``. Without one (``seed_everything: false``) the first process draws it. A fit
    that goes on keeps that of its checkpoint. A step, or a callback of one's own, may seed them otherwise after this.

    Notes
    -----
    Twice some 6 µs a step.
    """

    def __init__(self) -> None:
        self.seed: int | None = None

    def state_dict(self) -> dict[str, Any]:
        """The seed."""
        return {"seed": self.seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take that of a fit that goes on."""
        seed = state_dict["seed"]
        if type(seed) is not int:
            raise ValueError(f"a seed of draws that is {seed!r}")
        self.seed = seed

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Choose the seed, unless that of a checkpoint is taken already."""
        if self.seed is None:
            given = os.environ.get("PL_GLOBAL_SEED")
            chosen = secrets.randbits(_BITS) if given is None else int(given)
            self.seed = int(trainer.strategy.broadcast(chosen))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Seed for the first batch, which may be any of an epoch."""
        self._seed_for(trainer, "transfer", _n_done(trainer))

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Seed for the first batch of an epoch."""
        self._seed_for(trainer, "transfer", 0)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed for the step on this batch."""
        self._seed_for(trainer, "step", batch_idx)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Seed for a validation, and for what is done to the next batch while it is transferred to the device."""
        self._seed_for(trainer, "transfer", batch_idx + 1)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw for the next batch as if there had been no validation."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._seed_for(trainer, "transfer", _n_done(trainer))

    def _seed_for(self, trainer: pl.Trainer, phase: str, number: int) -> None:
        key = f"{self.seed} {trainer.global_rank} {trainer.current_epoch} {number} {phase}".encode()
        seed = xxhash.xxh3_64_intdigest(key)
        torch.default_generator.manual_seed(seed)  # torch.manual_seed, which notes a stack for each GPU, takes 70 µs
        device = trainer.strategy.root_device
        if device.type != "cpu":
            torch.get_device_module(device).manual_seed(seed)
        np.random.seed(seed % (1 << 32))  # noqa: NPY002  # the global generator is what is meant
        random.seed(seed)


def _n_done(trainer: pl.Trainer) -> int:
    """Batches of this epoch that were trained on."""
    return int(trainer.fit_loop.epoch_loop.batch_progress.current.processed)  # type: ignore[attr-defined]
