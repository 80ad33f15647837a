"""SQLite as a source: its cells may hold anything, whatever their column declares."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from queries import content, made, of_csv, rows, sqlite

from zstore import Query, SourceError

DECIMALS = st.floats(-1e15, 1e15).map(lambda number: round(number, 6))


@settings(max_examples=12)
@given(
    declared=st.sampled_from(["INTEGER", "REAL", "DECIMAL(10,2)", "", "TEXT", "FLOAT"]),
    cells=st.lists(
        st.none() | st.integers(-(2**63), 2**63 - 1) | DECIMALS | st.text("abc1.", max_size=3),
        min_size=1,
        max_size=6,
    ),
    n_before=st.sampled_from([0, 3]),
)
def test_a_column_of_sqlite_is_stored_exactly_or_refused_by_column_and_row(
    declared: str,
    cells: list[Any],
    n_before: int,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("zstore.writing.sources.sql.sqlite._BATCH_CELLS", 6)  # several batches of few rows
    folder = tmp_path_factory.mktemp("sqlite")
    with closing(sqlite3.connect(folder / "t.db")) as connection, connection:
        connection.execute(f"CREATE TABLE t (time INTEGER, x {declared})")
        connection.executemany("INSERT INTO t VALUES (?, ?)", enumerate([*[None] * n_before, *cells]))
        kept = [x for (x,) in connection.execute("SELECT x FROM t ORDER BY time")]
    kinds = {"texts" if isinstance(cell, str) else "numbers" for cell in kept if cell is not None}
    query = Query("select * from t", f"sqlite:///{folder / 't.db'}")
    if len(kinds) > 1:
        with pytest.raises(SourceError, match="in column 'x', whose other values are"):
            made(query, folder / "s.zarr", id=None, dtype="float64")
        return
    store = made(query, folder / "s.zarr", id=None, dtype="float64")
    read = store.read("x", 0, len(kept)).tolist()
    if kinds == {"texts"}:
        words = store.channel("x").categories or ()
        assert [None if code != code else words[int(code)] for code in read] == kept
    else:
        assert [None if value != value else value for value in read] == [
            None if cell is None else float(cell) for cell in kept
        ]


def test_whole_numbers_that_no_float64_is_beside_one_beyond_76_digits_are_refused(tmp_path: Path) -> None:
    uri = sqlite(tmp_path / "t.db", [("a", "2020-01-01", 2**53 + 1, 1.0, "a"), ("a", "2020-01-02", 1e76, 1.0, "a")])
    with pytest.raises(
        SourceError, match=r"values in column 'k' .*; expected numbers of at most 76 digits.*rows 0 to 1"
    ):
        made(Query("select * from t", uri), tmp_path / "x.zarr")


def test_a_column_that_is_empty_at_first_has_the_type_that_it_declares(tmp_path: Path) -> None:
    some = [(*row[:3], None if n < 590 else row[3], None if n < 590 else row[4]) for n, row in enumerate(rows(600))]
    uri = sqlite(tmp_path / "t.db", some)
    made(Query("select * from t", uri), tmp_path / "q.zarr")
    assert content(tmp_path / "q.zarr") == of_csv(some, tmp_path, categories=["w"])


def test_a_number_among_texts_is_named_with_query_column_and_row(tmp_path: Path) -> None:
    uri = sqlite(tmp_path / "t.db", [*rows(20), ("a", "2021-01-01", 20, "wet", "a")])
    with pytest.raises(SourceError) as caught:
        made(Query("select * from t", uri), tmp_path / "x.zarr")
    assert "str 'wet' in column 'v', whose other values are numbers" in str(caught.value)
    assert "select * from t row 20: {'id': 'a', 'time': '2021-01-01', 'k': '20'" in str(caught.value)


def test_two_columns_of_one_name_are_refused_however_they_are_read(tmp_path: Path) -> None:
    uri = sqlite(tmp_path / "t.db", [(*row[:2], 2**60 + n if n else 0.5, *row[3:]) for n, row in enumerate(rows(9))])
    with pytest.raises(SourceError, match="column 'x' stands 2 times"):
        made(Query("select id, time, k as x, v as x from t -- all", uri), tmp_path / "x.zarr")
