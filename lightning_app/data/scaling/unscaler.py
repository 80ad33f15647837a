"""From scaled targets back to source units, on the device where they are."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_app.data.lasting import lasting
from lightning_app.data.scaling.scaler import Scaler

_EPSILON = float(torch.finfo(torch.float32).eps)


class Unscaler:
    """The inverse of a scaler.

    Parameters
    ----------
    scaler
        Of the targets.
    floors
        (target,) least values of forecasts in source units, -inf for none; None without any.
    """

    def __init__(self, scaler: Scaler, floors: NDArray[np.float64] | None = None) -> None:
        self._floors = floors
        self._scaler, self._per_series = scaler, scaler.scaling.per_series
        self._logs = bool(scaler.log.any())
        self._constants: dict[torch.device, tuple[Tensor, ...]] = {}

    def _on(self, device: torch.device) -> tuple[Tensor, ...]:
        """Offset, scale and whether of a logarithm, on a device; and floors, if there are some."""
        if device not in self._constants:
            scaler = self._scaler
            with lasting():
                known = [scaler.offset, scaler.scale, scaler.log]
                known += [] if self._floors is None else [self._floors]
                self._constants[device] = tuple(torch.from_numpy(part).to(device) for part in known)
        return self._constants[device]

    def to_source(self, scaled: Tensor, series: Tensor, floored: bool = False) -> Tensor:
        """Scaled targets in source units.

        Parameters
        ----------
        scaled
            (batch, horizon, target).
        series
            (batch,) int64.
        floored
            Whether they are forecasts, which are no less than the floors.

        Returns
        -------
        (batch, horizon, target) float64, so that an offset much larger than the value costs no digits. What float32
        cannot tell from a scaled 0 is 0: relative errors of a rounding error would be as large as they get.
        """
        offset, scale, log, *floors = self._on(scaled.device)
        if self._per_series:
            offset, scale = offset[series][:, None], scale[series][:, None]
        values = unscaled(scaled, offset, scale, log if self._logs else None)
        return torch.maximum(values, floors[0]) if floored and floors else values


def unscaled(scaled: Tensor, offset: Tensor, scale: Tensor, log: Tensor | None) -> Tensor:
    """The formula of :meth:`Unscaler.to_source`; constants broadcast, `log` is None where there is no logarithm."""
    product = scaled.double() * scale
    values = product + offset
    is_zero = values.detach().abs() <= product.detach().abs() * _EPSILON
    values = values - torch.where(is_zero, values.detach(), 0.0)  # the gradient stays
    return values if log is None else torch.where(log, torch.expm1(values), values)
