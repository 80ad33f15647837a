"""A loss, metric or forecast that is not finite ends a run: what comes after it, or is chosen by it, means nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from zstore import NotFiniteError

_NEVER = 2**62
_CALMER = "a smaller learning rate, --trainer.gradient_clip_val 1, or another --data.scaler"


class LossWatch:
    """Remembers the first step whose loss was not finite, without waiting for a GPU.

    Attributes
    ----------
    first
        () int64 number of that step, on the device of the loss; a large number while there is none.
    """

    def __init__(self) -> None:
        self.first: Tensor | None = None

    def see(self, loss: Tensor, step: int) -> None:
        """Look at the loss of a step."""
        number = torch.where(loss.detach().isfinite(), _NEVER, step)
        self.first = number if self.first is None else torch.minimum(self.first.to(number.device), number)

    def step(self, gather: Any = None) -> int | None:
        """The first step of any process whose loss was not finite; None if there is none.

        Parameters
        ----------
        gather
            Lightning's `all_gather`, where there are several processes; all of them must ask then.
        """
        if self.first is None:
            return None
        first = int((self.first if gather is None else gather(self.first)).min())
        return None if first == _NEVER else first


def not_finite(
    what: str, infinite: Sequence[str], where: str, fix: str = _CALMER, fields: Sequence[str] = ()
) -> NotFiniteError:
    """The error of a loss, a metric or a forecast.

    Parameters
    ----------
    what
        Which, of which step, and its value.
    infinite
        Channels in use that have infinite values somewhere in the store.
    where
        The store.
    fix
        What to do where no channel has infinite values. Default: train more gently.
    fields
        Of floats that are in use, whose values models read as they are, missing ones (NaN) too.
    """
    if infinite:
        names = ", ".join(map(repr, infinite))
        return NotFiniteError(
            what,
            expected="a finite number, for which inputs and targets must be finite",
            where=f"infinite values in channel {names} of {where}",
            fix="correct the source, or ingest it with those values as missing; or leave the channel out with "
            "--data.channels and --data.targets",
        )
    if fields:
        fix = f"{fix}; or fill what is NaN or infinite in {', '.join(map(repr, fields))}, which is read as it is stored"
    return NotFiniteError(what, expected="a finite number", where=where, fix=fix)
