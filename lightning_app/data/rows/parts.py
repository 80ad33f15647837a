"""Parts of the rows of a field, copied without the rest of the rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Part:
    """A box of each of some rows, along their first axes; the other axes are whole.

    Parameters
    ----------
    corners
        (row, axis) int64, the first value of each along the axes that are cropped.
    lengths
        (axis,) how many values it has along them.
    """

    corners: Tensor
    lengths: tuple[int, ...]

    def of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Lengths of a part of rows of some shape."""
        return (*self.lengths, *shape[len(self.lengths) :])

    def to(self, device: torch.device) -> Part:
        """The same in the memory of a device."""
        return Part(self.corners.to(device, non_blocking=True), self.lengths)


def take_part(values: Tensor, rows: Tensor, part: Part, out: Tensor | None) -> Tensor:
    """Copy a part of some rows.

    Parameters
    ----------
    values
        (row, …) contiguous.
    rows
        (row,) int64 their numbers, in any order, repeats allowed; on the same device, as `part` is.
    part
        What of each; within the rows.
    out
        (row, value) where to copy to; None for new memory.

    Returns
    -------
    (row, value) in the dtype of `values`.

    Raises
    ------
    IndexError
        If there is no such row.

    Notes
    -----
    One copy for each stretch of values that lie beside each other, such as a line of an image, and no Python loop.
    """
    n_axes, lengths = len(part.lengths), part.lengths
    unit = math.prod(values.shape[n_axes + 1 :])  # values of one place along the last axis that is cropped
    strides = [stride // unit for stride in values.stride()[: n_axes + 1]]
    first = rows * strides[0]
    for axis, stride in enumerate(strides[1:]):
        first = first + part.corners[:, axis] * stride
    lines = torch.zeros(1, dtype=torch.int64, device=rows.device)
    for length, stride in zip(lengths[:-1], strides[1:-1], strict=True):
        lines = (lines[:, None] + torch.arange(length, device=rows.device) * stride).flatten()
    n_starts = values.numel() // unit - lengths[-1] + 1
    view = values.as_strided((n_starts, lengths[-1] * unit), (unit, 1))
    wanted = (first[:, None] + lines).flatten()
    taken = torch.index_select(view, 0, wanted, out=None if out is None else out.view(len(wanted), view.shape[1]))
    return taken.view(len(rows), math.prod(lengths) * unit)
