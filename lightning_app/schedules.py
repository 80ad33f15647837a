"""Learning-rate schedules that configurations name."""

from __future__ import annotations

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class HoldThenDecay(LRScheduler):
    """Hold the rate for some epochs, then multiply it by a factor at each further one.

    Parameters
    ----------
    optimizer
        Whose rate it is.
    hold
        Epochs at the full rate.
    factor
        What each later epoch multiplies by.
    """

    def __init__(self, optimizer: Optimizer, hold: int = 2, factor: float = 0.5) -> None:
        self.hold, self.factor = hold, factor
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """The rate of each parameter group in the current epoch."""
        power = max(0, self.last_epoch - self.hold + 1)
        return [rate * self.factor**power for rate in self.base_lrs]
