"""What came of the episodes of a policy: a document, and the best and the worst episode as pictures that move."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from lightning_app.rollout.environment import Environment
from lightning_app.rollout.play import Played
from zstore import UsageError


def scores(played: list[Played]) -> dict[str, float]:
    """Numbers over all episodes, as Chi et al. 2023 have them.

    ``mean_max_reward``: the mean over the episodes of their maximal rewards, with its standard error; ``success``: the
    share of episodes that reached a reward of 1.
    """
    best = np.array([each.best for each in played])
    error = float(best.std(ddof=1) / np.sqrt(len(best))) if len(best) > 1 else float("nan")
    return {
        "mean_max_reward": float(best.mean()),
        **({"standard_error": error} if len(best) > 1 else {}),
        "success": float((best >= 1).mean()),
    }


def write_report(path: Path, played: list[Played], about: dict[str, Any]) -> None:
    """Write scores and each episode as JSON."""
    episodes = [
        {"seed": each.seed, "max_reward": each.best, "n_steps": len(each.rewards), "done": each.done} for each in played
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**scores(played), **about, "episodes": episodes}, indent=1) + "\n")


def write_pictures(folder: Path, environment: Environment, played: list[Played]) -> list[Path]:
    """Draw the best and the worst episode as GIFs; needs Pillow, and returns their paths.

    Raises
    ------
    UsageError
        If Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise UsageError(
            "pictures of a rollout without Pillow",
            expected="the extra robot",
            fix="pip install 'zstore[robot]', or --acting.pictures false",
        ) from error
    ranked = sorted(played, key=lambda each: (each.best, -len(each.rewards)))
    written = []
    for name, chosen in (("best", ranked[-1]), ("worst", ranked[0])):
        first, *others = (Image.fromarray(environment.picture(scene)) for scene in chosen.scenes)
        path = folder / f"rollout_{name}.gif"
        first.save(path, save_all=True, append_images=others, duration=round(1000 / environment.rate_hz), loop=0)
        written.append(path)
    return written
