"""Episodes of a policy, all of them beside each other: one batch asks for the chunks of all that go on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_app.data.batches.live import LiveWindows
from lightning_app.models.base import TaskModel
from lightning_app.rollout.environment import Environment
from lightning_app.rollout.mistakes import own_code, require_outcome
from lightning_app.rollout.options import Rollout
from lightning_app.tasks import Policy

Float64 = NDArray[np.float64]


@dataclass
class Played:
    """What happened in an episode.

    Parameters
    ----------
    seed
        Of the environment.
    actions
        What was done, each (target,) in source units.
    rewards
        What came of it.
    scenes
        What was the case at its beginning and after each action, to be drawn.
    done
        Whether it was over before its last step.
    """

    seed: int
    actions: list[Float64] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    scenes: list[Any] = field(default_factory=list)
    done: bool = False

    @property
    def best(self) -> float:
        """The maximal reward."""
        return max(self.rewards)


class Plan:
    """The chunks of one episode, and what they say of each step.

    Parameters
    ----------
    skipped
        Actions of a chunk that lie before the step it was asked for at.
    ensemble
        See :class:`Rollout`.
    """

    def __init__(self, skipped: int, ensemble: float | None) -> None:
        self._skipped, self._ensemble = skipped, ensemble
        self._chunks: list[tuple[int, Float64]] = []  # asked for at a step, and (action, target) from there on

    def add(self, step: int, chunk: Float64) -> None:
        """Take a chunk, (horizon, target), that was asked for at a step."""
        own = chunk[self._skipped :]
        kept = self._chunks if self._ensemble is not None else []
        self._chunks = [(at, actions) for at, actions in kept if at + len(actions) > step] + [(step, own)]

    def action(self, step: int) -> Float64:
        """(target,) what is to be done at a step."""
        meant = np.stack([actions[step - at] for at, actions in self._chunks if step - at < len(actions)])
        weights = np.exp(-(self._ensemble or 0.0) * np.arange(len(meant)))  # of one chunk without ensembling
        mean: Float64 = weights @ meant / weights.sum()
        return mean


def play(model: TaskModel, windows: LiveWindows, environment: Environment, options: Rollout) -> list[Played]:
    """Play episodes with the seeds that follow `first_seed`.

    Parameters
    ----------
    model
        With a task `Policy`, on its device.
    windows
        Room for as many episodes.
    environment
        What it acts in.
    options
        How many episodes, and how.

    Returns
    -------
    In the order of seeds. The modes of an episode are drawn by its own seed, whatever happens in the others.
    """
    assert isinstance(model.task, Policy)
    found = [Played(options.first_seed + number) for number in range(options.episodes)]
    with own_code(environment, "open"):
        episodes = [environment.open(windows.needed) for _ in found]
    draws = [np.random.default_rng(each.seed) for each in found]
    plans = [Plan(-1 - model.shape.delay, options.ensemble) for _ in found]
    windows.restart()
    for number, episode in enumerate(episodes):
        with own_code(environment, "reset"):
            observation, scene = episode.reset(found[number].seed), episode.scene()
        windows.add(number, observation)
        found[number].scenes.append(scene)
    going = list(range(len(found)))
    for step in range(options.steps):
        if step % options.asks_every == 0:
            drawn = np.array([draws[number].random() for number in going]) if options.mode == "drawn" else None
            for number, chunk in zip(going, chunks(model, windows, going, drawn), strict=True):
                plans[number].add(step, chunk)
        for number in going:
            action = plans[number].action(step)
            with own_code(environment, "act"):
                outcome, scene = episodes[number].act(action), episodes[number].scene()
            require_outcome(outcome, environment)
            found[number].actions.append(action)
            found[number].rewards.append(float(outcome.reward))
            found[number].scenes.append(scene)
            found[number].done = bool(outcome.done)
            windows.add(number, outcome.observation)
        going = [number for number in going if not found[number].done]
        if not going:
            break
    return found


@torch.inference_mode()
def chunks(model: TaskModel, windows: LiveWindows, episodes: list[int], draws: Float64 | None) -> Float64:
    """(episode, horizon, target) what the policy would do now in some episodes, in source units."""
    assert isinstance(model.task, Policy)
    outputs, batch = model.outputs(windows.batch(episodes))
    drawn = None if draws is None else torch.from_numpy(draws).to(outputs.device)
    chosen: Float64 = model.task.chunks(outputs, batch, model, drawn).cpu().numpy()
    return chosen
