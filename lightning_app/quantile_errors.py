r"""How good quantiles are, computed online and exactly: sums in float64, added up over batches and processes.

Over the n observed targets, with quantiles :math:`q_k` at the levels :math:`p_k`,

.. math::
    \mathrm{pinball} = \frac1{nK} \sum \sum_k \max(p_k (y - q_k), (p_k - 1)(y - q_k)), \quad
    \mathrm{CRPS} \approx 2\,\mathrm{pinball}

(Gneiting & Raftery 2007, "Strictly proper scoring rules"; the CRPS is the integral of which this is the sum over the
levels that there are). The coverage of a central interval is the share of targets within it, both ends included, and
its width the mean of upper less lower quantile.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

_SAME = 1e-9  # levels that are as far from 0 as from 1


def central_pairs(levels: Sequence[float]) -> dict[str, tuple[int, int]]:
    """By percent, such as ``80``, the positions of the two levels of each central interval, widest last."""
    pairs = {}
    for high, level in enumerate(levels):
        low = next((place for place, other in enumerate(levels) if abs(other - (1 - level)) < _SAME), None)
        if low is not None and level > 0.5:
            pairs[f"{100 * (2 * level - 1):.6g}"] = (low, high)
    return pairs


class QuantileErrors(Metric):
    """Errors of quantiles over all observed targets, and by horizon step and target channel.

    Parameters
    ----------
    horizon, n_targets
        Of what is forecast.
    levels
        (level,) of the quantiles, ascending.

    Notes
    -----
    Memory: four numbers for each step of each target and level.
    """

    full_state_update = False
    losses: Tensor
    below: Tensor
    inside: Tensor
    widths: Tensor
    count: Tensor

    def __init__(self, horizon: int, n_targets: int, levels: Sequence[float]) -> None:
        super().__init__()
        self.levels, self.pairs = list(levels), central_pairs(levels)
        zeros = torch.zeros(horizon, n_targets, dtype=torch.float64)
        for name in ("losses", "below"):
            self.add_state(name, zeros[..., None].repeat(1, 1, len(levels)), dist_reduce_fx="sum")
        for name in ("inside", "widths"):
            self.add_state(name, zeros[..., None].repeat(1, 1, len(self.pairs)), dist_reduce_fx="sum")
        self.add_state("count", zeros, dist_reduce_fx="sum")

    def update(self, quantiles: Tensor, observed: Tensor, mask: Tensor) -> None:
        """Add a batch: (batch, horizon, target, level), and twice (batch, horizon, target)."""
        seen = mask[..., None]
        truth = torch.where(seen, observed[..., None].double(), 0.0)
        guess = torch.where(seen, quantiles.double(), 0.0)
        level = guess.new_tensor(self.levels)
        above = truth - guess
        self.losses += torch.maximum(level * above, (level - 1) * above).sum(dim=0)
        self.below += (seen & (truth <= guess)).double().sum(dim=0)
        low, high = (guess[..., [pair[side] for pair in self.pairs.values()]] for side in (0, 1))
        self.inside += (seen & (truth >= low) & (truth <= high)).double().sum(dim=0)
        self.widths += (high - low).sum(dim=0)
        self.count += mask.double().sum(dim=0)

    def compute(self) -> dict[str, dict[str, Tensor]]:
        """Each number over everything in `all`, by horizon step in `by_step`, by target channel in `by_target`.

        ``pinball``, ``crps``, and for each central interval ``coverage_80`` and ``width_80``. NaN where nothing was
        observed.
        """
        return {name: self._over(dims) for name, dims in (("all", (0, 1)), ("by_step", (1,)), ("by_target", (0,)))}

    def calibration(self) -> Tensor:
        """(level,) the share of targets that are not above the quantile: its level, if quantiles are what they say."""
        return self.below.sum(dim=(0, 1)) / self.count.sum()

    def _over(self, dims: tuple[int, ...]) -> dict[str, Tensor]:
        losses, inside, widths = (part.sum(dim=dims) for part in (self.losses, self.inside, self.widths))
        count = self.count.sum(dim=dims)
        pinball = losses.mean(dim=-1) / count
        found = {"pinball": pinball, "crps": 2 * pinball}
        for place, name in enumerate(self.pairs):
            found[f"coverage_{name}"] = inside[..., place] / count
            found[f"width_{name}"] = widths[..., place] / count
        return found
