"""Every view of every version of a store equals the rows fed in, whatever was appended, compacted or collected."""

from __future__ import annotations

import contextlib
import csv
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
import xarray
from conftest import SMALL_GRID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zstore import Store, append, compact, export, gc, ingest, open_store
from zstore.cli import main
from zstore.reading.columns import id_and_time

IDS = ["a", "ä b", "Z", "10", "9", "x,y", "名"]
WORDS = ["", "low", "über", "high, wide", "a b", "a_b", "名"]
# What stands beside channels in some view; the last two differ only in case, or are no safe name.
NAMES = ["time", "id", "row", "series", "row_size", "time_start", "site", "level", "Level", "flow m3-s"]
UNITS = {"daily": "D", "hourly": "h", "weekly": "W", "zoned": "h", "ms": "ms", "ns": "ns"}


@dataclass(frozen=True)
class Table:
    """Rows in the batches that they are fed in.

    Parameters
    ----------
    numbers, words
        Names of the channels of numbers and of categories.
    batches
        Rows of each version: id, step, texts of the numbers, words.
    times
        What steps mean, one of `UNITS`; ``steps`` for plain numbers.
    by_id
        Whether there is a column of ids.
    dtype
        Of the channels of numbers.
    statics
        Names of the static attributes: a number, a category.
    """

    numbers: tuple[str, ...]
    words: tuple[str, ...]
    batches: tuple[tuple[tuple[str, int, tuple[str, ...], tuple[str, ...]], ...], ...]
    times: str
    by_id: bool
    dtype: str
    statics: tuple[str, ...]

    @property
    def channels(self) -> tuple[str, ...]:
        return (*self.numbers, *self.words)

    def time_of(self, step: int) -> Any:
        if self.times == "steps":
            return step
        fraction = {"ms": "T00:00:00.001", "ns": "T00:00:00.000000001"}.get(self.times, "")
        start = np.datetime64(f"2001-01-01{fraction}")
        length: Any = UNITS[self.times]  # numpy has a literal of all units
        return start + np.timedelta64(step, length)

    def write(self, folder: Path, version: int) -> Path:
        path = folder / f"{version}.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            out = csv.writer(file)
            out.writerow([*(["the id"] if self.by_id else []), "the time", *self.channels])
            for id_, step, numbers, words in self.batches[version - 1]:
                text = str(self.time_of(step)) + ("+00:00" if self.times == "zoned" else "")
                text = text.replace("+00:00", "T00:00+00:00") if self.times == "zoned" and len(text) == 16 else text
                out.writerow([*([id_] if self.by_id else []), text, *numbers, *words])
        return path

    def frame(self, version: int) -> pd.DataFrame:
        """The oracle: the rows of a version in the order of (id, time), NaN and None where missing."""
        rows = [row for batch in self.batches[:version] for row in batch]
        rows.sort(key=lambda row: (row[0].encode(), row[1]))
        columns: dict[str, Any] = {"the id": [row[0] for row in rows]}
        columns["the time"] = np.array([self.time_of(row[1]) for row in rows])
        for place, name in enumerate(self.numbers):
            texts = [row[2][place] for row in rows]
            columns[name] = np.array([float(text) if text else np.nan for text in texts]).astype(self.dtype)
        for place, name in enumerate(self.words):
            columns[name] = pd.Series([row[3][place] or None for row in rows], dtype=object)
        return pd.DataFrame(columns)


def values(n_appends: int) -> st.SearchStrategy[str]:
    """Cells of numbers: later batches have more decimals, then floats that no packing holds."""
    decimals = min(n_appends, 3)
    packed = st.integers(-(10**5), 10**5).map(lambda n: f"{n / 10**decimals:.{decimals}f}")
    floats = [st.floats(-(2.0**90), 2.0**90, width=32).map(repr)] if n_appends > 1 else []
    return st.one_of(st.just(""), st.integers(-99, 99).map(str), packed, *floats)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    by_id = draw(st.integers(0, 4)) > 0
    ids = draw(st.lists(st.sampled_from(IDS), min_size=1, max_size=4, unique=True)) if by_id else ["0"]
    names = draw(st.lists(st.sampled_from(NAMES), min_size=2, max_size=4, unique=True))
    n_words = draw(st.integers(0, len(names) - 1))
    numbers, words = tuple(names[n_words:]), tuple(names[:n_words])
    keys = draw(st.lists(st.tuples(st.sampled_from(ids), st.integers(0, 30)), min_size=4, max_size=60, unique=True))
    n_batches = draw(st.integers(2, min(6, len(keys))))
    cuts = [
        0,
        *sorted(
            draw(st.lists(st.integers(1, len(keys) - 1), min_size=n_batches - 1, max_size=n_batches - 1, unique=True))
        ),
    ]
    batches = []
    for number, (low, high) in enumerate(zip(cuts, [*cuts[1:], len(keys)], strict=True)):
        rows: list[tuple[str, int, tuple[str, ...], tuple[str, ...]]] = []
        for id_, step in keys[low:high]:
            seen = WORDS[: 3 + number]
            rows.append(
                (
                    id_,
                    step,
                    tuple(draw(values(number)) if rows else "1" for _ in numbers),
                    tuple(draw(st.sampled_from(seen)) if rows else "low" for _ in words),
                )
            )
        batches.append(tuple(rows))
    times = draw(st.sampled_from(["steps", *UNITS]))
    free = [name for name in [*NAMES, "area"] if name not in words]  # --categories would make words of their numbers
    statics = draw(st.lists(st.sampled_from(free), min_size=2, max_size=2, unique=True)) if by_id else []
    dtype = draw(st.sampled_from(["float32", "float64"]))
    return Table(numbers, words, tuple(batches), times, by_id, dtype, tuple(statics))


def static_of(id_: str) -> tuple[float, str]:
    return len(id_) + 0.5, f"wörd {IDS.index(id_) % 3}"


@contextlib.contextmanager
def grown(table: Table) -> Iterator[Path]:
    """A store with one version per batch of a table, on a grid of few rows."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        patch.setenv("ZSTORE_CACHE", str(folder / "cache"))
        options: dict[str, Any] = {"time": "the time", "categories": table.words, "dtype": table.dtype, "workers": 1}
        options |= SMALL_GRID
        if table.by_id:
            options["id"] = "the id"
        if table.statics:
            with (folder / "statics.csv").open("w", encoding="utf-8", newline="") as file:
                rows = [[id_, *static_of(id_)] for id_ in IDS]
                csv.writer(file).writerows([["the id", *table.statics], *rows])
            options["static"] = folder / "statics.csv"
        ingest(table.write(folder, 1), folder / "s.zarr", **options)
        for version in range(2, len(table.batches) + 1):
            append(table.write(folder, version), folder / "s.zarr", workers=1)
        yield folder / "s.zarr"


def same_numbers(found: Any, expected: Any) -> None:
    assert np.asarray(found).dtype == np.asarray(expected).dtype
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


def other_name(name: str, taken: tuple[str, ...]) -> str:
    while name in taken:
        name += "_"
    return name


def texts(words: Any) -> list[str | None]:
    return [word if isinstance(word, str) else None for word in words]


def codes_to_words(codes: Any) -> list[str | None]:
    words = json.loads(codes.attrs["categories"])
    words = [words] if isinstance(words, str) else list(words)  # netCDF has no lists of one text
    return [None if code < 0 or code != code else words[int(code)] for code in codes.values]


def check_dataset(table: Table, dataset: xarray.Dataset, expected: pd.DataFrame, from_file: bool = False) -> None:
    """A dataset of a whole store, opened or read back from netCDF, against the rows fed in."""
    time, id_, size = (other_name(name, table.channels) for name in ("time", "id", "row_size"))
    sizes = expected.groupby("the id", sort=False).size()
    assert [str(each) for each in dataset[id_].values] == sizes.index.tolist()
    assert dataset[size].values.tolist() == sizes.tolist()
    assert dataset[size].attrs["sample_dimension"] == dataset[time].dims[0]
    assert np.array_equal(dataset[time].values, expected["the time"].to_numpy())
    for name in table.numbers:
        same_numbers(dataset[name].values, expected[name])
    for name in table.words:
        assert dataset[name].dtype.kind == ("f" if from_file else "i")
        assert codes_to_words(dataset[name]) == expected[name].tolist()
    if table.statics:
        number, word = (
            next(
                each
                for each in dataset.values()
                if each.attrs.get("long_name") == name and each.dims == dataset[id_].dims
            )
            for name in table.statics
        )
        described = {row[0] for row in table.batches[0]}  # appends bring no attributes for new series
        known = [static_of(each) if each in described else (np.nan, None) for each in sizes.index]
        np.testing.assert_array_equal(number.values, [each for each, _ in known])
        assert codes_to_words(word) == [each for _, each in known]


def check_series(table: Table, store: Store, expected: pd.DataFrame) -> None:
    """Each series as a frame of pandas, of polars, and as a dataset."""
    time = other_name("time", table.channels)
    for id_, rows in expected.groupby("the id"):
        series = store.series(cast(str, id_))
        frame, polar, dataset = series.to_pandas(), series.to_polars(), series.to_xarray(words=True)
        assert frame.index.name == time
        assert list(frame.columns) == list(table.channels)
        assert list(polar.columns) == [time, *table.channels]
        zone = store.time.zone
        assert str(getattr(frame.index, "tz", None)) == str(zone)
        stamps = frame.index if zone is None else cast(pd.DatetimeIndex, frame.index).tz_localize(None)
        assert np.array_equal(stamps.to_numpy(), rows["the time"].to_numpy())
        assert np.array_equal(polar[time].to_numpy(), rows["the time"].to_numpy())
        assert np.array_equal(dataset[time].values, rows["the time"].to_numpy())
        for name in table.numbers:
            for found in (frame[name], polar[name].to_numpy(), dataset[name]):
                same_numbers(found, rows[name])
        for name in table.words:
            assert frame[name].dtype == "category"
            assert polar[name].dtype == pl.Enum(store.channel(name).categories or ())
            assert frame[name].cat.categories.tolist() == list(store.channel(name).categories or ())
            assert texts(frame[name]) == rows[name].tolist()
            assert polar[name].to_list() == rows[name].tolist()
            assert texts(dataset[name].values) == rows[name].tolist()


def check_export(table: Table, store: Store, expected: pd.DataFrame, folder: Path) -> None:
    target = folder / "out.parquet"
    assert export(store, target, overwrite=True) == len(expected)
    found = pq.read_table(target)
    id_, time = id_and_time(store)
    assert found.column_names == [id_, time, *table.channels]
    assert found[id_].to_pylist() == expected["the id"].tolist()
    stamps = found[time].cast("int64").to_numpy()
    stamps = stamps if table.times == "steps" else stamps.astype(f"M8[{found[time].type.unit}]")
    assert np.array_equal(stamps, expected["the time"].to_numpy())
    for name in table.numbers:
        same_numbers(found[name].to_numpy(), expected[name])
    for name in table.words:
        assert found[name].to_pylist() == expected[name].tolist()


def check_windows(table: Table, store: Store, expected: pd.DataFrame) -> None:
    """Windows of one row are the rows, in order."""
    windows = store.windows(1, 1, delay=-1, channels=table.numbers)
    rows = windows.batch(np.arange(len(windows)))
    assert len(windows) == len(expected)
    np.testing.assert_array_equal(rows["x"][:, 0], expected[list(table.numbers)].to_numpy(np.float32))
    assert store.ids[rows["series"]].tolist() == expected["the id"].tolist()


def check_version(table: Table, path: Path, version: int, n_batches: int) -> None:
    store, expected = open_store(path, version), table.frame(n_batches)
    dataset = store.to_xarray()
    assert dataset[table.channels[0]].chunks is not None
    check_dataset(table, dataset, expected)
    for name in table.words:
        assert texts(store.to_xarray(words=True)[name].values) == expected[name].tolist()
    check_series(table, store, expected)
    check_export(table, store, expected, path.parent)
    check_windows(table, store, expected)


def check_table(table: Table) -> None:
    n_versions = len(table.batches)
    with grown(table) as path:
        for version in range(1, n_versions + 1):
            check_version(table, path, version, version)
        opened = open_store(path, 1).to_xarray()
        compacted = compact(path, workers=1).version
        check_version(table, path, compacted, n_versions)
        check_dataset(table, opened, table.frame(1))
        gc(path, keep=2)
        for version in {n_versions, compacted}:
            check_version(table, path, version, n_versions)
        target = path.parent / "s.nc"
        open_store(path).to_xarray().to_netcdf(target, engine="h5netcdf")
        check_dataset(table, xarray.load_dataset(target, engine="h5netcdf"), table.frame(n_versions), from_file=True)


@settings(max_examples=5, suppress_health_check=list(HealthCheck))
@given(table=tables())
def test_every_view_of_every_version_has_the_rows_fed_in(table: Table) -> None:
    check_table(table)


@pytest.mark.long
@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(table=tables())
def test_every_view_of_every_version_has_the_rows_fed_in_many_times(table: Table) -> None:
    check_table(table)


@settings(max_examples=4, suppress_health_check=list(HealthCheck))
@given(table=tables(), ending=st.sampled_from(["csv", "parquet"]))
def test_an_export_ingests_to_the_same_rows_and_names(table: Table, ending: str) -> None:
    n_versions = len(table.batches)
    with grown(table) as path:
        store, again = open_store(path), path.parent / "again.zarr"
        id_, time = id_and_time(store)
        export(store, path.parent / f"out.{ending}")
        if ending == "parquet":
            pd.read_parquet(path.parent / "out.parquet").to_csv(path.parent / "out.csv", index=False)
        ingest(
            path.parent / "out.csv",
            again,
            id=id_,
            time=time,
            categories=table.words,
            dtype=table.dtype,  # type: ignore[arg-type]
            workers=1,
        )
        assert open_store(again).channels == store.channels
        check_series(table, open_store(again), table.frame(n_versions))


def test_show_prints_a_channel_called_time_beside_the_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.csv").write_text("id,t,time,w\na,1,5.50,x\na,2,,\n")
    ingest(tmp_path / "a.csv", tmp_path / "s.zarr", id="id", time="t")
    assert main(["show", str(tmp_path / "s.zarr"), "a"]) == 0
    assert capsys.readouterr().out.splitlines() == ["time_,time,w", "1,5.5,x", "2,,"]
