"""Looks at queries: what `inspect` and `--dry-run` say before anything is ingested, and progress while rows come."""

from __future__ import annotations

import os
import shlex
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import dask.config
import duckdb
import pytest
from distributed import LocalCluster
from queries import content, made, of_csv, rows, sqlite

import zstore
from zstore import Query, SourceError, UsageError, inspect
from zstore.bars import shown_bars
from zstore.cli import main
from zstore.inspection import query as looks
from zstore.progress import shown_progress
from zstore.writing.planner import plan_ingest
from zstore.writing.sources.sql import sample


def test_the_command_that_a_look_prints_ingests_the_query(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = sqlite(tmp_path / "t.db", rows(600))
    look = inspect(Query("select * from t where v > 'it''s' or 1;", uri))
    assert (look.n_rows, look.is_all, look.ids, look.times, look.step) == (600, True, ("id",), ("time",), "1h")
    assert look.types == ("string", "string", "int64", "double", "string")
    assert look.questions == ()
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(look.command)[1:]) == 0
    assert content(tmp_path / "t.zarr") == of_csv(rows(600), tmp_path)


def test_a_look_reads_first_rows_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "_BYTES", 2000)
    look = inspect(Query("select * from t", sqlite(tmp_path / "t.db", rows(600))))
    assert 0 < look.n_rows < 600
    assert not look.is_all
    assert f"the first {look.n_rows} rows read" in str(look)


@pytest.mark.parametrize("from_environment", [False, True])
def test_a_look_never_shows_a_password(
    from_environment: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sqlite(tmp_path / "t.db", rows(20))
    uri = f"sqlite+pysqlite:///{tmp_path / 't.db'}?password=s3cr%2Ft&timeout=5"
    monkeypatch.setattr("zstore.writing.sources.sql.alchemy.sqlalchemy.create_engine", without_password())
    flags = [] if from_environment else ["--connection", uri]
    if from_environment:
        monkeypatch.setenv("ZSTORE_CONNECTION", uri)
    for more in ([], ["--json"]):
        assert main(["inspect", "--sql", "select * from t", *flags, *more]) == 0
    shown = capsys.readouterr()
    assert "s3cr" not in shown.out + shown.err
    assert "--connection" not in shown.out
    assert ("set ZSTORE_CONNECTION" in shown.out) != from_environment


def without_password() -> Any:
    """An engine of SQLite that takes a password, and has no use for it."""
    import sqlalchemy

    make = sqlalchemy.create_engine
    return lambda uri, **options: make(uri.partition("?")[0], **options)


def test_a_look_asks_for_what_a_query_has_to_join(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "t.db")) as connection, connection:
        connection.execute("CREATE TABLE t (site TEXT, sensor TEXT, day TEXT, clock TEXT, v REAL)")
        cells = [
            (f"s{site}", f"n{sensor}", f"2020-01-{day:02d}", clock, 1.5)
            for site in range(3)
            for sensor in range(3)
            for day in range(1, 9)
            for clock in ("06:00:00", "18:00:00")
        ]
        connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?)", cells)
    look = inspect(Query("select * from t", f"sqlite:///{tmp_path / 't.db'}"))
    assert any("select day || ' ' || clock as time" in question for question in look.questions)
    assert any("select site || ' ' || sensor as id" in question for question in look.questions)


def test_a_dry_run_says_what_it_read_and_how_large_all_would_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "_MOST_ROWS", 100)
    uri = sqlite(tmp_path / "t.db", rows(600))
    of_csv(rows(600), tmp_path)
    with duckdb.connect(str(tmp_path / "t.duckdb")) as connection:
        connection.execute(f"CREATE TABLE t AS SELECT * FROM '{tmp_path / 'rows.csv'}'")
    for known in (uri, f"duckdb:///{tmp_path / 't.duckdb'}"):
        flags = ["--sql", "select * from t -- all", "--connection", known, "--id", "id", "--time", "time"]
        assert main(["ingest", str(tmp_path / "s.zarr"), *flags, "--dry-run"]) == 0
        shown = capsys.readouterr().out
        assert "1 query" in shown
        assert "about 600 rows" in shown
        assert "read      the first 100 rows" in shown
        assert not (tmp_path / "s.zarr").exists()


def test_a_dry_run_of_a_query_that_nobody_counts_soon_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "_MOST_ROWS", 100)
    monkeypatch.setattr(sample, "_COUNT_S", 0.0)
    sql = "with recursive n(k) as (select 0 union all select k + 1 from n where k < 30000) select k, k as time from n"
    query = Query(sql, sqlite(tmp_path / "t.db", rows(2)))
    with pytest.raises(UsageError, match=r"not counted soon \(the first 100 were read\)"):
        plan_ingest(query, time="time", time_unit="s")


def test_bytes_of_a_query_are_told_while_they_come(tmp_path: Path) -> None:
    told: list[tuple[str, int, int, str]] = []
    query = Query("select * from t", sqlite(tmp_path / "t.db", rows(600)), partition="k", partitions=4)
    made(query, tmp_path / "s.zarr", progress=lambda *report: told.append(report))
    of_query = [report for report in told if report[0] == "query"]
    done = [n for _, n, _, _ in of_query]
    assert done == sorted(done)
    assert {unit for *_, unit in of_query} == {"bytes"}
    assert [total for _, _, total, _ in of_query] == [0] * (len(of_query) - 1) + [done[-1]]


def test_a_bar_and_a_log_take_work_of_unknown_size(caplog: pytest.LogCaptureFixture) -> None:
    with shown_bars() as shown, shown_progress(quiet=True) as logged:
        for report in (shown, logged):
            report("query", 10, 0, "bytes")
            report("query", 2048, 2048, "bytes")


@pytest.mark.parametrize("columns", ["*", "id, time, k, v, w, 1 as one", "id, time, count(*) as k"])
def test_a_query_without_rows_is_refused_in_plain_words_and_looked_at(columns: str, tmp_path: Path) -> None:
    uri = sqlite(tmp_path / "t.db", rows(5))
    sql = f"select {columns} from t where k < 0 group by id"
    for connection in [uri, uri.replace("sqlite:", "sqlite+pysqlite:")]:
        with pytest.raises(SourceError, match="no row"):
            made(Query(sql, connection), tmp_path / "s.zarr")
        assert inspect(Query(sql, connection)).n_rows == 0


@pytest.mark.usefixtures("forked_workers")
def test_a_cluster_makes_the_same_bytes_of_a_query(tmp_path: Path) -> None:
    query = Query("select * from t", sqlite(tmp_path / "t.db", rows(600)), partition="k", partitions=4)
    options: dict[str, Any] = {"threads_per_worker": 1, "dashboard_address": "127.0.0.1:0", "memory_limit": 0}
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 100}),
        LocalCluster(n_workers=2, **options) as cluster,  # type: ignore[no-untyped-call]
    ):
        made(query, tmp_path / "s.zarr", scheduler=cluster.scheduler_address)
        assert zstore.append(query, tmp_path / "s.zarr", scheduler=cluster.scheduler_address) is None
    assert content(tmp_path / "s.zarr") == of_csv(rows(600), tmp_path)
    assert os.environ.get("ZSTORE_CONNECTION") is None
