"""Readings of a Myo armband as files have them, made up."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path

import numpy as np


def write_readings(folder: Path, sessions: Iterable[str], n_rows: int = 400, n_gestures: int = 2) -> None:
    """A folder for each session, a file for each gesture: rest, then the gesture, by how strong electrodes are."""
    random = np.random.default_rng(0)
    for session in sessions:
        (folder / session).mkdir(parents=True)
        for gesture in range(n_gestures):
            label = np.repeat([0, gesture], [n_rows // 2, n_rows - n_rows // 2])
            strength = np.where(label[:, None] == 0, 2, 20 * (1 + np.roll(np.arange(8), 3 * gesture)))
            emg = np.clip(random.normal(size=(n_rows, 8)) * strength, -128, 127).astype(int)
            lines = "\n".join(",".join(map(str, row)) for row in np.column_stack([emg, label]).tolist())
            (folder / session / f"{gesture}.txt.gz").write_bytes(gzip.compress(lines.encode()))
