"""How others read windows of frames: ``python field_peers.py h5py|h5py-gzip|memory FOLDER …``, in their environment.

A sample is the last two frames and states, and the action of now with the 15 that follow; where an episode has none,
its first or last step stands there. So every step of every episode is a sample. Needs numpy, torch, h5py and psutil;
prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

LOOKBACK, HORIZON, BATCH = 2, 16, 64
FILES = {"h5py": "frames.h5", "h5py-gzip": "frames-gzip.h5", "memory": "frames.h5"}

Sample = dict[str, Any]


def padded(values: NDArray[np.float32], start: int, stop: int, first: int, end: int) -> NDArray[np.float32]:
    """Steps of an episode, whose first and last ones stand for those that it has not; no copy where it has all."""
    if first <= start and stop <= end:
        return values[start:stop]
    found = np.empty((stop - start, *values.shape[1:]), values.dtype)
    low, high = max(start, first), min(stop, end)
    found[low - start : high - start] = values[low:high]
    found[: low - start], found[high - start :] = values[low], values[high - 1]
    return found


class LazyEpisodes(Dataset[Sample]):
    """States and actions in memory, as they are small; frames read when they are asked for, as they are stored.

    The file is opened where it is read, so that each worker has a handle of its own, and the data sets of its episodes
    stay open. None of them keeps chunks: up to 8 MiB of each would be all frames, decoded, in each worker.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with h5py.File(path) as file:
            groups = [file["data"][name] for name in sorted(file["data"])]
            self.names = [group.name for group in groups]
            self.states = [group["obs/state"][:] for group in groups]
            self.actions = [group["actions"][:] for group in groups]
        self.file: h5py.File | None = None
        self.frames: dict[int, h5py.Dataset] = {}
        lengths = [len(state) for state in self.states]
        self.samples = [(episode, step) for episode, length in enumerate(lengths) for step in range(length)]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, sample: int) -> Sample:
        if self.file is None:
            self.file = h5py.File(self.path, rdcc_nbytes=0)
        episode, step = self.samples[sample]
        frames = self.frames.get(episode)
        if frames is None:
            frames = self.frames[episode] = self.file[f"{self.names[episode]}/obs/image"]
        state, action = self.states[episode], self.actions[episode]
        before = np.array([max(step - 1, 0), step])
        image = frames[step - 1 : step + 1] if step else np.repeat(frames[:1], LOOKBACK, axis=0)
        ahead = np.minimum(np.arange(step, step + HORIZON), len(action) - 1)
        return {"image": image, "state": state[before], "action": action[ahead]}


class ReplayBuffer(Dataset[Sample]):
    """Everything in memory as float32; a sample is a slice, padded where it has to be, normalised, colours first."""

    def __init__(self, path: Path) -> None:
        with h5py.File(path) as file:
            groups = [file["data"][name] for name in sorted(file["data"])]
            ends = np.cumsum([len(group["actions"]) for group in groups])
            self.state, self.action = (
                np.concatenate([group[name][:] for group in groups]) for name in ("obs/state", "actions")
            )
            shape = groups[0]["obs/image"].shape[1:]
            self.image = np.empty((ends[-1], *shape), np.float32)
            starts = np.concatenate([[0], ends[:-1]])
            for group, start, end in zip(groups, starts, ends, strict=True):
                self.image[start:end] = group["obs/image"][:]
        self.bounds = np.repeat(np.stack([starts, ends], axis=1), ends - starts, axis=0)
        self.scales = {
            name: (values.min(axis=0), np.ptp(values, axis=0) + np.float32(1e-7))
            for name, values in (("state", self.state), ("action", self.action))
        }

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, sample: int) -> Sample:
        first, end = self.bounds[sample]
        image = padded(self.image, sample - LOOKBACK + 1, sample + 1, first, end)
        state = padded(self.state, sample - LOOKBACK + 1, sample + 1, first, end)
        action = padded(self.action, sample, sample + HORIZON, first, end)
        found = {"image": np.moveaxis(image, -1, 1) / np.float32(255)}
        for name, values in (("state", state), ("action", action)):
            low, width = self.scales[name]
            found[name] = (values - low) / width * 2 - 1
        return {name: torch.from_numpy(values) for name, values in found.items()}


def dataset_of(name: str, folder: Path) -> LazyEpisodes | ReplayBuffer:
    path = folder / FILES[name]
    return ReplayBuffer(path) if name == "memory" else LazyEpisodes(path)


def loader_of(name: str, folder: Path, workers: int) -> DataLoader[Sample]:
    dataset = dataset_of(name, folder)
    return DataLoader(dataset, BATCH, True, num_workers=workers, drop_last=True, persistent_workers=workers > 0)


def endless(loader: Any, use: Callable[[Any], object] = lambda batch: None) -> Callable[[], int]:
    """A function that takes the next batch, of the next epoch where one has ended, and returns its samples."""
    batches = iter(loader)

    def take() -> int:
        nonlocal batches
        batch = next(batches, None)
        if batch is None:
            batches = iter(loader)
            batch = next(batches)
        use(batch)
        return len(next(iter(batch.values())))

    return take


def paced(take: Callable[[], int], seconds: float) -> dict[str, float]:
    """Samples a second, and a second of processors, of this process and its children."""
    take()
    worked, began = cpu_s(), time.perf_counter()
    count = take()
    while time.perf_counter() - began < seconds:
        count += take()
    ended = time.perf_counter()
    return {"samples_per_s": count / (ended - began), "per_cpu_s": count / max(cpu_s() - worked, 1e-9)}


def cpu_s() -> float:
    """Seconds that processors have worked for this process and its children that are there."""
    return time.process_time() + sum(sum(child.cpu_times()[:2]) for child in psutil.Process().children(recursive=True))


def private_mib() -> float:
    """Memory of this process and its children that no file backs, in MiB; all of it where that is not told apart."""
    here = psutil.Process()
    found = [each.memory_info() for each in (here, *here.children(recursive=True))]
    n_bytes: int = sum(info.rss - getattr(info, "shared", 0) for info in found)
    return n_bytes / 2**20


def read(name: str, folder: Path, workers: int, seconds: float) -> dict[str, float]:
    """Samples a second, seconds to the first batch, and memory."""
    began = time.perf_counter()
    loader = loader_of(name, folder, workers)
    take = endless(loader)
    take()
    first_s = time.perf_counter() - began
    return {"first_s": first_s, **paced(take, seconds), "private_mib": private_mib()}


def main() -> None:
    parser = argparse.ArgumentParser(description="How others read windows of frames.")
    parser.add_argument("name", choices=list(FILES))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    print(json.dumps(read(options.name, options.folder, options.workers, options.seconds)))


if __name__ == "__main__":
    main()
