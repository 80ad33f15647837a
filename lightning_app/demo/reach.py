"""A small world for policies: a hand goes around a post to a goal, by its left or by its right."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_app.rollout.environment import Environment, Episode, Observation, Outcome
from zstore import Receipt, ingest

SIDE = 100.0  # of the table
_PIXELS = 32
_POST, _RADIUS = np.array([50.0, 50.0]), 15.0
_REACH = 4.0  # of a step
_NEAR = 4.0  # of the goal, and all is done

Float64 = NDArray[np.float64]


class Reach(Environment):
    """A hand, a post in the middle of the table, and a goal behind it.

    Observations are `state` (hand x, y; goal x, y) and `image` (32, 32, 3); an action is the place that the hand goes
    towards, four units a step; the post stops it. The reward is 1 at the goal, and less the farther away it is.
    """

    n_actions = 2
    rate_hz = 10.0

    def open(self, names: Collection[str]) -> Episode:
        """Make one."""
        return World("image" in names)

    def picture(self, scene: Any) -> NDArray[np.uint8]:
        """(32, 32, 3): the post is grey, the goal green, the hand blue."""
        hand, goal = scene
        places = (np.mgrid[:_PIXELS, :_PIXELS] + 0.5) * SIDE / _PIXELS  # y, x
        found = np.full((_PIXELS, _PIXELS, 3), 255, np.uint8)
        for (x, y), radius, colour in ((_POST, _RADIUS, (128,) * 3), (goal, 6, (60, 180, 75)), (hand, 5, (0, 90, 200))):
            found[np.hypot(places[1] - x, places[0] - y) < radius] = colour
        return found


class World(Episode):
    """One table.

    Parameters
    ----------
    with_image
        Whether observations have an image.
    """

    def __init__(self, with_image: bool) -> None:
        self._with_image = with_image

    def reset(self, seed: int) -> Observation:
        """Put the hand near one side, and the goal near the other."""
        random = np.random.default_rng(seed)
        self.hand = np.array([random.uniform(35, 65), random.uniform(5, 15)])
        self.goal = np.array([random.uniform(35, 65), random.uniform(85, 95)])
        return self._observation()

    def act(self, action: Float64) -> Outcome:
        """Move, unless the post is in the way."""
        step = np.asarray(action, np.float64) - self.hand
        length = float(np.hypot(*step))
        moved = np.clip(self.hand + step * min(1.0, _REACH / max(length, 1e-9)), 0, SIDE)
        if np.hypot(*(moved - _POST)) > _RADIUS:
            self.hand = moved
        apart = float(np.hypot(*(self.goal - self.hand)))
        done = apart < _NEAR
        return Outcome(self._observation(), 1.0 if done else max(0.0, 1 - apart / SIDE), done)

    def scene(self) -> tuple[Float64, Float64]:
        """Where hand and goal are."""
        return self.hand, self.goal

    def _observation(self) -> Observation:
        seen: dict[str, Any] = {"state": np.concatenate([self.hand, self.goal])}
        return {**seen, "image": Reach().picture(self.scene())} if self._with_image else seen


def demonstrate(world: World, seed: int) -> dict[str, NDArray[Any]]:
    """A demonstration: around the post by a side that chance decides, then to the goal.

    Returns
    -------
    By name, `state` (step, 4), `action` (step, 2) and `image` (step, 32, 32, 3) of an episode that reached the goal.
    """
    random = np.random.default_rng([seed, 1])
    seen, side = world.reset(seed), random.choice([-1.0, 1.0])
    corners = [_POST + side * np.array([27.0, 0.0]) + np.array([0.0, -8.0]), _POST + side * np.array([25.0, 0.0])]
    rows: dict[str, list[Any]] = {"state": [], "action": [], "image": []}
    done = False
    while not done:
        while corners and np.hypot(*(corners[0] - world.hand)) < 6:
            corners.pop(0)
        towards = corners[0] if corners else world.goal
        step = towards - world.hand
        action = (world.hand + step * min(1.0, 12 / np.hypot(*step)) + random.normal(0, 0.5, 2)).round(1)
        for name, value in (("state", seen["state"]), ("action", action), ("image", seen["image"])):
            rows[name].append(value)
        outcome = world.act(action)
        seen, done = outcome.observation, outcome.done
    return {name: np.stack(values) for name, values in rows.items()}


def write_store(folder: Path, n_episodes: int, name: str = "reach.zarr") -> Receipt:
    """Play demonstrations and store them: `state`, `action` and the field `image`, a series for each episode."""
    import pyarrow as pa

    world = World(with_image=True)
    played = [demonstrate(world, seed) for seed in range(n_episodes)]
    lengths = [len(each["action"]) for each in played]
    np.save(folder / "frames.npy", np.concatenate([each["image"] for each in played]))

    def vector(channel: str) -> pa.Array:
        values = np.concatenate([each[channel] for each in played])
        return pa.FixedSizeListArray.from_arrays(values.ravel(), values.shape[1])

    table = pa.table(
        {
            "episode": np.repeat([f"{number:04d}" for number in range(n_episodes)], lengths),
            "step": np.concatenate([np.arange(length) for length in lengths]),
            "state": vector("state"),
            "action": vector("action"),
            "frames": ["frames.npy"] * sum(lengths),
            "frame": np.arange(sum(lengths)),
        }
    )
    return ingest(
        table,
        folder / name,
        id="episode",
        time="step",
        channels=["state", "action"],
        file={"image": "frames"},
        file_position={"image": "frame"},
        file_root=folder,
    )
