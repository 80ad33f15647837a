r"""iTransformer: a token is a whole channel, and channels attend to each other.

.. math::
    h_n = W x_{n, 1 \dots L} + b, \qquad
    H \leftarrow \mathrm{EncoderLayer}(H), \qquad
    \hat y_n = C \, \mathrm{LN}(h_n) + c

with the layers of `attention`, whose tokens are the channels n. Targets are normalised by RevIN, without weights; other
inputs, and channels known in advance, are tokens as they are, the latter by a linear map of their horizon.
Liu, Hu, Zhang, Wu, Wang, Ma & Long 2024, "iTransformer: Inverted Transformers Are Effective for Time Series
Forecasting", ICLR. That known channels are tokens is ours.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_app.batch import Batch, BatchShape
from lightning_app.models.attention import EncoderLayer
from lightning_app.models.channels import ChannelModel
from lightning_app.models.revin import RevINKind


class ITransformer(ChannelModel):
    """A transformer whose tokens are the channels of a window.

    Parameters
    ----------
    shape
        Lengths and widths of the batches; linked from the data by the command line.
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
    Cost of a layer, with n channels: n² products of tokens, whatever the lookback. Static attributes are not read.
    """

    of_weights = ("heads", "revin")

    def __init__(
        self,
        shape: BatchShape,
        width: int = 256,
        heads: int = 8,
        layers: int = 2,
        hidden: int = 256,
        dropout: float = 0.1,
        revin: RevINKind = "plain",
        **options: Any,
    ) -> None:
        super().__init__(shape, revin, **options)
        self.past = nn.Linear(shape.lookback, width)
        self.ahead = nn.Linear(shape.horizon, width) if shape.n_future else None
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.Sequential(*(EncoderLayer(width, heads, hidden, dropout, dropout) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, self.n_ahead)

    def forward(self, batch: Batch) -> Tensor:
        """(batch, horizon, output)."""
        past, level = self.pasts(batch)
        tokens = self.past(torch.cat([past, self.other_inputs(batch)], dim=1))  # (batch, channel, width)
        if self.ahead is not None:
            tokens = torch.cat([tokens, self.ahead(batch["x_future"].transpose(1, 2))], dim=1)
        states = self.norm(self.layers(self.dropout(tokens)))
        return self.restored(self.head(states[:, : self.shape.n_targets]), level)
