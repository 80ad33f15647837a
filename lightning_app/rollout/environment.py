"""What a policy acts in."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Observation = Mapping[str, Any]
"""By name as in the store, in its units: numbers of channels, arrays of vectors and of fields."""


@dataclass(frozen=True)
class Outcome:
    """What came of an action.

    Parameters
    ----------
    observation
        What is seen now.
    reward
        How good that is; 1 where the task is done.
    done
        Whether the episode is over.
    """

    observation: Observation
    reward: float
    done: bool


class Episode(Protocol):
    """One environment, in which episodes are played one after the other."""

    def reset(self, seed: int) -> Observation:
        """Begin an episode, which the seed alone decides, and say what is seen."""

    def act(self, action: NDArray[np.float64]) -> Outcome:
        """Do an action, (target,) in source units, in the order of the targets."""

    def scene(self) -> Any:
        """What `Environment.picture` needs to draw what is the case now: some numbers, for each step keeps one."""


class Environment:
    """A kind of environment, with its options; name one of your own in ``--acting.environment``.

    Attributes
    ----------
    n_actions
        Numbers of an action.
    rate_hz
        Actions a second, for pictures that move.
    """

    n_actions: int
    rate_hz: float

    def open(self, names: Collection[str]) -> Episode:
        """Make one that can be acted in.

        Parameters
        ----------
        names
            Channels and fields that are read of observations; others may be left out, such as images that nobody sees.

        Raises
        ------
        UsageError
            If what it needs is not installed.
        """
        raise NotImplementedError

    def picture(self, scene: Any) -> NDArray[np.uint8]:
        """(y, x, 3) colours of a scene of one of its episodes."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of what it holds; its episodes are over, and nobody has them any more."""

    def described(self) -> dict[str, Any]:
        """Name, options and version as plain values, for reports."""
        return {"name": type(self).__name__}
