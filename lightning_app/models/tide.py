r"""TiDE: an encoder and a decoder of dense residual blocks, for each channel, with covariates and attributes.

.. math::
    \mathrm{RB}(x) = \mathrm{LN}(\mathrm{drop}(W_2 \operatorname{ReLU}(W_1 x + b_1) + b_2) + W_3 x + b_3)

Covariates are projected row by row, :math:`\tilde x_t = \mathrm{RB}(x_t)`. With the past :math:`y_{1 \dots L}` of a
channel, those of past and horizon, and static attributes a:

.. math::
    e = \mathrm{RB}^{n}([y_{1 \dots L}, \tilde x_{1 \dots L + H}, a]), \qquad
    (d_1, \dots, d_H) = \mathrm{RB}^{n}(e), \qquad
    \hat y_{L + t} = \mathrm{RB}([d_t, \tilde x_{L + t}]) + (R y_{1 \dots L} + r)_t

Das, Kong, Leach, Mathur, Sen & Yu 2023, "Long-term Forecasting with TiDE: Time-series Dense Encoder", TMLR. There one
projection is of all rows; here inputs, which may be others than the channels known in advance, have one of their own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_app.batch import Batch, BatchShape
from lightning_app.models.channels import ChannelModel
from lightning_app.models.revin import RevINKind
from zstore import UsageError


class TiDE(ChannelModel):
    """Dense residual blocks for each target channel, beside covariates that all of them share.

    Inputs that are no targets are covariates of the past, channels known in advance those of the horizon.

    Parameters
    ----------
    shape
        Lengths and widths of the batches; linked from the data by the command line.
    hidden
        Width of the encoder, and of hidden layers of it and of the decoder.
    layers
        Blocks of the encoder, and as many of the decoder.
    row_width
        Numbers that the decoder gives for each target row.
    row_hidden
        Hidden layer of the block that makes a forecast of these.
    covariate_width, covariate_hidden
        Numbers that covariates of a row are projected to, and the hidden layer that does.
    dropout
        Share dropped in each block while training.
    layer_norm
        Whether blocks end in a layer norm.
    revin
        How the pasts of targets are normalised: ``none``, ``plain``, ``affine``, with weights, or ``centred``.
    options
        See `TaskModel`.
    """

    def __init__(
        self,
        shape: BatchShape,
        hidden: int = 256,
        layers: int = 2,
        row_width: int = 8,
        row_hidden: int = 128,
        covariate_width: int = 4,
        covariate_hidden: int = 64,
        dropout: float = 0.3,
        layer_norm: bool = True,
        revin: RevINKind = "affine",
        **options: Any,
    ) -> None:
        super().__init__(shape, revin, **options)
        if layers < 1:
            raise UsageError(f"layers {layers}", expected="1 or more", fix="correct --model.layers")

        def block(n_inputs: int, n_hidden: int, n_outputs: int) -> ResidualBlock:
            return ResidualBlock(n_inputs, n_hidden, n_outputs, dropout, layer_norm)

        narrow = covariate_width if shape.n_future else 0
        self.past_rows = block(len(self.others), covariate_hidden, covariate_width) if self.others else None
        self.target_rows = block(shape.n_future, covariate_hidden, covariate_width) if shape.n_future else None
        n_past = shape.lookback * (1 + covariate_width * bool(self.others))
        n_inputs = n_past + shape.horizon * narrow + shape.n_static
        self.encoder = nn.Sequential(*(block(n_inputs if n == 0 else hidden, hidden, hidden) for n in range(layers)))
        self.decoder = nn.Sequential(
            *(block(hidden, hidden, hidden) for _ in range(layers - 1)),
            block(hidden, hidden, shape.horizon * row_width),
        )
        n_outputs = len(self.task.roles)
        self.head = ResidualBlock(row_width + narrow, row_hidden, n_outputs, dropout, layer_norm=False)
        self.residual = nn.Linear(shape.lookback, self.n_ahead)

    def forward(self, batch: Batch) -> Tensor:
        """(batch, horizon, output)."""
        past, level = self.pasts(batch)
        n_targets, horizon = self.shape.n_targets, self.shape.horizon
        shared = [batch["x_static"]]  # of all targets of a window: (batch, number)
        if self.past_rows is not None:
            shared.append(self.past_rows(self.other_inputs(batch).transpose(1, 2)).flatten(1))
        known = None if self.target_rows is None else self.target_rows(batch["x_future"])  # (batch, horizon, width)
        if known is not None:
            shared.append(known.flatten(1))
        beside = torch.cat(shared, dim=-1)[:, None].expand(-1, n_targets, -1)
        state = self.encoder(torch.cat([past, beside], dim=-1))  # (batch, target, hidden)
        rows = self.decoder(state).unflatten(-1, (horizon, -1))  # (batch, target, horizon, row_width)
        if known is not None:
            rows = torch.cat([rows, known[:, None].expand(-1, n_targets, -1, -1)], dim=-1)
        ahead = self.head(rows).flatten(2) + self.residual(past)  # (batch, target, n_ahead)
        return self.restored(ahead, level)


class ResidualBlock(nn.Module):
    """A hidden layer with a linear one beside it.

    Parameters
    ----------
    n_inputs, n_hidden, n_outputs
        Widths.
    dropout
        Share of its outputs dropped while training.
    layer_norm
        Whether it ends in a layer norm.
    """

    def __init__(self, n_inputs: int, n_hidden: int, n_outputs: int, dropout: float, layer_norm: bool) -> None:
        super().__init__()
        self.hidden = nn.Sequential(
            nn.Linear(n_inputs, n_hidden), nn.ReLU(), nn.Linear(n_hidden, n_outputs), nn.Dropout(dropout)
        )
        self.linear = nn.Linear(n_inputs, n_outputs)
        self.norm = nn.LayerNorm(n_outputs) if layer_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(…, n_inputs) to (…, n_outputs)."""
        return self.norm(self.hidden(x) + self.linear(x))  # type: ignore[no-any-return]
