"""Scaled inputs, at most 1 and at least −1: the last thing that is done to them, wherever rows live."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_app.data.scaling.scaler import Scaler


@dataclass(frozen=True)
class Clip:
    """Bounds of some columns; rows are not clipped when they are scaled, since targets come out of the same rows.

    Parameters
    ----------
    low, high
        (column,) float32: −1 and 1, or infinite where a column is left alone.
    whole
        Whether no column is left alone.
    """

    low: Tensor
    high: Tensor
    whole: bool

    @classmethod
    def of(cls, scaler: Scaler, columns: Sequence[int]) -> Clip | None:
        """Of some columns of the rows of a scaler; None where all are left alone."""
        chosen = torch.tensor([scaler.channels[column] in scaler.clipped for column in columns], dtype=torch.bool)
        if not chosen.any():
            return None
        high = torch.where(chosen, 1.0, float("inf"))
        return cls(-high, high, bool(chosen.all()))

    def to(self, device: torch.device) -> Clip:
        """The same in the memory of a device."""
        return Clip(self.low.to(device), self.high.to(device), self.whole)

    def apply(self, values: Tensor, out: Tensor) -> Tensor:
        """Clip (…, column) float32 into `out`, which may be `values`."""
        if self.whole:
            return torch.clamp(values, -1.0, 1.0, out=out)
        return torch.clamp(values, self.low, self.high, out=out)
