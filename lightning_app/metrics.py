"""Masked errors, computed online and exactly: sums in float64, added up over batches and processes."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class MaskedErrors(Metric):
    """Errors over all observed targets.

    With residuals r over the n observed targets,

    - ``mse``: sum(r^2) / n
    - ``mae``: sum(|r|) / n
    - ``rmse``: sqrt(mse)

    The result does not depend on how targets are cut into batches or dealt out to processes.
    """

    full_state_update = False
    count: Tensor
    squared: Tensor
    absolute: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("count", "squared", "absolute"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, observed: Tensor, mask: Tensor) -> None:
        """Add a batch; all of one shape, `mask` True where the target was observed."""
        residual = torch.where(mask, predicted - observed, 0.0).double()
        self.count += mask.sum()
        self.squared += residual.square().sum()
        self.absolute += residual.abs().sum()

    def compute(self) -> dict[str, Tensor]:
        """The errors; NaN if nothing was observed."""
        mse = self.squared / self.count
        return {"mse": mse, "mae": self.absolute / self.count, "rmse": mse.sqrt()}
