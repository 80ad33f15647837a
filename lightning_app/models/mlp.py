r"""MLP: all inputs at once, through a few layers, to the whole horizon.

.. math::
    h_0 = [x_1, \dots, x_T, f_1, \dots, f_H, s], \qquad
    h_{i+1} = \mathrm{ReLU}(W_i h_i + b_i), \qquad
    \hat y = C h_n

x are the input rows, f the channels known in advance and s the static attributes.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from lightning_app.batch import Batch, BatchShape
from lightning_app.models.base import TaskModel


class MLP(TaskModel):
    """A multilayer perceptron over the whole window.

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
    options
        See `TaskModel`.
    """

    def __init__(
        self, shape: BatchShape, hidden: int = 256, layers: int = 3, dropout: float = 0.0, **options: Any
    ) -> None:
        super().__init__(shape, **options)
        width = shape.lookback * shape.n_inputs + shape.horizon * shape.n_future + shape.n_static
        self.perceptron = perceptron(width, hidden, layers, shape.horizon * self.n_outputs, dropout)

    def forward(self, batch: Batch) -> Tensor:
        """(batch, horizon, output)."""
        parts = batch["x"].flatten(1), batch["x_future"].flatten(1), batch["x_static"]
        out: Tensor = self.perceptron(torch.cat(parts, dim=1))
        return out.view(-1, self.shape.horizon, self.n_outputs)


def perceptron(n_inputs: int, hidden: int, layers: int, n_outputs: int, dropout: float = 0.0) -> nn.Sequential:
    """Hidden layers, each with a rectifier and dropout, and a linear layer."""
    widths = [n_inputs, *[hidden] * layers]
    parts: list[nn.Module] = []
    for before, behind in pairwise(widths):
        parts += [nn.Linear(before, behind), nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])]
    return nn.Sequential(*parts, nn.Linear(widths[-1], n_outputs))
