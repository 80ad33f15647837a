"""What a rollout is: which environment, how often, how long, and how chunks are executed."""

from __future__ import annotations

import math
from typing import Any, Literal

from lightning_app.rollout.environment import Environment
from zstore import UsageError


class Rollout:
    """How policies are tried.

    Parameters
    ----------
    environment
        What the policy acts in: `PushT`, or a class of your own. Default: none; a rollout needs one.
    episodes
        How many.
    first_seed
        Of the environment in the first episode; the others follow it.
    steps
        Actions of an episode, unless it is over before.
    execute
        Actions of a chunk that are done before the next one is asked for.
    ensemble
        Decay of temporal ensembling: a chunk is asked for at each step, and what is done is the mean of all actions
        that were ever meant for the step, weighted by exp(−ensemble · i), i = 0 for the oldest. Zhao et al. 2023 have
        0.01. Default: none.
    mode
        Of a mixture over chunks, the ``likeliest`` one, or one that is ``drawn`` by weight, by a seed of each episode.
    like
        Id of a series of the store, whose static attributes episodes have, such as an instruction. Default: none; but
        one is needed if the model reads any.
    pictures
        Whether the best and the worst episode are drawn as GIFs.
    """

    def __init__(
        self,
        environment: Environment | None = None,
        episodes: int = 50,
        first_seed: int = 100_000,
        steps: int = 300,
        execute: int = 8,
        ensemble: float | None = None,
        mode: Literal["likeliest", "drawn"] = "likeliest",
        like: str | None = None,
        pictures: bool = True,
    ) -> None:
        for name, value in (("episodes", episodes), ("steps", steps), ("execute", execute)):
            if value < 1:
                raise UsageError(f"a rollout of {name} {value}", expected="1 or more", fix=f"--acting.{name}")
        if first_seed < 0:
            raise UsageError(f"first seed {first_seed}", expected="0 or more", fix="--acting.first_seed")
        if ensemble is not None and not 0 <= ensemble < math.inf:
            raise UsageError(f"ensemble {ensemble}", expected="0 or more", fix="--acting.ensemble")
        self.environment, self.episodes, self.first_seed = environment, episodes, first_seed
        self.steps, self.execute, self.ensemble = steps, execute, ensemble
        self.mode, self.like, self.pictures = mode, like, pictures

    @property
    def asks_every(self) -> int:
        """Steps from one chunk to the next."""
        return self.execute if self.ensemble is None else 1

    def to_json(self) -> dict[str, Any]:
        """Plain values for a report."""
        return {name: value for name, value in vars(self).items() if name != "environment"}
