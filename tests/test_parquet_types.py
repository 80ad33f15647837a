"""What columns of Parquet may be: numbers, words, vectors, ids and times, with pyarrow's own reading as the oracle."""

from __future__ import annotations

import datetime as dt
import math
from decimal import Context, Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import few
from hypothesis import given, settings
from hypothesis import strategies as st
from parquets import DAY, made, one, parquet, rows, values, words

from zstore import SourceError, UsageError

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
