r"""ChannelMLP: the past of each target through a few layers to its horizon, with a linear map beside them.

.. math::
    h_0 = \tilde x, \qquad h_{i+1} = \mathrm{ReLU}(W_i h_i + b_i), \qquad \tilde y = C h_n + D \tilde x + c

for each target by itself, with the same weights for all; :math:`\tilde x` is its past, normalised by window. So one
model learns from many series of different levels. Of logarithms that are centred, a window that is multiplied by a
factor has its forecast multiplied by it.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lightning_app.batch import Batch, BatchShape
from lightning_app.models.channels import ChannelModel
from lightning_app.models.mlp import perceptron
from lightning_app.models.revin import RevINKind
from lightning_app.models.states import refuse_known
from zstore import UsageError


class ChannelMLP(ChannelModel):
    """A multilayer perceptron from the past of a target to its horizon, shared by all targets.

    Parameters
    ----------
    shape
        Lengths and widths of the batches; linked from the data by the command line.
    hidden
        Width of each hidden layer.
    layers
        Hidden layers, 1 or more.
    dropout
        Share of each hidden layer dropped while training.
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
        dropout: float = 0.0,
        revin: RevINKind = "centred",
        **options: Any,
    ) -> None:
        super().__init__(shape, revin, **options)
        refuse_known(shape, "ChannelMLP")
        if layers < 1:
            raise UsageError(f"layers {layers}", expected="1 or more", fix="correct --model.layers")
        self.perceptron = perceptron(shape.lookback, hidden, layers, self.n_ahead, dropout)
        self.linear = nn.Linear(shape.lookback, self.n_ahead, bias=False)

    def forward(self, batch: Batch) -> Tensor:
        """(batch, horizon, output)."""
        past, level = self.pasts(batch)  # (batch, target, lookback)
        return self.restored(self.perceptron(past) + self.linear(past), level)
