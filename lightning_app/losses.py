r"""Losses over the observed targets of a batch; what is missing counts nowhere.

Each is a mean over the n observed targets of a batch of scaled values, with residuals :math:`r = \hat y - y`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zstore import UsageError


class Loss(nn.Module):
    """A mean over the observed targets of what :meth:`each` says of one.

    Attributes
    ----------
    by_series
        Whether it is weighted by the spread of each series' targets.
    """

    by_series = False

    def each(self, residual: Tensor) -> Tensor:
        """The loss of each target, of the same shape."""
        raise NotImplementedError

    def weight(self, std: Tensor) -> Tensor:
        """Weights of series, of the shape of the standard deviations of their scaled training targets."""
        raise NotImplementedError

    def forward(self, predicted: Tensor, observed: Tensor, mask: Tensor, std: Tensor | None = None) -> Tensor:
        """The loss of a batch; 0 if nothing was observed.

        Parameters
        ----------
        predicted, observed, mask
            (batch, horizon, target).
        std
            (batch, target) spread of each window's series, where `by_series`.

        Raises
        ------
        UsageError
            If :meth:`each` does not give a loss for each target: a mean would have what is missing in it.
        """
        losses = self.each(torch.where(mask, predicted - observed, 0.0))
        if losses.shape != mask.shape:
            raise UsageError(
                f"{type(self).__name__} whose losses have the shape {tuple(losses.shape)}",
                expected=f"{tuple(mask.shape)}: one for each target, whose mean over the observed ones is taken here",
                fix="correct each(residual)",
            )
        if std is not None:
            losses = losses * self.weight(std)[:, None]
        return torch.where(mask, losses, 0.0).sum() / mask.sum().clamp(min=1)


class MSE(Loss):
    r"""Mean squared error, :math:`r^2`."""

    def each(self, residual: Tensor) -> Tensor:
        """Squares."""
        return residual.square()


class MAE(Loss):
    r"""Mean absolute error, :math:`|r|`."""

    def each(self, residual: Tensor) -> Tensor:
        """Absolute values."""
        return residual.abs()


class Huber(Loss):
    r"""Squares near 0, absolute values beyond: :math:`r^2 / 2` up to delta, then :math:`\delta (|r| - \delta / 2)`.

    Huber 1964, "Robust estimation of a location parameter".

    Parameters
    ----------
    delta
        Where one becomes the other, in scaled units.
    """

    def __init__(self, delta: float = 1.0) -> None:
        super().__init__()
        _positive("delta", delta)
        self.delta = delta

    def each(self, residual: Tensor) -> Tensor:
        """Squares or absolute values."""
        return nn.functional.huber_loss(residual, torch.zeros_like(residual), reduction="none", delta=self.delta)


class Quantile(Loss):
    r"""The quantile loss, whose optimum is a quantile: :math:`\max(-q r, (1 - q) r)`.

    Koenker & Bassett 1978, "Regression quantiles".

    Parameters
    ----------
    level
        The quantile q, between 0 and 1.
    """

    def __init__(self, level: float = 0.5) -> None:
        super().__init__()
        if not 0 < level < 1:
            raise UsageError(f"quantile {level}", expected="one between 0 and 1", fix="correct level of --model.loss")
        self.level = level

    def each(self, residual: Tensor) -> Tensor:
        """Predictions that are too low cost q, those that are too high 1 - q."""
        return torch.maximum(-self.level * residual, (1 - self.level) * residual)


class NSE(Loss):
    r"""Squared errors weighted by the spread of each series, :math:`r^2 / (s + \epsilon)^2`, so that all count alike.

    s is the standard deviation of the series' training targets. Kratzert et al. 2019, "Towards learning universal,
    regional, and local hydrological behaviors via machine learning applied to large-sample datasets", HESS 23, eq. 13
    ("NSE*").

    Parameters
    ----------
    epsilon
        Keeps series that hardly vary from counting too much.
    """

    by_series = True

    def __init__(self, epsilon: float = 0.1) -> None:
        super().__init__()
        _positive("epsilon", epsilon)
        self.epsilon = epsilon

    def each(self, residual: Tensor) -> Tensor:
        """Squares."""
        return residual.square()

    def weight(self, std: Tensor) -> Tensor:
        """Inverse of the variance."""
        return (std + self.epsilon).pow(-2)


def _positive(name: str, value: float) -> None:
    if value <= 0:
        raise UsageError(f"{name} {value}", expected="more than 0", fix=f"correct {name} of --model.loss")
