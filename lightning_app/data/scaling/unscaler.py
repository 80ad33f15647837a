"""From scaled targets back to source units, on the device where they are."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_app.data.scaling.scaler import Scaler

_EPSILON = float(torch.finfo(torch.float32).eps)


class Unscaler:
    """The inverse of a scaler.

    Parameters
    ----------
    scaler
        Of the targets.
    """

    def __init__(self, scaler: Scaler) -> None:
        self._per_series = scaler.scaling.per_series
        with torch.inference_mode(False):  # a test may be first to ask, and a fit next
            self._parts = tuple(torch.from_numpy(part) for part in (scaler.offset, scaler.scale))
            self._log = torch.from_numpy(scaler.log)
        self._logs = bool(scaler.log.any())

    def to_source(self, scaled: Tensor, series: Tensor) -> Tensor:
        """Scaled targets in source units.

        Parameters
        ----------
        scaled
            (batch, horizon, target).
        series
            (batch,) int64.

        Returns
        -------
        (batch, horizon, target) float64, so that an offset much larger than the value costs no digits. What float32
        cannot tell from a scaled 0 is 0: relative errors of a rounding error would be as large as they get.
        """
        if self._log.device != scaled.device:
            with torch.inference_mode(False):
                self._parts = tuple(part.to(scaled.device) for part in self._parts)
                self._log = self._log.to(scaled.device)
        offset, scale = (part[series][:, None] if self._per_series else part for part in self._parts)
        product = scaled.double() * scale
        values = product + offset
        is_zero = values.detach().abs() <= product.detach().abs() * _EPSILON
        values = values - torch.where(is_zero, values.detach(), 0.0)  # the gradient stays
        return torch.where(self._log, torch.expm1(values), values) if self._logs else values
