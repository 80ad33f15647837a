"""Push-T: a round hand pushes a T on a table until it covers its goal.

Florence et al. 2021, "Implicit behavioral cloning"; demonstrations, and the state that they have, by Chi et al. 2023,
"Diffusion policy: visuomotor policy learning via action diffusion". The simulator is gym_pusht.
"""

from __future__ import annotations

import gc
import importlib
import os
import warnings
from collections.abc import Collection
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_app.rollout.environment import Environment, Episode, Observation, Outcome
from zstore import UsageError

_TURN = 2 * np.pi
_PICTURE_PIXELS = 256
_KEYPOINTS = np.array(  # of the T, from its own origin and at angle 0: those of the demonstrations
    [
        [9.27, 90.041],
        [-60.983, -1.187],
        [60.913, -1.393],
        [-0.271, 25.544],
        [-14.065, 122.816],
        [39.003, 32.857],
        [-39.966, 32.73],
        [-16.824, 62.863],
        [23.541, -1.7],
    ]
)


def keypoints(pose: NDArray[np.float64]) -> NDArray[np.float64]:
    """(9, 2) places of nine points of a T, as in the demonstrations, to some hundredths of a pixel.

    Parameters
    ----------
    pose
        (3,) x, y and angle of the T.
    """
    cosine, sine = np.cos(pose[2]), np.sin(pose[2])
    turn = np.array([[cosine, -sine], [sine, cosine]])
    found: NDArray[np.float64] = pose[:2] + _KEYPOINTS @ turn.T
    return found


class PushT(Environment):
    """Push-T: observations `state` (5), `keypoint` (18), `image` (96, 96, 3) and `n_contacts`; actions are x and y.

    The state is x and y of the hand, x and y of the T, and its angle from 0 to 2 pi; lengths are those of a table of
    512 by 512. The reward is the share of the goal that is covered, over 0.95, and at most 1.

    Parameters
    ----------
    names
        Other names that the store has for these: ``{image: camera}``.
    """

    n_actions = 2
    rate_hz = 10.0

    def __init__(self, names: dict[str, str] | None = None) -> None:
        self.names = names or {}
        self._drawing: Any = None

    def open(self, names: Collection[str]) -> Episode:
        """Make one; raises `UsageError` if gym_pusht is not installed."""
        image = self.names.get("image", "image") in names
        return _Table(_simulator("pixels" if image else "state"), image, self.names)

    def picture(self, scene: Any) -> NDArray[np.uint8]:
        """(256, 256, 3) as the simulator draws it."""
        if self._drawing is None:
            self._drawing = _simulator("pixels", _PICTURE_PIXELS)
            self._drawing.reset(seed=0)
        hand, place, angle = scene
        agent, block, space = self._drawing.agent, self._drawing.block, self._drawing.space
        agent.position = hand
        block.angle = angle  # before the place: it turns around the centre of mass
        block.position = place
        for body in (agent, block):
            space.reindex_shapes_for_body(body)
        drawn: NDArray[np.uint8] = self._drawing.get_obs()
        return drawn

    def close(self) -> None:
        """Free what draws, and all that was played: pymunk complains of what is left to the end of Python."""
        self._drawing = None
        gc.collect()

    def described(self) -> dict[str, Any]:
        """With the version of the simulator."""
        return {"name": "PushT", "gym_pusht": version("gym_pusht")}


class _Table(Episode):
    def __init__(self, simulator: Any, image: bool, names: dict[str, str]) -> None:
        self._simulator, self._image, self._names = simulator, image, names

    def reset(self, seed: int) -> Observation:
        seen, facts = self._simulator.reset(seed=seed)
        return self._observation(seen, facts)

    def act(self, action: NDArray[np.float64]) -> Outcome:
        seen, reward, done, _, facts = self._simulator.step(action)
        return Outcome(self._observation(seen, facts), float(reward), bool(done))

    def scene(self) -> Any:
        hand, block = self._simulator.agent.position, self._simulator.block
        return tuple(hand), tuple(block.position), float(block.angle)

    def _observation(self, seen: Any, facts: dict[str, Any]) -> Observation:
        pose = np.asarray(facts["block_pose"], np.float64)
        found = {
            "state": np.concatenate([facts["pos_agent"], pose[:2], [pose[2] % _TURN]]),
            "keypoint": keypoints(pose),
            "n_contacts": facts["n_contacts"],
            **({"image": seen} if self._image else {}),
        }
        return {self._names.get(name, name): value for name, value in found.items()}


def _simulator(sees: str, pixels: int = 96) -> Any:
    """gym_pusht without what gymnasium puts around it; images of so many pixels."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pygame, about how it is packaged
            gymnasium = importlib.import_module("gymnasium")
            importlib.import_module("gym_pusht")
    except ImportError as error:
        raise UsageError(
            f"PushT without its simulator ({error})",
            expected="gym_pusht, of the extra robot",
            fix="pip install 'zstore[robot]'",
        ) from error
    sizes = {"observation_width": pixels, "observation_height": pixels}
    made = gymnasium.make("gym_pusht/PushT-v0", obs_type=sees, disable_env_checker=True, **sizes)
    return made.unwrapped
