"""Static attributes from tables with types: data frames, Parquet and Arrow. The same as from a CSV of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import stored, write_table

import zstore
from zstore import SourceError, Store, UsageError, cli, open_store

ATTRIBUTES = {
    "site": ["b", "a", "c"],
    "area": [2.5, float("nan"), 1e300],
    "height": [7, -3, 0],
    "land": ["forest", None, "desert"],
    "code": ["007", "010", "007"],
}
CSV = "site,area,height,land,code\nb,2.5,7,forest,007\na,,-3,,010\nc,1e300,0,desert,007\n"


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_table(tmp_path / "rows.csv", ["site", "time", "x"], [["a", 1, 2], ["b", 1, 3], ["a", 2, 4]])


def made(rows: Path, static: Any, name: str = "s", **options: Any) -> Store:
    zstore.ingest(rows, rows.parent / f"{name}.zarr", time="time", static=static, **{"id": "site", **options})
    return open_store(rows.parent / f"{name}.zarr")


def values(store: Store) -> dict[str, list[Any]]:
    return {
        each.name: [
            (None if np.isnan(value) else float(value))
            if each.categories is None
            else (None if value < 0 else each.categories[value])
            for value in each.values.tolist()
        ]
        for each in store.statics
    }


def parquet(folder: Path, table: Any) -> Path:
    pq.write_table(pa.table(table), folder / "static.parquet")
    return folder / "static.parquet"


@pytest.mark.parametrize("kind", ["pandas", "category", "index", "polars", "arrow", "reader", "parquet", "feather"])
def test_static_attributes_of_a_table_are_those_of_its_csv(kind: str, rows: Path) -> None:
    frame = pd.DataFrame(ATTRIBUTES)
    table = pa.table(ATTRIBUTES)
    frame.to_feather(rows.parent / "static.feather")
    tables = {
        "pandas": frame,
        "category": frame.astype({"land": "category", "site": "category"}),
        "index": frame.set_index("site"),
        "polars": pl.DataFrame(ATTRIBUTES),
        "arrow": table,
        "reader": table.to_reader(max_chunksize=1),
        "parquet": parquet(rows.parent, ATTRIBUTES),
        "feather": rows.parent / "static.feather",
    }
    (rows.parent / "static.csv").write_text(CSV)
    made(rows, tables[kind])
    made(rows, rows.parent / "static.csv", "csv")
    of_root = ("zarr.json", "manifest/")
    first, other = (
        {key: content for key, content in stored(rows.parent / name).items() if not key.startswith(of_root)}
        for name in ("s.zarr", "csv.zarr")
    )
    assert first == other


def test_types_say_what_is_a_number(rows: Path) -> None:
    store = made(
        rows, pd.DataFrame({"site": ["a", "b"], "n": ["1", "2"], "flag": [True, False], "v": [[1, 2], [3, 4]]})
    )
    assert values(store) == {"n": ["1", "2"], "flag": [1.0, 0.0], "v.0": [1.0, 3.0], "v.1": [2.0, 4.0]}


def test_whole_numbers_are_words_where_that_is_asked_for(rows: Path) -> None:
    store = made(rows, pa.table({"site": ["a", "b"], "n": [2**53 + 1, 5]}), categories=["n"])
    assert values(store) == {"n": ["9007199254740993", "5"]}


def test_digits_that_a_float64_does_not_keep_are_counted(rows: Path) -> None:
    receipt = zstore.ingest(
        rows, rows.parent / "s.zarr", id="site", time="time", static=pa.table({"site": ["a"], "n": [2**53 + 1]})
    )
    assert "static attribute n has 1 values with more digits than float64 keeps (about 16); " in "".join(receipt.notes)


def test_missing_means_what_it_means_among_rows(rows: Path) -> None:
    table = pa.table({"site": ["a", "b"], "n": [-9.0, 5.0], "land": ["none", "forest"]})
    store = made(rows, table, missing=["-9", "land=none"])
    assert values(store) == {"n": [None, 5.0], "land": [None, "forest"]}


def test_ids_of_several_columns_are_joined(tmp_path: Path) -> None:
    rows = write_table(tmp_path / "r.csv", ["a", "b", "time", "x"], [["p", "1", 1, 2], ["p/q", "2", 1, 3]])
    store = made(rows, pd.DataFrame({"a": ["p/q", "p"], "b": [2, 1], "n": [20, 10]}), id=["a", "b"])
    assert (store.ids.tolist(), values(store)["n"]) == (["p/1", "p\\/q/2"], [10.0, 20.0])


def test_whole_numbers_are_ids_as_exact_texts(tmp_path: Path) -> None:
    rows = write_table(tmp_path / "r.csv", ["site", "time", "x"], [["12", 1, 2], ["7", 1, 3]])
    assert values(made(rows, pl.DataFrame({"site": [7, 12], "n": [70, 120]}))) == {"n": [120.0, 70.0]}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"site": ["a", "a"], "n": [1, 2]}, "id 'a' stands 2 times; expected one row per id. the static attributes"),
        ({"gauge": ["a"], "n": [1]}, "no column 'site' in the static attributes; expected one of 'gauge', 'n'"),
        ({"site": ["a", None], "n": [1, 2]}, "id"),
        ({"site": [1.5], "n": [1]}, "id column 'site' of type double"),
        ({"site": ["a"], "t": pa.array([0], pa.timestamp("s"))}, "column 't' of type timestamp"),
        ({"site": pa.array([], pa.string()), "n": pa.array([], pa.int64())}, "no row"),
    ],
)
def test_a_table_that_cannot_be_static_attributes_is_refused(table: dict[str, Any], said: str, rows: Path) -> None:
    with pytest.raises((SourceError, UsageError), match=said):
        made(rows, pa.table(table))
    assert not (rows.parent / "s.zarr").exists()


def test_a_fix_is_one_of_the_table_and_not_of_the_rows(rows: Path) -> None:
    with pytest.raises(SourceError) as refused:
        made(rows, pa.table({"site": ["a", "b"], "v": [[1, 2], [3]]}))
    assert refused.value.fix == "correct the table of static attributes, or leave the column or the row out of it"
    assert "the static attributes row 1" in str(refused.value)


@pytest.mark.parametrize("static", [5, {"site": ["a"]}, [{"site": "a"}], pl.LazyFrame({"site": ["a"]})])
def test_what_is_no_table_is_refused(static: Any, rows: Path) -> None:
    with pytest.raises(
        UsageError, match=f"static attributes of type {type(static).__name__}; expected a path, or a table"
    ):
        made(rows, static)


def test_an_append_replaces_static_attributes_by_those_of_a_frame(rows: Path) -> None:
    made(rows, pd.DataFrame(ATTRIBUTES))
    more = write_table(rows.parent / "more.csv", ["site", "time", "x"], [["c", 1, 2]])
    zstore.append(more, rows.parent / "s.zarr", static=pd.DataFrame({"site": ["a", "c"], "height": [1, 2]}))
    assert values(open_store(rows.parent / "s.zarr")) == {"height": [1.0, None, 2.0]}


def test_the_command_takes_parquet_and_a_dry_run_reads_it(rows: Path) -> None:
    words = ["--id", "site", "--time", "time", "--static", str(parquet(rows.parent, ATTRIBUTES))]
    assert cli.main(["ingest", str(rows), str(rows.parent / "s.zarr"), *words, "--dry-run"]) == 0
    assert cli.main(["ingest", str(rows), str(rows.parent / "s.zarr"), *words]) == 0
    assert values(open_store(rows.parent / "s.zarr"))["land"] == [None, "forest"]
