"""Queries that give their rows in order: a run that died goes on from the rows that were read."""

from __future__ import annotations

import contextlib
import os
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from queries import (
    content,
    execute,
    folder_of_server,
    kill_server,
    made,
    of_csv,
    rows,
    rows_of_postgres,
    running,
    sqlite,
)

from zstore import Query, SourceError
from zstore.writing.sources.sql import order, postgres, segments
from zstore.writing.sources.sql import sqlite as reads_sqlite
from zstore.writing.sources.sql.order import Order

CELLS = st.integers(0, 12)


@given(cells=st.lists(CELLS | st.none(), max_size=40) | st.lists(CELLS, max_size=40).map(sorted), data=st.data())
def test_rows_are_cut_only_where_all_before_are_below_all_behind(cells: list[int | None], data: st.DataObject) -> None:
    splits = sorted(data.draw(st.lists(st.integers(0, len(cells)), max_size=6)))
    batches = [pa.record_batch({"k": pa.array(cells[i:j], pa.int64())}) for i, j in pairwise([0, *splits, len(cells)])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order, "_SEGMENT_BYTES", 1)
        cutting = Order(Query("select * from t order by k", "sqlite:///x"), text_order=True)
        cut = list(cutting.segments(iter(batches)))
    assert [cell for _, batch in cut for cell in batch.column("k").to_pylist()] == cells
    assert [number for number, _ in cut] == sorted(number for number, _ in cut)
    known = [cell for cell in cells if cell is not None]
    if len(known) == len(cells) and cells == sorted(known):
        for number, border in cutting.borders.items():
            before = [cell for n, batch in cut for cell in batch.column("k").to_pylist() if n <= number]
            assert len(before) == sum(cell < int(border.value) for cell in known)


DYING = """
import os, sys
import zstore
from zstore.writing.sources.sql import order, segments, sqlite
order._SEGMENT_BYTES, sqlite._BATCH_CELLS = 1, 5 * 40
note, left = segments.Part.note, [4]
def dying(*args):
    left[0] -= 1
    if not left[0]:
        os._exit(9)
    return note(*args)
segments.Part.note = dying
query = zstore.Query(sys.argv[1], sys.argv[2], watermark=sys.argv[4] or None)
zstore.ingest(query, sys.argv[3], id="id", time="time", dtype="float64")
"""


def asked_rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of rows that come from a database from now on."""
    asked: list[int] = []
    write = segments.Writer.write

    def told(self: Any, part: Any, batches: Any) -> Any:
        begun = part.n_rows
        made = write(self, part, batches)
        asked.append(made.n_rows - begun)
        return made

    monkeypatch.setattr(segments.Writer, "write", told)
    return asked


@pytest.mark.parametrize(
    ("sql", "watermark", "goes_on"),
    [
        ("select * from t order by k", "", True),
        ('select * from t order by t."k" asc, v', "", True),
        ("select * from t order by time", "", True),
        ("select * from t", "k", True),
        ("select * from t order by k < 300, k", "k", False),  # rows that are in order at first
    ],
)
def test_an_ordered_query_goes_on_behind_what_was_read_before_a_run_was_killed(
    sql: str, watermark: str, goes_on: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python: str
) -> None:
    uri = sqlite(tmp_path / "t.db", rows(600))
    command = [python, "-c", DYING, sql, uri, str(tmp_path / "s.zarr"), watermark]
    assert subprocess.run(command, env=os.environ, check=False).returncode == 9
    asked = asked_rows(monkeypatch)
    made(Query(sql, uri, watermark=watermark or None), tmp_path / "s.zarr", dtype="float64")
    assert (asked[0] < 600) == goes_on
    assert content(tmp_path / "s.zarr") == of_csv(rows(600), tmp_path, dtype="float64")


@pytest.mark.parametrize(
    "sql", ["select * from t order by -k", "select * from t order by v", "select * from t order by k desc, id"]
)
def test_other_orders_make_the_same_bytes(sql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "_SEGMENT_BYTES", 1)
    monkeypatch.setattr(reads_sqlite, "_BATCH_CELLS", 5 * 40)
    made(Query(sql, sqlite(tmp_path / "t.db", rows(300))), tmp_path / "s.zarr")
    assert content(tmp_path / "s.zarr") == of_csv(rows(300), tmp_path)


def test_rows_that_come_again_cell_by_cell_leave_what_an_earlier_run_has_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python: str
) -> None:
    table = [*rows(500), *((*row[:3], 2**60 + row[2], row[4]) for row in rows(100, 500))]
    uri = sqlite(tmp_path / "t.db", table)
    sql = "select * from t order by k"
    command = [python, "-c", DYING, sql, uri, str(tmp_path / "s.zarr"), ""]
    assert subprocess.run(command, env=os.environ, check=False).returncode == 9
    asked = asked_rows(monkeypatch)
    made(Query(sql, uri), tmp_path / "s.zarr", dtype="float64")
    assert asked[-1] < 600
    assert content(tmp_path / "s.zarr") == of_csv(table, tmp_path, dtype="float64")


@pytest.mark.parametrize(
    "lost",
    [
        pytest.param(False, id="all on disk"),
        pytest.param(True, id="a table that is not logged", marks=pytest.mark.long),
    ],
)
def test_an_ordered_query_goes_on_when_a_server_that_was_killed_is_there_again(
    lost: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order, "_SEGMENT_BYTES", 1)
    sql, kills = "select * from t order by k", [1]
    monkeypatch.setattr(postgres, "_BATCH_BYTES", 1 << 17)
    reading = postgres.PostgresReader.batches
    with folder_of_server() as folder:
        with running(folder) as uri:
            execute(uri, "alter system set autovacuum = off", "select pg_reload_conf()")  # which writes by itself
            rows_of_postgres(uri, "t", 40_000)
            if lost:
                execute(uri, "create unlogged table u (k integer)")

            def killed(self: Any, asked: str) -> Any:
                if asked.strip() != sql:
                    yield from reading(self, asked)
                    return
                n_rows = 0
                for batch in reading(self, asked):
                    yield batch
                    n_rows += batch.num_rows
                    if n_rows > 20_000 and kills:
                        kills.pop()
                        kill_server(folder)

            with monkeypatch.context() as patch:
                patch.setattr(postgres.PostgresReader, "batches", killed)
                with pytest.raises(SourceError, match="the database refused the query"):
                    made(Query(sql, uri), tmp_path / "s.zarr")
            assert not (tmp_path / "s.zarr" / "zarr.json").exists()
        with running(folder) as uri:
            asked = asked_rows(monkeypatch)
            made(Query(sql, uri), tmp_path / "s.zarr")
    assert (asked[0] < 40_000) != lost
    assert content(tmp_path / "s.zarr") == of_csv(rows(40_000), tmp_path)


POOLS = [[None, *range(9)], [0.5, 1.5, 2.5], ["a", "B", "ä", "", "Z"], [2**60, 2**60 + 1, 3], [1, "x", 2.5]]
ORDERS = [
    "",
    "order by k",
    "order by k, id",
    "order by k desc",
    "order by time",
    "order by k collate nocase",
    "order by v",
]


@pytest.mark.long
@given(
    data=st.data(), pool=st.sampled_from(POOLS), by=st.sampled_from(ORDERS), watermark=st.sampled_from([None, "time"])
)
def test_a_query_that_breaks_anywhere_again_and_again_makes_the_bytes_of_one_that_does_not(
    data: st.DataObject, pool: list[Any], by: str, watermark: str | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("breaking")
    some = [
        (f"s{n % 3}", n, data.draw(st.sampled_from(pool)), n / 2, "w") for n in range(data.draw(st.integers(20, 90)))
    ]
    uri = sqlite(
        folder / "t.db", some, types=f"TEXT,INTEGER,{data.draw(st.sampled_from(['INTEGER', 'TEXT', '']))},REAL,TEXT"
    )
    query = Query(f"select * from t {by}", uri, watermark=watermark)
    options: dict[str, Any] = {"time_unit": "s", "dtype": "float64", "leave_out": ["k"]}
    left, read = [1000], reads_sqlite.SqliteReader.batches

    def breaking(self: Any, sql: str) -> Any:
        for batch in read(self, sql):
            left[0] -= batch is not None and batch.num_rows > 1
            if left[0] < 0:
                raise OSError("gone")
            yield batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order, "_SEGMENT_BYTES", 1)
        patch.setattr(reads_sqlite, "_BATCH_CELLS", 5 * 7)
        patch.setattr(reads_sqlite.SqliteReader, "batches", breaking)
        try:
            made(query, folder / "whole.zarr", **options)
        except SourceError as error:  # texts among numbers
            assert "whose other values are" in str(error)  # noqa: PT017
            return
        for n_batches in data.draw(st.lists(st.integers(0, 12), max_size=4)):
            left[0] = n_batches
            if not (folder / "s.zarr" / "zarr.json").exists():
                with contextlib.suppress(SourceError):
                    made(query, folder / "s.zarr", **options)
        left[0] = 1000
        if not (folder / "s.zarr" / "zarr.json").exists():
            made(query, folder / "s.zarr", **options)
    assert content(folder / "s.zarr") == content(folder / "whole.zarr")
