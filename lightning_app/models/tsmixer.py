r"""TSMixer: linear layers along time and along channels take turns, each added to what came in.

A block of a window :math:`X`, (channel, row), normalised by RevIN with weights:

.. math::
    X \leftarrow X + \operatorname{ReLU}(\mathrm{BN}(X) W_t + b_t), \qquad
    X \leftarrow X + (W_2 \operatorname{ReLU}(W_1 \mathrm{BN}(X) + b_1) + b_2)

The first mixes rows, alike for all channels, and the second channels, alike for all rows. Batch norm is of each pair of
channel and row. Behind all blocks :math:`\hat Y = X W + b`, alike for all channels, of which targets are kept.
Chen, Li, Yoder, Arik & Pfister 2023, "TSMixer: An All-MLP Architecture for Time Series Forecasting", TMLR; what it
calls basic, without auxiliary information.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_app.batch import Batch, BatchShape
from lightning_app.models.channels import ChannelModel
from lightning_app.models.revin import RevINKind
from lightning_app.models.states import refuse_known
from zstore import UsageError


class TSMixer(ChannelModel):
    """Blocks that mix rows, then channels.

    Parameters
    ----------
    shape
        Lengths and widths of the batches; linked from the data by the command line.
    blocks
        How many.
    hidden
        Width between the two linear layers along channels.
    dropout
        Share dropped behind each layer while training.
    revin
        How the pasts of targets are normalised: ``none``, ``plain``, ``affine``, with weights, or ``centred``. Other
        inputs are not.
    options
        See `TaskModel`.

    Notes
    -----
    Cost of a block: the square of the lookback for each channel. Static attributes are not read.
    """

    def __init__(
        self,
        shape: BatchShape,
        blocks: int = 6,
        hidden: int = 512,
        dropout: float = 0.9,
        revin: RevINKind = "affine",
        **options: Any,
    ) -> None:
        super().__init__(shape, revin, **options)
        refuse_known(shape, "TSMixer")
        self.blocks = nn.Sequential(
            *(MixerBlock(shape.n_inputs, shape.lookback, hidden, dropout) for _ in range(blocks))
        )
        self.head = nn.Linear(shape.lookback, self.n_ahead)

    def forward(self, batch: Batch) -> Tensor:
        """(batch, horizon, output)."""
        if self.training and len(batch["x"]) < 2:
            raise UsageError(
                "TSMixer with a training batch of one window",
                expected="two at least, for batch norm over windows",
                fix="a larger --data.batch_size",
            )
        past, level = self.pasts(batch)
        mixed = self.blocks(torch.cat([past, self.other_inputs(batch)], dim=1))  # (batch, channel, lookback)
        return self.restored(self.head(mixed[:, : self.shape.n_targets]), level)


class MixerBlock(nn.Module):
    """Mixes rows, then channels.

    Parameters
    ----------
    n_channels, n_rows
        Of a window.
    hidden
        Width between the two linear layers along channels.
    dropout
        Share dropped behind each layer while training.
    """

    def __init__(self, n_channels: int, n_rows: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm1d(n_channels * n_rows, eps=1e-3, momentum=0.01) for _ in range(2))
        self.rows = nn.Sequential(nn.Linear(n_rows, n_rows), nn.ReLU(), nn.Dropout(dropout))
        self.channels = nn.Sequential(
            nn.Linear(n_channels, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, n_channels),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channel, row) to the same."""
        x = x + self.rows(self.norms[0](x.flatten(1)).view(x.shape))
        by_row = self.norms[1](x.flatten(1)).view(x.shape).transpose(1, 2)  # (batch, row, channel)
        return x + self.channels(by_row).transpose(1, 2)  # type: ignore[no-any-return]
