"""Rows in source units become what models read, scaled and filled, after they were copied out of where they live."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_app.data.scaler import Scaler

Float32 = NDArray[np.float32]

_STEEP = 8.0  # scales of an offset from which on it is subtracted first
_TILE = 256  # values of constants that lie beside each other, where each series has its own
_ON_ONE_THREAD = 1 << 15  # values; torch works on more of them on several threads
_AT_ONCE = 1 << 24  # values of a GPU


@dataclass(frozen=True)
class RowScaling:
    """``(value - level) * factor + bias`` of each column, of ``log(1 + value)`` where `logs` says so, in float32.

    Parameters
    ----------
    factor, bias
        (column,), or (series, column) where each series has its own; float32.
    level
        Likewise; None where no offset is so many scales that float32 products would show it.
    logs
        Ranges of columns of which the logarithm is scaled.
    fills
        Whether a value may be missing, NaN, and becomes 0.
    scales
        Whether any value changes otherwise.

    Notes
    -----
    The result differs from that of float64 arithmetic by some units of 2**-24, of itself and of the offset in scales
    where that is below 8. Each value has the same bits in whatever block of rows it is scaled.
    """

    factor: Tensor
    bias: Tensor
    level: Tensor | None
    logs: tuple[range, ...] = ()
    fills: bool = False
    scales: bool = True
    _tiles: dict[int, RowScaling] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, scaler: Scaler, fills: bool, nodes: NDArray[np.int64] | None = None) -> RowScaling:
        """The same as a scaler in float64, for rows of one series, or of the series `nodes`, (node,), side by side."""
        constants, log = _constants(scaler), scaler.log
        if nodes is not None:
            constants = [part[nodes].ravel() if part.ndim == 2 else np.tile(part, len(nodes)) for part in constants]
            log = np.tile(log, len(nodes))
        factor, bias, *level = map(torch.from_numpy, constants)
        scales = scaler.scaling.changes
        return cls(factor, bias, level[0] if level else None, tuple(_ranges(log)), fills, scales)

    @property
    def by_series(self) -> bool:
        """Whether each series has its own."""
        return self.factor.ndim == 2

    def to(self, device: torch.device) -> RowScaling:
        """The same in the memory of a device."""
        moved = self._map(lambda part: part.to(device))
        return replace(moved, logs=self.logs, fills=self.fills, scales=self.scales, _tiles={})

    def scale_windows(self, windows: Tensor, series: Tensor) -> None:
        """Scale some windows in place.

        Parameters
        ----------
        windows
            (batch, length, column) float32, contiguous.
        series
            (batch,) int64 the series of each.
        """
        for columns in self.logs:
            windows.narrow(-1, columns.start, len(columns)).log1p_()
        if self.scales and self.by_series:
            self._scale_by_series(windows, series)
        elif self.scales:
            self._tiled(windows.shape[1])._apply(windows.flatten(1))
        if self.fills:
            windows.nan_to_num_(0.0, float("inf"), -float("inf"))

    def scale_rows(self, rows: Tensor, series: Tensor | None = None) -> None:
        """Scale rows in place.

        Parameters
        ----------
        rows
            (row, column) float32, contiguous.
        series
            (row,) int64 the series of each; needed where each series has its own scaling.

        Notes
        -----
        On the calling thread alone, unless rows are on a GPU.
        """
        size = max(1, (_ON_ONE_THREAD if rows.device.type == "cpu" else _AT_ONCE) // rows.shape[1])
        nobody = torch.zeros(1, dtype=torch.int64, device=rows.device)
        for low in range(0, len(rows), size):
            part = rows[low : low + size]
            if series is not None and self.by_series:
                self.scale_windows(part[:, None], series[low : low + size])
            else:
                self.scale_windows(part[None], nobody)

    def _scale_by_series(self, windows: Tensor, series: Tensor) -> None:
        length, width = windows.shape[1:]
        own = self._map(lambda part: part.index_select(0, series))  # (batch, column)
        n_rows = max(1, min(length, _TILE // width))
        whole = length // n_rows * n_rows
        tiles = own._map(lambda part: part.repeat(1, n_rows).unsqueeze(1))
        tiles._apply(windows[:, :whole].view(len(windows), -1, n_rows * width))
        if whole < length:
            rest = own._map(lambda part: part.repeat(1, length - whole))
            rest._apply(windows[:, whole:].view(len(windows), -1))

    def _apply(self, values: Tensor) -> None:
        """One pass over memory, or two; constants and values broadcast."""
        if self.level is not None:
            values.sub_(self.level)
        torch.addcmul(self.bias, values, self.factor, out=values)

    def _tiled(self, length: int) -> RowScaling:
        """That of so many rows side by side: long stretches without a break are what vector units like."""
        tiles = self._tiles.get(length)
        if tiles is None:
            tiles = self._tiles[length] = self._map(lambda part: part.repeat(length))
        return tiles

    def _map(self, change: Callable[[Tensor], Tensor]) -> RowScaling:
        """The same change made to all constants."""
        level = None if self.level is None else change(self.level)
        return RowScaling(change(self.factor), change(self.bias), level)


def _ranges(chosen: NDArray[np.bool_]) -> Iterator[range]:
    """Stretches of columns that are chosen."""
    edges = np.flatnonzero(np.diff(chosen.astype(np.int8), prepend=0, append=0)).tolist()
    return (range(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True))


def applied(scaler: Scaler) -> Scaler:
    """What rows were scaled with, to the last digit: its constants are those of a scaler, rounded to float32.

    Whoever goes back to source units with it adds no error of these roundings.
    """
    factor, bias, *level = (part.astype(np.float64) for part in _constants(scaler))
    offset = (level[0] if level else 0.0) - bias / factor
    return replace(scaler, offset=offset, scale=1 / factor)


def _constants(scaler: Scaler) -> list[Float32]:
    """Factor, bias and, where an offset is many scales, level; each of the shape of `scaler.offset`."""
    offset, scale = scaler.offset, scaler.scale
    factor = (1 / scale).astype(np.float32)
    steep = bool((np.abs(offset / scale) > _STEEP).any())
    level = offset.astype(np.float32) if steep else np.zeros_like(factor)
    bias = (-(offset - level) * factor.astype(np.float64)).astype(np.float32)
    return [factor, bias, level] if steep else [factor, bias]
