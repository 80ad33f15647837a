r"""BranchLSTM: an LSTM over the series beside a multilayer perceptron over the static attributes, joined into a head.

.. math::
    h_t = \mathrm{LSTM}(x_t, h_{t-1}), \qquad
    m = \mathrm{ReLU}(M_2 \mathrm{ReLU}(M_1 s)), \qquad
    \hat y = C [h, m]
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from lightning_app.batch import Batch, BatchShape
from lightning_app.models.states import StateModel, beside, open_forget_gate
from zstore import UsageError


class BranchLSTM(StateModel):
    """A branch that remembers the series and a branch that knows the place.

    Parameters
    ----------
    shape
        Lengths and widths of the batches; linked from the data by the command line.
    hidden
        Width of the state of the LSTM.
    branch
        Widths of the layers over the static attributes.
    dropout
        Share of both branches dropped before the head while training.
    options
        See `TaskModel`.
    """

    def __init__(
        self,
        shape: BatchShape,
        hidden: int = 64,
        branch: tuple[int, ...] = (32, 32),
        dropout: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(shape, hidden + (branch[-1] if branch else shape.n_static), dropout, **options)
        if not shape.n_static:
            raise UsageError(
                "BranchLSTM without static attributes", expected="some", fix="--data.statics, or take the model LSTM"
            )
        self.past = nn.Linear(shape.n_inputs, hidden)
        self.ahead = nn.Linear(shape.n_future, hidden) if shape.n_future else None
        self.recurrent = nn.LSTM(hidden, hidden, batch_first=True)
        open_forget_gate(self.recurrent)
        widths = [shape.n_static, *branch]
        layers = [(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(widths)]
        self.branch = nn.Sequential(*(part for layer in layers for part in layer))

    def forward(self, batch: Batch) -> Tensor:
        """(batch, horizon, target)."""
        steps = self.past(batch["x"])  # (batch, lookback, hidden)
        if self.ahead is not None:
            steps = torch.cat([steps, self.ahead(batch["x_future"])], dim=1)
        states, _ = self.recurrent(steps)  # (batch, lookback [+ horizon], hidden)
        return self.read_used(beside(self.used(states), self.branch(batch["x_static"])))
