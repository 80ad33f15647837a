"""Tables in memory make the store that the CSV of the same rows makes, whoever hands them over."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from conftest import SMALL_GRID
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from zstore import SourceError, Store, UsageError, append, ingest, log, open_store
from zstore.writing.sources.typed import given as given_tables
from zstore.writing.sources.typed import given_source

OPTIONS: dict[str, Any] = {"id": "id", "time": "time", "workers": 1, **SMALL_GRID}


def frame(n_rows: int = 60, seed: int = 0) -> pd.DataFrame:
    """Rows of three series in no order: decimals with gaps, whole numbers, words with gaps, categories."""
    random = np.random.default_rng(seed)
    level = np.round(random.normal(size=n_rows), 2)
    level[random.random(n_rows) < 0.2] = np.nan
    rows = pd.DataFrame(
        {
            "id": random.choice(["a", "b", "ä"], n_rows),
            "time": pd.Timestamp("2001-01-01") + pd.to_timedelta(random.permutation(n_rows), unit="h"),
            "level": level,
            "n": np.arange(n_rows),
            "word": random.choice(np.array(["x", "yy", None], object), n_rows),
            "kind": pd.Categorical(random.choice(["lo", "hi"], n_rows), categories=["hi", "lo", "none"]),
        }
    )
    rows.loc[0, ["id", "word"]] = ["a", "x"]
    return rows


def arrow(rows: pd.DataFrame) -> Any:
    return pa.Table.from_pandas(rows, preserve_index=False)


def content(path: Path) -> dict[str, bytes]:
    """All of a store but what tells of its sources."""
    files = {str(file.relative_to(path)): file for file in path.rglob("*") if file.is_file()}
    told = ("zarr.json", "root.json")
    return {
        name: file.read_bytes()
        for name, file in files.items()
        if name != told[0] and not name.endswith(told[1]) and "/source_" not in name
    }


class Stream:
    """A stream of some other package."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        capsule: object = self._table.__arrow_c_stream__(requested_schema)
        return capsule


FORMS: dict[str, Callable[[pd.DataFrame], Any]] = {
    "pandas": lambda rows: rows,
    "pandas with a named index": lambda rows: rows.set_index(["id", "time"]),
    "pandas with an index without name": lambda rows: rows.set_axis(range(100, 100 + len(rows))),
    "pandas of objects": lambda rows: rows.astype({"id": object, "word": object, "kind": object}),
    "pandas with nullable types": lambda rows: rows.convert_dtypes(),
    "polars": pl.from_pandas,
    "polars in chunks": lambda rows: pl.concat([pl.from_pandas(rows[:7]), pl.from_pandas(rows[7:])], rechunk=False),
    "pyarrow": arrow,
    "pyarrow in chunks": lambda rows: pa.Table.from_batches(arrow(rows).to_batches(max_chunksize=7)),
    "a record batch": lambda rows: arrow(rows).to_batches()[0],
    "a reader": lambda rows: arrow(rows).to_reader(max_chunksize=7),
    "any stream": lambda rows: Stream(arrow(rows)),
}


@pytest.fixture(scope="module")
def of_csv(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("csv")
    frame().to_csv(folder / "rows.csv", index=False)
    ingest(folder / "rows.csv", folder / "s.zarr", **OPTIONS)
    return content(folder / "s.zarr")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("group_rows", [None, 5])
def test_a_table_makes_the_bytes_of_its_csv_whoever_hands_it_over(
    of_csv: dict[str, bytes], tmp_path: Path, form: str, group_rows: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if group_rows is not None:
        monkeypatch.setattr(given_source, "_GROUP_ROWS", group_rows)
        monkeypatch.setattr(given_source, "BLOCK_ROWS", group_rows)
        monkeypatch.setattr(given_tables, "BLOCK_ROWS", group_rows)
    receipt = ingest(FORMS[form](frame()), tmp_path / "s.zarr", **OPTIONS)
    assert (receipt.n_stored, list(receipt.sources)) == (60, ["the table"])
    assert content(tmp_path / "s.zarr") == of_csv
    assert append(FORMS["polars"](frame()), tmp_path / "s.zarr", workers=1) is None
    assert append(FORMS[form](frame()), tmp_path / "s.zarr", workers=1) is None
    assert [entry.version for entry in log(tmp_path / "s.zarr")] == [1]


def test_what_comes_back_is_what_was_handed_over(tmp_path: Path) -> None:
    rows = frame().astype({"level": "float32", "n": "float32"})
    ingest(rows, tmp_path / "s.zarr", **OPTIONS)
    expected = rows.sort_values(["id", "time"]).reset_index(drop=True).astype({"time": "datetime64[s]"})
    expected["word"] = expected["word"].astype(pd.CategoricalDtype(["x", "yy"]))
    expected["kind"] = expected["kind"].cat.remove_unused_categories()
    pd.testing.assert_frame_equal(open_store(tmp_path / "s.zarr").sel().to_pandas(), expected)


def test_columns_that_no_channel_can_have_may_be_left_out(tmp_path: Path) -> None:
    table = arrow(frame())
    octets = pa.array([b"\xff\x00"] * len(table), pa.binary())
    for odd in (octets, octets.cast(pa.binary_view()), pa.array([{"a": 1}] * len(table))):
        spoiled_table = table.append_column("odd", odd)
        with pytest.raises(SourceError, match=r"column 'odd' of type .*--leave-out odd"):
            ingest(spoiled_table, tmp_path / "none.zarr", **OPTIONS)
        receipt = ingest(spoiled_table, tmp_path / "s.zarr", leave_out=["odd"], overwrite=True, **OPTIONS)
        assert "odd" not in [channel["name"] for channel in receipt.to_json()["channels"]]


def test_a_null_in_a_dictionary_is_missing(tmp_path: Path) -> None:
    words = pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 0]), pa.array(["x", None]))
    table = pa.table({"time": range(4), "word": words, "n": range(4)})
    ingest(table, tmp_path / "s.zarr", time="time", workers=1)
    assert open_store(tmp_path / "s.zarr").sel().to_arrow().read_all()["word"].to_pylist() == ["x", None, None, "x"]


def test_several_tables_are_one_and_another_is_appended(of_csv: dict[str, bytes], tmp_path: Path) -> None:
    rows = frame()
    receipt = ingest([rows[:20], pl.from_pandas(rows[20:])], tmp_path / "s.zarr", **OPTIONS)
    assert list(receipt.sources) == ["table 1", "table 2"]
    assert content(tmp_path / "s.zarr") == of_csv
    later = rows.assign(time=rows["time"] + pd.Timedelta(days=30))
    added = append([rows[:20], later], tmp_path / "s.zarr", workers=1)
    assert added is not None
    assert (added.n_stored, list(added.sources)) == (60, ["table 2"])
    assert open_store(tmp_path / "s.zarr").n_rows == 120


def test_a_selection_of_one_store_makes_another(catchments: Store, tmp_path: Path) -> None:
    chosen = catchments.sel(catchments.ids[:2].tolist(), stop="2001-03-01")
    ingest(chosen, tmp_path / "s.zarr", id="gauge_id", time="time", workers=1)
    found = open_store(tmp_path / "s.zarr")
    pd.testing.assert_frame_equal(found.sel().to_pandas(), chosen.to_pandas())


Cell = st.none() | st.sampled_from(["0.1", "-1.25", "1e-3", "1234.5", "7"])


@settings(max_examples=15, phases=[Phase.explicit, Phase.generate])
@given(
    rows=st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 40), Cell, st.sampled_from([None, "u", "v w", "1"])),
        min_size=1,
        unique_by=lambda row: row[:2],
    ),
    unit=st.sampled_from(["s", "ms", "us", "ns"]),
    zone=st.sampled_from([None, "UTC", "Europe/Berlin"]),
    dtype=st.sampled_from(["float16", "float32", "float64", "Float64", "object"]),
)
def test_types_of_times_and_numbers_make_no_difference(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], unit: str, zone: str | None, dtype: str
) -> None:
    folder = tmp_path_factory.mktemp("drawn")
    table = pd.DataFrame(rows, columns=["id", "time", "v", "word"])
    hours = np.timedelta64(1, "h") * table["time"].to_numpy()
    stamps = (np.datetime64("2001-07-01T00:30", "s") + hours).astype(f"M8[{unit}]")
    table["time"] = pd.Series(stamps) if zone is None else pd.Series(stamps).dt.tz_localize("UTC").dt.tz_convert(zone)
    wide = table["v"].astype("float64")
    table["v"] = wide.astype("float32").astype(dtype) if dtype == "object" else wide.astype(dtype)
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(table.columns)
    for row in table.itertuples(index=False):
        cell = "" if pd.isna(row.v) else repr(float(np.float32(row.v))) if dtype == "float16" else str(row.v)
        lines.writerow([row.id, row.time.isoformat(), cell, "" if pd.isna(row.word) else row.word])
    (folder / "rows.csv").write_text(text.getvalue())
    options = {**OPTIONS, "categories": ["word"]}
    if table["v"].isna().all():
        options["leave_out"] = ["v"]
    if table["word"].isna().all():
        options |= {"leave_out": [*options.get("leave_out", []), "word"], "categories": []}
    if len(options.get("leave_out", [])) == 2:
        return
    ingest(folder / "rows.csv", folder / "csv.zarr", **options)
    ingest(table, folder / "table.zarr", **options)
    assert content(folder / "csv.zarr") == content(folder / "table.zarr")


def spoiled(column: str, value: Any = None) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Another value in a cell of row 17."""
    return lambda rows: rows.assign(**{column: rows[column].astype(object).where(rows["n"] != 17, value)})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoiled("level", "high"), r"str 'high' in column 'level'; expected float as .*the table row 17"),
        (spoiled("time"), r"missing time.*the table row 17"),
        (spoiled("id"), r"missing id.*the table row 17"),
        (lambda rows: arrow(spoiled("id")(rows)).to_reader(max_chunksize=5), r"missing id.*the table row 17"),
        (lambda rows: rows.rename(columns={"n": 0}), r"column 0 \(int\) of the table; expected names that are text"),
        (lambda rows: pd.concat([rows, rows[["n"]]], axis=1), r"column 'n' stands 2 times"),
        (lambda rows: rows.set_index("n", drop=False), r"column 'n' stands 2 times"),
        (lambda rows: rows.assign(z=rows["n"] * 1j), r"column 'z' of type complex128"),
        (lambda rows: rows.assign(z=[{"a": 1}] * len(rows)), r"column 'z' of type struct.*--leave-out z"),
        (lambda rows: rows["n"], r"the table of type Series"),
        (lambda rows: pl.from_pandas(rows).lazy(), r"source of type LazyFrame; .*collect\(\)"),
        (lambda rows: {"id": ["a"]}, r"source of type dict"),
        (lambda rows: [], r"no source; expected"),
        (lambda rows: [rows, "rows.csv"], r"tables and files; expected sources of one kind"),
        (lambda rows: rows[:0], r"no row to store"),
        (lambda rows: arrow(rows[:0]).to_reader(), r"no row to store"),
    ],
)
def test_what_cannot_be_stored_is_refused_with_its_position(
    tmp_path: Path, spoil: Callable[[pd.DataFrame], Any], message: str
) -> None:
    with pytest.raises((SourceError, UsageError), match=message):
        ingest(spoil(frame()), tmp_path / "s.zarr", **OPTIONS)
    assert not (tmp_path / "s.zarr").exists()


def test_options_of_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--decimal , of tables"):
        ingest(frame(), tmp_path / "s.zarr", **OPTIONS, decimal=",")
    with pytest.raises(UsageError, match="--id-from-path of a table"):
        ingest(frame(), tmp_path / "s.zarr", **OPTIONS, id_from_path="(.*)")


def test_bad_rows_are_set_aside_with_their_position(tmp_path: Path) -> None:
    rows = frame()
    rows.loc[[3, 50], "id"] = None
    receipt = ingest(rows, tmp_path / "s.zarr", on_bad_row="quarantine", **OPTIONS)
    assert receipt.n_quarantined == 2
    text = (tmp_path / "s.zarr.quarantine.csv").read_text()
    assert "the table,3,missing id" in text
    assert "the table,50,missing id" in text


def test_a_stream_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    batches = arrow(frame()).to_batches(max_chunksize=10)

    def broken() -> Iterator[Any]:
        yield from batches[:3]
        raise pa.ArrowInvalid("connection lost")

    reader = pa.RecordBatchReader.from_batches(batches[0].schema, broken())
    with pytest.raises(SourceError, match=r"the stream ended with an error .connection lost.*the table behind row 30"):
        ingest(reader, tmp_path / "s.zarr", **OPTIONS)
    assert list(tmp_path.iterdir()) == []


def test_a_store_of_tables_takes_no_files_and_one_of_files_no_tables(tmp_path: Path) -> None:
    rows = frame()
    rows.to_csv(tmp_path / "rows.csv", index=False)
    ingest(rows, tmp_path / "t.zarr", **OPTIONS)
    ingest(tmp_path / "rows.csv", tmp_path / "c.zarr", **OPTIONS)
    with pytest.raises(UsageError, match=r"expected files of the kind that .* was ingested from .table."):
        append(tmp_path / "rows.csv", tmp_path / "t.zarr")
    with pytest.raises(UsageError, match=r"expected files of the kind that .* was ingested from .csv."):
        append(rows, tmp_path / "c.zarr")


def test_the_digest_of_a_table_is_that_of_its_content(tmp_path: Path) -> None:
    def digest(table: Any) -> str:
        return given_tables.given_table(table, "t").etag

    rows = frame()
    same = {digest(FORMS[form](rows)) for form in FORMS if form not in ("a reader", "any stream")}
    assert len(same) == 1
    changed = rows.copy()
    changed.loc[30, "n"] += 1
    others = [changed, rows[:-1], rows.rename(columns={"n": "m"}), rows[::-1], rows.astype({"n": "int32"})]
    assert len({*same, *map(digest, others)}) == 1 + len(others)
