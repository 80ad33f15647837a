r"""A mixture over chunks: each mode is a whole chunk of actions, with a weight of its own.

Of K modes, with weights :math:`w_k`, means :math:`\mu_k` and deviations :math:`\sigma_k` for each number of a chunk,

.. math::
    p(y) = \sum_{k=1}^K w_k \prod_{t, d} \mathcal N(y_{td} \mid \mu_{ktd}, \sigma_{ktd})

where the product leaves out numbers that are padded or missing. Bishop 1994, "Mixture density networks"; modes are
chunks, and not rows, for a person who goes around an object by its left side does so in all rows that follow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus


@dataclass(frozen=True)
class ChunkMixture:
    """Chunks and their weights.

    Parameters
    ----------
    log_weights
        (batch, mode) logarithms of weights that add up to 1.
    means, deviations
        (batch, mode, horizon, target); deviations above 0.
    """

    log_weights: Tensor
    means: Tensor
    deviations: Tensor

    @staticmethod
    def n_outputs(n_modes: int, n_targets: int) -> int:
        """Numbers that a model gives for each row: of each mode its part of the logit, means and deviations."""
        return n_modes * (1 + 2 * n_targets)

    @classmethod
    def of(cls, outputs: Tensor, n_modes: int, floor: float) -> ChunkMixture:
        """What the outputs of a model mean.

        Parameters
        ----------
        outputs
            (batch, horizon, output). The logit of a mode is the mean over the rows of its parts.
        n_modes
            Modes.
        floor
            The least deviation.
        """
        of_modes = outputs.float().view(*outputs.shape[:2], n_modes, -1)
        numbers = of_modes.movedim(2, 1)  # (batch, mode, horizon, 1 + 2 * target)
        n_targets = numbers.shape[-1] // 2
        logits, means, raw = torch.split(numbers, [1, n_targets, n_targets], dim=-1)
        return cls(logits.mean(dim=(2, 3)).log_softmax(dim=-1), means, floor + softplus(raw))

    def log_probability(self, chunks: Tensor, mask: Tensor) -> Tensor:
        """(batch,) log density of the numbers that count, in nats; 0 where none does.

        Parameters
        ----------
        chunks
            (batch, horizon, target).
        mask
            Likewise, bool: True where a number counts.
        """
        distance = (chunks[:, None] - self.means) / self.deviations
        logs = -0.5 * distance.square() - self.deviations.log() - 0.5 * math.log(2 * math.pi)
        of_modes = logs.masked_fill(~mask[:, None], 0.0).sum(dim=(2, 3))  # (batch, mode)
        return (self.log_weights + of_modes).logsumexp(dim=-1)

    def likeliest(self) -> Tensor:
        """(batch, horizon, target) the means of the mode of the largest weight."""
        return self._means_of(self.log_weights.argmax(dim=-1))

    def drawn(self, draws: Tensor) -> Tensor:
        """(batch, horizon, target) the means of a mode that is drawn by weight.

        Parameters
        ----------
        draws
            (batch,) numbers in [0, 1).
        """
        below = self.log_weights.exp().cumsum(dim=-1) <= draws.to(self.log_weights)[:, None]
        return self._means_of(below.sum(dim=-1).clamp(max=self.log_weights.shape[-1] - 1))

    def _means_of(self, modes: Tensor) -> Tensor:
        return self.means[torch.arange(modes.shape[0], device=modes.device), modes]
