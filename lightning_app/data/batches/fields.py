"""Fields in batches: rows such as images, gathered beside the channels of a window, as they are stored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lightning_app.data.batches.buffers import Buffers
from lightning_app.data.batches.padding import Pads, fill_zeros
from lightning_app.data.rows.fields import FieldResidency, FieldValues
from zstore import FieldSteps, Store, UsageError


@dataclass(frozen=True)
class FieldOptions:
    """What is asked for of a field.

    Parameters
    ----------
    steps
        Rows of the field in each window: the last ones of its input rows.
    stride
        Rows from one to the next.
    residency
        Where its rows live: ``host``, decoded in a memory-mapped file that all processes of a machine share;
        ``device``, in the memory of the device that trains; ``auto``, the first of device (a GPU) and host where they
        fit.
    """

    steps: int = 1
    stride: int = 1
    residency: FieldResidency = "auto"

    @classmethod
    def of(cls, given: int | FieldOptions) -> FieldOptions:
        """From a number of steps, or more than that."""
        return cls(given) if isinstance(given, int) else given

    @property
    def rows(self) -> FieldSteps:
        """Which rows of a window."""
        return FieldSteps(self.steps, self.stride)


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
    def of(cls, store: Store, name: str, options: FieldOptions, lookback: int) -> FieldUse:
        """What a batch has of a field of a store.

        Raises
        ------
        NotFoundError
            If the store has no such field.
        UsageError
            If a window has not so many inputs.
        """
        field = store.field(name)
        options.rows.offsets(name, lookback)
        return cls(options.rows, field.shape)

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
    """Rows of a field, and which of a window a batch has.

    Parameters
    ----------
    values
        The rows, wherever they live.
    offsets
        (step,) int64 rows from the first of a window.
    """

    values: FieldValues
    offsets: Tensor

    @classmethod
    def of(cls, name: str, use: FieldUse, values: FieldValues, lookback: int) -> FieldRows:
        """Those that a field is used by."""
        return cls(values, torch.from_numpy(use.steps.offsets(name, lookback)))

    @property
    def n_bytes(self) -> int:
        """Bytes of the steps of a window."""
        return len(self.offsets) * math.prod(self.values.shape) * self.values.dtype.itemsize

    def gather(self, rows: Tensor, buffers: Buffers, target: torch.device, pads: Pads | None = None) -> Tensor:
        """(batch, step, …) on `target`, of windows whose first rows in the store are `rows`, (batch,) on the CPU.

        With `pads`, on the CPU too, steps before the rows that a window may read are the first of these, or zeros.
        """
        offsets = self.offsets if pads is None else torch.maximum(self.offsets, pads.n_before[:, None])
        taken = self._take((rows[:, None] + offsets).flatten(), len(rows), buffers, target)
        if pads is not None and pads.zero_inputs is not None:
            fill_zeros(taken, pads.zero_inputs[:, self.offsets].to(target))
        return taken

    def _take(self, wanted: Tensor, n_windows: int, buffers: Buffers, target: torch.device) -> Tensor:
        values = self.values
        shape = (n_windows, len(self.offsets), *values.shape)
        size = (len(wanted), math.prod(values.shape))
        if values.device.type != "cpu":
            return values.take(wanted, None).view(shape).to(target)
        if target.type == "cpu":
            out = buffers.take(size, np.dtype(str(values.dtype).removeprefix("torch.")))
            return values.take(wanted, out).view(shape)
        pinned = torch.empty(size, dtype=values.dtype, pin_memory=target.type == "cuda")
        return values.take(wanted, pinned).view(shape).to(target, non_blocking=True)


def refuse_fields(uses: Mapping[str, FieldUse], what: str, expected: str, fix: str) -> None:
    """Raise UsageError if there are any."""
    if uses:
        raise UsageError(f"fields ({', '.join(uses)}) {what}", expected=expected, fix=fix)
