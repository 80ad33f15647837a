"""A table that names files grows and is appended again: only new and changed files are read."""

from __future__ import annotations

import io
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import SMALL_GRID, stored, write_table
from payload_files import image, nifti, npy, voxels

import zstore
from zstore import SourceError
from zstore.cli import main
from zstore.upkeep.compare import compare_sources
from zstore.writing.sources.named_files import below

HEADER = ["id", "date", "age", "word", "path"]


@pytest.fixture
def n_read(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Bytes that were read of files below --file-root, by path."""
    found: dict[str, int] = {}

    class Counting(io.FileIO):
        def readinto(self, buffer: Any) -> int | None:
            n_bytes = super().readinto(buffer)
            name = os.readlink(f"/proc/self/fd/{self.fileno()}")
            found[Path(name).name] = found.get(Path(name).name, 0) + (n_bytes or 0)
            return n_bytes

    monkeypatch.setattr(below, "io", SimpleNamespace(FileIO=Counting, BufferedReader=io.BufferedReader))
    return found


def rows(n_rows: range, ending: str = ".png") -> list[list[object]]:
    """A row for each file, of seven people in turn: some without an age, some without a word."""
    first = np.datetime64("2020-01-01")
    ages = [n / 4 if n % 5 else "" for n in n_rows]
    words = [f"w{n % 3}" if n % 4 else "" for n in n_rows]
    beside = zip(n_rows, ages, words, strict=True)
    return [[f"p{n % 7}", first + np.timedelta64(n // 7, "D"), age, word, f"im{n}{ending}"] for n, age, word in beside]


@pytest.fixture
def pictures(tmp_path: Path) -> list[np.ndarray[Any, Any]]:
    values = [voxels((9, 8, 3), np.uint8, seed=n) for n in range(50)]
    for n, value in enumerate(values):
        image(tmp_path / f"im{n}.png", value)
    return values


def ingest(folder: Path, table: list[list[object]], name: str = "s.zarr", **options: Any) -> zstore.Receipt:
    usual: dict[str, Any] = {"id": "id", "time": "date", "file": {"image": "path"}, "file_root": folder}
    source = write_table(folder / "scans.csv", HEADER, table)
    return zstore.ingest(source, folder / name, **{**usual, **SMALL_GRID, **options})


def append(folder: Path, table: list[list[object]], name: str = "s.zarr", **options: Any) -> zstore.Receipt:
    source = write_table(folder / "scans.csv", HEADER, table)
    receipt = zstore.append(source, folder / name, **options)
    assert receipt is not None
    assert receipt.n_rows_in == receipt.n_stored + receipt.n_quarantined + receipt.n_duplicates + receipt.n_known
    return receipt


def images_of(store: zstore.Store) -> list[tuple[str, int, bytes]]:
    ids = np.repeat(store.ids, store.index.row_size).tolist()
    times, values = store.times(0, store.n_rows).tolist(), store.read_field("image", 0, store.n_rows)
    return [(id_, time, value.tobytes()) for id_, time, value in zip(ids, times, values, strict=True)]


def grown(folder: Path, ending: str, n_files: int, n_read: dict[str, int]) -> tuple[float, zstore.Receipt]:
    """The share of all bytes of files that an append reads after a table has grown by 1 %."""
    new = n_files // 100
    ingest(folder, rows(range(n_files), ending), shard_rows=64)
    n_read.clear()
    receipt = append(folder, rows(range(n_files + new), ending))
    n_bytes = sum(path.stat().st_size for path in folder.glob(f"im*{ending}"))
    return sum(n_read.values()) / n_bytes, receipt


def test_a_table_that_grew_by_one_percent_reads_one_percent_of_the_bytes(
    tmp_path: Path, n_read: dict[str, int]
) -> None:
    for n in range(202):
        npy(tmp_path / f"im{n}.npy", voxels((10, 9, 8), seed=n))
    share, receipt = grown(tmp_path, ".npy", 200, n_read)
    assert share <= 0.015
    assert (receipt.n_stored, receipt.n_known, receipt.n_duplicates) == (2, 200, 0)
    assert "200 rows are in the store already, with the same values and files" in receipt.notes


@pytest.mark.long
def test_of_a_thousand_volumes_that_became_ten_more_ten_are_read(tmp_path: Path, n_read: dict[str, int]) -> None:
    for n in range(1010):
        nifti(tmp_path / f"im{n}.nii.gz", voxels((24, 20, 16), seed=n))
    share, receipt = grown(tmp_path, ".nii.gz", 1000, n_read)
    print(f"{share:.3%} of the bytes of all volumes")  # noqa: T201  # the figure is asked for
    assert share <= 0.015
    assert (receipt.n_stored, receipt.n_known) == (10, 1000)


@pytest.mark.parametrize("keep", [(), ("image",)])
def test_rows_that_are_known_leave_nothing_behind_and_new_ones_are_those_of_the_whole_table(
    tmp_path: Path, pictures: list[Any], keep: tuple[str, ...], n_read: dict[str, int]
) -> None:
    ingest(tmp_path, rows(range(30)), keep_encoded=keep)
    before = stored(tmp_path / "s.zarr")
    n_read.clear()
    receipt = append(tmp_path, rows(range(50))[::-1], workers=2)
    assert sorted(n_read) == sorted(f"im{n}.png" for n in range(30, 50))
    assert (receipt.n_stored, receipt.n_known) == (20, 30)
    assert not any("late rows" in note for note in receipt.notes)
    after = stored(tmp_path / "s.zarr")
    data = {key for key in before if "/c/" in key and not key.startswith(("index", "moments", "manifest"))}
    assert {key: after[key] for key in data} == {key: before[key] for key in data}
    store = zstore.open_store(tmp_path / "s.zarr")
    assert zstore.verify(store).faults == ()
    ingest(tmp_path, rows(range(50)), "whole.zarr", keep_encoded=keep)
    whole = zstore.open_store(tmp_path / "whole.zarr")
    if keep:
        assert store.read_bytes("image", 0, 50) == whole.read_bytes("image", 0, 50)
    else:
        assert images_of(store) == images_of(whole)
    for channel in ("age", "word"):
        np.testing.assert_array_equal(store.read(channel, 0, 50), whole.read(channel, 0, 50))
    assert compare_sources(store, tmp_path / "scans.csv").faults == ()


def test_the_same_command_again_takes_what_is_new(
    tmp_path: Path, pictures: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["ingest", str(tmp_path / "scans.csv"), str(tmp_path / "s.zarr"), "--id", "id", "--time", "date"]
    command += ["--file", "image=path", "--file-root", str(tmp_path), "--append"]
    write_table(tmp_path / "scans.csv", HEADER, rows(range(20)))
    assert main(command) == 0
    write_table(tmp_path / "scans.csv", HEADER, rows(range(22)))
    assert main(command) == 0
    assert "rows in 22 = stored 2 + quarantined 0 + duplicates dropped 0 + in the store already 20" in (
        capsys.readouterr().out
    )
    assert main(command) == 0
    assert "nothing new" in capsys.readouterr().out
    assert zstore.open_store(tmp_path / "s.zarr").n_rows == 22


def test_one_and_two_threads_settle_rows_alike(tmp_path: Path, pictures: list[Any]) -> None:
    for name in ("one.zarr", "two.zarr"):
        ingest(tmp_path, rows(range(30)), name)
    append(tmp_path, rows(range(50)), "one.zarr", workers=1)
    append(tmp_path, rows(range(50)), "two.zarr", workers=2, blocksize=100)
    one, two = (
        {key: content for key, content in stored(tmp_path / name).items() if not key.startswith("manifest")}
        for name in ("one.zarr", "two.zarr")
    )
    assert one == two


def replaced(folder: Path, n: int) -> np.ndarray[Any, Any]:
    """Write another image to a file, which has the length that it had."""
    path = folder / f"im{n}.png"
    value = voxels((9, 8, 3), np.uint8, seed=100 + n)
    image(path, value)
    os.utime(path, ns=(1, 1))
    return value


def test_a_file_that_has_changed_is_told_and_replaced_or_left_as_the_user_says(
    tmp_path: Path, pictures: list[Any], n_read: dict[str, int]
) -> None:
    for name in ("s.zarr", "first.zarr", "last.zarr"):
        ingest(tmp_path, rows(range(30)), name)
    value = replaced(tmp_path, 16)
    n_read.clear()
    with pytest.raises(SourceError, match=r"id 'p2' at 2020-01-03 has another image than the store.*csv line 18.*last"):
        append(tmp_path, rows(range(32)))
    assert "im3.png" not in n_read
    assert zstore.open_store(tmp_path / "s.zarr").version == 1
    receipt = append(tmp_path, rows(range(32)), "first.zarr", on_duplicate="first")
    assert (receipt.n_stored, receipt.n_known, receipt.n_duplicates) == (2, 29, 1)
    receipt = append(tmp_path, rows(range(32)), "last.zarr", on_duplicate="last")
    assert (receipt.n_stored, receipt.n_known, receipt.n_duplicates) == (3, 29, 0)
    for name, expected in (("first.zarr", pictures[16]), ("last.zarr", value)):
        store = zstore.open_store(tmp_path / name)
        row = int(store.index.row_start[2]) + 2
        np.testing.assert_array_equal(expected, store.read_field("image", row, row + 1)[0])
        assert zstore.verify(store).faults == ()


def test_a_file_that_was_only_touched_or_moved_is_read_and_found_the_same(
    tmp_path: Path, pictures: list[Any], n_read: dict[str, int]
) -> None:
    ingest(tmp_path, rows(range(30)))
    os.utime(tmp_path / "im4.png", ns=(1, 1))
    (tmp_path / "moved").mkdir()
    (tmp_path / "im5.png").rename(tmp_path / "moved" / "im5.png")
    table = rows(range(31))
    table[5][4] = "moved/im5.png"
    n_read.clear()
    assert append(tmp_path, table).n_known == 30
    assert sorted(n_read) == ["im30.png", "im4.png", "im5.png"]


def test_a_file_that_is_gone_leaves_its_row_as_it_is(tmp_path: Path, pictures: list[Any]) -> None:
    ingest(tmp_path, rows(range(30)))
    for n in range(28):
        (tmp_path / f"im{n}.png").unlink()
    receipt = append(tmp_path, rows(range(31)))
    assert (receipt.n_stored, receipt.n_known) == (1, 30)
    assert "28 of them name files that are no longer there; the store keeps what it has of them" in receipt.notes
    table = rows(range(32))
    table[7][4] = "other.png"
    with pytest.raises(SourceError, match="has another image than the store"):
        append(tmp_path, table)


@pytest.mark.parametrize(
    ("column", "value", "named"),
    [(2, 77, "age"), (2, "", "age"), (3, "new", "word"), (3, "", "word"), (4, "", "image")],
)
def test_a_row_with_another_value_is_a_duplicate(
    tmp_path: Path, pictures: list[Any], column: int, value: object, named: str
) -> None:
    ingest(tmp_path, rows(range(30)))
    table = rows(range(31))
    table[17][column] = value
    with pytest.raises(SourceError, match=f"id 'p3' at 2020-01-03 has another {named} than the store.*line 19"):
        append(tmp_path, table)
    assert append(tmp_path, table, on_duplicate="last").n_known == 29
    store = zstore.open_store(tmp_path / "s.zarr")
    row = int(store.index.row_start[3]) + 2
    if named == "age":
        np.testing.assert_array_equal(store.read("age", row, row + 1), [np.nan if value == "" else value])
    elif named == "image":
        assert not store.payload_digests("image", row, row + 1).any()


@pytest.mark.parametrize(("keep", "chosen"), [("first", 0), ("last", 49)])
def test_a_table_with_two_rows_at_one_time_keeps_the_same_one_however_often_it_grows(
    tmp_path: Path, pictures: list[Any], keep: Any, chosen: int
) -> None:
    twice = [*rows(range(30)), ["p0", "2020-01-01", 8, "w2", "im49.png"]]
    ingest(tmp_path, twice, on_duplicate=keep)
    for n in range(30, 33):
        receipt = append(tmp_path, [*twice, *rows(range(30, n + 1))], on_duplicate=keep)
        assert (receipt.n_stored, receipt.n_known, receipt.n_duplicates) == (1, n, 1)
        store = zstore.open_store(tmp_path / "s.zarr")
        np.testing.assert_array_equal(pictures[chosen], store.read_field("image", 0, 1)[0])
        np.testing.assert_array_equal(store.read("age", 0, 1), [8 if chosen else np.nan])


def test_a_table_without_a_new_row_is_taken_note_of(tmp_path: Path, pictures: list[Any]) -> None:
    ingest(tmp_path, rows(range(30)))
    receipt = append(tmp_path, rows(range(30))[::-1])
    assert (receipt.n_stored, receipt.n_known) == (0, 30)
    assert zstore.append(tmp_path / "scans.csv", tmp_path / "s.zarr") is None
    store = zstore.open_store(tmp_path / "s.zarr")
    assert store.n_rows == 30
    assert store.contiguous  # for other readers, who see a contiguous ragged array
    assert zstore.verify(store).faults == ()


def test_force_looks_at_the_files_of_a_table_that_has_not_changed(tmp_path: Path, pictures: list[Any]) -> None:
    ingest(tmp_path, rows(range(30)))
    value = replaced(tmp_path, 2)
    assert zstore.append(tmp_path / "scans.csv", tmp_path / "s.zarr") is None
    with pytest.raises(SourceError, match="another image"):
        zstore.append(tmp_path / "scans.csv", tmp_path / "s.zarr", force=True)
    receipt = zstore.append(tmp_path / "scans.csv", tmp_path / "s.zarr", force=True, on_duplicate="last")
    assert receipt is not None
    assert (receipt.n_stored, receipt.n_known) == (1, 29)
    store = zstore.open_store(tmp_path / "s.zarr")
    row = int(store.index.row_start[2])
    np.testing.assert_array_equal(value, store.read_field("image", row, row + 1)[0])


def test_what_was_set_aside_is_taken_once_its_file_is_good(tmp_path: Path, pictures: list[Any]) -> None:
    content = (tmp_path / "im9.png").read_bytes()
    (tmp_path / "im9.png").write_bytes(content[:-40])
    assert ingest(tmp_path, rows(range(30)), on_bad_row="quarantine").n_quarantined == 1
    (tmp_path / "im9.png").write_bytes(content)
    receipt = append(tmp_path, rows(range(31)), on_bad_row="quarantine")
    assert (receipt.n_stored, receipt.n_known, receipt.n_quarantined) == (2, 29, 0)
    ingest(tmp_path, rows(range(31)), "whole.zarr")
    assert images_of(zstore.open_store(tmp_path / "s.zarr")) == images_of(zstore.open_store(tmp_path / "whole.zarr"))


def test_positions_in_arrays_are_told_apart(tmp_path: Path, n_read: dict[str, int]) -> None:
    npy(tmp_path / "a.npy", voxels((60, 4, 3)))
    table = [[*row[:4], "a.npy", n] for n, row in enumerate(rows(range(30)))]
    options: dict[str, Any] = {"file": {"image": "path"}, "file_root": tmp_path, "file_position": {"image": "n"}}
    source = write_table(tmp_path / "scans.csv", [*HEADER, "n"], table)
    zstore.ingest(source, tmp_path / "s.zarr", id="id", time="date", **options, **SMALL_GRID)
    table = [[*row[:4], "a.npy", n] for n, row in enumerate(rows(range(31)))]
    write_table(source, [*HEADER, "n"], table)
    n_read.clear()
    receipt = zstore.append(source, tmp_path / "s.zarr")
    assert receipt is not None
    assert receipt.n_known == 30
    table[3][5] = 50
    write_table(source, [*HEADER, "n"], table)
    with pytest.raises(SourceError, match="id 'p3' at 2020-01-01 has another image"):
        zstore.append(source, tmp_path / "s.zarr")


def test_a_store_that_was_compacted_still_knows_its_files(
    tmp_path: Path, pictures: list[Any], n_read: dict[str, int]
) -> None:
    for keep in ([], ["image"]):
        name = f"s{len(keep)}.zarr"
        ingest(tmp_path, rows(range(30)), name, keep_encoded=keep)
        append(tmp_path, rows(range(40)), name)
        zstore.compact(tmp_path / name)
        n_read.clear()
        assert append(tmp_path, rows(range(41)), name).n_known == 40
        assert sorted(n_read) == ["im40.png"]


def test_files_are_known_after_a_field_was_written_anew_for_a_value_that_is_no_byte(
    tmp_path: Path, n_read: dict[str, int]
) -> None:
    for n in range(32):
        npy(tmp_path / f"im{n}.npy", voxels((4, 3), np.float32, seed=n) + (0.5 if n == 30 else 0))
    ingest(tmp_path, rows(range(30), ".npy"))
    assert append(tmp_path, rows(range(31), ".npy")).n_stored == 1
    n_read.clear()
    assert append(tmp_path, rows(range(32), ".npy")).n_known == 31
    assert sorted(n_read) == ["im31.npy"]
    store = zstore.open_store(tmp_path / "s.zarr")
    assert store.read_field("image", 0, 1).dtype == np.float32
    assert zstore.verify(store).faults == ()
