"""Fields in batches: rows such as images, gathered beside the channels of a window, as they are stored."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from lightning_app.data.batches.behind import Copies
from lightning_app.data.batches.buffers import Buffers
from lightning_app.data.batches.located import StoreRows
from lightning_app.data.batches.padding import Pads, fill_zeros
from lightning_app.data.batches.phases import Phase, Phases
from lightning_app.data.rows.fields import FieldResidency, FieldValues
from lightning_app.data.rows.parts import Part
from zstore import FieldReader, FieldSteps, UsageError


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
        ``device``, in the memory of the device that trains; ``encoded``, compressed in the files of the store (or, of
        one in a bucket, in a copy of them in the cache), decoded for each batch; ``stream``, in a pool of bounded size,
        into which pieces of the store are decoded ahead of use, in random order; ``auto``, the first of device (a GPU),
        host, encoded, stream where they fit.
    crop
        Lengths of the part of each row that a batch has, along its first axes, such as ``[84, 84]`` of an image or
        ``[48, 48, 48]`` of a volume: somewhere in it in training, the same for all steps of a window, and in the middle
        otherwise. Default: whole rows.
    """

    steps: int = 1
    stride: int = 1
    residency: FieldResidency = "auto"
    crop: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.residency not in (known := get_args(FieldResidency)):
            raise UsageError(
                f"residency {self.residency!r} of a field",
                expected=f"one of {', '.join(known)}",
                fix="correct --data.fields",
            )

    def to_json(self) -> dict[str, Any]:
        """Plain values, as a configuration has them."""
        return {name: list(own) if isinstance(own, tuple) else own for name, own in asdict(self).items()}

    @property
    def rows(self) -> FieldSteps:
        """Which rows of a window, and which part of each."""
        return FieldSteps(self.steps, self.stride, self.crop or None)


@dataclass(frozen=True)
class FieldUse:
    """What a batch has of a field.

    Parameters
    ----------
    steps
        Which rows of a window, and which part of each.
    shape
        Lengths of a row's own axes, all of them.
    """

    steps: FieldSteps
    shape: tuple[int, ...]

    @classmethod
    def of(cls, reader: FieldReader, options: FieldOptions, lookback: int) -> FieldUse:
        """What a batch has of a field of a store.

        Raises
        ------
        UsageError
            If a window has not so many inputs, or a row is smaller than the part of it that a batch is to have.
        """
        options.rows.offsets(reader.name, lookback)
        options.rows.shape(reader.name, reader.shape)
        return cls(options.rows, reader.shape)

    @property
    def part(self) -> tuple[int, ...]:
        """Lengths of what a batch has of a row."""
        crop = self.steps.crop or ()
        return (*crop, *self.shape[len(crop) :])

    @property
    def room(self) -> tuple[int, ...]:
        """(axis,) how many places there are for that along each axis that is cropped."""
        return tuple(length - size + 1 for length, size in zip(self.shape, self.steps.crop or (), strict=False))

    def to_json(self) -> list[int]:
        """Plain values for a checkpoint, but for the crop."""
        return [self.steps.steps, self.steps.stride, *self.shape]

    @classmethod
    def from_json(cls, document: list[int], crop: list[int] | None) -> FieldUse:
        """Read :meth:`to_json` back."""
        steps, stride, *shape = map(int, document)
        return cls(FieldSteps(steps, stride, tuple(crop) if crop else None), tuple(shape))


@dataclass(frozen=True)
class FieldRows:
    """Rows of a field, and which of a window a batch has.

    Parameters
    ----------
    values
        The rows, wherever they live.
    offsets
        (step,) int64 rows from the first of a window.
    middle
        The part in the middle of a row, which a batch has unless others are drawn; None for whole rows.
    observed
        (row,) bool whether a row of the store has a value, on the CPU; None where all have one.
    """

    values: FieldValues
    offsets: Tensor
    middle: Part | None = None
    observed: Tensor | None = None

    @classmethod
    def of(cls, reader: FieldReader, use: FieldUse, values: FieldValues, lookback: int) -> FieldRows:
        """Those that a field is used by."""
        corners = [part.start for part in use.steps.centre(reader.name, use.shape)]
        middle = Part(torch.tensor([corners]), use.part[: len(corners)]) if corners else None
        observed = None if reader.observed is None else torch.from_numpy(reader.observed)
        return cls(values, torch.from_numpy(use.steps.offsets(reader.name, lookback)), middle, observed)

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of what a batch has of a row."""
        return self.values.shape if self.middle is None else self.middle.of(self.values.shape)

    @property
    def n_bytes(self) -> int:
        """Bytes of the steps of a window."""
        return len(self.offsets) * math.prod(self.shape) * self.values.dtype.itemsize

    def gather(
        self,
        windows: StoreRows,
        buffers: Buffers,
        target: torch.device,
        pads: Pads | None = None,
        corners: Tensor | None = None,
        later: Copies | None = None,
        phases: Phases | None = None,
    ) -> Tensor:
        """Copy the steps of some windows.

        Parameters
        ----------
        windows
            Where they lie in the store.
        buffers
            Memory for batches on the CPU.
        target
            Device that the batch is for.
        pads
            Which steps lie before the rows that a window may read: the first of these stands there, or zeros. On the
            CPU.
        corners
            (batch, axis) int64 where the part of its rows begins that each window has, on the CPU; None for the middle.
        later
            Gets what fills the result, for a batch on the CPU; None to fill it here and now.
        phases
            Told what takes how long.

        Returns
        -------
        (batch, step, …) on `target`.
        """
        phases, phase = phases or Phases(), self._phase
        first = windows.first + windows.shift if self.values.pooled else windows.first
        wanted = self._wanted(first, pads).flatten()
        part = self._part(len(first), corners)
        zero = None if pads is None or pads.zero_inputs is None else pads.zero_inputs[:, self.offsets]
        zero = None if zero is None else zero.to(target, non_blocking=True)
        shape = len(first), len(self.offsets), *self.shape
        if later is not None:
            out = self._room(len(wanted), buffers)
            later.append(phases.timing(phase, partial(self.values.take, wanted, out, part)))
            later.append(partial(fill_zeros, out.view(shape), zero))
            return out.view(shape)
        with phases.timed(phase):
            taken = self._take(wanted, part, buffers, target, phases).view(shape)
        fill_zeros(taken, zero)
        return taken

    def seen(self, rows: Tensor, target: torch.device, pads: Pads | None = None) -> Tensor | None:
        """(batch, step) bool on `target`, whether the steps of some windows have a value; None where all rows have one.

        Windows begin at `rows` of the store, (batch,). A padded step is as the row that stands there; one of zeros has
        none.
        """
        if self.observed is None:
            return None
        seen = self.observed[self._wanted(rows, pads)]
        if pads is not None and pads.zero_inputs is not None:
            seen &= ~pads.zero_inputs[:, self.offsets]
        return seen.to(target, non_blocking=True)

    def _wanted(self, rows: Tensor, pads: Pads | None) -> Tensor:
        """(batch, step) rows of the steps of windows that begin at some."""
        offsets = self.offsets if pads is None else torch.maximum(self.offsets, pads.n_before[:, None])
        return rows[:, None] + offsets

    def _part(self, n_windows: int, corners: Tensor | None) -> Part | None:
        """The part of each row of each window."""
        if self.middle is None:
            return None
        corners = self.middle.corners.expand(n_windows, -1) if corners is None else corners
        return Part(corners.repeat_interleave(len(self.offsets), dim=0), self.middle.lengths)

    def _room(self, n_rows: int, buffers: Buffers) -> Tensor:
        """(row, value) memory for some rows, of a batch on the CPU."""
        return buffers.take((n_rows, math.prod(self.shape)), np.dtype(str(self.values.dtype).removeprefix("torch.")))

    @property
    def _phase(self) -> Phase:
        return "gather" if self.values.decoded else "decode"

    def _take(
        self, wanted: Tensor, part: Part | None, buffers: Buffers, target: torch.device, phases: Phases
    ) -> Tensor:
        """(row, value) on `target`."""
        values = self.values
        if values.device.type != "cpu":
            return phases.moved(values.take(wanted, None, part), target)
        if target.type == "cpu":
            return values.take(wanted, self._room(len(wanted), buffers), part)
        size = len(wanted), math.prod(self.shape)
        pinned = torch.empty(size, dtype=values.dtype, pin_memory=target.type == "cuda")
        return phases.moved(values.take(wanted, pinned, part), target)
