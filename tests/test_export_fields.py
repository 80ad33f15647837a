"""Fields out of a store as columns of Arrow and Parquet: every value as it is stored, and none left out unsaid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import SMALL_GRID, write_table
from hypothesis import given, settings
from hypothesis import strategies as st
from payload_files import image, voxels

import zstore
from zstore.cli import main

LACKING = (3, 11)


def store_of(folder: Path, dtype: str = "uint8", keep: bool = False, n: int = 24) -> zstore.Store:
    """Two series of images `camera`, which some rows have not, of a table in no order."""
    values = voxels((n, 5, 4, 3), np.uint8) > 60 if dtype == "bool" else voxels((n, 5, 4, 3), dtype)
    rows = []
    for number, value in enumerate(values):
        name = f"{number}.png" if keep else f"{number}.npy"
        if keep:
            image(folder / name, value[: 2 + number % 3])
        else:
            np.save(folder / name, value)
        rows.append([f"s{number * 2 // n}", number % (n // 2), number, "" if number in LACKING else name])
    zstore.ingest(
        write_table(folder / "t.csv", ["id", "t", "v", "path"], rows[::-1]),
        folder / "s.zarr",
        id="id",
        time="t",
        file={"camera": "path"},
        file_root=folder,
        keep_encoded=["camera"] if keep else [],
        **SMALL_GRID,
    )
    return zstore.open_store(folder / "s.zarr")


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "float16", "float32", "int64"])
def test_every_value_of_a_field_is_in_parquet_as_it_is_stored(tmp_path: Path, dtype: str) -> None:
    store = store_of(tmp_path, dtype)
    zstore.export(store, tmp_path / "out.parquet", fields=["camera"])
    column = pq.read_table(tmp_path / "out.parquet")["camera"].combine_chunks()
    assert [row for row in range(24) if not column[row].is_valid] == list(LACKING)
    assert column.type.dim_names == ["y", "x", "colour"]
    expected = store.read_field("camera", 0, 24)
    for row in set(range(24)) - set(LACKING):
        np.testing.assert_array_equal(expected[row], column[row].to_numpy())
        assert column[row].to_numpy().dtype == ("uint8" if dtype == "bool" else expected.dtype)


def test_encoded_images_are_in_parquet_as_the_bytes_that_they_are(tmp_path: Path) -> None:
    store = store_of(tmp_path, keep=True)
    zstore.export(store, tmp_path / "out", fields=["camera"], rows_per_file=12)
    column = pq.read_table(tmp_path / "out")["camera"].to_pylist()
    assert column == [None if n in LACKING else (tmp_path / f"{n}.png").read_bytes() for n in range(24)]


@settings(max_examples=15)
@given(st.integers(0, 11), st.integers(1, 12), st.sampled_from([60, 200, 100_000]), st.booleans())
def test_any_times_of_a_field_come_in_batches_of_any_size(
    tmp_path_factory: pytest.TempPathFactory, start: int, n: int, batch_bytes: int, keep: bool
) -> None:
    store = zstore.open_store(made(tmp_path_factory, keep))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zstore.reading.batches._FIELD_BYTES", batch_bytes)
        table = store.sel(start=start, stop=start + n).to_arrow(fields="camera").read_all()
    rows = [row for row in range(24) if start <= row % 12 < start + n]
    assert [value.is_valid for value in table["camera"]] == [row not in LACKING for row in rows]
    for row, value in zip(rows, table["camera"], strict=True):
        if value.is_valid:
            expected: Any = (
                store.read_bytes("camera", row, row + 1)[0] if keep else store.read_field("camera", row, row + 1)[0]
            )
            np.testing.assert_array_equal(expected, value.as_py() if keep else value.to_numpy())


def made(factory: pytest.TempPathFactory, keep: bool) -> Path:
    """One such store for all examples."""
    folder = factory.getbasetemp() / f"batches-{keep}"
    if not folder.exists():
        folder.mkdir()
        store_of(folder, keep=keep)
    return folder / "s.zarr"


def test_a_field_is_in_no_table_unless_it_is_named(tmp_path: Path) -> None:
    rows = store_of(tmp_path).sel()
    assert rows.to_arrow().schema.names == ["id", "time", "v"]
    assert list(rows.to_pandas().columns) == ["id", "time", "v"]
    assert pa.table(rows).column_names == ["id", "time", "v"]
    assert rows.to_arrow(statics=True, fields=["camera"]).schema.names == ["id", "time", "v", "camera"]
    with pytest.raises(zstore.NotFoundError, match="no field 'lidar'"):
        rows.to_arrow(fields=["lidar"])
    with pytest.raises(zstore.UsageError, match="'camera' twice"):
        rows.to_arrow(fields=["camera", "camera"])


def test_the_command_says_which_fields_it_leaves_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = store_of(tmp_path).path
    assert main(["export", store, str(tmp_path / "out.csv")]) == 0
    assert capsys.readouterr().out.endswith("left out: field camera (--fields writes them to Parquet)\n")
    assert main(["export", store, str(tmp_path / "out.parquet"), "--fields", "camera"]) == 0
    assert "left out" not in capsys.readouterr().out
    assert main(["export", store, str(tmp_path / "more.csv"), "--fields", "camera"]) == 2
    assert "expected Parquet" in capsys.readouterr().err
    assert not (tmp_path / "more.csv").exists()
