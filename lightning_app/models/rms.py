r"""RMSRegression: the logarithm of how strong each channel is in parts of the window, and one linear layer.

.. math::
    f_{pc} = \log\Bigl(\epsilon + \sqrt{\tfrac1n \textstyle\sum_{t \in p} x_{tc}^2}\Bigr), \qquad z = A f + b

over p equal parts of the lookback, of scaled inputs. With the task `Classification` that is multinomial logistic
regression; the weight decay of the optimizer is its penalty. Such features are usual for surface EMG: Hudgins, Parker &
Scott 1993, "A new strategy for multifunction myoelectric control"; Phinyomark, Phukpattaranont & Limsakul 2012,
"Feature reduction and selection for EMG signal classification". It is what a network has to beat.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_app.batch import Batch, BatchShape
from lightning_app.models.base import TaskModel
from lightning_app.models.states import refuse_known
from zstore import UsageError

_LEAST = 1e-3  # of a root mean square, of inputs with a standard deviation of 1


class RMSRegression(TaskModel):
    """A linear layer on log-RMS features of the lookback; features are fixed.

    Parameters
    ----------
    shape
        Lengths and widths of the batches; linked from the data by the command line.
    parts
        Equal parts of the lookback, with features of their own; rows that are left over at its beginning are not read.
    options
        See `TaskModel`.

    Raises
    ------
    UsageError
        If there are more parts than rows, or channels are known in advance.
    """

    def __init__(self, shape: BatchShape, parts: int = 4, **options: Any) -> None:
        super().__init__(shape, **options)
        refuse_known(shape, "RMSRegression")
        if not 1 <= parts <= shape.lookback:
            raise UsageError(
                f"{parts} parts of {shape.lookback} rows", expected="1 or more, of a row at least", fix="--model.parts"
            )
        self.parts = parts
        self.head = nn.Linear(parts * shape.n_inputs + shape.n_static, shape.horizon * self.n_outputs)

    def features(self, x: Tensor) -> Tensor:
        """(batch, lookback, channel) to (batch, part * channel)."""
        n_rows = x.shape[1] // self.parts
        whole = x[:, x.shape[1] - self.parts * n_rows :]
        parts = whole.reshape(x.shape[0], self.parts, n_rows, x.shape[2])  # (batch, part, row, channel)
        return (parts.square().mean(2).sqrt() + _LEAST).log().flatten(1)

    def forward(self, batch: Batch) -> Tensor:
        """(batch, horizon, output)."""
        out: Tensor = self.head(torch.cat([self.features(batch["x"]), batch["x_static"]], dim=1))
        return out.reshape(-1, self.shape.horizon, self.n_outputs)
