"""Scaling as modules, so that its constants are part of an exported file: there, float64, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from lightning_app.data.scaling.clip import Clip
from lightning_app.data.scaling.rowscaling import applied
from lightning_app.data.scaling.scaler import Scaler
from lightning_app.data.scaling.unscaler import unscaled
from lightning_app.data.window_data import WindowData


def row_scaler(data: WindowData) -> tuple[Scaler, bool]:
    """What rows are scaled with, to the last digit; and whether they are float32 in source units before.

    Where each series has its own, and the model knows what others have, that is a further row.
    """
    scaler, others = data.scaler, data.meaning.other_series
    rounds = data.store.float32_suffices(scaler.channels, scaler.scaling)
    if scaler.scaling.per_series and others is not None:
        offset, scale = (
            np.vstack([own, other]) for own, other in zip((scaler.offset, scaler.scale), others, strict=True)
        )
        scaler = replace(scaler, offset=offset, scale=scale)
    return (applied(scaler) if rounds else scaler), rounds


class ColumnScaling(nn.Module):
    """Values of some channels in source units, as models read them.

    Parameters
    ----------
    data
        Whose rows are scaled so.
    channels
        Which of them, in order.
    """

    offset: Tensor
    scale: Tensor
    log: Tensor

    def __init__(self, data: WindowData, channels: Sequence[str]) -> None:
        super().__init__()
        whole, self.rounds = row_scaler(data)
        scaler, nodes = whole.of(channels), data.layout.nodes
        self.by_series = scaler.scaling.per_series and nodes is None
        offset, scale = scaler.offset, scaler.scale
        if scaler.scaling.per_series and nodes is not None:
            offset, scale = offset[nodes], scale[nodes]  # (node, channel)
        self.register_buffer("offset", torch.from_numpy(np.ascontiguousarray(offset)))
        self.register_buffer("scale", torch.from_numpy(np.ascontiguousarray(scale)))
        self.register_buffer("log", torch.from_numpy(np.array(scaler.log)))
        self._logs = bool(scaler.log.any())

    def forward(self, values: Tensor, series: Tensor) -> Tensor:
        """Scale some rows.

        Parameters
        ----------
        values
            (batch, row, …, channel) float64 in source units; NaN where missing.
        series
            (batch,) int64; of use where each series has its own scaling.

        Returns
        -------
        Float32, of the same shape; NaN where missing.
        """
        if self.rounds:
            values = values.float().double()
        if self._logs:
            values = torch.where(self.log, values.log1p(), values)
        offset, scale = self.offset, self.scale
        if self.by_series:
            offset, scale = offset[series][:, None], scale[series][:, None]
        return ((values - offset) / scale).float()


class Bounds(nn.Module):
    """Scaled inputs within bounds, see :class:`Clip`.

    Parameters
    ----------
    scaler, channels
        Of rows, and the channels that are looked at.
    """

    low: Tensor
    high: Tensor

    def __init__(self, scaler: Scaler, channels: Sequence[str]) -> None:
        super().__init__()
        clip = Clip.of(scaler, [scaler.channels.index(name) for name in channels])
        self.clips = clip is not None
        if clip is not None:
            self.register_buffer("low", clip.low)
            self.register_buffer("high", clip.high)

    def forward(self, values: Tensor) -> Tensor:
        """(…, channel) float32."""
        return torch.minimum(torch.maximum(values, self.low), self.high) if self.clips else values


class SourceUnits(nn.Module):
    """What models ask of the data module when they predict: the way back to source units.

    Parameters
    ----------
    data
        With the scaler that rows were scaled with.
    """

    offset: Tensor
    scale: Tensor
    log: Tensor
    floors: Tensor | None

    def __init__(self, data: WindowData) -> None:
        super().__init__()
        scaler = row_scaler(data)[0].of(data.targets)
        self._scales, self.n_series, self.where = data.scales, data.n_series, data.where
        self._by_series = scaler.scaling.per_series
        for name in ("offset", "scale", "log"):
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(getattr(scaler, name))))
        self._logs, floors = bool(scaler.log.any()), data.scales.floors
        self.register_buffer("floors", None if floors is None else torch.from_numpy(floors))

    def to_source(self, scaled: Tensor, series: Tensor, floored: bool = False) -> Tensor:
        """(batch, horizon, target) float64."""
        offset, scale = self.offset, self.scale
        if self._by_series:
            offset, scale = offset[series][:, None], scale[series][:, None]
        values = unscaled(scaled, offset, scale, self.log if self._logs else None)
        return torch.maximum(values, self.floors) if floored and self.floors is not None else values

    def last_inputs(self, names: Sequence[str | None], x: Tensor, series: Tensor) -> Tensor:
        """See :meth:`lightning_app.batch.DataOfModels.last_inputs`."""
        return self._scales.last_inputs(tuple(names)).of(x, series)
