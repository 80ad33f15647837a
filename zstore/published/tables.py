"""Tables that name what a data set holds, where it is published without one."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import numpy as np

from zstore.errors import SourceError

_SPLITS = ("train", "val", "test")
_LABELS = ("normal", "hyperplasia")


def table_of_adrenal(folder: Path) -> list[Path]:
    """Write `adrenal.csv`: the split, the number, the archive, the position and the label of each volume.

    Parameters
    ----------
    folder
        That has ``adrenal/adrenalmnist3d_64.npz``.

    Returns
    -------
    Its path. One that is there is left as it is.
    """
    path = folder / "adrenal" / "adrenal.csv"
    if path.exists():
        return [path]
    part = path.with_name("adrenal.csv.part")
    with np.load(folder / "adrenal" / "adrenalmnist3d_64.npz") as data, part.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["split", "study", "archive", "position", "label"])
        for split in _SPLITS:
            for position, label in enumerate(data[f"{split}_labels"][:, 0]):
                archive = f"adrenalmnist3d_64.npz/{split}_images"
                table.writerow([split, f"{position:04}", archive, position, _LABELS[label]])
    part.rename(path)
    return [path]


def table_of_pusht(folder: Path) -> list[Path]:
    """Write `pusht.parquet` and `pusht_frames.npy`: a row for each step, and its image.

    Frames are published as floats that are whole numbers; they are written as bytes, 0.7 GB of them.

    Parameters
    ----------
    folder
        That has ``pusht/pusht_cchi_v7_replay.zarr``, a group of Zarr v2: ``data/img`` (rows, 96, 96, 3) float32,
        ``data/state`` (rows, 5), ``data/keypoint`` (rows, 9, 2), ``data/action`` (rows, 2), and ``meta/episode_ends``.

    Returns
    -------
    Their paths. If the table is there, nothing is written.

    Raises
    ------
    SourceError
        If a frame has a number that is no byte.
    """
    import pyarrow as pa  # with zarr a third of a second
    import zarr
    from pyarrow import parquet

    place = folder / "pusht"
    path, frames = place / "pusht.parquet", place / "pusht_frames.npy"
    if path.exists():
        return [path, frames]
    replay = zarr.open_group(place / "pusht_cchi_v7_replay.zarr", mode="r", zarr_format=2)
    part = place / "pusht.part"
    _write_bytes(replay["data/img"], part)
    part.replace(frames)
    ends = np.asarray(replay["meta/episode_ends"])
    lengths = np.diff(ends, prepend=0)
    columns: dict[str, object] = {
        "episode": np.repeat([f"{number:03}" for number in range(len(ends))], lengths),
        "step": np.concatenate([np.arange(length) for length in lengths]),
    }
    for name in ("state", "keypoint", "action"):
        values = np.asarray(replay[f"data/{name}"])
        columns[name] = pa.FixedSizeListArray.from_arrays(values.ravel(), values[0].size)
    columns["frames"] = [frames.name] * int(ends[-1])
    columns["frame"] = np.arange(ends[-1])
    parquet.write_table(pa.table(columns), part)
    part.replace(path)
    return [path, frames]


def _write_bytes(images: Any, target: Path) -> None:
    """Write floats that are whole numbers as an .npy of bytes, a chunk at a time."""
    with target.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": images.shape}
        np.lib.format.write_array_header_1_0(file, header)
        for first in range(0, images.shape[0], images.chunks[0]):
            found = np.asarray(images[first : first + images.chunks[0]])
            pixels = found.astype(np.uint8)
            if not np.array_equal(pixels, found):
                raise SourceError(
                    f"frames {first} to {first + len(found)} of Push-T have numbers that are no bytes",
                    expected="whole numbers from 0 to 255",
                    fix="fetch it again, with another --to",
                )
            file.write(pixels.tobytes())
        file.flush()
        os.fsync(file.fileno())
