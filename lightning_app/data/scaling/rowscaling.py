"""Rows in source units become what models read, scaled and filled, after they were copied out of where they live."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_app.data.scaling.scaler import Scaler

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_STEEP = 8.0  # scales of an offset from which on it is subtracted first
_TILE = 256  # values of constants that lie beside each other, where each series has its own
_ON_ONE_THREAD = 1 << 15  # values; torch works on more of them on several threads
_AT_ONCE = 1 << 24  # values of a GPU


@dataclass(frozen=True)
class Logs:
    """Columns of which a logarithm is scaled.

    Parameters
    ----------
    plain
        Ranges of columns that become ``log(1 + value)``, in float32.
    steep
        Ranges of columns that become ``log(1 + value) - level``, in float64: where the logarithm is many scales, its
        own rounding to float32 would show.
    level
        (column,), or (series, column) where each series has its own; float64.
    """

    plain: tuple[range, ...]
    steep: tuple[range, ...]
    level: Tensor

    def take(self, windows: Tensor, series: Tensor) -> None:
        """Take the logarithms in place, of windows as :meth:`RowScaling.scale_windows` has them."""
        for columns in self.plain:
            windows.narrow(-1, columns.start, len(columns)).log1p_()
        for columns in self.steep:
            values, level = (part.narrow(-1, columns.start, len(columns)) for part in (windows, self.level))
            level = level.index_select(0, series).unsqueeze(1) if level.ndim == 2 else level
            values.copy_(values.double().log1p_().sub_(level))


@dataclass(frozen=True)
class RowScaling:
    """``(value - level) * factor + bias`` of each column, in float32; of some columns' logarithms.

    Parameters
    ----------
    factor, bias
        (column,), or (series, column) where each series has its own; float32.
    level
        Likewise; None where no offset is so many scales that float32 products would show it.
    logs
        Taken first; None where only values themselves are scaled.
    fills
        Whether a value may be missing, NaN, and becomes 0.
    scales
        Whether any value changes otherwise.

    Notes
    -----
    The result differs from that of float64 arithmetic, on the value as float32 holds it, by some units of 2**-24: of
    itself, and of the offset in scales where that is below 8. Each value has the same bits in whatever block of rows
    it is scaled.
    """

    factor: Tensor
    bias: Tensor
    level: Tensor | None
    logs: Logs | None = None
    fills: bool = False
    scales: bool = True
    _tiles: dict[int, RowScaling] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, scaler: Scaler, fills: bool, nodes: NDArray[np.int64] | None = None) -> RowScaling:
        """The same as a scaler in float64, for rows of one series, or of the series `nodes`, (node,), side by side."""

        def tensor(part: NDArray[Any]) -> Tensor:
            if nodes is not None:
                part = part[nodes].ravel() if part.ndim == 2 else np.tile(part, len(nodes))
            return torch.from_numpy(part)

        constants = _constants(scaler)
        steep = tensor(constants.steep_logs).numpy()
        plain = tensor(scaler.log).numpy() & ~steep
        logs = Logs(tuple(_ranges(plain)), tuple(_ranges(steep)), tensor(constants.log_level))
        level = None if constants.level is None else tensor(constants.level)
        return cls(
            tensor(constants.factor),
            tensor(constants.bias),
            level,
            logs if scaler.log.any() else None,
            fills,
            scaler.scaling.changes,
        )

    @property
    def by_series(self) -> bool:
        """Whether each series has its own."""
        return self.factor.ndim == 2

    def to(self, device: torch.device) -> RowScaling:
        """The same in the memory of a device."""
        moved = self._map(lambda part: part.to(device))
        logs = None if self.logs is None else replace(self.logs, level=self.logs.level.to(device))
        return replace(moved, logs=logs, fills=self.fills, scales=self.scales, _tiles={})

    def scale_windows(self, windows: Tensor, series: Tensor) -> None:
        """Scale some windows in place.

        Parameters
        ----------
        windows
            (batch, length, column) float32, contiguous.
        series
            (batch,) int64 the series of each.
        """
        if self.logs is not None:
            self.logs.take(windows, series)
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
    constants = _constants(scaler)
    factor, bias = constants.factor.astype(np.float64), constants.bias.astype(np.float64)
    level = constants.log_level + (0.0 if constants.level is None else constants.level)
    return replace(scaler, offset=level - bias / factor, scale=1 / factor)


class _Constants(NamedTuple):
    """What rows of a scaler are scaled with; each of the shape of `scaler.offset`, `steep_logs` (column,)."""

    factor: Float32
    bias: Float32
    level: Float32 | None
    log_level: Float64
    steep_logs: NDArray[np.bool_]


def _constants(scaler: Scaler) -> _Constants:
    """A large offset is subtracted before anything is rounded: of a logarithm in float64, else in float32."""
    offset, scale = scaler.offset, scaler.scale
    factor = (1 / scale).astype(np.float32)
    steep = np.abs(offset / scale) > _STEEP
    steep_logs = scaler.log & np.atleast_2d(steep).any(axis=0)
    log_level = np.where(steep_logs, offset, 0.0)
    rest = offset - log_level
    level = rest.astype(np.float32) if (steep & ~steep_logs).any() else None
    bias = (-(rest - (0.0 if level is None else level)) * factor.astype(np.float64)).astype(np.float32)
    return _Constants(factor, bias, level, log_level, steep_logs)
