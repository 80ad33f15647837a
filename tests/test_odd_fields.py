"""The data doctor on fields: it finds black, still and odd values where they are, and nothing in clean ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SMALL_GRID, write_table
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from payload_files import AFFINE, image, nifti, voxels

import zstore
from zstore.cli import main
from zstore.format.payloads.chain import VolumeChain
from zstore.upkeep.doctor import examine
from zstore.upkeep.field_checks import far_sizes, glances, saturated

N_SERIES, N_ROWS = 4, 30
ILL = slice(2 * N_ROWS, 3 * N_ROWS)  # rows of s2
Values = NDArray[Any]


def frames(dtype: str = "uint8") -> Values:
    """(row, y, x, colour) of four series, in which no two are the same."""
    return np.random.default_rng(5).integers(10, 240, (N_SERIES * N_ROWS, 12, 10, 3)).astype(dtype)


def store_of(folder: Path, values: Values, lacking: list[int] | None = None) -> zstore.Store:
    """A store of a field `camera` of some values; some rows have none."""
    np.save(folder / "a.npy", values)
    random = np.random.default_rng(1)
    rows = [
        [f"s{n // N_ROWS}", n % N_ROWS, random.integers(99), "" if n in (lacking or []) else "a.npy", n]
        for n in range(len(values))
    ]
    source = write_table(folder / "t.csv", ["id", "t", "v", "path", "number"], rows)
    zstore.ingest(
        source,
        folder / "s.zarr",
        id="id",
        time="t",
        file={"camera": "path"},
        file_position={"camera": "number"},
        file_root=folder,
        **SMALL_GRID,
    )
    return zstore.open_store(folder / "s.zarr")


def told(store: zstore.Store, **options: Any) -> list[tuple[str, str, str, int, int]]:
    found = examine(store, **options).findings
    return [(each.kind, each.series, each.channel, each.start, each.stop) for each in found]


def details(store: zstore.Store, kind: str, **options: Any) -> list[str]:
    return [each.sentence for each in examine(store, **options).findings if each.kind == kind]


@pytest.mark.parametrize("dtype", ["uint8", "float32", "int16", "bool"])
def test_clean_fields_are_found_clean(tmp_path: Path, dtype: str) -> None:
    values = frames() > 100 if dtype == "bool" else frames(dtype) + (0.5 if dtype == "float32" else 0)
    assert told(store_of(tmp_path, values)) == []


def planted(rows: slice | list[int], value: Any) -> Callable[[Values], None]:
    def change(values: Values) -> None:
        values[rows] = value

    return change


def frozen(values: Values) -> None:
    values[70:76] = values[70]
    values[80] = values[79]


def still(values: Values) -> None:
    values[ILL] = values[ILL.start]


def blinded(values: Values) -> None:
    values[[64, 65], :6] = 255


PLANTED: dict[str, tuple[Callable[[Values], None], int, int, str]] = {
    "black": (planted([61, 63, 64], 0), 63, 65, "3 rows with 0 throughout, at most 2 together, these from 3"),
    "uniform": (planted([66], 17), 66, 67, "1 row with one number throughout, such as 17, at 6"),
    "repeated": (frozen, 71, 76, "6 rows with the value of the row before, at most 5 together, these from 11"),
    "constant": (still, ILL.start, ILL.stop, "one value in all of 30 rows"),
    "saturated": (blinded, 64, 66, "2 rows with up to 50% of the values at the highest of uint8, from 4"),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_fault_is_found_where_it_is_and_nothing_else(tmp_path: Path, kind: str) -> None:
    change, start, stop, sentence = PLANTED[kind]
    values = frames()
    change(values)
    store = store_of(tmp_path, values)
    assert told(store) == [(kind, "s2", "camera", start, stop)]
    assert details(store, kind) == [sentence]


def test_infinite_values_of_a_field_are_found(tmp_path: Path) -> None:
    values = frames("float32")
    values[65, 3, 3, 1] = -np.inf
    assert told(store_of(tmp_path, values)) == [("infinite", "s2", "camera", 65, 66)]


def test_rows_and_series_without_a_value_are_found_where_most_rows_have_one(tmp_path: Path) -> None:
    store = store_of(tmp_path, frames(), lacking=[3, 4, *range(ILL.start, ILL.stop)])
    assert told(store) == [("empty", "s2", "camera", ILL.start, ILL.stop), ("absent", "s0", "camera", 3, 5)]
    assert details(store, "empty") == ["no value in 30 rows"]


def test_a_field_that_few_rows_have_is_not_told_to_lack(tmp_path: Path) -> None:
    assert told(store_of(tmp_path, frames(), lacking=[n for n in range(N_SERIES * N_ROWS) if n % 10])) == []


def test_what_most_series_have_is_one_finding(tmp_path: Path) -> None:
    values = frames()
    for series in range(N_SERIES):
        values[series * N_ROWS : (series + 1) * N_ROWS] = values[series]  # a mask of each series
    store = store_of(tmp_path, values)
    assert [(kind, series, channel) for kind, series, channel, _, _ in told(store)] == [("constant", "", "camera")]
    assert details(store, "constant") == ["one value in all of 120 rows, in 4 of 4 series"]


def test_a_white_ground_is_not_saturated(tmp_path: Path) -> None:
    values = frames()
    values[:, :8] = 255
    assert told(store_of(tmp_path, values)) == []


def test_episodes_of_the_same_numbers_and_other_frames_are_no_copies(tmp_path: Path) -> None:
    for name, second in (("copy", frames()[:N_ROWS]), ("other", frames()[N_ROWS : 2 * N_ROWS])):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "a.npy", np.concatenate([frames()[:N_ROWS], second]))
        rows = [[f"s{n // N_ROWS}", n % N_ROWS, n % N_ROWS, "a.npy", n] for n in range(2 * N_ROWS)]
        source = write_table(tmp_path / name / "t.csv", ["id", "t", "v", "path", "number"], rows)
        options: dict[str, Any] = {"file": {"camera": "path"}, "file_position": {"camera": "number"}}
        zstore.ingest(
            source, tmp_path / name / "s.zarr", id="id", time="t", file_root=tmp_path / name, **options, **SMALL_GRID
        )
        found = told(zstore.open_store(tmp_path / name / "s.zarr"))
        assert found == ([("copy", "s1", "", N_ROWS, 2 * N_ROWS)] if name == "copy" else [])


def test_a_scan_under_two_ids_is_found_though_their_numbers_differ(tmp_path: Path) -> None:
    values = frames()
    values[ILL] = values[:N_ROWS]
    store = store_of(tmp_path, values)
    assert told(store) == [("copy", "s2", "camera", ILL.start, ILL.stop)]
    assert details(store, "copy") == ["the values of s0 in 30 rows"]


def test_series_too_short_for_a_window_are_found_if_the_window_is_known(tmp_path: Path) -> None:
    store = store_of(tmp_path, frames()[:-12])
    assert "short" not in examine(store).kinds
    assert told(store, window=19) == [("short", "s3", "", 3 * N_ROWS, 4 * N_ROWS - 12)]
    assert details(store, "short", window=31) == [
        "no window of 31 rows in 4 of 4 series; the longest stretch of all has 30 rows"
    ]
    with pytest.raises(zstore.UsageError, match="window of 0"):
        examine(store, window=0)


def test_fields_that_are_skipped_are_judged_by_digests_and_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = frames()
    frozen(values)
    values[10] = 0
    store = store_of(tmp_path, values)
    monkeypatch.setattr(zstore.Store, "read_field", lambda *_: pytest.fail("a field was decoded"))
    assert [each[0] for each in told(store, skip_fields=True)] == ["repeated"]
    assert "black" not in examine(store, skip_fields=True).not_found


def test_the_command_knows_the_window_and_skips_fields(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = frames()
    values[[61, 63]] = 0
    store = store_of(tmp_path, values).path
    assert main(["doctor", store, "--window", "31", "--fail-on", "black"]) == 1
    said = capsys.readouterr().out
    assert "\n  s2 camera: 2 rows with 0 throughout, first at 1\n" in said
    assert "no window of 31 rows in 4 of 4 series" in said
    assert main(["doctor", store, "--skip-fields", "--fail-on", "any"]) == 0
    assert "black" not in capsys.readouterr().out
    assert main(["doctor", store, "--window", "0"]) == 2


def test_each_row_of_a_field_is_decoded_once_and_progress_counts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zstore.upkeep.odd_fields._READ_BYTES", 9_000)
    store = store_of(tmp_path, frames())
    read: list[tuple[int, int]] = []
    done: list[tuple[int, int]] = []
    plain = zstore.Store.read_field

    def reading(self: zstore.Store, name: str, start: int, stop: int) -> Values:
        read.append((start, stop))
        return plain(self, name, start, stop)

    monkeypatch.setattr(zstore.Store, "read_field", reading)
    examine(store, lambda *told: done.append(told))
    rows = sorted(row for start, stop in read for row in range(start, stop))
    assert rows == list(range(N_SERIES * N_ROWS))
    assert len(read) > 4
    assert done[-1] == (2 * N_SERIES * N_ROWS,) * 2
    grid = store.schema.fields[0].grid
    assert grid is not None
    assert all(start % grid.chunk_rows == 0 for start, _ in read)


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_encoded_images_are_found_black_of_another_size_and_repeated(tmp_path: Path, ending: str) -> None:
    random, rows = np.random.default_rng(0), []
    for n in range(150):
        values = random.integers(0, 256, (9, 8, 3)).astype(np.uint8)
        values = {70: values[:5], 90: 0 * values, 91: 0 * values + 200, 92: 0 * values + 200}.get(n, values)
        image(tmp_path / f"{n}.{ending}", values)
        rows.append([f"s{n // 50}", n % 50, random.integers(99), f"{n}.{ending}"])
    zstore.ingest(
        write_table(tmp_path / "t.csv", ["id", "t", "v", "path"], rows),
        tmp_path / "s.zarr",
        id="id",
        time="t",
        file={"camera": "path"},
        file_root=tmp_path,
        keep_encoded=["camera"],
        **SMALL_GRID,
    )
    store = zstore.open_store(tmp_path / "s.zarr")
    assert told(store) == [
        ("odd_file", "s1", "camera", 70, 71),
        ("black", "s1", "camera", 90, 91),
        ("uniform", "s1", "camera", 91, 93),
    ]
    assert details(store, "odd_file") == ["1 image of 5 x 8 x 3, where most are 9 x 8 x 3, at 20"]


def test_scans_with_voxels_of_another_size_are_found(tmp_path: Path) -> None:
    rows = []
    for n in range(7):
        nifti(tmp_path / f"{n}.nii.gz", voxels((6, 5, 4), seed=n), AFFINE @ np.diag([1.0, 1, 3 if n == 4 else 1, 1]))
        rows.append([f"p{n}", 0, n, f"{n}.nii.gz"])
    chain = VolumeChain("RAS", (2.0, 2.0, 2.0), shape=(8, 8, 8), dtype="int16")
    zstore.ingest(
        write_table(tmp_path / "t.csv", ["id", "t", "v", "path"], rows),
        tmp_path / "s.zarr",
        id="id",
        time="t",
        file={"scan": "path"},
        file_chain={"scan": chain.to_json()},
        file_root=tmp_path,
    )
    store = zstore.open_store(tmp_path / "s.zarr")
    assert told(store) == [("odd_file", "p4", "scan", 4, 5)]
    assert details(store, "odd_file") == ["1 scan of 1.5 x 1.25 x 6 mm a voxel, where 1.5 x 1.25 x 2 is usual, at 0"]


def test_what_is_said_of_each_channel_of_a_vector_is_said_once(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = [["a", t, *random.normal(size=3).round(2)] if t > 40 else ["a", t, "", "", ""] for t in range(200)]
    table = write_table(tmp_path / "t.csv", ["id", "t", "emg.0", "emg.1", "rest"], rows)
    zstore.ingest(table, tmp_path / "s.zarr", id="id", time="t")
    found = told(zstore.open_store(tmp_path / "s.zarr"))
    assert sorted(found) == [("missing_run", "a", name, 0, 41) for name in ("emg", "rest")]


DTYPES = ["bool", "int8", "uint8", "int16", "int64", "uint64", "float16", "float32", "float64"]


@given(
    st.sampled_from(DTYPES).flatmap(
        lambda dtype: st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 3)).flatmap(
            lambda shape: arrays(dtype, shape, elements=st.sampled_from(_extremes(dtype)))
        )
    )
)
def test_a_glance_says_of_each_row_what_a_plain_loop_says(values: Values) -> None:
    long = np.tile(values.reshape(len(values), -1), (1, 1024))  # which is looked at in another way
    assert glances(long).tobytes() == glances(values).tobytes()
    for row, found in zip(values, glances(values), strict=True):
        numbers = row.ravel().tolist()
        one = all(number == numbers[0] for number in numbers) or all(number != number for number in numbers)
        assert bool(found["uniform"]) == one
        assert bool(found["black"]) == all(number == 0 for number in numbers)
        assert bool(found["infinite"]) == any(isinstance(number, float) and math.isinf(number) for number in numbers)
        for name, end in zip(("at_low", "at_high"), _ends(values.dtype), strict=True):
            assert float(found[name]) == pytest.approx(sum(number == end for number in numbers) / len(numbers))


def _ends(dtype: Any) -> tuple[Any, Any]:
    if dtype.kind not in "iu":
        return None, None
    return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)


def _extremes(dtype: str) -> list[Any]:
    if dtype.startswith("float"):
        return [0.0, 1.0, float("nan"), float("inf"), -float("inf")]
    if dtype == "bool":
        return [False, True]
    ends = np.iinfo(dtype)
    return [0, 1, ends.min, ends.max, ends.max - 1]


def test_limits_are_relative_to_the_rows_themselves() -> None:
    assert saturated(np.array([0.3, 0.0, 0.01], np.float32)).tolist() == [True, False, False]
    assert not saturated(np.array([0.9, 0.5, 0.5], np.float32)).any()
    assert far_sizes(np.array([[1.0, 1, 3], [1, 1, 3], [1, 1, 7]])).tolist() == [False, False, True]
    assert far_sizes(np.zeros((0, 3))).tolist() == []
