"""HDF5 in the four published layouts, from values of :mod:`origins`, and what h5py alone reads of them."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from hdf5files import POSE, QWERTY
from numpy.typing import NDArray
from origins import CAMERAS, Episode, demonstrations, episodes, minutes
from PIL import Image

Arrays = dict[str, dict[str, Any]]
"""By id of the episode and name: (row, item) numbers, (row, …) images, or a list of encoded images."""


@dataclass(frozen=True)
class Layout:
    """A layout: its preset, what writes so many of its episodes, what h5py reads of its files, and a grid of shards."""

    preset: str
    write: Callable[[Path, Path, int], None]
    read: Callable[[Path], Arrays]
    n_episodes: int
    grid: dict[str, Any]

    def files(self, folder: Path) -> list[Path]:
        """The files of a folder in the order of their names."""
        return sorted(folder.glob("*.h*5"))


def _sessions(origin: Path, folder: Path, count: int, dtype: np.dtype[Any], kind: str) -> None:
    """Sessions of two bands worn at once: electrodes of one minute beside those of the next; labels as angles."""
    recorded = minutes(origin)
    for (name, first), (_, second) in islice(zip(recorded, recorded, strict=False), count):
        n_rows = min(len(first), len(second))
        rows = np.zeros(n_rows, dtype)
        jitter = np.random.default_rng(n_rows).uniform(-2e-4, 2e-4, n_rows)
        rows["time"] = 1.66e9 + np.arange(n_rows) / 2000 + jitter
        if dtype == POSE:
            rows["emg"] = np.hstack([first[:n_rows, :8], second[:n_rows, :8]])
            labelled = first[:n_rows, 8:] == np.arange(1, 21)  # rest is a row of zeros, as failed tracking is
            rows["joint_angles"] = labelled * first[:n_rows, :1] / 128 + labelled
        else:
            rows["emg_left"] = np.tile(first[:n_rows, :8], 2)
            rows["emg_right"] = np.tile(second[:n_rows, :8], 2)
        with h5py.File(folder / f"{name}.hdf5", "w") as file:
            group = file.create_group(kind)
            group.create_dataset("timeseries", data=rows, chunks=(min(1000, n_rows),), compression="gzip")
            group.attrs["user"], group.attrs["sample_rate"] = name.split("-")[0], 2000.0


def write_pose(origin: Path, folder: Path, count: int) -> None:
    """Write sessions of emg2pose."""
    _sessions(origin, folder, count, POSE, "emg2pose")


def write_qwerty(origin: Path, folder: Path, count: int) -> None:
    """Write sessions of emg2qwerty."""
    _sessions(origin, folder, count, QWERTY, "emg2qwerty")


def read_pose(path: Path) -> Arrays:
    """Electrodes, and angles with NaN where all are zero."""
    with h5py.File(path) as file:
        rows = file["emg2pose/timeseries"][()]
    angles = rows["joint_angles"].astype("f4")
    angles[~rows["joint_angles"].any(axis=1)] = np.nan
    return {path.stem: {"emg": rows["emg"], "joint_angles": angles}}


def read_qwerty(path: Path) -> Arrays:
    """Electrodes of both hands."""
    with h5py.File(path) as file:
        rows = file["emg2qwerty/timeseries"][()]
    return {path.stem: {name: rows[name] for name in ("emg_left", "emg_right")}}


def pixels(frames: list[bytes]) -> NDArray[np.uint8]:
    """(row, y, x, colour) of JPEG frames, by Pillow."""
    return np.stack([np.asarray(Image.open(io.BytesIO(frame)).convert("RGB")) for frame in frames])


def _aloha(origin: Path, folder: Path, count: int, compress: bool) -> None:
    for number, episode in enumerate(episodes(origin, count)):
        both_arms = np.hstack([episode.state, episode.state[::-1]])
        with h5py.File(folder / f"episode_{number}.hdf5", "w") as file:
            file.attrs["sim"] = False
            file["action"] = np.hstack([episode.action, episode.action[::-1]])
            file["observations/qpos"] = both_arms
            file["observations/qvel"] = np.diff(both_arms, axis=0, append=both_arms[-1:])
            if compress:
                file.attrs["compress"] = True
                lengths = [[len(frame) for frame in episode.images[camera]] for camera in CAMERAS]
                file["compress_len"] = np.array(lengths, "f4")
            for camera in CAMERAS:
                frames = pixels(episode.images[camera]) if not compress else _padded(episode, camera)
                images = file.require_group("observations/images")
                images.create_dataset(camera, data=frames, chunks=(1, *frames.shape[1:]))


def _padded(episode: Episode, camera: str) -> NDArray[np.uint8]:
    """Frames with zeros behind them, all as long as the longest of any camera."""
    longest = max(len(frame) for frames in episode.images.values() for frame in frames)
    return np.stack([np.frombuffer(frame.ljust(longest, b"\0"), np.uint8) for frame in episode.images[camera]])


def write_aloha(origin: Path, folder: Path, count: int) -> None:
    """Write episodes of ALOHA with images as numbers."""
    _aloha(origin, folder, count, compress=False)


def write_compressed(origin: Path, folder: Path, count: int) -> None:
    """Write episodes of ALOHA with images as JPEG."""
    _aloha(origin, folder, count, compress=True)


def read_aloha(path: Path) -> Arrays:
    """Positions, velocities, actions and images, encoded ones without the zeros behind them."""
    with h5py.File(path) as file:
        found = {"action": file["action"][()]}
        found |= {name: file[f"observations/{name}"][()] for name in ("qpos", "qvel")}
        lengths = file["compress_len"][()].astype(int) if "compress" in file.attrs else None
        for number, camera in enumerate(file["observations/images"]):
            frames = file[f"observations/images/{camera}"][()]
            if lengths is not None:
                frames = [row[:size].tobytes() for row, size in zip(frames, lengths[number], strict=True)]
            found[camera] = frames
    return {path.stem: found}


def _demonstration(file: h5py.File, number: int, arrays: dict[str, NDArray[Any]]) -> h5py.Group:
    group = file.create_group(f"data/demo_{number}")
    n_rows = group.attrs["num_samples"] = len(arrays["actions"])
    arrays |= {"rewards": np.zeros(n_rows), "dones": np.arange(n_rows) == n_rows - 1}
    for name, values in arrays.items():
        chunks = (1, *values.shape[1:]) if values.ndim == 4 else True
        group.create_dataset(name, data=values, chunks=chunks, compression="gzip", compression_opts=1)
        if name.startswith("obs/") and values.ndim == 2:
            group[f"next_{name}"] = np.roll(values, -1, axis=0)
    return group


def _masked(file: h5py.File) -> None:
    names = sorted(file["data"], key=lambda name: int(name.split("_")[1]))
    file["mask/train"], file["mask/valid"] = np.array(names[:-1], "S"), np.array(names[-1:], "S")


def write_robomimic(origin: Path, folder: Path, count: int) -> None:
    """Write demonstrations of Push-T as robomimic has them; images are floats, as they were published."""
    with h5py.File(folder / "pusht.hdf5", "w") as file:
        for number, demo in enumerate(demonstrations(origin, count)):
            arrays: dict[str, Any] = {"actions": demo.action, "states": demo.state, "obs/keypoint": demo.keypoint}
            _demonstration(file, number, {**arrays, "obs/agentview_image": demo.images})
        _masked(file)


def write_bridge(origin: Path, folder: Path, count: int) -> None:
    """Write episodes of Bridge as robomimic has demonstrations; images are decoded."""
    with h5py.File(folder / "bridge.hdf5", "w") as file:
        for number, episode in enumerate(episodes(origin, count)):
            images = {f"obs/{camera}": pixels(frames) for camera, frames in episode.images.items()}
            arrays: dict[str, Any] = {"actions": episode.action, "obs/state": episode.state, **images}
            _demonstration(file, number, arrays).attrs["instruction"] = episode.instruction
        _masked(file)


def read_robomimic(path: Path) -> Arrays:
    """Every data set but those of the next step, which are `obs` of the next row."""

    def named(group: h5py.Group) -> Iterator[tuple[str, NDArray[Any]]]:
        for name, item in group.items():
            if isinstance(item, h5py.Dataset):
                yield name, item[()]
            elif name == "obs":
                yield from named(item)

    with h5py.File(path) as file:
        return {name: dict(named(group)) for name, group in file["data"].items()}


_LONG = {"chunk_rows": 4096, "shard_rows": 8192}
_SHORT = {"chunk_rows": 8, "shard_rows": 16}

LAYOUTS = {
    "emg2pose": Layout("emg2pose", write_pose, read_pose, 40, _LONG),
    "emg2qwerty": Layout("emg2qwerty", write_qwerty, read_qwerty, 40, _LONG),
    "aloha": Layout("aloha", write_aloha, read_aloha, 25, _SHORT),
    "aloha compressed": Layout("aloha", write_compressed, read_aloha, 25, _SHORT),
    "robomimic": Layout("robomimic", write_robomimic, read_robomimic, 30, {"chunk_rows": 64, "shard_rows": 128}),
    "robomimic of bridge": Layout("robomimic", write_bridge, read_robomimic, 25, _SHORT),
}
