"""Sessions of surface EMG at 2 kHz, in the layout of emg2pose: noise instead of muscles.

A file is a session: a compound data set with a float time that jitters, 20 joint angles that are all zero where
tracking failed, and 16 electrodes. What failed is a function of the number of the session, known without its file.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

RATE = 2000
ROWS = np.dtype([("time", "<f8"), ("joint_angles", "<f8", (20,)), ("emg", "<f4", (16,))])
_ROWS_TO_A_FAILURE = 20_000  # on average


def n_rows_of(number: int, mean: int = 100_000) -> int:
    """Rows of a session: no two are of one length."""
    return int(mean * np.random.default_rng([number, 1]).uniform(0.7, 1.3))


def failed(number: int, n_rows: int) -> NDArray[np.bool_]:
    """(row,) whether tracking failed: stretches of 0.1 to 2 seconds, at the beginning and anywhere."""
    random = np.random.default_rng([number, 2])
    rows = np.zeros(n_rows, np.bool_)
    for start in [0, *random.integers(0, n_rows, n_rows // _ROWS_TO_A_FAILURE).tolist()]:
        rows[start : start + int(random.integers(RATE // 10, 2 * RATE))] = True
    return rows


def session(path: Path, number: int, n_rows: int) -> None:
    """Write a session: as much noise as an electrode has, and angles that swing."""
    random = np.random.default_rng([number, 3])
    rows = np.zeros(n_rows, ROWS)
    seconds = np.arange(n_rows) / RATE
    rows["time"] = 1.66e9 + 3600 * number + seconds + random.uniform(-1e-4, 1e-4, n_rows)
    loudness = 1 + np.sin(2 * np.pi * np.outer(seconds, random.uniform(0.05, 0.5, 16)) + np.arange(16))
    rows["emg"] = random.standard_normal((n_rows, 16), np.float32) * loudness.astype(np.float32)
    swing = 2 * np.pi * np.outer(seconds, random.uniform(0.1, 2, 20)) + random.uniform(0, 6, 20)
    rows["joint_angles"] = np.where(failed(number, n_rows)[:, None], 0, np.sin(swing) + 0.01)
    partial = path.with_suffix(".partial")
    with h5py.File(partial, "w") as file:
        group = file.create_group("emg2pose")
        group.create_dataset("timeseries", data=rows, chunks=True, compression="gzip")
        named = {"filename": path.stem, "session": path.stem, "user": f"user{number % 8:02d}", "stage": "free"}
        group.attrs.update({**named, "side": "left" if number % 2 else "right", "sample_rate": float(RATE)})
    partial.rename(path)


def sessions(folder: Path, n_bytes: int, mean_rows: int = 100_000) -> list[Path]:
    """Sessions of at least so many bytes together; those that are there already are not written again."""
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    total = 0
    while total < n_bytes:
        path = folder / f"session{len(paths):04d}.h5"
        if not path.exists():
            session(path, len(paths), n_rows_of(len(paths), mean_rows))
        paths.append(path)
        total += path.stat().st_size
    return paths
