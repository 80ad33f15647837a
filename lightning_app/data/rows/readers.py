"""Rows read piece by piece, from a store or a panel file, and how and when they are scaled."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_app.data.rows.residency import Rows
from lightning_app.data.scaling.rowscaling import RowScaling
from lightning_app.data.scaling.scaler import Scaler
from zstore import PanelFile, RowFile, Scaling, Store

Int64 = NDArray[np.int64]
logger = logging.getLogger(__name__)
_PIECE_BYTES = 1 << 20


def scaled_when(
    store: Store, scaler: Scaler, masked: bool, nodes: Int64 | None = None
) -> tuple[Scaling, RowScaling | None]:
    """How rows are decoded, and how they are scaled later; None where they are scaled when they are decoded.

    Rows in source units serve every split and scaler, where float32 keeps all digits that matter.

    Raises
    ------
    NotFiniteError
        If a value does not fit float32 once scaled.
    """
    store.require_float32(scaler.channels, scaler.scaling)
    if not store.float32_suffices(scaler.channels, scaler.scaling):
        logger.info("rows are scaled in a file of their own: float32 in source units has too few digits for them")
        return scaler.scaling, None
    return scaler.source_units, RowScaling.of(scaler, masked, nodes)


@dataclass(frozen=True)
class StoreReader:
    """Rows of a store, decoded by chunks; see :class:`lightning_app.data.rows.streamed.RowReader`."""

    store: Store
    scaler: Scaler
    masked: bool

    @cached_property
    def _scalings(self) -> tuple[Scaling, RowScaling | None]:
        return scaled_when(self.store, self.scaler, self.masked)

    @property
    def where(self) -> str:
        """The store."""
        return self.store.path

    @property
    def n_rows(self) -> int:
        """Rows of the store."""
        return self.store.n_rows

    @property
    def width(self) -> int:
        """Channels."""
        return len(self.scaler.channels)

    @property
    def irregular(self) -> bool:
        """Whether times are read too."""
        return not self.store.time.rule.regular

    @property
    def chunk_rows(self) -> int:
        """Rows of a chunk."""
        return self.store.schema.chunk_rows

    @property
    def chunk_starts(self) -> Int64:
        """Rows that a chunk begins with."""
        return self.store.chunk_starts

    @property
    def n_chunks_stored(self) -> int:
        """Chunks of one channel that have rows."""
        return self.store.n_chunks_stored

    def n_chunks(self, start: int, stop: int) -> int:
        """Chunks of one channel that some rows lie in."""
        return self.store.n_chunks(start, stop)

    def read(self, start: int, values: NDArray[np.float32], observed: NDArray[np.bool_] | None) -> None:
        """Decode rows from `start` on; scaled and filled."""
        decoded, later = self._scalings
        self.store.decode_part(self.scaler.channels, start, values, decoded, observed, fill=later is None)
        if later is not None:
            series = self.store.index.series_of(start, start + len(values)) if later.by_series else None
            later.scale_rows(torch.from_numpy(values), None if series is None else torch.from_numpy(series))

    def expect(self, starts: Int64, stops: Int64) -> None:
        """Fetch what rows will be read from ahead of use, where the store is in a bucket."""
        self.store.expect(self.scaler.channels, starts, stops, self.irregular)

    def times(self, start: int, stop: int) -> Int64:
        """Times of some rows."""
        return self.store.times(start, stop)


@dataclass(frozen=True)
class PanelReader:
    """Steps of a panel file, read without mapping it; see :class:`lightning_app.data.rows.streamed.RowReader`."""

    file: PanelFile
    later: RowScaling | None
    where: str

    @property
    def masked(self) -> bool:
        """Whether any value is missing."""
        return self.file.masked

    @property
    def irregular(self) -> bool:
        """Whether times are read too."""
        return not self.file.grid.rule.regular

    @property
    def n_rows(self) -> int:
        """Steps."""
        return self.file.grid.n_steps

    @property
    def width(self) -> int:
        """Values of a step."""
        return self.file.width

    @property
    def chunk_rows(self) -> int:
        """Steps of some 1 MiB."""
        return max(1, _PIECE_BYTES // (self.width * (5 if self.masked else 4)))

    @property
    def chunk_starts(self) -> Int64:
        """Any step will do."""
        return np.arange(0, self.n_rows, self.chunk_rows)

    @property
    def n_chunks_stored(self) -> int:
        """Stretches of so many steps."""
        return len(self.chunk_starts)

    def n_chunks(self, start: int, stop: int) -> int:
        """Stretches that some steps lie in."""
        return -(-stop // self.chunk_rows) - start // self.chunk_rows

    def read(self, start: int, values: NDArray[np.float32], observed: NDArray[np.bool_] | None) -> None:
        """Read steps from `start` on; scaled and filled."""
        self.file.read(start, values, observed)
        if self.later is not None:
            self.later.scale_rows(torch.from_numpy(values))

    def expect(self, starts: Int64, stops: Int64) -> None:
        """Nothing: the file is on this machine."""

    def times(self, start: int, stop: int) -> Int64:
        """Times of some steps."""
        return self.file.grid.times(start, stop)


def as_rows(file: RowFile, scaling: RowScaling | None, ends: Tensor | None = None) -> Rows:
    """The values of a file as tensors; no copy."""
    observed = None if file.observed is None else _tensor(file.observed)
    return Rows(_tensor(file.values), observed, scaling, torch.zeros(0, dtype=torch.int64) if ends is None else ends)


def _tensor(values: NDArray[np.float32] | NDArray[np.bool_]) -> Tensor:
    return torch.from_numpy(values)
