r"""LSTM: one recurrent state reads the lookback, then the horizon.

At input rows it reads the channels and the static attributes; at target rows, if any channel is known in
advance, those and the static attributes again, with the same state:

.. math::
    h_t = \mathrm{LSTM}(A [x_t, s], h_{t-1}), \qquad
    h_{T+j} = \mathrm{LSTM}(B [f_{T+j}, s], h_{T+j-1}), \qquad
    \hat y_{T+j} = C h_{T+j}

Without such channels the last state gives the whole horizon at once, ``y = C h_T``; where targets are the last input
rows, each state gives its own, ``y_t = C h_t``.
Hochreiter & Schmidhuber 1997, "Long Short-Term Memory"; static attributes beside every step as in Kratzert
et al. 2019, "Towards learning universal, regional, and local hydrological behaviors via machine learning
applied to large-sample datasets", HESS 23.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_app.batch import Batch, BatchShape
from lightning_app.models.states import StateModel, beside, open_forget_gate


class LSTM(StateModel):
    """A long short-term memory over the lookback and, with known channels, over the horizon.

    Parameters
    ----------
    shape
        Lengths and widths of the batches; linked from the data by the command line.
    hidden
        Width of the state.
    dropout
        Share of the state dropped before the head while training.
    options
        See `ForecastModel`.
    """

    def __init__(self, shape: BatchShape, hidden: int = 64, dropout: float = 0.0, **options: Any) -> None:
        super().__init__(shape, hidden, dropout, **options)
        self.past = nn.Linear(shape.n_inputs + shape.n_static, hidden)
        self.ahead = nn.Linear(shape.n_future + shape.n_static, hidden) if shape.n_future else None
        self.recurrent = self._cell(hidden)

    def _cell(self, hidden: int) -> nn.LSTM | nn.GRU:
        cell = nn.LSTM(hidden, hidden, batch_first=True)
        open_forget_gate(cell)
        return cell

    def forward(self, batch: Batch) -> Tensor:
        """(batch, horizon, target)."""
        steps = self.past(beside(batch["x"], batch["x_static"]))  # (batch, lookback, hidden)
        if self.ahead is not None:
            steps = torch.cat([steps, self.ahead(beside(batch["x_future"], batch["x_static"]))], dim=1)
        states, _ = self.recurrent(steps)  # (batch, lookback [+ horizon], hidden)
        return self.read(states)
