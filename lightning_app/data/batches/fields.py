"""Fields in batches: rows such as images, gathered beside the channels of a window, as they are stored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lightning_app.data.batches.buffers import Buffers
from zstore import Cache, FieldSteps, Store, UsageError, open_field


@dataclass(frozen=True)
class FieldUse:
    """What a batch has of a field.

    Parameters
    ----------
    steps
        Which rows of a window.
    shape
        Lengths of a row's own axes.
    """

    steps: FieldSteps
    shape: tuple[int, ...]

    @classmethod
    def of(cls, store: Store, name: str, steps: FieldSteps, lookback: int) -> FieldUse:
        """What a batch has of a field of a store.

        Raises
        ------
        NotFoundError
            If the store has no such field.
        UsageError
            If a window has not so many inputs.
        """
        field = store.field(name)
        steps.offsets(name, lookback)
        return cls(steps, field.shape)

    def to_json(self) -> list[int]:
        """Plain values for a checkpoint."""
        return [self.steps.steps, self.steps.stride, *self.shape]

    @classmethod
    def from_json(cls, document: list[int]) -> FieldUse:
        """Read :meth:`to_json` back."""
        steps, stride, *shape = map(int, document)
        return cls(FieldSteps(steps, stride), tuple(shape))


@dataclass(frozen=True)
class FieldRows:
    """Decoded rows of a field, and which of a window a batch has.

    Parameters
    ----------
    values
        (row, …) in the dtype that is stored; mapped from a file that all processes of a machine share.
    offsets
        (step,) int64 rows from the first of a window.
    """

    values: Tensor
    offsets: Tensor

    @classmethod
    def open(cls, store: Store, name: str, use: FieldUse, lookback: int, cache: Cache) -> FieldRows:
        """The rows of a field of a store, decoded first where that was never done."""
        offsets = torch.from_numpy(use.steps.offsets(name, lookback))
        return cls(torch.from_numpy(open_field(store, name, cache)), offsets)

    def gather(self, starts: Tensor, buffers: Buffers, target: torch.device) -> Tensor:
        """(batch, step, …) on `target`, of windows that begin at some rows, (batch,)."""
        wanted = (starts.cpu()[:, None] + self.offsets).flatten()
        flat = self.values.view(len(self.values), -1)
        shape = (len(starts), len(self.offsets), *self.values.shape[1:])
        size = (len(wanted), math.prod(shape[2:]))
        if target.type == "cpu":
            out = buffers.take(size, np.dtype(str(flat.dtype).removeprefix("torch.")))
            return torch.index_select(flat, 0, wanted, out=out).view(shape)
        pinned = torch.empty(size, dtype=flat.dtype, pin_memory=target.type == "cuda")
        return torch.index_select(flat, 0, wanted, out=pinned).view(shape).to(target, non_blocking=True)


def refuse_fields(uses: Mapping[str, FieldUse], what: str, expected: str, fix: str) -> None:
    """Raise UsageError if there are any."""
    if uses:
        raise UsageError(f"fields ({', '.join(uses)}) {what}", expected=expected, fix=fix)
