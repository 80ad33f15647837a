"""Tiny scans in the layout of a hospital's list: NIfTI files, patients with one or several studies, two targets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from conftest import write_table
from payload_files import nifti

CHAIN = {
    "orientation": "RAS",
    "spacing": [1.5, 1.5, 3.0],
    "window": {"low": -1000, "high": 1000},
    "shape": [32, 32, 24],
}
"""The chain of Merlin for scans of a few centimetres."""


def write_scans(folder: Path, n_patients: int = 20, seed: int = 0) -> Path:
    """A table of scans in Hounsfield units, and their files.

    A ball lies in each scan; how dense it is decides the class ``disease``, its size the value ``ejection_fraction``.
    Either is missing in some rows. Scans differ in spacing and orientation.
    """
    random, rows = np.random.default_rng(seed), []
    (folder / "scans").mkdir()
    for patient in range(n_patients):
        for number in range(1 + patient % 3):
            ill, radius = bool((patient + number) % 2), float(random.uniform(12, 28))  # mm
            zooms = np.array([1.7, 2.2, 3.5]) * random.uniform(0.9, 1.1)
            shape = tuple(np.round([70, 66, 77] / zooms).astype(int).tolist())
            away = sum(
                ((axis - length / 2) * zoom) ** 2
                for axis, length, zoom in zip(np.indices(shape), shape, zooms, strict=True)
            )
            values = np.where(away < radius**2, 700 if ill else 100, -800) + random.integers(-30, 30, shape)
            affine = np.diag([*zooms * random.choice([-1, 1], 3), 1.0])
            name = f"scans/p{patient:02}_{number}.nii.gz"
            nifti(folder / name, values.astype(np.int16), affine)
            fraction = "" if random.random() < 0.2 else round(20 + 1.5 * radius, 1)
            disease = "" if random.random() < 0.2 else ("ill" if ill else "well")
            rows.append([f"p{patient:02}", f"s{patient}{number}", name, fraction, disease, 40 + patient])
    random.shuffle(rows)
    header = ["patient", "study", "scan", "ejection_fraction", "disease", "age"]
    return write_table(folder / "scans.csv", header, rows)
