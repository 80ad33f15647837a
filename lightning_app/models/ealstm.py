r"""EA-LSTM: static attributes alone open the input gate; channels and state do the rest.

.. math::
    i &= \sigma(W_i s + b_i) \\
    f_t, o_t &= \sigma(W x_t + U h_{t-1} + b), \qquad g_t = \tanh(W_g x_t + U_g h_{t-1} + b_g) \\
    c_t &= f_t c_{t-1} + i g_t, \qquad h_t = o_t \tanh c_t

Kratzert et al. 2019, "Towards learning universal, regional, and local hydrological behaviors via machine learning
applied to large-sample datasets", HESS 23, eqs. 6-11.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_app.batch import Batch, BatchShape
from lightning_app.models.states import StateModel, beside, refuse_known
from zstore import UsageError


class EALSTM(StateModel):
    """An entity-aware long short-term memory over the lookback.

    It is computed as an ordinary LSTM that reads ``[x, s]`` and whose weights are 0 wherever the equations have none,
    so that it runs at the speed of one.

    Parameters
    ----------
    shape
        Lengths and widths of the batches; linked from the data by the command line.
    hidden
        Width of the state.
    dropout
        Share of the state dropped before the head while training.
    options
        See `TaskModel`.
    """

    def __init__(self, shape: BatchShape, hidden: int = 64, dropout: float = 0.0, **options: Any) -> None:
        super().__init__(shape, hidden, dropout, **options)
        refuse_known(shape, "EALSTM")
        if not shape.n_static:
            raise UsageError(
                "EALSTM without static attributes", expected="some", fix="--data.statics, or take the model LSTM"
            )
        self.gate = nn.Linear(shape.n_static, hidden)  # W_i, b_i
        self.inputs = nn.Linear(shape.n_inputs, 3 * hidden)  # W, b of f, g, o
        self.state = nn.Linear(hidden, 3 * hidden, bias=False)  # U of f, g, o
        with torch.no_grad():  # as orthogonal and as open as in the paper
            for part in self.state.weight.chunk(3):
                nn.init.eye_(part)
            nn.init.constant_(self.inputs.bias[:hidden], 3.0)

    def forward(self, batch: Batch) -> Tensor:
        """(batch, horizon, target)."""
        shape, hidden = self.shape, self.gate.out_features
        gate, inputs = self.gate.weight, self.inputs.weight
        weight = torch.cat(
            [
                torch.cat([gate.new_zeros(hidden, shape.n_inputs), gate], dim=1),
                torch.cat([inputs, inputs.new_zeros(3 * hidden, shape.n_static)], dim=1),
            ]
        )  # (i f g o, channel + attribute)
        recurrent = torch.cat([self.state.weight.new_zeros(hidden, hidden), self.state.weight])
        bias = torch.cat([self.gate.bias, self.inputs.bias])
        steps = beside(batch["x"], batch["x_static"])
        start = steps.new_zeros(1, steps.shape[0], hidden)
        weights = [weight, recurrent, bias, torch.zeros_like(bias)]
        states, _, _ = torch.lstm(steps, (start, start), weights, True, 1, 0.0, self.training, False, True)  # type: ignore[call-overload, attr-defined, unused-ignore]
        return self.read(states)
