"""Which sources a store has taken, which of its rows are fillers, and what of both is checked later."""

from pathlib import Path

import numpy as np
from conftest import write_table

from zstore import Store, append, ingest, open_store
from zstore.format.commit import marked

HEADER = ["site", "date", "v"]


def days(path: Path, values: list[float], first: str = "2001-01-01", site: str = "a") -> Path:
    """A CSV of one series, a value a day."""
    path.parent.mkdir(parents=True, exist_ok=True)
    start = np.datetime64(first)
    return write_table(path, HEADER, [[site, start + n, value] for n, value in enumerate(values)])


def made(folder: Path, *values: float) -> Store:
    ingest(days(folder / "rows.csv", list(values)), folder / "s.zarr", id="site", time="date")
    return open_store(folder / "s.zarr")


def test_the_digest_of_a_version_stays_while_others_are_written(tmp_path: Path) -> None:
    store = made(tmp_path, 1.0, 2.0, 3.0)
    root = tmp_path / "s.zarr" / "zarr.json"
    committed = root.read_bytes()
    root.write_bytes(marked(committed, "0" * 32))  # as while another writer is at work
    assert open_store(store.path).digest == store.digest
    root.write_bytes(committed)
    (tmp_path / "s.zarr" / "manifest" / "00000001" / "root.json").unlink()  # as when a writer died after its commit
    append(days(tmp_path / "more.csv", [4.0], "2001-01-04"), store.path)  # which writes it
    assert open_store(store.path, version=1).digest == store.digest
    assert open_store(store.path).digest != store.digest
