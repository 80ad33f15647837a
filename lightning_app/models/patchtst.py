r"""PatchTST: tokens are patches of one channel, and each channel goes its own way through the same transformer.

A channel, normalised by RevIN without weights and continued by S times its last value, has
:math:`N = \lfloor (L - P) / S \rfloor + 2` patches of P rows, S apart:

.. math::
    z_i = W_p \, x_{iS \dots iS + P - 1} + b + e_i, \qquad
    Z \leftarrow \mathrm{EncoderLayer}(Z), \qquad
    \hat y = C \, \mathrm{flatten}(Z) + c

with the layers of `attention`, whose norms are batch norms, and a learned position :math:`e_i`.
Nie, Nguyen, Sinthong & Kalagnanam 2023, "A Time Series is Worth 64 Words: Long-term Forecasting with Transformers",
ICLR.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_app.batch import Batch, BatchShape
from lightning_app.models.attention import EncoderLayer, TokenBatchNorm
from lightning_app.models.channels import ChannelModel
from lightning_app.models.revin import RevINKind
from lightning_app.models.states import refuse_known
from zstore import UsageError


class PatchTST(ChannelModel):
    """A transformer over patches of each target channel by itself.

    Parameters
    ----------
    shape
        Lengths and widths of the batches; linked from the data by the command line.
    patch
        Rows of a patch.
    patch_stride
        Rows from one patch to the next.
    width
        Of a token.
    heads
        Of each attention.
    layers
        How many.
    hidden
        Width between the two linear layers of a layer.
    dropout
        Share dropped while training.
    revin
        How the pasts of targets are normalised: ``none``, ``plain``, ``affine``, with weights, or ``centred``.
    options
        See `TaskModel`.

    Notes
    -----
    Cost of a layer, with N patches: N² products of tokens for each channel. Inputs that are no targets, and static
    attributes, are not read.
    """

    of_weights = ("patch_stride", "heads", "revin")

    def __init__(
        self,
        shape: BatchShape,
        patch: int = 16,
        patch_stride: int = 8,
        width: int = 16,
        heads: int = 4,
        layers: int = 3,
        hidden: int = 128,
        dropout: float = 0.3,
        revin: RevINKind = "plain",
        **options: Any,
    ) -> None:
        super().__init__(shape, revin, **options)
        refuse_known(shape, "PatchTST")
        if not 1 <= patch_stride <= patch <= shape.lookback:
            raise UsageError(
                f"patches of {patch} rows, {patch_stride} apart",
                expected=f"at most the lookback of {shape.lookback} rows, and no further apart than they are long",
                fix="correct --model.patch or --model.patch_stride",
            )
        self.patch, self.patch_stride = patch, patch_stride
        n_patches = (shape.lookback - patch) // patch_stride + 2
        self.embedding = nn.Linear(patch, width)
        self.positions = nn.Parameter(torch.empty(n_patches, width).uniform_(-0.02, 0.02))
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.Sequential(
            *(EncoderLayer(width, heads, hidden, dropout, norm=TokenBatchNorm) for _ in range(layers))
        )
        self.head = nn.Linear(n_patches * width, self.n_ahead)

    def forward(self, batch: Batch) -> Tensor:
        """(batch, horizon, output)."""
        past, level = self.pasts(batch)
        longer = torch.cat([past, past[..., -1:].expand(-1, -1, self.patch_stride)], dim=-1)
        patches = longer.unfold(-1, self.patch, self.patch_stride)  # (batch, target, patch, row)
        tokens = self.dropout(self.embedding(patches) + self.positions)  # (batch, target, patch, width)
        states = self.layers(tokens.flatten(0, 1))  # (batch * target, patch, width)
        ahead = self.head(states.flatten(1))  # (batch * target, n_ahead)
        return self.restored(ahead.view(*past.shape[:2], -1), level)
