r"""LSTM: one recurrent state reads the lookback, then the horizon.

At input rows it reads the channels and the static attributes; at target rows, if any channel is known in
advance, those and the static attributes again, with the same state:

.. math::
    h_t = \mathrm{LSTM}(A [x_t, s], h_{t-1}), \qquad
    h_{T+j} = \mathrm{LSTM}(B [f_{T+j}, s], h_{T+j-1}), \qquad
    \hat y_{T+j} = C h_{T+j}

Without such channels the last state gives the whole horizon at once, ``y = C h_T``.
Hochreiter & Schmidhuber 1997, "Long Short-Term Memory"; static attributes beside every step as in Kratzert
et al. 2019, "Towards learning universal, regional, and local hydrological behaviors via machine learning
applied to large-sample datasets", HESS 23.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from lightning_app.batch import Batch, BatchShape
from lightning_app.models.base import ForecastModel
from zstore import UsageError


class LSTM(ForecastModel):
    """A long short-term memory over the lookback and, with known channels, over the horizon.

    Parameters
    ----------
    shape
        Lengths and widths of the batches; linked from the data by the command line.
    hidden
        Width of the state.
    dropout
        Share of the state dropped before the head while training.
    units
        Units of the metrics: ``scaled`` or ``source``.
    """

    def __init__(
        self,
        shape: BatchShape,
        hidden: int = 64,
        dropout: float = 0.0,
        units: Literal["scaled", "source"] = "scaled",
    ) -> None:
        super().__init__(shape, units)
        if shape.n_future and shape.delay != 0:
            raise UsageError(
                f"LSTM with known channels and delay {shape.delay}",
                expected="delay 0, so that the horizon follows the lookback",
                fix="--data.delay 0, or drop --data.future",
            )
        self.past = nn.Linear(shape.n_inputs + shape.n_static, hidden)
        self.ahead = nn.Linear(shape.n_future + shape.n_static, hidden) if shape.n_future else None
        self.recurrent = nn.LSTM(hidden, hidden, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, shape.n_targets * (1 if shape.n_future else shape.horizon))
        # A forget gate that starts open remembers long inputs from the first step on.
        bias: Tensor = self.recurrent.get_parameter("bias_ih_l0")
        nn.init.constant_(bias[hidden : 2 * hidden], 3.0)

    def forward(self, batch: Batch) -> Tensor:
        """(batch, horizon, target)."""
        steps = self.past(_beside(batch["x"], batch["x_static"]))  # (batch, lookback, hidden)
        if self.ahead is not None:
            steps = torch.cat([steps, self.ahead(_beside(batch["x_future"], batch["x_static"]))], dim=1)
        states, _ = self.recurrent(steps)  # (batch, lookback [+ horizon], hidden)
        used = states[:, -self.shape.horizon :] if self.ahead is not None else states[:, -1]
        out: Tensor = self.head(self.dropout(used))
        return out.reshape(-1, self.shape.horizon, self.shape.n_targets)


def _beside(steps: Tensor, statics: Tensor) -> Tensor:
    """(batch, step, channel) and (batch, attribute) to (batch, step, channel + attribute)."""
    return torch.cat([steps, statics[:, None].expand(-1, steps.shape[1], -1)], dim=-1)
