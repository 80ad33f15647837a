"""HDF5 files in the layouts that are published, with values that tests draw."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from zstore import Store

POSE = np.dtype([("time", "<f8"), ("joint_angles", "<f8", (20,)), ("emg", "<f4", (16,))])
QWERTY = np.dtype([("time", "<f8"), ("emg_left", "<f4", (16,)), ("emg_right", "<f4", (16,))])


def numbers(random: np.random.Generator, *shape: int, dtype: str = "f4") -> NDArray[Any]:
    """Numbers with few digits, as sensors have them."""
    return np.round(random.normal(size=shape), 3).astype(dtype)


def session(path: Path, dtype: np.dtype[Any] = POSE, n_rows: int = 500, seed: int = 0, **writing: Any) -> NDArray[Any]:
    """Write a session as emg2pose or emg2qwerty has it; returns its rows."""
    random = np.random.default_rng(seed)
    rows = np.zeros(n_rows, dtype)
    for name in dtype.names or ():
        if name != "time":
            rows[name] = numbers(random, *rows[name].shape)
    rows["time"] = 1.66e9 + seed + np.arange(n_rows) / 2000 + random.uniform(-2e-4, 2e-4, n_rows)
    if "joint_angles" in (dtype.names or ()):
        rows["joint_angles"][n_rows // 4 : n_rows // 2] = 0
    kind = "emg2pose" if dtype == POSE else "emg2qwerty"
    with h5py.File(path, "w") as file:
        group = file.create_group(kind)
        group.create_dataset(
            "timeseries", data=rows, **{"chunks": (min(64, n_rows),), "compression": "gzip", **writing}
        )
        group.attrs["session"] = Path(path).stem
        group.attrs["user"] = f"user{seed % 2}"
        group.attrs["side"] = "left"
        group.attrs["sample_rate"] = 2000.0
        if kind == "emg2qwerty":
            group.attrs["keystrokes"] = "[" + '{"key": "a", "start": 1.0},' * 100 + "]"
    return rows


def jpegs(random: np.random.Generator, n_frames: int) -> list[bytes]:
    """Frames as JPEG, of other lengths each."""
    from PIL import Image

    made = []
    for _ in range(n_frames):
        octets = io.BytesIO()
        size = int(random.integers(4, 40))
        Image.fromarray(random.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(octets, "JPEG")
        made.append(octets.getvalue())
    return made


def aloha(
    path: Path,
    n_rows: int = 20,
    seed: int = 0,
    compress: bool = False,
    cameras: Sequence[str] = ("cam_high", "cam_low"),
) -> dict[str, Any]:
    """Write an episode as ALOHA has it; returns its arrays, and frames by camera."""
    random = np.random.default_rng(seed)
    made: dict[str, Any] = {name: numbers(random, n_rows, 14) for name in ("action", "qpos", "qvel")}
    with h5py.File(path, "w") as file:
        file.attrs["sim"] = not compress
        observations = file.create_group("observations")
        images = observations.create_group("images")
        file["action"], observations["qpos"], observations["qvel"] = (made[n] for n in ("action", "qpos", "qvel"))
        if compress:
            file.attrs["compress"] = True
            frames = {camera: jpegs(random, n_rows) for camera in cameras}
            longest = max(len(frame) for some in frames.values() for frame in some)
            lengths = file.create_dataset("compress_len", (len(cameras), n_rows), "f4")  # float32, as ALOHA has it
            for number, camera in enumerate(cameras):
                lengths[number] = [len(frame) for frame in frames[camera]]
                rows = [np.frombuffer(frame.ljust(longest, b"\0"), np.uint8) for frame in frames[camera]]
                images.create_dataset(camera, data=np.array(rows), chunks=(1, longest))
            return {**made, "images": frames}
        made["images"] = {camera: random.integers(0, 256, (n_rows, 6, 8, 3), dtype=np.uint8) for camera in cameras}
        for camera in cameras:
            images.create_dataset(camera, data=made["images"][camera], chunks=(1, 6, 8, 3))
    return made


def robomimic(
    path: Path, n_rows: Sequence[int] = (12, 9, 15), seed: int = 0, images: bool = False
) -> dict[str, dict[str, NDArray[Any]]]:
    """Write episodes as robomimic has them; returns the arrays of each."""
    random = np.random.default_rng(seed)
    episodes: dict[str, dict[str, NDArray[Any]]] = {}
    with h5py.File(path, "w") as file:
        for number, n in enumerate(n_rows):
            group = file.create_group(f"data/demo_{number}")
            group.attrs["num_samples"] = n
            group.attrs["model_file"] = "<mujoco/>" * 200
            made = {
                "actions": numbers(random, n, 7, dtype="f8"),
                "states": numbers(random, n, 5, dtype="f8"),
                "rewards": random.integers(0, 2, n).astype("f8"),
                "dones": np.arange(n) == n - 1,
                "obs/robot0_eef_pos": numbers(random, n, 3, dtype="f8"),
                "obs/gripper": numbers(random, n, dtype="f8"),
            }
            if images:
                made["obs/agentview_image"] = random.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
            for name, values in made.items():
                group[name] = values
                if name.startswith("obs/"):
                    group["next_" + name] = np.roll(values, -1, axis=0)
            episodes[f"demo_{number}"] = made
        names = list(episodes)
        file["mask/train"] = np.array(names[:-1], "S")
        file["mask/valid"] = np.array(names[-1:], "S")
        file["mask/20_percent"] = np.array(names[:1], "S")
    return episodes


def vector(store: Store, id_: str, name: str, width: int) -> NDArray[Any]:
    """(row, item) a vector of one series, as the store has it."""
    row = store.index.row_start
    position = [str(each) for each in store.ids].index(id_)
    start, stop = int(row[position]), int(row[position + 1])
    return np.stack([store.read(f"{name}.{item}", start, stop) for item in range(width)], axis=1)


def channel(store: Store, id_: str, name: str) -> NDArray[Any]:
    position = [str(each) for each in store.ids].index(id_)
    start, stop = store.index.row_start[position : position + 2].tolist()
    return np.asarray(store.read(name, start, stop))


def times(store: Store, id_: str) -> list[int]:
    position = [str(each) for each in store.ids].index(id_)
    start, stop = store.index.row_start[position : position + 2].tolist()
    return [int(time) for time in store.times(start, stop)]


def statics(store: Store) -> dict[str, list[Any]]:
    """By name, the value of each series."""
    return {
        static.name: [
            float(value) if static.categories is None else (static.categories[value] if value >= 0 else None)
            for value in static.values.tolist()
        ]
        for static in store.statics
    }
