"""Files that a column names, from the command line to the store: whatever the source is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import SMALL_GRID, stored, write_table
from numpy.typing import NDArray
from payload_files import AFFINE, dicom_folder, image, nifti, npz, voxels

import zstore
from zstore import SourceError, UsageError, ZstoreError
from zstore.cli import main
from zstore.format.payloads.chain import VolumeChain
from zstore.format.payloads.grid import SourceGrid
from zstore.writing.planner import plan_ingest
from zstore.writing.sources.named_files.reader import FileReader

HEADER = ["id", "date", "age", "path", "number"]


def rows(paths: list[str], numbers: list[int] | None = None) -> list[list[object]]:
    """A row for each path: of three people in turn, a day later each time round."""
    numbers = numbers or [0] * len(paths)
    return [[f"p{n % 3}", f"2020-01-{n // 3 + 1:02d}", n, path, numbers[n]] for n, path in enumerate(paths)]


def in_order(values: list[NDArray[Any]]) -> NDArray[Any]:
    return np.stack([values[n] for person in range(3) for n in range(person, len(values), 3)])


def as_csv(folder: Path, table: list[list[object]]) -> Any:
    return write_table(folder / "table.csv", HEADER, table)


def as_arrow(folder: Path, table: list[list[object]]) -> Any:
    columns = [list(column) for column in zip(*table, strict=True)]
    dates = pa.array(columns[1]).cast(pa.timestamp("s"))
    return pa.table(dict(zip(HEADER, [columns[0], dates, *columns[2:]], strict=True)))


def as_parquet(folder: Path, table: list[list[object]]) -> Any:
    pq.write_table(as_arrow(folder, table), folder / "table.parquet", row_group_size=5)
    return folder / "table.parquet"


SOURCES: list[Callable[[Path, list[list[object]]], Any]] = [as_csv, as_parquet, as_arrow]


def ingest(source: Any, folder: Path, name: str = "s.zarr", **options: Any) -> zstore.Store:
    usual = {"id": "id", "time": "date", "file": {"image": "path"}, "file_root": folder, **SMALL_GRID}
    zstore.ingest(source, folder / name, **{**usual, **options})
    return zstore.open_store(folder / name)


@pytest.fixture
def images(tmp_path: Path) -> list[NDArray[Any]]:
    values = [voxels((9, 8, 3), np.uint8, seed=n) for n in range(14)]
    (tmp_path / "in").mkdir()
    for n, value in enumerate(values):
        image(tmp_path / "in" / f"{n}.png", value)
    return values


def paths(n: int) -> list[str]:
    return [f"in/{m}.png" for m in range(n)]


@pytest.mark.parametrize("source", SOURCES)
def test_every_value_of_every_file_is_stored_in_the_order_of_rows(
    tmp_path: Path, images: list[NDArray[Any]], source: Any
) -> None:
    store = ingest(source(tmp_path, rows(paths(14))[::-1]), tmp_path, channels=["age"])
    assert (store.channels, store.fields) == (("age",), ("image",))
    assert store.schema.fields[0].dimensions == ("y", "x", "colour")
    np.testing.assert_array_equal(in_order(images), store.read_field("image", 0, 14))
    assert zstore.verify(store).faults == ()


@pytest.mark.parametrize("source", SOURCES)
def test_rows_of_arrays_are_chosen_by_a_column(tmp_path: Path, source: Any) -> None:
    values = voxels((20, 4, 3))
    npz(tmp_path / "a.npz", train=values, test=values[::-1])
    numbers = [19, 3, 3, 0, 7, 11]
    table = rows(["a.npz", "a.npz", "a.npz/test"] * 2, numbers)
    options: dict[str, Any] = {"file_position": {"image": "number"}, "file_member": {"image": "train"}}
    store = ingest(source(tmp_path, table), tmp_path, **options)
    expected = [values[19 - number if n % 3 == 2 else number] for n, number in enumerate(numbers)]
    np.testing.assert_array_equal(in_order(expected), store.read_field("image", 0, 6))
    assert store.channels == ("age",)


def test_several_fields_may_come_from_one_column_and_from_others(tmp_path: Path) -> None:
    values = [voxels((6, 5, 4), seed=n) for n in range(6)]
    for n, value in enumerate(values):
        nifti(tmp_path / f"{n}.nii.gz", value)
        image(tmp_path / f"{n}.png", value[..., 0].astype(np.uint8))
    table = rows([f"{n}.nii.gz" for n in range(6)])
    for n, row in enumerate(table):
        row[4] = f"{n}.png"
    chain = VolumeChain("RAS", (2.0, 2.0, 2.0), shape=(8, 8, 8), dtype="int16")
    store = ingest(
        as_csv(tmp_path, table),
        tmp_path,
        file={"scan": "path", "cube": "path", "picture": "number"},
        file_chain={"cube": chain.to_json()},
        units={"path": "HU"},
    )
    np.testing.assert_array_equal(in_order(values), store.read_field("scan", 0, 6))
    np.testing.assert_array_equal(in_order(values)[..., 0], store.read_field("picture", 0, 6))
    grid = SourceGrid((6, 5, 4), AFFINE)
    cubes = [chain.apply(value, grid, 1 << 20) for value in values]
    np.testing.assert_array_equal(in_order(cubes), store.read_field("cube", 0, 6))
    assert store.fields == ("scan", "cube", "cube_grid", "picture")
    shown = [field for field in store.schema.fields if field.name != "cube_grid"]
    assert [field.units for field in shown] == ["HU", "HU", None]
    axes = [[axis.split("_")[-1] for axis in field.dimensions] for field in shown]
    assert axes == [["x", "y", "z"], ["x", "y", "z"], ["y", "x"]]


def test_the_command_line_says_all_of_it_and_an_append_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    volumes = [voxels((6, 5, 4), np.uint16, seed=n) for n in range(6)]
    for n, value in enumerate(volumes):
        dicom_folder(tmp_path / f"{1000 + n}", value)
    (tmp_path / "chain.yaml").write_text(
        "orientation: LPS\nwindow: {low: -1024, high: -900, to_high: 255}\ndtype: uint8\n"
    )
    as_csv(tmp_path, rows(["1000", "1001", "1002"])).rename(tmp_path / "first.csv")
    as_csv(tmp_path, rows([f"{1000 + n}" for n in range(6)])[3:])
    store = str(tmp_path / "s.zarr")
    flags = ["--id", "id", "--time", "date", "--file", "scan=path", "--file-root", str(tmp_path), "--quiet"]
    chain = ["--file", "raw=path", "--file-chain", f"scan={tmp_path / 'chain.yaml'}", "--leave-out", "number"]
    assert main(["ingest", str(tmp_path / "first.csv"), store, *flags, *chain]) == 0
    assert main(["ingest", str(tmp_path / "table.csv"), store, "--append", *flags, *chain]) == 0
    made = zstore.open_store(store)
    assert made.fields == ("scan", "scan_grid", "raw")
    raw = made.read_field("raw", 0, 6)
    np.testing.assert_array_equal(in_order([v.astype(np.int32) - 1024 for v in volumes]), raw)
    record = made.objects.document["table"]
    assert record["file_chain"]["scan"]["window"] == {"low": -1024, "high": -900, "to_low": 0, "to_high": 255}
    assert record["file"] == {"scan": "path", "raw": "path"}
    assert main(["ingest", str(tmp_path / "table.csv"), store, "--append", "--file", "scan=number"]) == 2
    assert "--file scan=number" in capsys.readouterr().err.replace("{'scan': 'number'}", "scan=number")


def test_an_append_reads_the_same_paths_below_another_folder(tmp_path: Path, images: list[NDArray[Any]]) -> None:
    ingest(as_csv(tmp_path, rows(paths(3))), tmp_path)
    (tmp_path / "moved").mkdir()
    (tmp_path / "in").rename(tmp_path / "moved" / "in")
    table = tmp_path / "later.csv"
    as_csv(tmp_path, rows(paths(6))[3:]).rename(table)
    with pytest.raises(SourceError, match="not there"):
        zstore.append(table, tmp_path / "s.zarr")
    zstore.append(table, tmp_path / "s.zarr", file_root=tmp_path / "moved")
    store = zstore.open_store(tmp_path / "s.zarr")
    got = {tuple(value.ravel()) for value in store.read_field("image", 0, 6)}
    assert got == {tuple(value.ravel()) for value in images[:6]}
    assert store.objects.document["table"]["file_root"] == str(tmp_path)


def test_a_table_that_has_nothing_but_paths_is_a_store_and_can_be_appended_to(
    tmp_path: Path, images: list[NDArray[Any]]
) -> None:
    lines = [",".join(map(str, (row[0], row[1], row[3]))) for row in rows(paths(6))]
    (tmp_path / "a.csv").write_text("\n".join(["id,date,path", *lines[:3]]) + "\n")
    (tmp_path / "b.csv").write_text("\n".join(["id,date,path", *lines[3:]]) + "\n")
    assert ingest(tmp_path / "a.csv", tmp_path).channels == ()
    zstore.append(tmp_path / "b.csv", tmp_path / "s.zarr")
    store = zstore.open_store(tmp_path / "s.zarr")
    got = {tuple(value.ravel()) for value in store.read_field("image", 0, 6)}
    assert got == {tuple(value.ravel()) for value in images[:6]}
    assert zstore.verify(store).faults == ()


def test_threads_and_blocks_do_not_change_a_byte(tmp_path: Path, images: list[NDArray[Any]]) -> None:
    table = as_csv(tmp_path, rows(paths(14)))
    ingest(table, tmp_path, "one.zarr", workers=1)
    ingest(table, tmp_path, "two.zarr", workers=2, blocksize=60)
    one, two = (
        {key: value for key, value in stored(tmp_path / name).items() if not key.startswith("manifest")}
        for name in ("one.zarr", "two.zarr")
    )
    assert one == two


def test_a_row_whose_path_is_empty_has_no_value(tmp_path: Path, images: list[NDArray[Any]]) -> None:
    store = ingest(as_csv(tmp_path, rows(["in/0.png", "", "in/2.png"])), tmp_path)
    assert store.payload_digests("image", 0, 3).any(axis=1).tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("in/99.png", "image of id 'p1' at 2020-01-01: a file that is not there.*table.csv line 3: in/99.png"),
        ("../other.png", "the path '../other.png'.*below"),
        ("in/short.png", "ends too early|bytes of rows|differs"),
        ("in/small.png", r"shape \(2, 2, 3\).*shape \(9, 8, 3\)"),
        ("in/0.txt", "ends in none of"),
        ("in", "empty folder|mark of DICOM"),
    ],
)
def test_a_file_that_is_no_good_is_refused_with_its_row(
    tmp_path: Path, images: list[NDArray[Any]], path: str, names: str
) -> None:
    (tmp_path / "in" / "short.png").write_bytes((tmp_path / "in" / "0.png").read_bytes()[:-100])
    image(tmp_path / "in" / "small.png", voxels((2, 2, 3), np.uint8))
    (tmp_path / "in" / "0.txt").write_text("text")
    with pytest.raises(SourceError, match=names):
        ingest(as_csv(tmp_path, rows(["in/0.png", path, "in/2.png"])), tmp_path)
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.parametrize(
    ("numbers", "names"),
    [
        (["0", "0.5", "1"], "'0.5' in column 'number'"),
        (["0", "", "1"], "no number in column 'number'"),
        (["x", "y", "z"], "'x' in column 'number'"),
        (["0", "-1", "1"], "'-1' in column 'number'"),
        (["0", "20", "1"], "position 20 of 20.*line 3"),
        (["0", "1e300", "1"], "1e300"),
    ],
)
def test_a_position_that_is_no_whole_number_is_refused_and_never_rounded(
    tmp_path: Path, numbers: list[Any], names: str
) -> None:
    np.save(tmp_path / "a.npy", voxels((20, 4)))
    with pytest.raises(SourceError, match=names):
        ingest(as_csv(tmp_path, rows(["a.npy"] * 3, numbers)), tmp_path, file_position={"image": "number"})


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"file": {"image": "paths"}}, "no column 'paths'.*--file"),
        ({"file_position": {"image": "numbers"}}, "no column 'numbers'"),
        ({"file": {"image": "id"}}, "--file and of --id"),
        ({"file": {"image": "date"}}, "--file and of --time"),
        ({"leave_out": ["path"]}, "--leave-out"),
        ({"rename": {"path": "file"}}, "--rename"),
        ({"layout": "wide", "id": None}, "--layout wide"),
        ({"file_position": {"image": "path"}}, "--file and of --file-position"),
        ({"file": "image=path"}, "--file 'image=path'"),
        ({"file": {"age": "path"}}, "age"),
        ({"file_root": None}, "--file-root"),
    ],
)
def test_options_that_do_not_fit_the_table_are_refused(
    tmp_path: Path, images: list[NDArray[Any]], options: dict[str, Any], names: str
) -> None:
    with pytest.raises(UsageError, match=names):
        ingest(as_csv(tmp_path, rows(paths(3))), tmp_path, **options)
    assert not (tmp_path / "s.zarr").exists()


def test_a_plan_reads_no_file_that_a_column_names(
    tmp_path: Path, images: list[NDArray[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FileReader, "read", None)
    options: dict[str, Any] = {"id": "id", "time": "date", "file": {"image": "path"}, "file_root": tmp_path}
    both: list[dict[str, Any]] = [{}, {"channels": ["age"]}]
    for more in both:
        assert plan_ingest(as_csv(tmp_path, rows(paths(14))), **options, **more).n_rows == 14


def test_a_record_that_no_release_wrote_is_refused_by_an_append(tmp_path: Path, images: list[NDArray[Any]]) -> None:
    from zstore.writing.sources.named_files.options import FileOptions

    ingest(as_csv(tmp_path, rows(paths(3))), tmp_path, units={})
    record = zstore.open_store(tmp_path / "s.zarr").objects.document["table"]
    assert FileOptions.from_json(record).to_json() == {"file": {"image": "path"}, "file_root": str(tmp_path)}
    for name, value in [
        ("file", ["image"]),
        ("file", {"image": 7}),
        ("file_root", 7),
        ("file_chain", {"image": "merlin"}),
        ("file_chain", {"image": {"spacings": [1]}}),
        ("keep_encoded", "image"),
    ]:
        with pytest.raises(ZstoreError, match=name):
            FileOptions.from_json({**json.loads(json.dumps(record)), name: value})


def test_a_prediction_goes_back_to_the_voxels_of_each_scan_whatever_has_become_of_the_store(tmp_path: Path) -> None:
    shapes = [(12, 15, 10), (9, 11, 13), (14, 8, 9)]
    labels = []
    for n, shape in enumerate(shapes):
        label = np.zeros(shape, np.uint8)
        label[2:6, 3:7, 1:5], label[6:8, 4:8, 5:8] = n + 1, n + 5
        nifti(tmp_path / f"{n}.nii.gz", label, AFFINE @ np.diag([1.4, 1.7, 1.2, 1]))
        labels.append(label)
    chain = VolumeChain("LAS", (0.9, 1.1, 1.3), "nearest", shape=(60, 60, 60), dtype="uint8")
    options: dict[str, Any] = {"file": {"map": "path"}, "file_chain": {"map": chain.to_json()}}
    table = as_csv(tmp_path, rows(["0.nii.gz", "1.nii.gz", ""]))
    ingest(table, tmp_path, **options)
    as_csv(tmp_path, rows(["0.nii.gz"] * 3 + ["2.nii.gz"])[3:]).rename(tmp_path / "later.csv")
    zstore.append(tmp_path / "later.csv", tmp_path / "s.zarr")
    zstore.compact(tmp_path / "s.zarr")
    store = zstore.open_store(tmp_path / "s.zarr")
    for row, scan in ((0, 0), (1, 2), (2, 1)):
        predicted = store.read_field("map", row, row + 1)[0]
        values, affine = zstore.original_grid(store, "map", row, predicted)
        np.testing.assert_array_equal(labels[scan], values)
        np.testing.assert_allclose(affine, AFFINE @ np.diag([1.4, 1.7, 1.2, 1]), rtol=1e-6)
    with pytest.raises(zstore.NotFoundError, match="no volume of field 'map' in row 3"):
        zstore.original_grid(store, "map", 3, predicted)
    with pytest.raises(zstore.NotFoundError, match="no chain of field 'age'"):
        zstore.original_grid(store, "age", 0, predicted)
    with pytest.raises(UsageError, match=r"\(3, 3, 3\)"):
        zstore.original_grid(store, "map", 0, predicted[:3, :3, :3])
