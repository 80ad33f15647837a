"""Datasets of samples as groups write them: HDF5 that is read window by window, MONAI's, and a replay buffer."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from lightning_app.batch import BatchShape

from .field_peers import padded
from .harness import remove
from .system_data import SYSTEMS, reading_files

Floats = NDArray[np.float32]
Sample = dict[str, Any]
TIMESERIES, ANGLES = "emg2pose/timeseries", ("emg", "joint_angles")
_READINGS, _EPISODES, _CACHE = "readings.h5", "episodes.h5", "persistent"
_THREADS = 2  # that fill MONAI's cache


@dataclass(frozen=True)
class Facts:
    """What peers are told.

    Parameters
    ----------
    shape
        Of batches.
    ids
        Of series, by number.
    inputs
        Names of input channels.
    windows
        (window, 2) int64 series, and first input row in it.
    x_offset, x_scale, y_offset, y_scale
        (channel,) float32: scaled = (value - offset) / scale.
    """

    shape: BatchShape
    ids: list[str]
    inputs: list[str]
    windows: NDArray[np.int64]
    x_offset: Floats
    x_scale: Floats
    y_offset: Floats
    y_scale: Floats

    @classmethod
    def read(cls, folder: Path) -> Facts:
        document = json.loads((folder / "facts.json").read_text())
        shape = BatchShape(**document.pop("shape"))
        with np.load(folder / "facts.npz") as arrays:
            windows = arrays["windows"]
            scales = {name: arrays[name].astype(np.float32) for name in arrays if name != "windows"}
        return cls(shape=shape, windows=windows, **document, **scales)


class Windows(Dataset[Sample]):
    """Samples of windows, whose rows a subclass reads.

    Parameters
    ----------
    facts
        Which windows there are.
    trains
        Whether crops and starts are drawn; else crops are in the middle, and windows where they are.
    """

    def __init__(self, facts: Facts, trains: bool) -> None:
        self.facts, self.trains = facts, trains
        self.windows = facts.windows.tolist()

    def __len__(self) -> int:
        return len(self.windows)

    def sample(self, n: int, inputs: Any, targets: Any, mask: Any = None) -> Sample:
        """Scaled inputs (lookback, channel) and targets (horizon, target), as tensors."""
        facts = self.facts
        series, first = self.windows[n]
        x = (np.asarray(inputs, np.float32) - facts.x_offset) / facts.x_scale
        y = (np.asarray(targets, np.float32) - facts.y_offset) / facts.y_scale
        mask = np.ones(y.shape, np.bool_) if mask is None else mask
        arrays = {"x": x, "y": y, "mask": mask}
        return {**{name: torch.from_numpy(part) for name, part in arrays.items()}, "series": series, "time": first}


class Readings(Windows):
    """A group for each file of an armband, in one HDF5 file that each worker opens for itself."""

    def __init__(self, path: Path, facts: Facts, trains: bool) -> None:
        super().__init__(facts, trains)
        self.path, self.opened = path, dict[int, tuple[Any, Any]]()
        self.file: h5py.File | None = None

    @staticmethod
    def write(raw: Path, path: Path) -> None:
        import pandas as pd

        with h5py.File(path, "w") as file:
            for source in reading_files(raw):
                rows = pd.read_csv(source, header=None).to_numpy(np.float32)
                group = file.create_group(f"{source.parent.name}/{source.name.removesuffix('.txt.gz')}")
                group["emg"], group["label"] = rows[:, :-1], rows[:, -1]

    def __getitem__(self, n: int) -> Sample:
        series, first = self.windows[n]
        if series not in self.opened:
            self.file = self.file or h5py.File(self.path)
            group = self.file[self.facts.ids[series]]
            self.opened[series] = group["emg"], group["label"]
        emg, label = self.opened[series]
        stop = first + self.facts.shape.lookback
        return self.sample(n, emg[first:stop], [[label[stop - 1]]])


class Angles(Windows):
    """Sessions of emg2pose as they are: two members of a compound data set, sliced where they are asked for."""

    def __init__(self, folder: Path, facts: Facts, trains: bool, jitter: int) -> None:
        super().__init__(facts, trains)
        self.paths = {path.stem: path for path in folder.glob("*.h5")}
        self.jitter, self.opened = jitter, dict[int, Any]()

    def __getitem__(self, n: int) -> Sample:
        series, first = self.windows[n]
        data, shape = self.opened.get(series), self.facts.shape
        if data is None:
            data = self.opened[series] = h5py.File(self.paths[self.facts.ids[series]])[TIMESERIES]
        if self.trains:
            first = min(first + int(torch.randint(self.jitter + 1, ())), len(data) - shape.lookback)
        rows = data.fields(ANGLES)[first : first + shape.lookback]  # one pass over the chunks
        targets = rows["joint_angles"][shape.lookback + shape.delay :: shape.target_stride]
        failed = (targets == 0).all(axis=1, keepdims=True)
        return self.sample(n, rows["emg"], targets, np.broadcast_to(~failed, targets.shape).copy())


class Episodes(Windows):
    """Padded windows of episodes, with frames where the batch has them.

    Parameters
    ----------
    facts, trains
        As of `Windows`.
    observed
        Names of what stands side by side in inputs.
    """

    def __init__(self, facts: Facts, trains: bool, observed: tuple[str, ...]) -> None:
        super().__init__(facts, trains)
        self.observed = observed
        self.crop = facts.shape.fields.get("image", [0, 0, 0])[1:3]

    def length(self, series: int) -> int:
        raise NotImplementedError

    def steps(self, series: int, name: str, start: int, stop: int) -> Any:
        """Those of an episode; padded by what is nearest to them."""
        raise NotImplementedError

    def __getitem__(self, n: int) -> Sample:
        series, first = self.windows[n]
        shape = self.facts.shape
        stop = first + shape.lookback
        parts = [self.steps(series, name, first, stop) for name in self.observed]
        inputs = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        start = stop + shape.delay
        actions = self.steps(series, "action", start, start + shape.horizon)
        mask = np.zeros(actions.shape, np.bool_)
        mask[: self.length(series) - start] = True
        found = self.sample(n, inputs, actions, mask)
        if shape.fields:
            found["image"] = self._frames(series, first, stop)
        return found

    def _frames(self, series: int, first: int, stop: int) -> torch.Tensor:
        """(step, colour, y, x) from 0 to 1, a part of each."""
        frames = self.steps(series, "image", first, stop)
        rooms = [length - part for length, part in zip(frames.shape[1:3], self.crop, strict=True)]
        y, x = (int(torch.randint(room + 1, ())) if self.trains else room // 2 for room in rooms)
        part = frames[:, y : y + self.crop[0], x : x + self.crop[1]]
        return torch.from_numpy(np.moveaxis(part, -1, 1) / np.float32(255))


class FileEpisodes(Episodes):
    """A group for each episode in an HDF5 file, in the layout of robomimic, a chunk for each frame.

    With frames all else is held in memory, as it is small; without them it is read window by window.
    """

    def __init__(self, path: Path, facts: Facts, trains: bool, observed: tuple[str, ...]) -> None:
        super().__init__(facts, trains, observed)
        self.path = path
        self.file: h5py.File | None = None
        self.opened: dict[tuple[int, str], Any] = {}
        with h5py.File(path) as file:
            self.lengths = [len(file[f"data/{name}/action"]) for name in facts.ids]
            if facts.shape.fields:
                for series, name in enumerate(facts.ids):
                    self.opened |= {(series, key): file[f"data/{name}/{key}"][:] for key in ("action", *observed)}

    @staticmethod
    def write(raw: Path, path: Path, frames: bool) -> None:
        import zarr

        root: Any = zarr.open_group(raw, mode="r")
        start = 0
        with h5py.File(path, "w") as file:
            for number, stop in enumerate(root["meta/episode_ends"][:].tolist()):
                group = file.create_group(f"data/{number:03d}")
                if frames:
                    pixels = root["data/img"][start:stop].astype(np.uint8)
                    group.create_dataset("image", data=pixels, chunks=(1, *pixels.shape[1:]))
                for name, values in _low(root, slice(start, stop)).items():
                    group[name] = values
                start = stop

    def length(self, series: int) -> int:
        return self.lengths[series]

    def steps(self, series: int, name: str, start: int, stop: int) -> Any:
        values = self.opened.get((series, name))
        if values is None:
            self.file = self.file or h5py.File(self.path, rdcc_nbytes=0)
            values = self.opened[series, name] = self.file[f"data/{self.facts.ids[series]}/{name}"]
        end = self.lengths[series]
        if start >= 0 and stop <= end:
            return values[start:stop]
        low = max(start, 0)
        return padded(values[low : min(stop, end)], start - low, stop - low, 0, min(stop, end) - low)


class Buffer(Episodes):
    """All steps of all episodes in memory, as float32, and where each begins."""

    def __init__(self, raw: Path, facts: Facts, trains: bool, observed: tuple[str, ...]) -> None:
        import zarr

        super().__init__(facts, trains, observed)
        root: Any = zarr.open_group(raw, mode="r")
        self.ends: list[int] = root["meta/episode_ends"][:].tolist()
        self.starts: list[int] = [0, *self.ends[:-1]]
        self.values = _low(root, slice(None))
        if facts.shape.fields:
            self.values["image"] = root["data/img"][:]

    def length(self, series: int) -> int:
        return self.ends[series] - self.starts[series]

    def steps(self, series: int, name: str, start: int, stop: int) -> Any:
        begin = self.starts[series]
        return padded(self.values[name], begin + start, begin + stop, begin, self.ends[series])


def _low(root: Any, rows: slice) -> dict[str, Floats]:
    """What is no image: the place of the hand, points of the T, actions."""
    keypoint = root["data/keypoint"][rows]
    hand, action = root["data/state"][rows][:, :2], root["data/action"][rows]
    return {"hand": np.ascontiguousarray(hand), "keypoint": keypoint.reshape(len(keypoint), -1), "action": action}


def scans_of(how: str, raw: Path, cache: Path, facts: Facts, trains: bool) -> Any:
    """MONAI's dataset of NIfTI files: what does not change is cached as floats, in memory or in files."""
    from monai.data import CacheDataset, PersistentDataset
    from monai.transforms import (
        CenterSpatialCropd,
        Compose,
        EnsureChannelFirstd,
        EnsureTyped,
        LoadImaged,
        RandSpatialCropd,
        ScaleIntensityRanged,
    )

    crop = facts.shape.fields["volume"][1:]
    steps = Compose(
        [
            LoadImaged("volume", reader="NibabelReader"),
            EnsureChannelFirstd("volume"),
            ScaleIntensityRanged("volume", 0, 255, 0, 1),
            EnsureTyped("volume", track_meta=False),
            RandSpatialCropd("volume", crop, random_size=False) if trains else CenterSpatialCropd("volume", crop),
        ]
    )
    with (raw / "scans.csv").open(newline="") as file:
        scans = {f"{line['split']}/{line['study']}": line for line in csv.DictReader(file)}
    classes = facts.shape.classes[0]
    items = []
    for series, first in facts.windows.tolist():
        scan = scans[facts.ids[series]]
        label = np.array([[classes.index(scan["label"])]], np.float32)
        known = {"y": label, "mask": np.ones((1, 1), np.bool_), "series": series, "time": first}
        items.append({"volume": str(raw / scan["scan"]), **known})
    if how == "CacheDataset":
        return CacheDataset(items, steps, progress=False, num_workers=_THREADS)
    return PersistentDataset(items, steps, cache if trains else cache.with_name(f"{_CACHE}-check"))


def files_of(system: str, reader: str, raw: Path, folder: Path) -> None:
    """Make the files that a reader has beside the raw ones."""
    if reader == "PersistentDataset":
        remove(folder / _CACHE)
        dataset = scans_of(reader, raw, folder / _CACHE, Facts.read(folder), True)
        for sample in range(len(dataset)):
            dataset[sample]
    elif reader == "h5py" and system == "gestures":
        Readings.write(raw, folder / _READINGS)
    elif reader == "h5py" and system.startswith("robots"):
        FileEpisodes.write(raw, folder / _EPISODES, bool(Facts.read(folder).shape.fields))


def reader_of(system: str, reader: str, raw: Path, folder: Path, facts: Facts, trains: bool) -> Any:
    """The dataset."""
    if system == "gestures":
        return Readings(folder / _READINGS, facts, trains)
    if system == "joint angles":
        return Angles(raw, facts, trains, SYSTEMS[system].configuration()["data"]["jitter"])
    if system == "hearts":
        return scans_of(reader, raw, folder / _CACHE, facts, trains)
    observed = ("hand",) if facts.shape.fields else ("hand", "keypoint")
    if reader == "h5py":
        return FileEpisodes(folder / _EPISODES, facts, trains, observed)
    return Buffer(raw, facts, trains, observed)
