"""Mistakes in an environment of one's own, told as errors that say where they are."""

from __future__ import annotations

import math
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning_app.rollout.environment import Environment, Outcome
from zstore import NotFiniteError, UsageError, ZstoreError

_FIX = "correct the environment; --debug shows the whole traceback"


@contextmanager
def own_code(environment: Environment, method: str) -> Iterator[None]:
    """Run a method of an environment or of its episodes.

    Raises
    ------
    UsageError
        If it raises anything but a ZstoreError: what was raised, and the last line of which file did so.
    """
    try:
        yield
    except ZstoreError:
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise UsageError(
            f"{type(error).__name__} ({error}) in {method} of {type(environment).__name__}",
            expected="a method that returns",
            where=f"{Path(last.filename).name} line {last.lineno}",
            fix=_FIX,
        ) from error


def require_outcome(outcome: Any, environment: Environment) -> None:
    """Check what an episode says of an action.

    Raises
    ------
    UsageError
        If it is no `Outcome`, or its reward no number.
    NotFiniteError
        If the reward is NaN or infinite: no mean over episodes would be left.
    """
    name = type(environment).__name__
    if not isinstance(outcome, Outcome):
        raise UsageError(
            f"act of {name} that returns {type(outcome).__name__}",
            expected="lightning_app.rollout.environment.Outcome(observation, reward, done)",
            fix="correct the environment",
        )
    try:
        reward = float(outcome.reward)
    except (TypeError, ValueError):
        raise UsageError(
            f"a reward of {name} that is {type(outcome.reward).__name__}",
            expected="a number",
            fix="correct the environment",
        ) from None
    if not math.isfinite(reward):
        raise NotFiniteError(
            f"a reward of {name} of {reward}", expected="a finite number", fix="correct the environment"
        )
