"""A module whose weight says which steps it took and what they drew, for tests of trainers."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

N_BATCHES = 6


class StoppedError(Exception):
    """What ends a fit in a test, as a kill does."""


class Drift(pl.LightningModule):
    """Each step adds 1 to the first weight, and what all generators draw to the second one."""

    def __init__(self, target: float = 0.0, stop_at: int | None = None, draws: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, dtype=torch.float64))
        self.target, self.stop_at, self.draws, self.transferred = target, stop_at, draws, 0.0
        self.measured: list[tuple[int, float]] = []

    def on_after_batch_transfer(self, batch: Tensor, dataloader_idx: int) -> Tensor:
        self.transferred = float(torch.rand(())) if self.draws else 0.0
        return batch

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        if self.global_step == self.stop_at:
            raise StoppedError
        drawn = 0.0
        if self.draws:
            drawn = self.transferred + float(torch.rand(())) + float(np.random.random()) + random.random()  # noqa: NPY002
        steps = torch.tensor([1.0, drawn], dtype=torch.float64)
        self.log("train/step", float(self.global_step))
        return -(self.weight * steps).sum()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        if self.draws:
            torch.rand(3)
        self.log("val/distance", (self.weight[0] - self.target).abs())

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            self.measured.append((self.global_step, float(self.weight[0])))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)

    def train_dataloader(self) -> Any:
        return torch.arange(N_BATCHES)  # iterating a DataLoader would draw from a global generator

    def val_dataloader(self) -> Any:
        return torch.arange(2)
