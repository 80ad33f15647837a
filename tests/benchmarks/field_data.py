"""Episodes of frames, state and actions as an HDF5 file of the robomimic kind: Push-T, or simulated ones like it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PUSHT = Path("pusht") / "pusht_cchi_v7_replay.zarr"
MAPPING: dict[str, Any] = {
    "episodes": "data/*",
    "id": "group",
    "time": {"rate": 10},
    "vectors": {"state": "obs/state", "action": "actions"},
    "fields": {"image": {"data": "obs/image", "dimensions": ["y", "x", "colour"]}},
}


@dataclass(frozen=True)
class Episode:
    """Steps of a demonstration: (step, 5) and (step, 2) float32, and (step, y, x, colour) uint8."""

    state: NDArray[np.float32]
    action: NDArray[np.float32]
    image: NDArray[np.uint8]


def recorded(replay: Path) -> Iterator[Episode]:
    """The episodes of Push-T, as Chi et al. 2023 published them; frames are stored there as whole float32."""
    import zarr

    root: Any = zarr.open_group(replay, mode="r")
    start = 0
    for stop in root["meta/episode_ends"][:].tolist():
        state, action, image = (root[f"data/{name}"][start:stop] for name in ("state", "action", "img"))
        yield Episode(state, action, image.astype(np.uint8))
        start = stop


def simulated(n_episodes: int = 206, n_steps: int = 125, size: int = 96) -> Iterator[Episode]:
    """As many episodes as Push-T has, in which a disc walks around a T on white ground."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] * 512 / size
    for _ in range(n_episodes):
        walk = random.normal(0, 12, (n_steps, 4)).cumsum(axis=0)
        places = (random.uniform(100, 400, 4) + walk).clip(60, 452).astype(np.float32)
        image = np.full((n_steps, size, size, 3), 255, np.uint8)
        for step, (agent_x, agent_y, block_x, block_y) in enumerate(places.tolist()):
            bar = (abs(x - block_x) < 60) & (abs(y - block_y) < 15)
            stem = (abs(x - block_x) < 15) & (y > block_y) & (y < block_y + 105)
            image[step][bar | stem] = 119, 136, 153
            image[step][(x - agent_x) ** 2 + (y - agent_y) ** 2 < 225] = 65, 105, 225
        angle = random.uniform(0, 2 * np.pi, (n_steps, 1)).astype(np.float32)
        yield Episode(np.hstack([places, angle]), places[:, :2], image)


def write_hdf5(path: Path, episodes: Iterator[Episode]) -> None:
    """A group for each episode, and a chunk for each frame."""
    import h5py

    with h5py.File(path, "w") as file:
        for number, episode in enumerate(episodes):
            group = file.create_group(f"data/demo_{number:04d}")
            group["actions"], group["obs/state"] = episode.action, episode.state
            group.create_dataset("obs/image", data=episode.image, chunks=(1, *episode.image.shape[1:]))


def pack(plain: Path, packed: Path) -> None:
    """The same with frames compressed by gzip."""
    import h5py

    with h5py.File(plain) as source, h5py.File(packed, "w") as file:
        for name, episode in source["data"].items():
            group, image = file.create_group(f"data/{name}"), episode["obs/image"]
            group["actions"], group["obs/state"] = episode["actions"][:], episode["obs/state"][:]
            group.create_dataset("obs/image", data=image[:], chunks=image.chunks, compression="gzip")
