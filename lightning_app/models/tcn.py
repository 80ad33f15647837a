r"""TCN: dilated causal convolutions in residual blocks.

A block adds to its input two convolutions of k rows, d apart, each followed by ReLU and dropout; d doubles from
block to block, so that n blocks see :math:`1 + 2 (k - 1) (2^n - 1)` rows.
Bai, Kolter & Koltun 2018, "An empirical evaluation of generic convolutional and recurrent networks for sequence
modeling".
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from lightning_app.batch import Batch, BatchShape
from lightning_app.models.states import StateModel, beside, refuse_known
from zstore import UsageError


class TCN(StateModel):
    """A temporal convolutional network over the lookback.

    Parameters
    ----------
    shape
        Lengths and widths of the batches; linked from the data by the command line.
    hidden
        Channels of each block.
    kernel
        Rows of a convolution.
    blocks
        How many. Default: as many as it takes to see the whole lookback.
    dropout
        Share of channels dropped in blocks and before the head while training.
    options
        See `TaskModel`.
    """

    def __init__(
        self,
        shape: BatchShape,
        hidden: int = 64,
        kernel: int = 3,
        blocks: int | None = None,
        dropout: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(shape, hidden, dropout, **options)
        refuse_known(shape, "TCN")
        if kernel < 2:
            raise UsageError(f"kernel {kernel}", expected="2 rows or more", fix="correct --model.kernel")
        n_blocks = 1
        while blocks is None and 1 + 2 * (kernel - 1) * (2**n_blocks - 1) < shape.lookback:
            n_blocks += 1
        n_blocks = blocks or n_blocks
        widths = [shape.n_inputs + shape.n_static] + [hidden] * n_blocks
        self.blocks = nn.Sequential(*(_Block(widths[n], widths[n + 1], kernel, 2**n, dropout) for n in range(n_blocks)))

    def forward(self, batch: Batch) -> Tensor:
        """(batch, horizon, target)."""
        steps = beside(batch["x"], batch["x_static"]).transpose(1, 2)  # (batch, channel, lookback)
        states: Tensor = self.blocks(steps)
        return self.read(states.transpose(1, 2))


class _Block(nn.Module):
    def __init__(self, n_in: int, n_out: int, kernel: int, dilation: int, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in (n_in, n_out):
            layers += [
                nn.ConstantPad1d(((kernel - 1) * dilation, 0), 0.0),  # only rows before: causal
                weight_norm(nn.Conv1d(width, n_out, kernel, dilation=dilation)),
                nn.ReLU(),
                nn.Dropout(dropout),
            ]
        self.layers = nn.Sequential(*layers)
        self.skip = nn.Conv1d(n_in, n_out, 1) if n_in != n_out else nn.Identity()

    def forward(self, steps: Tensor) -> Tensor:
        """(batch, channel, row)."""
        out: Tensor = (self.layers(steps) + self.skip(steps)).relu()
        return out
