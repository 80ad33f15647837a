"""verify --source reads the payloads of fields again: one that was changed, or is gone, is told with its row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
from conftest import SMALL_GRID, write_table
from payload_files import AFFINE, image, nifti, voxels

import zstore
from zstore.cli import main
from zstore.format.payloads.chain import VolumeChain
from zstore.upkeep.compare import compare_sources

ROWS = [[f"s{n % 2}", n // 2, n, f"{n}.png" if n != 3 else ""] for n in range(12)]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table that names images; the fourth row names none."""
    for n in range(12):
        image(tmp_path / f"{n}.png", voxels((6, 5, 3), np.uint8, seed=n))
    return write_table(tmp_path / "t.csv", ["id", "t", "v", "camera"], ROWS)


def as_parquet(path: Path) -> Path:
    empty_is_null = pyarrow.csv.ConvertOptions(strings_can_be_null=True)
    pyarrow.parquet.write_table(pyarrow.csv.read_csv(path, convert_options=empty_is_null), path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


def ingest(source: Path, **options: Any) -> zstore.Store:
    """The store of a table whose field is called as the column is."""
    usual: dict[str, Any] = {"id": "id", "time": "t", "file": {"camera": "camera"}, "file_root": source.parent}
    zstore.ingest(source, source.parent / "s.zarr", **{**usual, **SMALL_GRID, **options})
    return zstore.open_store(source.parent / "s.zarr")


@pytest.mark.parametrize("made", [lambda path: path, as_parquet])
@pytest.mark.parametrize("keep", [[], ["camera"]])
def test_a_file_that_was_changed_or_is_gone_is_a_row_that_differs(
    table: Path, made: Callable[[Path], Path], keep: list[str]
) -> None:
    source = made(table)
    store = ingest(source, keep_encoded=keep)
    sound = compare_sources(store, source)
    assert (sound.n_rows, sound.n_different, sound.n_unseen, sound.n_bad) == (12, 0, 0, 0)
    image(table.parent / "5.png", voxels((6, 5, 3), np.uint8, seed=99))
    (table.parent / "8.png").unlink()
    found = compare_sources(store, source)
    assert (found.n_different, found.n_bad) == (2, 0)
    assert [fault.split(" in ")[0] for fault in found.faults] == ["id 's1' at 2", "id 's0' at 4"]


def test_a_row_that_names_a_file_and_has_none_in_the_store_differs_and_the_other_way_round(table: Path) -> None:
    store = ingest(table)
    rows = [[*row[:3], {2: "", 3: "3.png"}.get(n, row[3])] for n, row in enumerate(ROWS)]
    write_table(table, ["id", "t", "v", "camera"], rows)
    assert compare_sources(store, table).n_different == 2


def test_volumes_of_a_chain_are_compared_by_their_files(tmp_path: Path) -> None:
    for n in range(3):
        nifti(tmp_path / f"{n}.nii.gz", voxels((6, 5, 4), seed=n), AFFINE)
    source = write_table(tmp_path / "t.csv", ["id", "t", "v", "camera"], [["p", n, n, f"{n}.nii.gz"] for n in range(3)])
    chain = VolumeChain("RAS", (2.0, 2.0, 2.0), shape=(8, 8, 8), dtype="int16")
    store = ingest(source, file_chain={"camera": chain.to_json()})
    assert compare_sources(store, source).n_different == 0
    nifti(tmp_path / "1.nii.gz", voxels((6, 5, 4), seed=1), 2 * AFFINE)
    assert compare_sources(store, source).n_different == 1


def test_fields_of_hdf5_are_compared_frame_by_frame(tmp_path: Path) -> None:
    path, frames = tmp_path / "a.h5", voxels((20, 6, 5, 3), np.uint8)
    with h5py.File(path, "w") as file:
        for name in ("one", "two"):
            file[f"runs/{name}/clock"] = np.arange(20) / 10
            file[f"runs/{name}/grip"] = np.arange(20)
            file[f"runs/{name}/camera"] = frames if name == "one" else frames[::-1]
    mapping = {
        "episodes": "runs/*",
        "id": "group",
        "time": {"data": "clock", "rate": 10},
        "channels": {"grip": "grip"},
        "fields": {"camera": {"data": "camera"}},
    }
    zstore.ingest(path, tmp_path / "s.zarr", mapping=mapping, **SMALL_GRID)
    store = zstore.open_store(tmp_path / "s.zarr")
    assert (compare_sources(store, path).n_rows, compare_sources(store, path).n_different) == (40, 0)
    with h5py.File(path, "r+") as file:
        file["runs/two/camera"][7, 0, 0, 0] += 1
    found = compare_sources(store, path)
    assert (found.n_different, found.n_unseen) == (1, 0)
    assert found.faults[0].startswith("id 'two' at 7 ")


def test_files_that_have_moved_are_found_by_the_command_where_they_are_now(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ingest(table)
    (table.parent / "moved").mkdir()
    for path in table.parent.glob("*.png"):
        path.rename(table.parent / "moved" / path.name)
    assert main(["verify", store.path, "--source", str(table)]) == 1
    assert "12 rows of the sources compared: 11 differ" in capsys.readouterr().out
    assert main(["verify", store.path, "--source", str(table), "--file-root", str(table.parent / "moved")]) == 0
