r"""RevIN: each window is normalised by its own mean and deviation, and its forecast is brought back.

.. math::
    \mu = \frac1L \sum_t x_t, \quad \sigma = \sqrt{\frac1L \sum_t (x_t - \mu)^2 + \epsilon}, \quad
    \tilde x_t = \gamma \frac{x_t - \mu}\sigma + \beta, \qquad
    \hat y_t = \sigma \frac{\tilde y_t - \beta}\gamma + \mu

for each window and channel; :math:`\gamma` and :math:`\beta`, of each channel, are learned, or 1 and 0 (``plain``). So
a window that is shifted and scaled has the same forecast, shifted and scaled.

A spread, such as a deviation or the distance of two quantiles, is not shifted: :math:`s = \sigma \tilde s / |\gamma|`.
Tasks read it as the softplus of an output, and so

.. math:: o = \operatorname{softplus}^{-1}(\sigma \operatorname{softplus}(\tilde o) / |\gamma|).

A shape, such as degrees of freedom, stays as it is.
Kim, Kim, Tae, Park, Choi & Choo 2022, "Reversible Instance Normalization for Accurate Time-Series Forecasting against
Distribution Shift", ICLR. That spreads are brought back is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from lightning_app.tasks.base import Role

RevINKind = Literal["none", "plain", "affine", "centred"]
_EPSILON = 1e-5
_LEAST = 1e-12  # of spreads, whose logarithm is taken


class Level(NamedTuple):
    """What was taken from windows."""

    mean: Tensor
    """(batch, channel, 1)."""
    deviation: Tensor
    """(batch, channel, 1), above 0."""


class RevIN(nn.Module):
    """Normalise windows, and restore what is forecast of them.

    Parameters
    ----------
    n_channels
        Of the windows.
    kind
        ``plain``; ``affine``: with a weight and a bias of each channel, which are learned; ``centred``: by the mean
        alone, with a deviation of 1; ``none``: leave windows as they are.

    Notes
    -----
    Missing inputs are 0, the training mean, and count as that in mean and deviation.
    """

    def __init__(self, n_channels: int, kind: RevINKind = "plain") -> None:
        super().__init__()
        self.kind = kind
        self.weight = nn.Parameter(torch.ones(n_channels, 1)) if kind == "affine" else None
        self.bias = nn.Parameter(torch.zeros(n_channels, 1)) if kind == "affine" else None

    def forward(self, x: Tensor) -> tuple[Tensor, Level]:
        """(batch, channel, lookback) to the same, normalised, and what was taken from it."""
        if self.kind == "none":
            return x, Level(torch.zeros_like(x[..., :1]), torch.ones_like(x[..., :1]))
        mean = x.mean(dim=-1, keepdim=True)
        if self.kind == "centred":
            return x - mean, Level(mean, torch.ones_like(mean))
        deviation = ((x - mean).square().mean(dim=-1, keepdim=True) + _EPSILON).sqrt()
        normalised = (x - mean) / deviation
        if self.weight is not None and self.bias is not None:
            normalised = normalised * self.weight + self.bias
        return normalised, Level(mean, deviation)

    def restore(self, outputs: Tensor, level: Level, roles: Sequence[Role]) -> Tensor:
        """(batch, channel, step, output) of normalised windows as those of the windows, of whose dtype they are.

        Parameters
        ----------
        outputs
            What a model says of each channel and step to come.
        level
            Of the windows.
        roles
            What each output is: see :class:`lightning_app.tasks.Task`.
        """
        outputs = outputs.to(level.mean.dtype)  # from bfloat16
        if self.kind == "none":
            return outputs
        return torch.stack([self._restored(outputs[..., n], level, role) for n, role in enumerate(roles)], dim=-1)

    def _restored(self, output: Tensor, level: Level, role: Role) -> Tensor:
        if role == "shape":
            return output
        if role == "spread":
            factor = level.deviation if self.weight is None else level.deviation / self.weight.abs()
            spread = (factor * softplus(output)).clamp(min=_LEAST)
            return spread + (-torch.expm1(-spread)).log()
        if self.weight is not None and self.bias is not None:
            output = (output - self.bias) / self.weight
        return output * level.deviation + level.mean
