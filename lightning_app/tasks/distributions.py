r"""What outputs say of a target beside one number: quantiles, a normal or a Student-t distribution. All are scaled.

Quantiles at the levels :math:`p_1 < … < p_K` never cross: the median :math:`q_m` is an output, and the others lie
further out each, by :math:`\operatorname{softplus}(o_k)`:

.. math:: q_k = q_m + \sum_{j=m+1}^{k} \operatorname{softplus}(o_j) \text{ for } k > m, \text{ and likewise below.}

They minimise the mean over levels of the quantile loss, see :class:`lightning_app.losses.Quantile`.

Of the distributions, with :math:`\sigma = \epsilon + \operatorname{softplus}(s)` and
:math:`\nu = 2 + \operatorname{softplus}(n)`, the negative log likelihood is minimised:

.. math::
    \text{normal: } \log \sigma + \tfrac12 z^2 + \tfrac12 \log 2\pi, \quad
    \text{Student: } \log \sigma + \tfrac{\nu + 1}2 \log(1 + z^2 / \nu)
    - \log\Gamma(\tfrac{\nu + 1}2) + \log\Gamma(\tfrac\nu2) + \tfrac12 \log \pi\nu

with :math:`z = (y - \mu) / \sigma` (Nix & Weigend 1994; Salinas et al. 2020, "DeepAR").
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cache
from statistics import NormalDist

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import softplus

from lightning_app.tasks.base import Role

_FLOOR = 1e-3  # of deviations, in scaled units
_POINTS, _STEPS = 32, 40
_MOST_ANGLE = math.pi / 2 - 1e-9


class Distribution(ABC):
    """How the outputs of a target are read.

    Parameters
    ----------
    levels
        (level,) of the quantiles that are asked for, ascending, each between 0 and 1.
    """

    def __init__(self, levels: list[float]) -> None:
        self.levels = levels

    @property
    @abstractmethod
    def n_outputs(self) -> int:
        """Numbers for each target."""

    @property
    @abstractmethod
    def roles(self) -> list[Role]:
        """What each of them is."""

    @abstractmethod
    def quantiles(self, outputs: Tensor) -> Tensor:
        """(…, level) ascending, of (…, output)."""

    @abstractmethod
    def centre(self, outputs: Tensor) -> Tensor:
        """(…) the median."""

    @abstractmethod
    def loss(self, outputs: Tensor, observed: Tensor) -> Tensor:
        """(…) of outputs, (…, output), for what was observed, (…)."""

    @abstractmethod
    def mean(self, outputs: Tensor) -> Tensor:
        """(…, output) what several models say together, (model, …, output): the means of their quantiles."""


class Quantiles(Distribution):
    """Quantiles themselves."""

    @property
    def n_outputs(self) -> int:
        """One for each level, and one for the median where it is none of them."""
        return len(self._levels)

    @property
    def roles(self) -> list[Role]:
        """A median between distances."""
        return ["location" if level == 0.5 else "spread" for level in self._levels]

    @property
    def _levels(self) -> list[float]:
        return sorted({*self.levels, 0.5})

    def quantiles(self, outputs: Tensor) -> Tensor:
        """Those that are asked for."""
        kept = [self._levels.index(level) for level in self.levels]
        return self._all(outputs)[..., kept]

    def centre(self, outputs: Tensor) -> Tensor:
        """An output as it is."""
        return outputs[..., self._levels.index(0.5)]

    def loss(self, outputs: Tensor, observed: Tensor) -> Tensor:
        """The mean quantile loss over all levels."""
        residual = self._all(outputs) - observed[..., None]
        level = residual.new_tensor(self._levels)
        return torch.maximum(-level * residual, (1 - level) * residual).mean(dim=-1)

    def mean(self, outputs: Tensor) -> Tensor:
        """The mean median, and the mean steps from it."""
        middle = self._levels.index(0.5)
        found = _inverse_softplus(softplus(outputs).mean(dim=0))
        found[..., middle] = outputs[..., middle].mean(dim=0)
        return found

    def _all(self, outputs: Tensor) -> Tensor:
        middle = self._levels.index(0.5)
        centre, steps = outputs[..., middle : middle + 1], softplus(outputs)
        below = centre - steps[..., :middle].flip(-1).cumsum(-1).flip(-1)
        above = centre + steps[..., middle + 1 :].cumsum(-1)
        return torch.cat([below, centre, above], dim=-1)


class Normal(Distribution):
    """A mean and a deviation."""

    @property
    def n_outputs(self) -> int:
        """Mean, deviation."""
        return 2

    @property
    def roles(self) -> list[Role]:
        """Those of its parameters."""
        return ["location", "spread"]

    def quantiles(self, outputs: Tensor) -> Tensor:
        """By the inverse of the normal distribution function."""
        mean, deviation = _location(outputs)
        unit = outputs.new_tensor([NormalDist().inv_cdf(level) for level in self.levels])
        return mean[..., None] + deviation[..., None] * unit

    def centre(self, outputs: Tensor) -> Tensor:
        """The mean."""
        return outputs[..., 0]

    def loss(self, outputs: Tensor, observed: Tensor) -> Tensor:
        """The negative log likelihood, in nats."""
        mean, deviation = _location(outputs)
        distance = (observed - mean) / deviation
        return deviation.log() + 0.5 * distance.square() + 0.5 * math.log(2 * math.pi)

    def mean(self, outputs: Tensor) -> Tensor:
        """The mean of the means, and that of the deviations."""
        return torch.stack([outputs[..., 0].mean(dim=0), _mean_softplus(outputs[..., 1])], dim=-1)


class StudentT(Distribution):
    """A location, a scale and degrees of freedom, which are above 2: tails as heavy as the data are."""

    @property
    def n_outputs(self) -> int:
        """Location, scale, degrees of freedom."""
        return 3

    @property
    def roles(self) -> list[Role]:
        """Those of its parameters."""
        return ["location", "spread", "shape"]

    def quantiles(self, outputs: Tensor) -> Tensor:
        """By the inverse of Student's distribution function, in float64."""
        location, scale = _location(outputs)
        degrees = self._degrees(outputs).double()
        unit = torch.stack([student_quantile(degrees, level) for level in self.levels], dim=-1)
        return location[..., None] + scale[..., None] * unit.to(outputs.dtype)

    def centre(self, outputs: Tensor) -> Tensor:
        """The location."""
        return outputs[..., 0]

    def loss(self, outputs: Tensor, observed: Tensor) -> Tensor:
        """The negative log likelihood, in nats."""
        location, scale = _location(outputs)
        degrees = self._degrees(outputs)
        squared = ((observed - location) / scale).square()
        tail = 0.5 * (degrees + 1) * torch.log1p(squared / degrees)
        constant = torch.lgamma(0.5 * degrees) - torch.lgamma(0.5 * (degrees + 1)) + 0.5 * (math.pi * degrees).log()
        return scale.log() + tail + constant

    def mean(self, outputs: Tensor) -> Tensor:
        """The mean of each parameter: the means of the quantiles where all have the same degrees of freedom."""
        others = [_mean_softplus(outputs[..., place]) for place in (1, 2)]
        return torch.stack([outputs[..., 0].mean(dim=0), *others], dim=-1)

    @staticmethod
    def _degrees(outputs: Tensor) -> Tensor:
        return 2 + softplus(outputs[..., 2])


def _location(outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Where a distribution lies, and how wide it is."""
    return outputs[..., 0], _FLOOR + softplus(outputs[..., 1])


def _mean_softplus(outputs: Tensor) -> Tensor:
    """(…) whose softplus is the mean of those of (model, …)."""
    return _inverse_softplus(softplus(outputs).mean(dim=0))


def _inverse_softplus(values: Tensor) -> Tensor:
    """Of what is positive; what is 0 by rounding counts as the smallest number."""
    positive = values.clamp(min=torch.finfo(values.dtype).tiny)
    return positive + torch.log(-torch.expm1(-positive))


def student_quantile(degrees: Tensor, level: float) -> Tensor:
    r"""The quantile of Student's t distribution.

    Of 1 over the degrees of freedom it is a smooth function, which a Chebyshev series of 33 terms is as good as.

    Parameters
    ----------
    degrees
        (…) degrees of freedom, above 2.
    level
        Between 0 and 1.

    Returns
    -------
    (…) to a relative 1e-8 where the level is no nearer than 1e-3 to 0 or 1, and some 1e-5 at 1e-6.
    """
    place = 4 / degrees - 1  # 2 and more degrees are -1 to 1
    last, before = torch.zeros_like(place), torch.zeros_like(place)
    *others, first = reversed(_series(level))
    for term in others:
        last, before = term + 2 * place * last - before, last
    return first + place * last - before


@cache
def _series(level: float) -> tuple[float, ...]:
    """The terms of that series."""
    found = np.polynomial.chebyshev.chebinterpolate(lambda place: _student_quantile(4 / (place + 1), level), 32)  # type: ignore[type-var]
    return tuple(found.tolist())


def _student_quantile(degrees: NDArray[np.float64], level: float) -> NDArray[np.float64]:
    r"""Newton's steps to the root.

    With :math:`t = \sqrt\nu \tan\theta`, the distribution function is
    :math:`\tfrac12 + C \int_0^\theta \cos^{\nu - 1}`, which is concave: steps from 0 never go too far. The integral
    is a Gauss-Legendre sum.
    """
    points, weights = np.polynomial.legendre.leggauss(_POINTS)
    share, angle = abs(level - 0.5), np.zeros_like(degrees)
    half = torch.from_numpy(0.5 * degrees)
    scale = (torch.lgamma(half + 0.5) - torch.lgamma(half)).exp().numpy() / math.sqrt(math.pi)
    for _ in range(_STEPS):
        within = 0.5 * angle[..., None] * (points + 1)
        area = 0.5 * angle * (np.cos(within) ** (degrees - 1)[..., None] * weights).sum(axis=-1)
        angle = np.minimum(angle + (share - scale * area) / (scale * np.cos(angle) ** (degrees - 1)), _MOST_ANGLE)
    found: NDArray[np.float64] = math.copysign(1.0, level - 0.5) * np.sqrt(degrees) * np.tan(angle)
    return found


DISTRIBUTIONS: dict[str, type[Distribution]] = {"quantiles": Quantiles, "normal": Normal, "student_t": StudentT}
