"""What models with a state for each row share: which states targets are read from, and the linear head that does."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_app.batch import BatchShape
from lightning_app.models.base import TaskModel
from zstore import UsageError


class StateModel(TaskModel):
    """A state for each row and a linear head.

    Where channels are known in advance, states go on over the target rows, and each is read there. Where targets are
    among the last input rows, up to the last one (``delay`` of ``-horizon``), each is read from the state of its own
    row: many to many. Else the last state gives the whole horizon: many to one.

    Parameters
    ----------
    shape
        Lengths and widths of the batches.
    width
        Of a state.
    dropout
        Share of the state dropped before the head while training.
    options
        See `TaskModel`.
    """

    def __init__(self, shape: BatchShape, width: int, dropout: float = 0.0, **options: Any) -> None:
        super().__init__(shape, **options)
        if shape.n_future and shape.delay != 0:
            raise UsageError(
                f"{type(self).__name__} with known channels and delay {shape.delay}",
                expected="delay 0, so that the horizon follows the lookback",
                fix="--data.delay 0, or drop --data.future and --data.time_features",
            )
        self.each = shape.n_future > 0 or shape.delay == -shape.target_span
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, self.n_outputs * (1 if self.each else shape.horizon))

    def read(self, states: Tensor) -> Tensor:
        """(batch, step, width) to (batch, horizon, output)."""
        return self.read_used(self.used(states))

    def used(self, states: Tensor) -> Tensor:
        """Of (batch, step, width) the states that targets are read from: (batch, horizon, width), or (batch, 1, width).

        There is a state for each target where channels are known in advance, and none for the rows between targets.
        """
        if not self.each:
            return states[:, -1:]
        if self.shape.n_future:
            return states[:, -self.shape.horizon :]
        return states[:, -self.shape.target_span :: self.shape.target_stride]

    def read_used(self, used: Tensor) -> Tensor:
        """What :meth:`used` gives, and maybe more beside it, to (batch, horizon, output)."""
        out: Tensor = self.head(self.dropout(used))
        return out.reshape(-1, self.shape.horizon, self.n_outputs)


def beside(steps: Tensor, statics: Tensor) -> Tensor:
    """(batch, step, channel) and (batch, attribute) to (batch, step, channel + attribute)."""
    return torch.cat([steps, statics[:, None].expand(-1, steps.shape[1], -1)], dim=-1)


def open_forget_gate(recurrent: nn.LSTM) -> None:
    """Let an LSTM remember long inputs from the first step on (Gers, Schmidhuber & Cummins 2000)."""
    bias, hidden = recurrent.get_parameter("bias_ih_l0"), recurrent.hidden_size
    nn.init.constant_(bias[hidden : 2 * hidden], 3.0)


def refuse_known(shape: BatchShape, model: str) -> None:
    """Refuse channels known in advance, for models that have no use for them."""
    if shape.n_future:
        raise UsageError(
            f"{model} with channels known in advance",
            expected="none",
            fix="drop --data.future and --data.time_features, or take a model that reads them, such as LSTM",
        )
