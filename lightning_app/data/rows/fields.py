"""Rows of fields, such as images, where they live while training: wherever it is, some of them are copied out.

`host`: one memory-mapped file of decoded rows, shared by every process of a machine. `device`: a copy in the memory of
the device that trains, where batches are gathered without leaving it. `encoded`: the chunks of the store, or encoded
images, in the page cache, decoded for each batch. `stream`: in a bounded pool, into which threads decode pieces.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from lightning_app.data.rows.parts import Part, take_part
from zstore import FieldReader

FieldResidency = Literal["auto", "device", "host", "encoded", "stream"]
FieldPlace = Literal["device", "host", "encoded", "stream"]


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

    @property
    def decoded(self) -> bool:
        """Whether rows are in memory as batches have them; else they are decoded for each batch."""

    @property
    def pooled(self) -> bool:
        """Whether rows are numbered by their positions in a pool; else as in the store."""

    def take(self, rows: Tensor, out: Tensor | None, part: Part | None = None) -> Tensor:
        """(row, value) copies of some rows, (row,) int64 in any order; in `out` if that is given, else in new memory.

        Of a `part` of each row, if that is given; `rows` and `part` on the CPU.

        Raises
        ------
        IndexError
            If there is no such row.
        """

    def close(self) -> None:
        """Stop threads, if there are any."""


@dataclass(frozen=True)
class DecodedField:
    """Decoded rows, all of them in some memory.

    Parameters
    ----------
    values
        (row, …) in the dtype that is stored: mapped from a file that all processes of a machine share, or a copy on a
        device; or those of a pool.
    pooled
        Whether they are those of a pool.
    """

    values: Tensor
    pooled: bool = False
    decoded = True

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

    def close(self) -> None:
        """Nothing: a file is closed with the last tensor that lies in it."""


@dataclass(frozen=True)
class EncodedField:
    """Rows that are decoded for each batch; what is in memory is compressed, in the files of the store.

    Parameters
    ----------
    reader
        Decodes them: on as many threads as PyTorch has for the thread that asks.
    """

    reader: FieldReader
    pooled: bool = False
    decoded = False

    @property
    def dtype(self) -> torch.dtype:
        """As they are stored, or as the image library decodes them."""
        return torch.from_numpy(np.empty(0, self.reader.dtype)).dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a decoded row."""
        return self.reader.shape

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    def take(self, rows: Tensor, out: Tensor | None, part: Part | None = None) -> Tensor:
        """Decodes some rows: each chunk that holds some of them once, and of encoded images each one, as a whole."""
        if part is not None:
            whole = torch.empty(len(rows), *self.shape, dtype=self.dtype)
            self.take(rows, whole)
            return take_part(whole, torch.arange(len(rows)), part, out)
        if out is None:
            out = torch.empty(len(rows), math.prod(self.shape), dtype=self.dtype)
        self.reader.take(rows.numpy(), out.numpy().reshape(-1, *self.shape), torch.get_num_threads())
        return out

    def close(self) -> None:
        """Stop the threads."""
        self.reader.close()
