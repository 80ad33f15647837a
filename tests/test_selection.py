"""Tables out of a store: some series, times and channels, as Arrow, pandas, polars, xarray and windows."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from conftest import SMALL_GRID, few, write_table
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import zstore
from zstore import NotFoundError, Selection, Store, UsageError, append, ingest, open_store
from zstore.reading.batches import Columns
from zstore.reading.ranges import RowRanges

START = np.datetime64("2001-01-01")
LAND = {"a": "forest", "b": "urban", "c": "forest", "d": ""}
AREA = {"a": 10.0, "b": 20.5, "c": np.nan, "d": 3.0}


def rows_of(ids: str, days: range, skip: Callable[[int], bool] = lambda day: False) -> list[list[object]]:
    """Rows of some ids: a number with gaps in it, a word, a whole number."""
    rows: list[list[object]] = []
    for id_ in ids:
        for day in days:
            if not skip(day):
                number = "" if day % 5 == 0 else f"{day / 4 + ord(id_)}"
                rows.append([id_, START + np.timedelta64(day, "D"), number, ["", "low", "high"][day % 3], day])
    return rows


HEADER = ["id", "day", "level", "state", "n"]


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four series over 40 days with a gap, in two versions; the second brings later rows, late rows and a series."""
    folder = tmp_path_factory.mktemp("grown")
    first = rows_of("abc", range(25), lambda day: 10 <= day < 13 or day == 4)
    more = rows_of("a", range(25, 40)) + rows_of("b", range(10, 13)) + rows_of("d", range(5, 30))
    statics = [[id_, LAND[id_], "" if np.isnan(AREA[id_]) else AREA[id_]] for id_ in LAND]
    write_table(folder / "s.csv", ["id", "land", "area"], statics)
    options: dict[str, Any] = {"id": "id", "time": "day", "static": folder / "s.csv", "workers": 1, **SMALL_GRID}
    ingest(write_table(folder / "1.csv", HEADER, first), folder / "s.zarr", **options)
    append(write_table(folder / "2.csv", HEADER, more), folder / "s.zarr", static=folder / "s.csv", workers=1)
    return folder / "s.zarr"


@pytest.fixture(scope="module")
def table(grown: Path) -> Store:
    return open_store(grown)


def expected_frame(store: Store) -> pd.DataFrame:
    """All rows, by the readers of single channels."""
    frame = pd.DataFrame({"id": np.repeat(store.ids.tolist(), store.index.row_size)})
    frame["time"] = store.times(0, store.n_rows).astype("datetime64[s]")
    for name in store.numbers:
        frame[name] = store.read(name, 0, store.n_rows)
    words, codes = store.channel("state").categories, store.read("state", 0, store.n_rows)
    frame["state"] = pd.Categorical.from_codes(np.nan_to_num(codes, nan=-1).astype(int), categories=list(words))
    return frame[["id", "time", *store.channels]]


@settings(max_examples=few(20), phases=[Phase.explicit, Phase.generate])
@given(
    version=st.sampled_from([1, 2]),
    ids=st.none() | st.lists(st.sampled_from("abc"), max_size=5),
    bounds=st.tuples(*[st.none() | st.integers(-3, 45)] * 2),
    land=st.none() | st.sampled_from(["forest", "urban", None]) | st.lists(st.sampled_from(["forest", "urban"])),
    channels=st.none() | st.lists(st.sampled_from(["n", "state", "level"]), unique=True),
)
def test_a_selection_has_the_rows_that_filters_of_pandas_find(
    grown: Path,
    version: int,
    ids: list[str] | None,
    bounds: tuple[int | None, int | None],
    land: Any,
    channels: list[str] | None,
) -> None:
    store = open_store(grown, version)
    start, stop = (None if day is None else str(START + np.timedelta64(day, "D")) for day in bounds)
    found = store.sel(ids, start, stop, None if land is None else {"land": land}, channels)
    frame = expected_frame(store)
    wanted = frame["id"].isin(list(store) if ids is None else ids)
    lands = [land] if isinstance(land, str) else land
    wanted &= frame["id"].isin(list(store) if lands is None else [id_ for id_ in LAND if LAND[id_] in lands])
    wanted &= frame["time"] >= pd.Timestamp(start or "1990-01-01")
    wanted &= frame["time"] < pd.Timestamp(stop or "2030-01-01")
    expected = frame[wanted].reset_index(drop=True)[["id", "time", *(store.channels if channels is None else channels)]]
    pd.testing.assert_frame_equal(found.to_pandas(), expected)
    pd.testing.assert_frame_equal(found.head(3), expected.head(3))
    assert found.n_rows == len(expected)
    dataset = found.to_xarray(words=True)
    assert dataset["row_size"].values.tolist() == expected.groupby("id", observed=True).size().tolist()
    assert np.array_equal(dataset["time"].values, expected["time"].to_numpy())
    assert dataset["time_stop"].values.tolist() == expected.groupby("id")["time"].max().to_numpy().tolist()
    for name in found.channels:
        assert known(dataset[name].values) == known(expected[name])


def known(values: Any) -> list[Any]:
    """Values as Python has them, None for missing."""
    return [None if each != each else each for each in np.asarray(values, object).tolist()]


@pytest.mark.parametrize("freq", [None, "rows", "MS"])
def test_bounds_cut_irregular_counted_and_monthly_times_where_the_times_say(tmp_path: Path, freq: str | None) -> None:
    random = np.random.default_rng(0)
    rows: list[list[object]] = []
    for id_ in "abcdef":
        months = np.sort(random.choice(60, 12 if freq is None else 30, replace=False))
        stamps = np.datetime64("1999-01", "M") + months.astype("m8[M]")
        days = stamps.astype("M8[D]") + random.integers(0, 1 if freq == "MS" else 27, len(months)).astype("m8[D]")
        rows += [[id_, day, n] for n, day in enumerate(days)]
    source = write_table(tmp_path / "1.csv", ["id", "t", "v"], rows)
    ingest(source, tmp_path / "s.zarr", id="id", time="t", freq=freq, workers=1, **SMALL_GRID)
    store, frame = open_store(tmp_path / "s.zarr"), pd.DataFrame(rows, columns=["id", "t", "v"])
    for start, stop in (("2000-03-01", "2001-01-17"), (None, "1999-06"), ("2003", None), ("2001", "2000")):
        wanted = frame[(frame["t"] >= pd.Timestamp(start or "1990")) & (frame["t"] < pd.Timestamp(stop or "2030"))]
        found = store.sel(start=start, stop=stop)
        assert found.to_pandas()["v"].tolist() == wanted["v"].tolist()
        dataset = found.to_xarray()
        assert dataset["time_start"].values.tolist() == wanted.groupby("id")["t"].min().tolist()
        first, last = store.series("c").rows(start, stop)
        assert store.times(first, last).tolist() == wanted[wanted["id"] == "c"]["t"].astype("int64").tolist()


def test_a_store_is_a_mapping_of_its_series(table: Store) -> None:
    assert (len(table), list(table)) == (4, ["a", "b", "c", "d"])
    assert (table["c"].id, "c" in table, "x" in table, 3 in table) == ("c", True, False, False)
    with pytest.raises(KeyError, match="no id 'x'"):
        table["x"]


def test_order_and_repetition_of_ids_change_nothing(table: Store) -> None:
    assert table.sel(["c", "a", "c"]).ids.tolist() == ["a", "c"]
    assert table.sel("c").ids.tolist() == ["c"]
    many = table.sel([*list("cab") * 20, "c"])
    assert many.ids.tolist() == ["a", "b", "c"]


def test_conditions_are_values_lists_missing_or_functions(table: Store) -> None:
    def ids(**where: Any) -> str:
        return "".join(table.sel(where=where).ids.tolist())

    assert (ids(land="forest"), ids(land=["urban", "forest"]), ids(land=None)) == ("ac", "abc", "d")
    assert (ids(area=10), ids(area={3, 20.5}), ids(area=np.nan), ids(area=[None, 10])) == ("a", "bd", "c", "ac")
    assert ids(area=lambda values: values > 5, land=lambda words: words == "forest") == "a"
    assert ids(land=[]) == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ids": ["a", "x"]}, "no id 'x'"),
        ({"ids": [*"abcd" * 9, "x"]}, "no id 'x'"),
        ({"ids": [1]}, r"id 1 \(int\); expected text"),
        ({"where": {"lnd": 1}}, "no static attribute 'lnd'; expected one of land, area"),
        ({"where": {"land": "forst"}}, "no series with land 'forst'; expected one of forest, urban"),
        ({"where": {"land": 1}}, r"where land is 1 \(int\); expected a word"),
        ({"where": {"area": "10"}}, r"where area is '10' \(str\); expected a number"),
        ({"where": {"area": True}}, r"where area is True \(bool\); expected a number"),
        ({"where": {"area": lambda values: True}}, r"returns bool of shape \(\); expected bool of shape \(4,\)"),
        ({"channels": ["n", "n"]}, "channel 'n' twice"),
        ({"channels": ["m"]}, "no channel 'm'; expected one of level, state, n"),
        ({"start": "soon"}, "unreadable start 'soon'"),
    ],
)
def test_what_cannot_be_selected_is_refused_by_name(table: Store, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((NotFoundError, UsageError), match=message):
        table.sel(**arguments)


def test_static_attributes_are_columns_when_asked_for(table: Store) -> None:
    frame = table.sel(["a", "b", "d"], stop="2001-01-08", channels=[]).to_pandas(statics=True)
    assert list(frame.columns) == ["id", "time", "land", "area"]
    assert frame["land"].cat.categories.tolist() == ["forest", "urban"]
    known = frame.drop_duplicates("id").set_index("id")
    assert known["area"].to_dict() == {"a": 10.0, "b": 20.5, "d": 3.0}
    assert known["land"].astype(object).where(known["land"].notna(), "").to_dict() == {k: LAND[k] for k in "abd"}


def test_selecting_decodes_nothing_and_a_batch_only_its_columns(grown: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    plain = Store.read_stored

    def noted(store: Store, name: str, start: int, stop: int) -> Any:
        read.append(name)
        return plain(store, name, start, stop)

    monkeypatch.setattr(Store, "read_stored", noted)
    found = open_store(grown).sel(start="2001-01-03", where={"land": "forest"}, channels=["n", "level"])
    assert (found.n_rows, repr(found)[:19], read) == (53, "<zstore.Selection o", [])
    reader = found.to_arrow()
    assert (reader.schema.names, read) == (["id", "time", "n", "level"], [])
    assert reader.read_next_batch().num_rows > 0
    assert set(read) == {"n", "level"}


def test_batches_are_decoded_at_most_a_few_ahead_and_a_reader_may_be_left(
    table: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    monkeypatch.setattr("zstore.reading.batches._BLOCK_ROWS", 8)
    monkeypatch.setattr("zstore.reading.batches.n_cores", lambda: 2)
    plain = Columns.batch

    def noted(columns: Columns, ranges: RowRanges) -> Any:
        made.append(ranges.n_rows)
        return plain(columns, ranges)

    monkeypatch.setattr(Columns, "batch", noted)
    reader = table.sel().to_arrow()
    reader.read_next_batch()
    assert len(made) <= 4
    reader.close()
    del reader
    assert len(made) <= 4
    assert table.sel().to_arrow().read_all().equals(pa.Table.from_batches(table.sel().to_arrow()))


def test_damage_reaches_whoever_reads_the_stream(grown: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(grown, tmp_path / "s.zarr")
    shard = tmp_path / "s.zarr" / "n" / "c" / "0"
    shard.write_bytes(shard.read_bytes()[:-1] + b"!")
    with pytest.raises(zstore.CorruptionError, match="object n/c/0"):
        open_store(tmp_path / "s.zarr").sel().to_pandas()


def test_polars_and_duckdb_query_a_selection_as_it_is(table: Store) -> None:
    found = table.sel(where={"land": "forest"})
    frame = found.to_pandas()
    query = "SELECT id, count(n), sum(n), max(state) FROM found GROUP BY id ORDER BY id"
    pairs = duckdb.connect().execute(query).fetchall()
    expected = frame.groupby("id").agg(count=("n", "count"), sum=("n", "sum"))
    assert [pair[:3] for pair in pairs] == list(expected.itertuples(name=None))
    polar = pl.DataFrame(found)
    assert polar["n"].to_list() == frame["n"].tolist()
    assert polar["level"].null_count() == frame["level"].isna().sum()
    lazy = found.to_polars(statics=True, lazy=True)
    assert isinstance(lazy, pl.LazyFrame)
    some = lazy.filter(pl.col("n") > 20).select("land", "n").collect()
    assert some["n"].to_list() == frame["n"][frame["n"] > 20].tolist()
    assert set(some["land"]) == {"forest"}
    assert lazy.select(pl.len()).collect().item() == len(frame)
    assert lazy.head(3).collect()["n"].to_list() == frame["n"].head(3).tolist()


def test_frames_of_polars_have_enums_and_nulls(table: Store) -> None:
    frame = table.sel("a").to_polars()
    assert isinstance(frame, pl.DataFrame)
    assert frame.schema["state"] == pl.Enum(table.channel("state").categories)
    assert frame.schema["time"] == pl.Datetime("ms")
    assert frame["level"].is_nan().sum() == 0
    assert table["a"].to_polars()["level"].null_count() == frame["level"].null_count() > 0
    nothing = table.sel([]).to_polars()
    assert isinstance(nothing, pl.DataFrame)
    assert (nothing.height, nothing.schema) == (0, frame.schema)


def test_an_empty_selection_has_the_types_of_a_full_one(table: Store) -> None:
    full, empty = table.sel(), table.sel(start="2050")
    assert empty.to_arrow().read_all().schema == full.to_arrow().schema
    pd.testing.assert_series_equal(empty.to_pandas().dtypes, full.to_pandas().dtypes)
    assert empty.head().empty
    assert dict(empty.to_xarray().sizes) == {"row": 0, "series": 0}
    with pytest.raises(UsageError, match=r"no window: .* expected at most 0"):
        empty.windows(1, 1)


def test_names_of_ids_and_times_give_way_to_channels(tmp_path: Path) -> None:
    rows = [["a", 0, 5, 1], ["a", 1, 6, 2]]
    ingest(write_table(tmp_path / "1.csv", ["who", "t", "time", "who_"], rows), tmp_path / "s.zarr", id="who", time="t")
    store = open_store(tmp_path / "s.zarr")
    assert store.sel().to_arrow().schema.names == ["who", "time_", "time", "who_"]
    assert store.sel().to_pandas()["time_"].tolist() == [0, 1]


def test_times_with_offsets_are_in_utc(tmp_path: Path) -> None:
    rows = [["a", "2001-01-01T00:00:00.5+01:00", 5], ["a", "2001-01-01T01:00:00.5+01:00", 6]]
    ingest(write_table(tmp_path / "1.csv", ["id", "t", "v"], rows), tmp_path / "s.zarr", id="id", time="t")
    store = open_store(tmp_path / "s.zarr")
    frame = store.sel(start="2001-01-01T00:00Z").to_pandas()
    assert frame["time"].tolist() == [pd.Timestamp("2001-01-01 00:00:00.5", tz="UTC")]
    assert store["a"].to_pandas().index.tolist()[1:] == frame["time"].tolist()
    assert store.sel().to_arrow().schema.field("time").type == pa.timestamp("ms", "UTC")


def test_windows_of_a_selection_are_those_of_the_store_that_lie_in_it(table: Store, tmp_path: Path) -> None:
    found = table.sel(where={"land": "forest"}, start="2001-01-03", stop="2001-01-31", channels=["n"])
    windows = found.windows(2, 1, targets=["level"], cache=tmp_path)
    frame = found.to_pandas()
    frame["day"] = (frame["time"] - pd.Timestamp("2001-01-01")).dt.days
    days = {id_: set(rows["day"]) for id_, rows in frame.groupby("id")}
    expected = [(id_, day) for id_ in "ac" for day in sorted(days[id_]) if {day + 1, day + 2} <= days[id_]]
    batch = windows.batch(np.arange(len(windows)))
    assert [(str(table.ids[s]), int(x[0, 0])) for s, x in zip(batch["series"], batch["x"], strict=True)] == expected
    seconds = [(START + np.timedelta64(day + 2, "D")).astype("M8[s]").astype(int) for _, day in expected]
    assert (batch["time"] == seconds).all()
    again = pickle.loads(pickle.dumps(windows))  # noqa: S301  # its own bytes
    assert np.array_equal(again.batch(np.arange(3))["y"], batch["y"][:3], equal_nan=True)
    assert len(table.sel().windows(2, 1, cache=tmp_path)) == len(table.windows(2, 1, cache=tmp_path))


def test_a_missing_package_is_told_with_the_command_that_installs_it(
    table: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("pandas", "polars", "xarray"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            with pytest.raises(UsageError, match=f"pip install {package}"):
                getattr(table.sel(), f"to_{package}")()


def test_a_selection_shows_what_it_is(table: Store) -> None:
    text = repr(table.sel(["a", "b"], start="2001-01-05", channels=["n"]))
    assert text == (
        f"<zstore.Selection of {table.path} version 2: 52 rows, 2 of 4 series, from 2001-01-05, channels n>"
    )
    again = pickle.loads(pickle.dumps(table.sel(["a", "b"], start="2001-01-05", channels=["n"])))  # noqa: S301  # its own
    assert repr(again) == text
    assert isinstance(table.sel(), Selection)
