"""Raw files of muscles, hearts and robots, real ones or others like them, and how this project ingests them."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from zstore import ingest

from . import session_data, volumes
from .field_data import PUSHT, simulated

PACKAGES = ("h5py", "monai.data", "monai.transforms", "nibabel", "pandas", "pyarrow", "zarr")
CONFIGS = Path(__file__).parents[2] / "configs"
_SESSIONS = [f"{person}-{number}" for person, number in product((12345, 21547, 45612), (1, 2, 3))]
VECTORS = ("state", "keypoint", "action")
_CLASSES = ("normal", "hyperplasia")


@dataclass(frozen=True)
class System:
    """What is trained, and on what.

    Parameters
    ----------
    config
        Name of the configuration that is shipped.
    raw
        From a folder of one's own and that of real data to the raw files.
    store
        From raw files to a store of them.
    peers
        Other readers, by name, and the numbers of workers that they are tried with.
    most
        Batches that are trained on; None for all of an epoch.
    has_real
        Whether a real data set is read where there is one.
    """

    config: str
    raw: Callable[[Path, Path | None], Path]
    store: Callable[[Path, Path], Any]
    peers: dict[str, tuple[int, ...]]
    most: int | None = None
    has_real: bool = True

    def configuration(self) -> dict[str, Any]:
        """All that it says."""
        found: dict[str, Any] = yaml.safe_load((CONFIGS / f"{self.config}.yaml").read_text())
        return found


def import_packages() -> None:
    """Import what readers need, as far as it is installed: no start is to have that in it."""
    for name in PACKAGES:
        with suppress(ModuleNotFoundError):
            import_module(name)


def readings(folder: Path, data: Path | None, n_rows: int = 12_000) -> Path:
    """Files of a Myo armband, a minute each; without real ones 72 of noise that is as loud as a gesture says."""
    if data is not None:
        return data / "emg_myo"
    made = folder / "readings"
    random = np.random.default_rng(0)
    for session, gesture in product(_SESSIONS, range(8)):
        path = made / session / f"{gesture}.txt.gz"
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        label = np.where(np.arange(n_rows) * 12 // n_rows % 2, gesture, 0)
        loudness = 2 + 20 * (label[:, None] > 0) * (1 + np.roll(np.arange(8), gesture))
        emg = np.clip(random.standard_normal((n_rows, 8)) * loudness, -128, 127).astype(int)
        lines = "\n".join(",".join(map(str, row)) for row in np.column_stack([emg, label]).tolist())
        path.write_bytes(gzip.compress(lines.encode()))
    return made


def reading_files(raw: Path) -> list[Path]:
    """Those of the persons who are trained on and tested; of another one, a row has half of its cells."""
    return sorted(path for session in _SESSIONS for path in (raw / session).glob("*.txt.gz"))


def store_readings(raw: Path, store: Path) -> None:
    recipe = yaml.safe_load((CONFIGS / "ingest" / "emg_myo.yaml").read_text())
    ingest([str(path) for path in reading_files(raw)], store, **recipe)


def sessions(folder: Path, data: Path | None, n_bytes: int = 600_000_000, mean_rows: int = 100_000) -> Path:
    """Sessions in the layout of emg2pose; always simulated ones."""
    session_data.sessions(folder / "sessions", n_bytes, mean_rows)
    return folder / "sessions"


def store_sessions(raw: Path, store: Path) -> None:
    ingest(f"{raw}/*.h5", store, mapping="emg2pose")


def scans(folder: Path, data: Path | None) -> Path:
    """A NIfTI file for each adrenal gland, or ellipsoid, and a table of them."""
    import nibabel

    made, table = folder / "scans", folder / "scans" / "scans.csv"
    if table.exists():
        return made
    made.mkdir(parents=True, exist_ok=True)
    npz = volumes.simulated(folder / "organs.npz") if data is None else data / volumes.ADRENAL
    lines = [["split", "study", "scan", "label"]]
    with np.load(npz) as arrays:
        for split in volumes.SIZES:
            labels = arrays[f"{split}_labels"].ravel().tolist()
            for number, (volume, label) in enumerate(zip(arrays[f"{split}_images"], labels, strict=True)):
                name = f"{split}_{number:04d}.nii.gz"
                nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), made / name)
                lines.append([split, f"{number:04d}", name, _CLASSES[label]])
    with table.open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    return made


def store_scans(raw: Path, store: Path) -> None:
    options: dict[str, Any] = {"file": {"volume": "scan"}, "file_root": raw}
    ingest(raw / "scans.csv", store, id=["split", "study"], freq="1", channels=["label"], **options)


def replay(folder: Path, data: Path | None, n_episodes: int = 206, n_steps: int = 125) -> Path:
    """Push-T as it was published, a Zarr group of version 2; or simulated episodes in that form."""
    if data is not None:
        return data / PUSHT
    import zarr

    made = folder / "replay.zarr"
    if (made / "meta" / "episode_ends").exists():
        return made
    episodes = list(simulated(n_episodes, n_steps))
    state = np.concatenate([each.state for each in episodes])
    corners = np.random.default_rng(0).uniform(-60, 60, (9, 2)).astype(np.float32)
    arrays = {
        "img": np.concatenate([each.image for each in episodes]).astype(np.float32),
        "state": state,
        "keypoint": state[:, None, 2:4] + corners,
        "action": np.concatenate([each.action for each in episodes]),
    }
    root: Any = zarr.open_group(made, mode="w", zarr_format=2)
    for name, values in arrays.items():
        root.create_array(f"data/{name}", data=values, chunks=(161, *values.shape[1:]))
    root.create_array("meta/episode_ends", data=np.cumsum([len(each.state) for each in episodes]))
    return made


def store_states(raw: Path, store: Path) -> None:
    """Vectors of all steps, without frames."""
    import zarr

    root: Any = zarr.open_group(raw, mode="r")
    ingest(_table(root), store, id="episode", time="step", channels=list(VECTORS))


def store_frames(raw: Path, store: Path) -> None:
    """As docs/robots.md has it: a table of vectors, and frames in a file beside it until they are stored."""
    import zarr

    root: Any = zarr.open_group(raw, mode="r")
    images, frames = root["data/img"], store.with_name("frames.npy")
    pixels = np.lib.format.open_memmap(frames, "w+", np.uint8, images.shape)
    for first in range(0, len(pixels), images.chunks[0]):
        pixels[first : first + images.chunks[0]] = images[first : first + images.chunks[0]]
    pixels.flush()
    table = _table(root).append_column("frames", [[frames.name] * len(pixels)])
    table = table.append_column("frame", [np.arange(len(pixels))])
    options: dict[str, Any] = {"file": {"image": "frames"}, "file_position": {"image": "frame"}}
    ingest(table, store, id="episode", time="step", channels=list(VECTORS), file_root=frames.parent, **options)
    frames.unlink()


def _table(root: Any) -> Any:
    """A row for each step, with its vectors."""
    import pyarrow as pa

    ends = root["meta/episode_ends"][:]
    lengths = np.diff(ends, prepend=0)
    columns = {
        "episode": np.repeat([f"{number:03d}" for number in range(len(ends))], lengths),
        "step": np.concatenate([np.arange(length) for length in lengths]),
    }
    for name in VECTORS:
        values = root[f"data/{name}"][:]
        columns[name] = pa.FixedSizeListArray.from_arrays(values.ravel(), values[0].size)
    return pa.table(columns)


SYSTEMS = {
    "gestures": System("emg_myo_tds", readings, store_readings, {"h5py": (0, 2)}),
    "joint angles": System("emg2pose_tds", sessions, store_sessions, {"h5py": (0, 2)}, has_real=False),
    "hearts": System("adrenal_cnn3d", scans, store_scans, {"CacheDataset": (0, 2), "PersistentDataset": (0, 2)}),
    "robots, state": System("pusht_state_bc", replay, store_states, {"h5py": (0, 2), "replay buffer": (0, 2)}),
    "robots, images": System("pusht_image_bc", replay, store_frames, {"h5py": (0, 2), "replay buffer": (0, 2)}, 60),
}
