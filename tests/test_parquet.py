"""Parquet files as sources, with pyarrow's own reading of them as the oracle."""

from __future__ import annotations

import datetime as dt
import json
import math
import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from decimal import Context, Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from conftest import SMALL_GRID, few, stored, write_table
from hypothesis import given, settings
from hypothesis import strategies as st

import zstore
from zstore import SourceError, Store, UsageError, ZstoreError, open_store
from zstore.cli import main
from zstore.printing import show_plan
from zstore.upkeep.compare import compare_sources
from zstore.writing.planner import plan_ingest

READING: dict[str, Any] = {"id": "id", "time": "time"}
DAY = dt.datetime(2020, 1, 1)


def parquet(path: Path, columns: dict[str, Any], **writing: Any) -> Path:
    """Write a Parquet file of columns that are Arrow arrays, or lists."""
    pq.write_table(pa.table(columns), path, **writing)
    return path


def rows(path: Path, n_rows: int = 240, n_series: int = 5, **writing: Any) -> Path:
    """A long table in time order: words as ids, timestamps, numbers with decimals and nulls, categories."""
    random = np.random.default_rng(0)
    values = [None if random.random() < 0.1 else round(float(v), 2) for v in random.normal(size=n_rows)]
    return parquet(
        path,
        {
            "id": [f"s{n % n_series}" for n in range(n_rows)],
            "time": pa.array([DAY + dt.timedelta(hours=n // n_series) for n in range(n_rows)], pa.timestamp("us")),
            "v": values,
            "word": [["north", "south", None][n % 3] for n in range(n_rows)],
        },
        **writing,
    )


def made(source: Path | Sequence[Path], path: Path, **reading: Any) -> Store:
    zstore.ingest(source, path, **{**READING, **reading})
    return open_store(path)


def one(path: Path, array: pa.Array, **reading: Any) -> Store:
    """The store of one series whose rows have a column `x`, at times 0, 1, 2, …"""
    parquet(path / "one.parquet", {"time": list(range(len(array))), "x": array})
    return made(path / "one.parquet", path / "one.zarr", id=None, overwrite=True, **reading)


def values(store: Store, channel: str) -> list[float | None]:
    return [None if math.isnan(v) else v for v in store.read(channel, 0, store.n_rows).tolist()]


def words(store: Store, channel: str) -> list[str | None]:
    known = store.channel(channel).categories or ()
    return [None if math.isnan(c) else known[int(c)] for c in store.read(channel, 0, store.n_rows).tolist()]


# Types.

INTEGERS = {f"{sign}int{bits}": bits for sign in ("", "u") for bits in (8, 16, 32, 64)}


@st.composite
def integers(draw: st.DrawFn) -> pa.Array:
    name = draw(st.sampled_from(sorted(INTEGERS)))
    info = np.iinfo(name)
    edges = st.sampled_from([info.min, info.max, 0, 1, 2**53, 2**53 + 1, 2**54 + 2]).filter(
        lambda n: info.min <= n <= info.max
    )
    cells = st.none() | edges | st.integers(int(info.min), int(info.max))
    return pa.array(draw(st.lists(cells, min_size=1, max_size=8)), pa.type_for_alias(name))


@st.composite
def floats(draw: st.DrawFn) -> pa.Array:
    name, width = draw(st.sampled_from([("float16", 16), ("float32", 32), ("float64", 64)]))
    cells = st.none() | st.floats(width=width)  # type: ignore[arg-type]  # one of three
    drawn = draw(st.lists(cells, min_size=1, max_size=8))
    return pa.array([None if v is None else np.dtype(name).type(v) for v in drawn], pa.type_for_alias(name))


WIDE = Context(prec=60)


@st.composite
def decimals(draw: st.DrawFn) -> pa.Array:
    precision = draw(st.integers(1, 38))
    scale = draw(st.integers(0, precision))
    largest = 10**precision - 1
    digits = st.none() | st.integers(-largest, largest) | st.integers(-min(largest, 999), min(largest, 999))
    drawn = draw(st.lists(digits, min_size=1, max_size=8))
    cells = [None if n is None else Decimal(n).scaleb(-scale, WIDE) for n in drawn]
    return pa.array(cells, pa.decimal128(precision, scale))


def as_float(value: Any) -> float | None:
    """The float64 nearest to a value, as Python rounds it; None where it is missing."""
    if value is None:
        return None
    number = float(value)
    return None if math.isnan(number) else number


@settings(max_examples=few(25))
@given(array=integers() | floats() | decimals() | st.just(pa.array([True, False, None])))
def test_numbers_of_every_type_are_the_nearest_float64_of_what_pyarrow_reads(
    array: pa.Array, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("types")
    store = one(folder, array, time="time", dtype="float64")
    read = pq.read_table(folder / "one.parquet")["x"].to_pylist()
    assert values(store, "x") == [as_float(value) for value in read]


@settings(max_examples=few(25))
@given(array=integers() | decimals())
def test_values_with_more_digits_than_a_float64_keeps_are_counted(
    array: pa.Array, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("digits")
    store = one(folder, array, time="time", dtype="float64")

    def kept(value: Any) -> bool:
        """Whether the float64, written with the digits of the value, is the value."""
        if isinstance(value, int):
            return int(float(value)) == value
        digits = max(len("".join(map(str, value.as_tuple().digits)).strip("0")), 1)
        return bool(Decimal(f"{float(value):.{digits - 1}e}") == value)

    lost = [value for value in array.to_pylist() if value is not None and not kept(value)]
    receipt = store.objects.document["receipt"]
    assert receipt["channels"][0]["n_inexact"] == len(lost)


def test_a_number_beyond_float32_is_refused_with_its_row_group_and_row(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"number 1e\+39 in column 'x'.*--dtype float64.*row group 0 row 1"):
        one(tmp_path, pa.array([1.0, 1e39]), time="time")
    assert values(one(tmp_path, pa.array([1.0, math.inf]), time="time"), "x") == [1.0, math.inf]


TEXTS = st.sampled_from(["", "a", "ä", "NA", "1", "b c", "\U0001f30a"])


@settings(max_examples=15)
@given(cells=st.lists(st.none() | TEXTS, min_size=1), how=st.integers(0, 4))
def test_words_are_categories_whatever_arrow_keeps_them_in(
    cells: list[str | None], how: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    known = sorted({cell for cell in cells if cell is not None})
    unused = pa.DictionaryArray.from_arrays(
        pa.array([None if cell is None else known.index(cell) for cell in cells], pa.int16()),
        pa.array([*known, "never"], pa.large_string() if how == 4 else pa.string()),
    )
    kinds = [
        pa.array(cells, pa.string()),
        pa.array(cells, pa.large_string()),
        pa.array(cells, pa.string()).dictionary_encode(),
        unused,
        unused,
    ]
    store = one(tmp_path_factory.mktemp("words"), kinds[how], time="time")
    assert words(store, "x") == cells
    assert store.channel("x").categories == tuple(sorted({c for c in cells if c is not None}, key=str.encode))


def test_whole_numbers_decimals_and_booleans_can_be_categories_as_exact_texts(tmp_path: Path) -> None:
    large = 2**63 - 1
    for array, expected in (
        (pa.array([large, None, -1]), [str(large), None, "-1"]),
        (pa.array([Decimal("1.50"), None, Decimal("-0.25")]), ["1.50", None, "-0.25"]),
        (pa.array([True, None, False]), ["true", None, "false"]),
    ):
        assert words(one(tmp_path, array, time="time", categories=["x"]), "x") == expected
    with pytest.raises(SourceError, match=r"column 'x' of type double as categories"):
        one(tmp_path, pa.array([1.5]), time="time", categories=["x"])


def test_a_column_without_any_value_is_one_of_missing_numbers(tmp_path: Path) -> None:
    assert values(one(tmp_path, pa.nulls(3), time="time"), "x") == [None, None, None]


@pytest.mark.parametrize(
    "array",
    [
        pa.array([{"a": 1}]),
        pa.array([[[1.0]]]),
        pa.array([["a"]]),
        pa.array([b"a"]),
        pa.array([dt.date(2020, 1, 1)]),
        pa.array([dt.timedelta(1)]),
        pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
    ],
    ids=str,
)
def test_columns_that_can_be_no_channel_are_refused_by_name_and_can_be_left_out(
    array: pa.Array, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match=r"column 'x' of type .*; expected numbers, .*--leave-out x"):
        one(tmp_path, array, time="time")
    parquet(tmp_path / "two.parquet", {"time": [0], "x": array, "y": [1.5]})
    store = made(tmp_path / "two.parquet", tmp_path / "two.zarr", id=None, leave_out=["x"])
    assert tuple(store.channels) == ("y",)


# Vectors.


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.int16()), pa.large_list(pa.float32()), pa.list_(pa.float64(), 3)], ids=str
)
def test_lists_are_vectors_with_a_channel_for_each_position(kind: pa.DataType, tmp_path: Path) -> None:
    lists = [[1, 2, 3], [4, None, 6], [-1, 0, 8]]
    store = one(tmp_path, pa.array(lists, kind), time="time", rename={"x": "emg"}, units={"x": "mV"})
    assert tuple(store.channels) == ("emg.0", "emg.1", "emg.2")
    assert [values(store, f"emg.{n}") for n in range(3)] == [list(column) for column in zip(*lists, strict=True)]
    assert {channel.units for channel in store.schema.channels} == {"mV"}


def test_lists_of_another_length_and_missing_ones_are_bad_rows(tmp_path: Path) -> None:
    lists = pa.array([[1.0, 2.0], [3.0], None, [], [5.0, 6.0, 7.0], [8.0, None]])
    with pytest.raises(SourceError, match=r"list of 1 values in column 'x'; expected a list of 2 .*row group 0 row 1"):
        one(tmp_path, lists, time="time")
    store = one(tmp_path, lists, time="time", on_bad_row="quarantine", max_bad_rows=4)
    assert (values(store, "x.0"), values(store, "x.1")) == ([1.0, 8.0], [2.0, None])
    assert store.times(0, 2).tolist() == [0, 5]
    text = (tmp_path / "one.zarr.quarantine.csv").read_text()
    assert text.splitlines()[0] == "file,row_group,row,reason,row"
    for row, reason in enumerate(["list of 1", "missing list", "list of 0", "list of 3"], start=1):
        assert f",0,{row},{reason}" in text


def test_the_position_in_a_vector_is_kept_where_row_groups_are_small(tmp_path: Path) -> None:
    matrix = np.arange(600, dtype=np.float32).reshape(100, 6)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), 6)
    parquet(tmp_path / "v.parquet", {"time": list(range(100)), "x": lists}, row_group_size=7)
    store = made(tmp_path / "v.parquet", tmp_path / "v.zarr", id=None, blocksize=200)
    assert np.array_equal(np.stack([store.read(f"x.{n}", 0, 100) for n in range(6)], axis=1), matrix)


# Ids.


@pytest.mark.parametrize(
    "ids",
    [
        pa.array(["010", "10", "NA"]),
        pa.array(["010", "10", "NA"]).dictionary_encode(),
        pa.array(["010", "10", "NA"], pa.large_string()),
        pa.array([-5, 10, 2**63 - 1]),
        pa.array([5, 10, 2**64 - 1], pa.uint64()),
        pa.array([7, 8, 9], pa.int8()).dictionary_encode(),
    ],
    ids=lambda ids: str(ids.type),
)
def test_ids_are_exact_texts(ids: pa.Array, tmp_path: Path) -> None:
    parquet(tmp_path / "ids.parquet", {"id": ids, "time": [0, 0, 0], "x": [1.0, 2.0, 3.0]})
    store = made(tmp_path / "ids.parquet", tmp_path / "ids.zarr")
    texts = [str(id_) for id_ in ids.to_pylist()]
    assert [str(id_) for id_ in store.ids] == sorted(texts, key=str.encode)
    assert values(store, "x") == [1.0 + texts.index(str(id_)) for id_ in store.ids]


def test_ids_that_no_row_has_make_no_series(tmp_path: Path) -> None:
    ids = pa.DictionaryArray.from_arrays(pa.array([0, 2]), pa.array(["a", "unused", "b"]))
    parquet(tmp_path / "ids.parquet", {"id": ids, "time": [0, 0], "x": [1.0, 2.0]})
    assert [str(id_) for id_ in made(tmp_path / "ids.parquet", tmp_path / "ids.zarr").ids] == ["a", "b"]


def test_an_id_column_without_exact_texts_is_refused(tmp_path: Path) -> None:
    parquet(tmp_path / "ids.parquet", {"id": [1.5], "time": [0], "x": [1.0]})
    with pytest.raises(SourceError, match=r"id column 'id' of type double; expected texts, or whole numbers"):
        made(tmp_path / "ids.parquet", tmp_path / "ids.zarr")


# Times.


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Rome", "+05:30"])
def test_timestamps_of_every_unit_and_zone_are_exact(unit: str, zone: str | None, tmp_path: Path) -> None:
    per_s = 1000 ** ["s", "ms", "us", "ns"].index(unit)
    times = [per_s * s + (per_s > 1) for s in (-5, 0, 86_400 * 20_000, 86_400 * 20_000 + 1)]
    array = pa.array(times, pa.timestamp(unit, zone))
    parquet(tmp_path / "t.parquet", {"time": array, "x": [1, 2, 3, 4]}, version="2.6")
    read = pq.read_table(tmp_path / "t.parquet")["time"]  # Parquet has no seconds
    store = made(tmp_path / "t.parquet", tmp_path / "t.zarr", id=None)
    assert store.schema.time.unit == unit
    assert store.schema.time.zone == (None if zone is None else "UTC")
    assert store.times(0, 4).tolist() == read.cast(pa.timestamp(unit, zone)).cast(pa.int64()).to_pylist() == times
    assert any("times have offsets" in note for note in store.objects.document["receipt"]["notes"]) == (
        zone is not None
    )


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64()], ids=str)
def test_dates_are_days(kind: pa.DataType, tmp_path: Path) -> None:
    days = [dt.date(1969, 12, 31), dt.date(1970, 1, 1), dt.date(2024, 2, 29)]
    parquet(tmp_path / "t.parquet", {"time": pa.array(days, kind), "x": [1, 2, 3]})
    store = made(tmp_path / "t.parquet", tmp_path / "t.zarr", id=None)
    assert [store.schema.time.show(t) for t in store.times(0, 3).tolist()] == [str(day) for day in days]


def test_whole_numbers_count_steps_unless_they_look_like_something_else(tmp_path: Path) -> None:
    parquet(tmp_path / "t.parquet", {"time": pa.array([3, 1, 2], pa.uint8()), "x": [1, 2, 3]})
    store = made(tmp_path / "t.parquet", tmp_path / "t.zarr", id=None)
    assert (store.schema.time.unit, store.times(0, 3).tolist(), values(store, "x")) == (None, [1, 2, 3], [2, 3, 1])
    seconds = [1_600_000_000, 1_600_003_600]
    parquet(tmp_path / "e.parquet", {"time": seconds, "x": [1, 2]})
    with pytest.raises(SourceError, match="--time-unit s"):
        made(tmp_path / "e.parquet", tmp_path / "e.zarr", id=None)
    assert made(tmp_path / "e.parquet", tmp_path / "e.zarr", id=None, time_unit="s").times(0, 2).tolist() == seconds


def test_texts_and_parts_are_times_as_in_csv(tmp_path: Path) -> None:
    texts = ["2020-02-29 01:00", "2020-02-29 02:00"]
    parquet(tmp_path / "t.parquet", {"time": texts, "d": ["29.02.2020", "01.03.2020"], "x": [1, 2]})
    store = made(tmp_path / "t.parquet", tmp_path / "t.zarr", id=None, leave_out=["d"])
    assert store.times(0, 2).tolist() == [1_582_938_000, 1_582_941_600]
    store = made(
        tmp_path / "t.parquet", tmp_path / "d.zarr", id=None, time="d", time_format="%d.%m.%Y", leave_out=["time"]
    )
    assert store.times(0, 2).tolist() == [1_582_934_400, 1_583_020_800]
    parquet(tmp_path / "p.parquet", {"y": [2020, 2020], "m": [2, 2], "d": [28, 29], "x": [1, 2]})
    store = made(tmp_path / "p.parquet", tmp_path / "p.zarr", id=None, time=["y", "m", "d"])
    assert store.times(0, 2).tolist() == [1_582_848_000, 1_582_934_400]


def test_files_of_other_units_share_the_finest_axis_and_those_of_another_kind_are_refused(tmp_path: Path) -> None:
    kinds = {
        "day": pa.array([dt.date(2020, 1, 1)]),
        "us": pa.array([DAY + dt.timedelta(days=1, microseconds=5)]),
        "zone": pa.array([DAY], pa.timestamp("us", "UTC")),
        "whole": pa.array([5]),
    }
    paths = {name: parquet(tmp_path / f"{name}.parquet", {"time": a, "x": [1.0]}) for name, a in kinds.items()}
    store = made([paths["day"], paths["us"]], tmp_path / "t.zarr", id=None)
    assert (store.schema.time.unit, np.diff(store.times(0, 2)).tolist()) == ("us", [86_400_000_005])
    with pytest.raises(SourceError, match=r"times with a time zone; expected times without one, as in .*day"):
        made([paths["day"], paths["zone"]], tmp_path / "t.zarr", id=None, overwrite=True)
    with pytest.raises(SourceError, match=r"times that are whole numbers; expected timestamps or dates, as in .*day"):
        made([paths["day"], paths["whole"]], tmp_path / "t.zarr", id=None, overwrite=True)


@pytest.mark.parametrize(
    ("option", "value"),
    [("time_format", "%Y"), ("time_unit", "s")],
)
def test_a_timestamp_needs_no_word_on_how_it_is_written(option: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"--{option.replace('_', '-')} {value} of a column of timestamps or dates"):
        made(rows(tmp_path / "r.parquet"), tmp_path / "r.zarr", **{option: value})


# Options.


@pytest.mark.parametrize(
    ("option", "value"),
    [("delimiter", ";"), ("decimal", ","), ("thousands", "."), ("percent", ["v"]), ("encoding", "latin-1")],
)
def test_options_of_csv_alone_are_refused_by_name(option: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"--{option} .* of Parquet files"):
        made(rows(tmp_path / "r.parquet"), tmp_path / "r.zarr", **{option: value})
    assert not (tmp_path / "r.zarr").exists()


def test_files_of_several_kinds_are_refused(tmp_path: Path) -> None:
    csv = write_table(tmp_path / "r.csv", ["id", "time", "v", "word"], [["a", "2020-01-01", 1, "b"]])
    with pytest.raises(UsageError, match=r"files of several kinds: .*r.parquet \(parquet\) and .*r.csv \(csv\)"):
        made([rows(tmp_path / "r.parquet"), csv], tmp_path / "r.zarr")
    made(csv, tmp_path / "r.zarr")
    with pytest.raises(UsageError, match=r"r.parquet \(parquet\); expected files of the kind that .* \(csv\)"):
        zstore.append(tmp_path / "r.parquet", tmp_path / "r.zarr")


def test_missing_names_numbers_and_words_of_columns(tmp_path: Path) -> None:
    parquet(
        tmp_path / "m.parquet", {"time": [0, 1, 2], "x": [-999, 5, 7], "w": ["-", "NA", ""], "y": [7.0, -999.0, 1.0]}
    )
    missing = ["-999", "w=-", "y=7", "w=never"]
    store = made(tmp_path / "m.parquet", tmp_path / "m.zarr", id=None, missing=missing)
    assert (values(store, "x"), values(store, "y"), words(store, "w")) == (
        [None, 5, 7],
        [None, None, 1],
        [None, "NA", ""],
    )
    notes = store.objects.document["receipt"]["notes"]
    assert [note for note in notes if "never occurred" in note] == ["--missing w=never never occurred"]


def test_a_wide_table_has_a_series_in_each_column(tmp_path: Path) -> None:
    parquet(tmp_path / "w.parquet", {"t": [1, 2, 3], "b": [1.0, None, 3.0], "a": [4, 5, 6]}, row_group_size=2)
    store = made(tmp_path / "w.parquet", tmp_path / "w.zarr", id=None, time="t", layout="wide", value_name="speed")
    assert [str(id_) for id_ in store.ids] == ["a", "b"]
    assert values(store, "speed") == [4, 5, 6, 1, None, 3]
    assert compare_sources(store, [tmp_path / "w.parquet"]).n_different == 0


def test_ids_can_come_from_paths(tmp_path: Path) -> None:
    for name in ("id=a", "id=b"):
        (tmp_path / name).mkdir()
        parquet(tmp_path / name / "part-0.parquet", {"time": [0, 1], "x": [ord(name[-1]), 2]})
    store = made(sorted(tmp_path.glob("id=*/*.parquet")), tmp_path / "p.zarr", id=None, id_from_path=r"id=(\w+)/")
    assert ([str(id_) for id_ in store.ids], values(store, "x")) == (["a", "b"], [97, 2, 98, 2])


# Bad rows.


def bad_rows(path: Path, group: int = 4) -> Path:
    ids = ["a", None, "b", "", "a", "c"]
    times = [0, 1, None, 3, 4, None]
    return parquet(path, {"id": ids, "time": times, "v": [float(n) for n in range(6)]}, row_group_size=group)


def test_rows_without_id_or_time_are_refused_with_row_group_and_row(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"missing id in column 'id'; expected the id of .*row group 0 row 1"):
        made(bad_rows(tmp_path / "bad.parquet", group=6), tmp_path / "bad.zarr")
    assert not (tmp_path / "bad.zarr").exists()


def test_rows_without_id_or_time_are_set_aside_with_row_group_and_row(tmp_path: Path) -> None:
    store = made(bad_rows(tmp_path / "bad.parquet"), tmp_path / "bad.zarr", on_bad_row="quarantine", max_bad_rows=4)
    assert ([str(id_) for id_ in store.ids], values(store, "v")) == (["a"], [0, 4])
    lines = (tmp_path / "bad.zarr.quarantine.csv").read_text().splitlines()
    assert [line.split(",")[1:4] for line in lines[1:]] == [
        ["0", "1", "missing id in column 'id'"],
        ["0", "2", "missing time in column 'time'"],
        ["0", "3", "empty id in column 'id'"],
        ["1", "1", "missing time in column 'time'"],
    ]
    assert json.loads(lines[1].split(",", 4)[4].strip('"').replace('""', '"')) == {"id": None, "time": 1, "v": 1.0}
    with pytest.raises(SourceError, match=r"4 of 6 rows are bad, the first for this: missing id.*row group 0 row 1"):
        made(tmp_path / "bad.parquet", tmp_path / "few.zarr", on_bad_row="quarantine", max_bad_rows=3)


def test_times_finer_than_the_store_are_bad_rows_of_an_append(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", {"id": ["a"], "time": pa.array([dt.date(2020, 1, 1)]), "x": [1.0]})
    later = [DAY + dt.timedelta(days=1), DAY + dt.timedelta(days=2, milliseconds=1)]
    parquet(tmp_path / "b.parquet", {"id": ["a", "a"], "time": pa.array(later, pa.timestamp("us")), "x": [2.0, 3.0]})
    made(tmp_path / "a.parquet", tmp_path / "s.zarr")
    with pytest.raises(SourceError, match=r"time '2020-01-03 00:00:00.001000' in column .*expected whole seconds"):
        zstore.append(tmp_path / "b.parquet", tmp_path / "s.zarr")
    zstore.append(tmp_path / "b.parquet", tmp_path / "s.zarr", on_bad_row="quarantine")
    assert values(open_store(tmp_path / "s.zarr"), "x") == [1, 2]


def test_texts_that_are_no_utf8_are_bad_rows(tmp_path: Path) -> None:
    broken = pa.array([b"a", b"\xff", b"b"]).view(pa.string())
    for name in ("id", "w"):
        columns = {"id": ["a", "b", "c"], "time": [0, 1, 2], "x": [1.0, 2.0, 3.0], "w": ["p", "q", "r"], name: broken}
        parquet(tmp_path / "u.parquet", columns)
        with pytest.raises(SourceError, match=f"in column '{name}' that is not UTF-8.*row group 0 row 1"):
            made(tmp_path / "u.parquet", tmp_path / "u.zarr", overwrite=True)
        store = made(tmp_path / "u.parquet", tmp_path / "u.zarr", on_bad_row="quarantine", overwrite=True)
        assert values(store, "x") == [1, 3]


def test_two_rows_at_one_time_are_named_by_row_group_and_row(tmp_path: Path) -> None:
    parquet(
        tmp_path / "d.parquet", {"id": list("aaba"), "time": [0, 1, 1, 1], "x": [1.0, 2.0, 3.0, 4.0]}, row_group_size=3
    )
    with pytest.raises(SourceError, match=r"id 'a' has 1 twice.*row group 0 row 1 and .*row group 1 row 0"):
        made(tmp_path / "d.parquet", tmp_path / "d.zarr")
    assert values(made(tmp_path / "d.parquet", tmp_path / "d.zarr", on_duplicate="last"), "x") == [1, 4, 3]


@pytest.mark.parametrize("cut", [4, 8, 100, -1, -9])
def test_damaged_files_are_refused_by_name(cut: int, tmp_path: Path) -> None:
    content = rows(tmp_path / "r.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(content[:cut])
    with pytest.raises(SourceError, match=r"damaged Parquet file .*cut.parquet"):
        made(tmp_path / "cut.parquet", tmp_path / "r.zarr")


def test_a_flipped_bit_in_the_pages_is_refused_where_pages_have_checksums(tmp_path: Path) -> None:
    path = rows(tmp_path / "r.parquet", compression="none", write_page_checksum=True)
    content = bytearray(path.read_bytes())
    content[content.index(b"s3")] ^= 1
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"damaged Parquet file .*r.parquet"):
        made(path, tmp_path / "r.zarr")


def test_a_table_as_csv_and_as_parquet_makes_the_same_bytes(tmp_path: Path) -> None:
    table = pq.read_table(rows(tmp_path / "r.parquet", row_group_size=50))
    pa_csv.write_csv(table.filter(pc.is_valid(table["word"])), tmp_path / "r.csv")
    pq.write_table(table.filter(pc.is_valid(table["word"])), tmp_path / "r.parquet")
    for ending in ("csv", "parquet"):
        made(tmp_path / f"r.{ending}", tmp_path / f"{ending}.zarr")
    ledger = {key for key in stored(tmp_path / "csv.zarr") if key.startswith("manifest/")}
    csv, other = (stored(tmp_path / f"{ending}.zarr") for ending in ("csv", "parquet"))
    assert {k: v for k, v in csv.items() if k not in ledger} == {k: v for k, v in other.items() if k not in ledger}


@settings(max_examples=few(20))
@given(where=st.floats(0, 1, exclude_max=True), octet=st.integers(0, 255))
def test_a_damaged_file_is_refused_or_read_as_it_was(
    where: float, octet: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("damage")
    content = bytearray(rows(folder / "r.parquet", 30, row_group_size=10, write_page_checksum=True).read_bytes())
    expected = values(made(folder / "r.parquet", folder / "whole.zarr"), "v")
    content[int(where * len(content))] = octet
    (folder / "r.parquet").write_bytes(content)
    with suppress(ZstoreError):
        assert values(made(folder / "r.parquet", folder / "r.zarr"), "v") == expected


# The way of the data: nothing of it may depend on how a file is cut.


@given(
    cells=st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 500), st.none() | st.integers(-99, 99)), min_size=1
    ),
    group=st.integers(1, 40),
    blocksize=st.integers(1, 2000),
    workers=st.integers(1, 2),
)
def test_every_row_comes_back_however_files_and_blocks_are_cut(
    cells: list[tuple[str, int, int | None]],
    group: int,
    blocksize: int,
    workers: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    cells = list({cell[:2]: cell for cell in cells}.values())
    ids, times, numbers = zip(*cells, strict=True)
    source = parquet(
        folder / "r.parquet", {"id": ids, "time": times, "v": pa.array(numbers, pa.int64())}, row_group_size=group
    )
    store = made(source, folder / "r.zarr", blocksize=blocksize, workers=workers, **SMALL_GRID)
    expected = sorted(cells, key=lambda cell: cell[:2])
    assert store.times(0, store.n_rows).tolist() == [time for _, time, _ in expected]
    assert values(store, "v") == [number for _, _, number in expected]
    made(source, folder / "whole.zarr", **SMALL_GRID)
    assert stored(folder / "r.zarr") == stored(folder / "whole.zarr")


def test_one_large_row_group_is_read_in_parts_by_several_tasks(tmp_path: Path) -> None:
    source = rows(tmp_path / "r.parquet", n_rows=4000)
    phases: dict[str, int] = {}
    made(source, tmp_path / "parts.zarr", blocksize=2000, progress=lambda phase, done, *_: phases.update({phase: done}))
    made(source, tmp_path / "whole.zarr")
    assert stored(tmp_path / "parts.zarr") == stored(tmp_path / "whole.zarr")


@pytest.mark.parametrize("scheduler", [None, pytest.param("local", marks=pytest.mark.long)])
def test_one_and_two_workers_and_a_cluster_make_the_same_bytes(scheduler: str | None, tmp_path: Path) -> None:
    paths = [rows(tmp_path / "a.parquet", 3000, row_group_size=500), tmp_path / "b.parquet"]
    pq.write_table(pq.read_table(paths[0]).set_column(0, "id", pa.array([f"t{n % 7}" for n in range(3000)])), paths[1])
    made(paths, tmp_path / "one.zarr", workers=1, blocksize=5000)
    made(paths, tmp_path / "two.zarr", workers=2, blocksize=3000, scheduler=scheduler)
    assert stored(tmp_path / "one.zarr") == stored(tmp_path / "two.zarr")


def test_rows_that_are_appended_are_those_of_one_ingest(tmp_path: Path) -> None:
    table = pq.read_table(rows(tmp_path / "all.parquet"))
    pq.write_table(table.slice(0, 150), tmp_path / "1.parquet")
    pq.write_table(table.slice(150), tmp_path / "2.parquet")
    made(tmp_path / "1.parquet", tmp_path / "s.zarr")
    assert zstore.append([tmp_path / "1.parquet", tmp_path / "2.parquet"], tmp_path / "s.zarr") is not None
    assert zstore.append(tmp_path / "2.parquet", tmp_path / "s.zarr") is None
    store, whole = open_store(tmp_path / "s.zarr"), made(tmp_path / "all.parquet", tmp_path / "all.zarr")
    assert store.times(0, store.n_rows).tolist() == whole.times(0, whole.n_rows).tolist()
    assert (values(store, "v"), words(store, "word")) == (values(whole, "v"), words(whole, "word"))
    assert store.objects.document["table"]["source"] == "parquet"
    comparison = compare_sources(store, [tmp_path / "1.parquet", tmp_path / "2.parquet"])
    assert (comparison.n_rows, comparison.n_different, comparison.n_unseen) == (240, 0, 0)


def test_verify_source_finds_a_row_that_differs(tmp_path: Path) -> None:
    parquet(
        tmp_path / "r.parquet", {"id": ["a", "a"], "time": [0, 1], "emg": [[1.0, 2.0], [3.0, 4.0]], "w": ["p", "q"]}
    )
    store = made(tmp_path / "r.parquet", tmp_path / "r.zarr", rename={"emg": "e"})
    assert compare_sources(store, [tmp_path / "r.parquet"]).n_different == 0
    parquet(
        tmp_path / "r.parquet", {"id": ["a", "a"], "time": [0, 1], "emg": [[1.0, 2.0], [3.0, 5.0]], "w": ["p", "q"]}
    )
    comparison = compare_sources(store, [tmp_path / "r.parquet"])
    assert comparison.n_different == 1
    assert comparison.faults == (f"id 'a' at 1 in {tmp_path / 'r.parquet'} is not what the store has",)


DYING = """
import os, sys
import zstore, zstore.writing.pipeline as pipeline
pipeline.plan_shards = lambda *_, **__: os._exit(9)
zstore.ingest(sys.argv[1], sys.argv[2], id="id", time="time", on_bad_row="quarantine", blocksize=2000)
"""


def test_a_run_that_was_killed_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python: str) -> None:
    table = pq.read_table(rows(tmp_path / "r.parquet", 2000))
    ids = [None if n == 777 else f"s{n % 5}" for n in range(2000)]
    pq.write_table(table.set_column(0, "id", pa.array(ids)), tmp_path / "r.parquet")
    options: dict[str, Any] = {"on_bad_row": "quarantine", "blocksize": 2000}
    made(tmp_path / "r.parquet", tmp_path / "whole.zarr", **options)
    command = [python, "-c", DYING, str(tmp_path / "r.parquet"), str(tmp_path / "killed.zarr")]
    assert subprocess.run(command, env=os.environ, check=False).returncode == 9

    def refused(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("zstore.writing.parse.parse_blocks", refused)
    made(tmp_path / "r.parquet", tmp_path / "killed.zarr", **options)
    assert stored(tmp_path / "killed.zarr") == stored(tmp_path / "whole.zarr")
    aside = [(tmp_path / f"{name}.zarr.quarantine.csv").read_text() for name in ("killed", "whole")]
    assert aside[0] == aside[1] != ""


def test_the_dry_run_knows_the_rows_from_the_footer(tmp_path: Path) -> None:
    source = rows(tmp_path / "r.parquet", 3000, row_group_size=400)
    planned = plan_ingest(source, **READING)
    assert abs(planned.n_rows - 3000) <= 1
    assert "inflate" not in planned.tasks
    assert planned.source_bytes == source.stat().st_size
    assert "plain text" not in show_plan(planned, "r.zarr")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.parquet"]


def test_the_command_takes_parquet_as_it_takes_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, store = rows(tmp_path / "r.parquet"), tmp_path / "r.zarr"
    flags = ["--id", "id", "--time", "time", "--quiet"]
    assert main(["ingest", str(source), str(store), *flags, "--dry-run"]) == 0
    assert main(["ingest", str(source), str(store), *flags]) == 0
    assert main(["ingest", str(source), str(store), *flags, "--append"]) == 0
    assert main(["verify", str(store), "--source", str(source), "--quiet"]) == 0
    assert main(["ingest", str(source), str(store), *flags, "--append", "--delimiter", ";"]) == 2
    assert "--delimiter ;" in capsys.readouterr().err
