"""Times of several columns, such as year and month, or date and clock: what CSV says, tables with types say too."""

import datetime
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import few
from hypothesis import given, settings
from hypothesis import strategies as st

from zstore import Query, SourceError, append, ingest, open_store

FORMS: dict[str, tuple[str, Callable[[int, int], tuple[Any, Any]]]] = {
    "numbers": ("%Y %m", lambda year, month: (year, month)),
    "texts": ("%Y %m", lambda year, month: (str(year), f"{month:02d}")),
    "names": ("%Y %b", lambda year, month: (year, datetime.date(2000, month, 1).strftime("%b"))),
    "quarters": ("%Y Q%q", lambda year, month: (year, f"Q{(month - 1) // 3 + 1}")),
}


def sources(rows: list[dict[str, Any]], folder: Path) -> Iterator[Any]:
    """The same rows as CSV, Parquet, a table in memory, and a query."""
    frame = pd.DataFrame(rows)
    frame.to_csv(folder / "a.csv", index=False)
    frame.to_parquet(folder / "a.parquet")
    yield folder / "a.csv"
    yield folder / "a.parquet"
    yield frame
    with sqlite3.connect(folder / "a.db") as database:
        frame.to_sql("t", database, index=False, if_exists="replace")
    database.close()
    yield Query("select * from t", connection=f"sqlite:///{folder / 'a.db'}")


def times_of(store: Path) -> list[int]:
    opened = open_store(store)
    return [int(time) for time in opened.times(0, opened.n_rows)]


@settings(max_examples=few(12))
@given(
    form=st.sampled_from(sorted(FORMS)),
    months=st.lists(st.tuples(st.integers(1900, 2100), st.sampled_from([1, 4, 7, 10])), min_size=1, unique=True),
)
def test_years_and_parts_read_alike_from_every_source(form: str, months: list[tuple[int, int]]) -> None:
    way, cells = FORMS[form]
    rows = [dict(zip("ymv", (*cells(*month), n), strict=True)) for n, month in enumerate(months)]
    with tempfile.TemporaryDirectory() as name:
        read = []
        for number, source in enumerate(sources(rows, Path(name))):
            ingest(source, Path(name) / f"{number}.zarr", time=["y", "m"], time_format=way, channels=["v"])
            read.append(times_of(Path(name) / f"{number}.zarr"))
    expected = sorted(int(datetime.datetime(y, m, 1, tzinfo=datetime.UTC).timestamp()) for y, m in months)
    assert read == [expected] * 4


@pytest.mark.parametrize("typed", [True, False])
def test_dates_and_clocks_of_types_or_texts_are_read_together(typed: bool, tmp_path: Path) -> None:
    days, clocks = [datetime.date(2001, 1, day) for day in (1, 2)], [datetime.time(6), datetime.time(18, 30)]
    cells = [(day, clock) for day in days for clock in clocks]
    columns = zip(*(cells if typed else [(str(day), str(clock)) for day, clock in cells]), strict=True)
    table = pa.table({**dict(zip(("day", "clock"), map(list, columns), strict=True)), "v": range(4)})
    pq.write_table(table, tmp_path / "a.parquet")
    ingest(tmp_path / "a.parquet", tmp_path / "a.zarr", time=["day", "clock"])
    first = 978307200 + 6 * 3600
    assert times_of(tmp_path / "a.zarr") == [first, first + 45_000, first + 86_400, first + 131_400]


def test_a_row_whose_parts_make_no_time_is_refused_or_set_aside_with_its_place(tmp_path: Path) -> None:
    table = pa.table({"y": [2001, 2001, None, 2001], "m": [1, 13, 2, 3], "v": [1, 2, 3, 4]})
    pq.write_table(table, tmp_path / "a.parquet")
    flags: dict[str, Any] = {"time": ["y", "m"], "time_format": "%Y %m"}
    with pytest.raises(SourceError, match=r"unreadable time '2001 13' in columns y, m.*a\.parquet"):
        ingest(tmp_path / "a.parquet", tmp_path / "a.zarr", **flags)
    receipt = ingest(tmp_path / "a.parquet", tmp_path / "a.zarr", **flags, on_bad_row="quarantine", max_bad_rows=2)
    assert (receipt.n_stored, receipt.n_quarantined) == (2, 2)
    assert "missing time in column 'y'" in Path(str(receipt.quarantine)).read_text()


def test_an_append_reads_parts_as_the_ingest_did(tmp_path: Path) -> None:
    for year in (2001, 2002):
        pq.write_table(pa.table({"y": [year] * 12, "m": range(1, 13), "v": range(12)}), tmp_path / f"{year}.parquet")
    ingest(tmp_path / "2001.parquet", tmp_path / "a.zarr", time=["y", "m"], time_format="%Y %m")
    append(tmp_path / "2002.parquet", tmp_path / "a.zarr")
    assert (open_store(tmp_path / "a.zarr").n_rows, str(open_store(tmp_path / "a.zarr").time.rule)) == (24, "MS")


def test_a_column_that_is_no_part_of_a_time_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"y": [2001], "m": [1.5], "v": [1]}), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match="time column 'm' of type double; expected whole numbers, texts"):
        ingest(tmp_path / "a.parquet", tmp_path / "a.zarr", time=["y", "m"], time_format="%Y %m")
