"""What a stream decodes piece by piece: channels, fields, or both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_app.data.rows.residency import Rows
from lightning_app.data.windows.plan import WindowPart
from zstore import FieldReader

Int64 = NDArray[np.int64]

_SCRATCH_BYTES = 64  # that decoding channels takes a row of a piece


class RowReader(Protocol):
    """Rows of channels that can be decoded piece by piece, from several threads."""

    @property
    def where(self) -> str:
        """What they are of, for errors."""

    @property
    def n_rows(self) -> int:
        """Rows in all."""

    @property
    def width(self) -> int:
        """Values of a row."""

    @property
    def masked(self) -> bool:
        """Whether any value may be missing."""

    @property
    def irregular(self) -> bool:
        """Whether times are needed too."""

    @property
    def chunk_rows(self) -> int:
        """Rows that are best decoded together."""

    @property
    def chunk_starts(self) -> Int64:
        """Rows where pieces are best cut, ascending from 0."""

    @property
    def n_chunks_stored(self) -> int:
        """What decoding all rows costs, as :meth:`n_chunks` counts."""

    def n_chunks(self, start: int, stop: int) -> int:
        """What decoding some rows costs."""

    def read(self, start: int, values: NDArray[np.float32], observed: NDArray[np.bool_] | None) -> None:
        """Decode rows from `start` on into (row, value) arrays."""

    def expect(self, starts: Int64, stops: Int64) -> None:
        """Begin to fetch what rows ``[start, stop)`` will be read from, (part,), in this order."""

    def times(self, start: int, stop: int) -> Int64:
        """Times of some rows."""


@dataclass(frozen=True)
class StreamMemory:
    """Memory for decoded rows; those of all parts have the same numbers.

    Parameters
    ----------
    rows
        Channels; None where they live elsewhere.
    times
        (row,) int64 where times are irregular, else None.
    fields
        By name, (row, …) in the dtype that is stored.
    """

    rows: Rows | None
    times: Tensor | None
    fields: Mapping[str, Tensor]

    def parts(self) -> list[NDArray[Any]]:
        """All arrays, in the order in which :meth:`Streamed.read` fills them."""
        rows = [] if self.rows is None else [self.rows.values, self.rows.observed, self.times]
        return [part.numpy() for part in (*rows, *self.fields.values()) if part is not None]


@dataclass(frozen=True)
class Streamed:
    """Reads what a stream decodes.

    Parameters
    ----------
    channels
        Of all channels; None where these live elsewhere.
    fields
        By name, of fields.
    part
        Which rows of a window are read where there are no channels; None for all of them.
    """

    channels: RowReader | None
    fields: Mapping[str, FieldReader] = field(default_factory=dict)
    part: WindowPart | None = None

    @property
    def cut_by(self) -> tuple[str, ...]:
        """The fields whose chunks pieces are cut by; none where it is those of the channels."""
        return tuple(self.fields) if self.channels is None else ()

    @property
    def _widest(self) -> RowReader | FieldReader:
        """Whose chunks pieces are: channels, for their chunks have the most rows, or else the widest field."""
        return self.channels or max(self.fields.values(), key=lambda reader: reader.row_bytes)

    @property
    def where(self) -> str:
        """The store."""
        return self._widest.where

    @property
    def instead(self) -> str:
        """What to choose where a stream does not fit."""
        if self.channels is not None:
            return "--data.residency host"
        return f"residency encoded or host for {', '.join(map(repr, self.fields))} in --data.fields"

    @property
    def n_rows(self) -> int:
        """Rows in all."""
        return self._widest.n_rows

    @property
    def row_bytes(self) -> int:
        """Bytes of a row in memory."""
        channels = self.channels
        own = 0 if channels is None else channels.width * (5 if channels.masked else 4) + 8 * channels.irregular
        return own + sum(reader.row_bytes for reader in self.fields.values())

    @property
    def chunk_rows(self) -> int:
        """Rows that are best decoded together."""
        return self._widest.chunk_rows

    @property
    def chunk_starts(self) -> Int64:
        """Rows where pieces are best cut, ascending from 0."""
        return self._widest.chunk_starts

    @property
    def n_chunks_stored(self) -> int:
        """Chunks of one channel, or of the widest field."""
        return self._widest.n_chunks_stored

    def n_chunks(self, start: int, stop: int) -> int:
        """Those of them that some rows lie in."""
        return self._widest.n_chunks(start, stop)

    def scratch_bytes(self, n_rows: int) -> int:
        """Bytes that decoding so many rows takes beside what is decoded."""
        of_fields = sum(reader.scratch_bytes(n_rows) for reader in self.fields.values())
        return of_fields + (0 if self.channels is None else _SCRATCH_BYTES * n_rows)

    def memory(self, n_rows: int) -> StreamMemory:
        """Memory for so many rows."""
        channels, rows, times = self.channels, None, None
        if channels is not None:
            shape = (n_rows, channels.width)
            rows = Rows(_zeros(shape, np.float32), _zeros(shape, np.bool_) if channels.masked else None)
            times = _zeros((n_rows,), np.int64) if channels.irregular else None
        fields = {name: _zeros((n_rows, *reader.shape), reader.dtype) for name, reader in self.fields.items()}
        return StreamMemory(rows, times, fields)

    def expect(self, starts: Int64, stops: Int64) -> None:
        """Begin to fetch what rows ``[start, stop)`` will be read from, (part,), in this order."""
        if self.channels is not None:
            self.channels.expect(starts, stops)
        for reader in self.fields.values():
            reader.expect(starts, stops)

    def read(self, start: int, parts: Sequence[NDArray[Any]]) -> None:
        """Decode rows from `start` on into arrays like those of :meth:`memory`, as many as these have."""
        left = list(parts)
        if self.channels is not None:
            values = left.pop(0)
            self.channels.read(start, values, left.pop(0) if self.channels.masked else None)
            if self.channels.irregular:
                times = left.pop(0)
                times[:] = self.channels.times(start, start + len(times))
        for reader, part in zip(self.fields.values(), left, strict=True):
            reader.read(start, part)


def _zeros(shape: tuple[int, ...], dtype: Any) -> torch.Tensor:
    """Zeros by numpy, whose memory comes when it is first written to, in huge pages: torch takes all of it at once."""
    return torch.from_numpy(np.zeros(shape, dtype))
