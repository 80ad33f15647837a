r"""GRU: as the LSTM here, with gated recurrent units.

.. math::
    z_t = \sigma(W_z x_t + U_z h_{t-1}), \quad
    r_t = \sigma(W_r x_t + U_r h_{t-1}), \quad
    h_t = z_t h_{t-1} + (1 - z_t) \tanh(W x_t + r_t (U h_{t-1}))

Cho et al. 2014, "Learning phrase representations using RNN encoder-decoder for statistical machine translation".
"""

from __future__ import annotations

from torch import nn

from lightning_app.models.lstm import LSTM


class GRU(LSTM):
    """Gated recurrent units over the lookback and, with known channels, over the horizon."""

    def _cell(self, width: int, hidden: int) -> nn.LSTM | nn.GRU:
        return nn.GRU(width, hidden, batch_first=True)
