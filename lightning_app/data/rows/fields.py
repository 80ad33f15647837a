"""Rows of fields, such as images, where they live while training: wherever it is, some of them are copied out.

`host`: one memory-mapped file of decoded rows, shared by every process of a machine. `device`: a copy in the memory of
the device that trains, where batches are gathered without leaving it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from lightning_app.data.rows.parts import Part, take_part

FieldResidency = Literal["auto", "device", "host"]
FieldPlace = Literal["device", "host"]


class FieldValues(Protocol):
    """Rows of a field that can be copied by number, from several threads."""

    @property
    def dtype(self) -> torch.dtype:
        """Of the values, as they are stored."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of a row's own axes."""

    @property
    def device(self) -> torch.device:
        """Where rows are copied to."""

    def take(self, rows: Tensor, out: Tensor | None, part: Part | None = None) -> Tensor:
        """(row, value) copies of some rows, (row,) int64 in any order; in `out` if that is given, else in new memory.

        Of a `part` of each row, if that is given; `rows` and `part` on the CPU.

        Raises
        ------
        IndexError
            If there is no such row.
        """


@dataclass(frozen=True)
class DecodedField:
    """Decoded rows, all of them in some memory.

    Parameters
    ----------
    values
        (row, …) in the dtype that is stored: mapped from a file that all processes of a machine share, or a copy on a
        device.
    """

    values: Tensor

    @property
    def dtype(self) -> torch.dtype:
        """That of the tensor."""
        return self.values.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """All but the rows."""
        return tuple(self.values.shape[1:])

    @property
    def device(self) -> torch.device:
        """Where the tensor is."""
        return self.values.device

    def to(self, device: torch.device) -> DecodedField:
        """A copy in the memory of a device; another one where they are on it already."""
        return DecodedField(self.values.to(device, copy=True))

    def take(self, rows: Tensor, out: Tensor | None, part: Part | None = None) -> Tensor:
        """Copies of some rows. One copy for each row, or for each line of a part, and no Python loop."""
        rows = rows.to(self.device, non_blocking=True)
        if part is not None:
            return take_part(self.values, rows, part.to(self.device), out)
        return torch.index_select(self.values.flatten(1), 0, rows, out=out)
