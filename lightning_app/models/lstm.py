r"""LSTM: one recurrent state reads the lookback, then the horizon.

At input rows it reads the channels and the static attributes; at target rows, if any channel is known in
advance, those and the static attributes again, with the same state:

.. math::
    h_t = \mathrm{LSTM}(A [x_t, s], h_{t-1}), \qquad
    h_{T+j} = \mathrm{LSTM}(B [f_{T+j}, s], h_{T+j-1}), \qquad
    \hat y_{T+j} = C h_{T+j}

Without such channels the last state gives the whole horizon at once, ``y = C h_T``; where targets are the last input
rows, each state gives its own, ``y_t = C h_t``.

The input layers ``A`` and ``B`` bring input rows and target rows, which have different columns, to one width. Most
other packages feed columns to the gates as they are: with one channel and ``hidden=64`` that is 17,152 weights and
biases in place of 33,408. Compare sizes with care; ``input_layer=False`` builds what they build.
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
from zstore import UsageError


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
    input_layer
        Whether a linear layer of width `hidden` lies between columns and gates. True: what checkpoints written before
        this option have. False: the gates read columns as they are, as in most other packages; only without channels
        known in advance.
    options
        See `TaskModel`.

    Raises
    ------
    UsageError
        If `input_layer` is False and channels are known in advance: target rows have other columns than input rows.
    """

    def __init__(
        self, shape: BatchShape, hidden: int = 64, dropout: float = 0.0, input_layer: bool = True, **options: Any
    ) -> None:
        super().__init__(shape, hidden, dropout, **options)
        if not input_layer and shape.n_future:
            raise UsageError(
                f"{type(self).__name__} with input_layer false and {shape.n_future} channels known in advance",
                expected="an input layer, which brings input rows and target rows to one width",
                fix="drop --model.init_args.input_layer, or drop --data.future and --data.time_features",
            )
        n_columns = shape.n_inputs + shape.n_static
        self.past = nn.Linear(n_columns, hidden) if input_layer else nn.Identity()
        self.ahead = nn.Linear(shape.n_future + shape.n_static, hidden) if shape.n_future else None
        self.recurrent = self._cell(hidden if input_layer else n_columns, hidden)

    def _cell(self, width: int, hidden: int) -> nn.LSTM | nn.GRU:
        cell = nn.LSTM(width, hidden, batch_first=True)
        open_forget_gate(cell)
        return cell

    def forward(self, batch: Batch) -> Tensor:
        """(batch, horizon, target)."""
        steps = self.past(beside(batch["x"], batch["x_static"]))  # (batch, lookback, hidden or column)
        if self.ahead is not None:
            steps = torch.cat([steps, self.ahead(beside(batch["x_future"], batch["x_static"]))], dim=1)
        states, _ = self.recurrent(steps)  # (batch, lookback [+ horizon], hidden)
        return self.read(states)
