"""Small stores that tests of edges are made of: one series, or several, of steps."""

from pathlib import Path
from typing import Any

import numpy as np
from conftest import write_table

import zstore

BY_ID: dict[str, Any] = {"id": "id", "time": "t", "workers": 1}
DAY = np.datetime64("2001-01-01")


def rows(path: Path, n: int = 60, first: int = 0, bad: int = 0, id_: str = "a") -> Path:
    """Steps of one series; the last some cannot be stored."""
    lines = [[id_, first + t, "bad" if t >= n else t / 4] for t in range(n + bad)]
    return write_table(path, ["id", "t", "v"], lines)


def made(folder: Path, **options: Any) -> Path:
    """A store of one series of 60 steps."""
    zstore.ingest(rows(folder / "rows.csv"), folder / "s.zarr", **BY_ID, **options)
    return folder / "s.zarr"


def beside(store: Path) -> list[str]:
    """What lies beside a store and the sources."""
    return sorted(path.name for path in store.parent.iterdir() if path.suffix != ".csv" or "quarantine" in path.name)
