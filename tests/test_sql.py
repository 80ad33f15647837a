"""Queries as sources: SQLite files, DuckDB, a PostgreSQL server of the tests' own, and a dialect of SQLAlchemy."""

from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from queries import READING, content, execute, folder_of_server, made, of_csv, rows, rows_of_postgres, running, sqlite

import zstore
from zstore import Query, SourceError, Store, UsageError, ZstoreError, open_store
from zstore.cli import main
from zstore.upkeep.compare import compare_sources
from zstore.writing.sources.sql.databases import ChangedError
from zstore.writing.sources.sql.postgres import refuse_unnamed_types
from zstore.writing.sources.sql.sqlite import Sqlite

SECRET = "s3cr/t%pass"  # noqa: S105  # of a server that the tests start
WRITTEN = "s3cr%2Ft%25pass"


@pytest.fixture(scope="session")
def server() -> Iterator[tuple[str, str]]:
    """A PostgreSQL server: the URI of its owner, and that of a user with a password, over TCP where that is open."""
    with folder_of_server() as folder, running(folder) as owner:
        yield owner, owner.replace("postgres:@", f"reader:{WRITTEN}@")


@pytest.fixture
def databases(tmp_path: Path, server: tuple[str, str]) -> dict[str, str]:
    """The same 600 rows in every kind of database."""
    table = rows(600)
    sqlite(tmp_path / "t.db", table)
    name = f"t{uuid.uuid4().hex}"
    rows_of_postgres(server[0], name, 600)
    execute(server[0], f"CREATE VIEW v{name} AS SELECT * FROM {name}")
    of_csv(table, tmp_path)
    with duckdb.connect(str(tmp_path / "t.duckdb")) as connection:
        connection.execute(f"CREATE TABLE t AS SELECT * FROM '{tmp_path / 'rows.csv'}'")
    return {
        f"sqlite:///{tmp_path / 't.db'}": "t",
        f"sqlite+pysqlite:///{tmp_path / 't.db'}": "t",
        f"duckdb:///{tmp_path / 't.duckdb'}": "t",
        server[0]: name,
    }


@pytest.mark.parametrize("way", [{}, {"partition": "k", "partitions": 5}, {"watermark": "k"}], ids=str)
def test_every_database_makes_the_bytes_of_the_csv_of_its_rows(
    way: dict[str, Any], databases: dict[str, str], tmp_path: Path
) -> None:
    expected = content(tmp_path / "csv.zarr")
    for number, (uri, table) in enumerate(databases.items()):
        made(Query(f"select * from {table} ; ;\n", uri, **way), tmp_path / f"{number}.zarr", workers=1 + number % 2)
        assert content(tmp_path / f"{number}.zarr") == expected, uri


# Types of PostgreSQL.


def one_column(server: str, expression: str, path: Path, **reading: Any) -> Store:
    return made(Query(f"select 0 as time, {expression} as x", server), path, id=None, overwrite=True, **reading)


def test_rows_of_a_driver_that_does_not_name_types_are_refused() -> None:
    named = pa.field("x", pa.int64(), metadata={"POSTGRESQL:type": "int8"})
    refuse_unnamed_types(pa.schema([named]))
    for bare in (
        pa.field("m", pa.int64()),
        pa.field("m", pa.string(), metadata={"ADBC:postgresql:typname": "numeric"}),
    ):
        with pytest.raises(UsageError, match=r"column 'm' without the name of its type .*zstore\[sql\]"):
            refuse_unnamed_types(pa.schema([named, bare]))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("1.25::numeric", 1.25),
        ("123456789012345678901234567890.5::numeric", 123456789012345678901234567890.5),
        ("1e-30::numeric", 1e-30),
        ("9007199254740993::bigint", 9007199254740992.0),
        ("true", 1.0),
        ("1.5::real", 1.5),
        ("'NaN'::numeric", None),
        ("12345::numeric(2, -3)", 12000.0),
        ("null::numeric(4,2)", None),
    ],
)
def test_numbers_of_postgresql_are_the_nearest_float64(
    expression: str, expected: float | None, server: tuple[str, str], tmp_path: Path
) -> None:
    value = one_column(server[0], expression, tmp_path / "x.zarr", dtype="float64").read("x", 0, 1).tolist()[0]
    assert (None if value != value else value) == expected


def test_a_decimal_that_no_float64_holds_is_counted(server: tuple[str, str], tmp_path: Path) -> None:
    store = one_column(server[0], "0.12345678901234567890::numeric", tmp_path / "x.zarr", dtype="float64")
    assert store.objects.document["receipt"]["channels"][0]["n_inexact"] == 1


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("case when k = 7 then 9007199254740993 else k end", "9007199254740993 in row 7 (id a7, time 2020-01-08"),
        ("case when k = 7 then 0.12345678901234567890 else k end", "0.12345678901234567890 in row 7 (id a7, time"),
    ],
)
@pytest.mark.parametrize("partition", [None, "k"])
def test_the_first_number_that_no_float64_holds_is_named_with_column_and_key(
    partition: str | None, expression: str, told: str, server: tuple[str, str], tmp_path: Path
) -> None:
    sql = (
        f"select 'a' || k as id, timestamp '2020-01-01' + k * interval '1 day' as time, {expression} as x, k "
        "from generate_series(0, 9) k"
    )
    query = Query(sql, server[0], partition=partition, partitions=2)
    receipt = zstore.ingest(query, tmp_path / "x.zarr", **READING, dtype="float64")
    expected = "x has 1 values with more digits than float64 keeps (about 16), first "
    expected += told if partition is None else told.replace("in row 7", "in part 1 row 3")
    assert any(note.startswith(expected) for note in receipt.notes)


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("'1.5'::money", "column 'x' of type money: cast it to numeric"),
        ("'Infinity'::numeric", "an infinite numeric"),
        ("interval '1 day'", "column 'x' of type month_day_nano_interval"),
        ("time '10:00'", "column 'x' of type time64"),
        ("'\\x00'::bytea", "column 'x' of type binary"),
        ("1 as x, 2", "column 'x' stands 2 times"),
        ("nope", 'column "nope" does not exist'),
        ("(select max(1 / (k - 400)) from generate_series(0, 500) k)", "division by zero"),
    ],
)
def test_what_cannot_be_stored_is_refused_by_name(
    expression: str, told: str, server: tuple[str, str], tmp_path: Path
) -> None:
    with pytest.raises(SourceError) as caught:
        one_column(server[0], expression, tmp_path / "x.zarr")
    assert told in str(caught.value)
    assert "select 0 as time" in str(caught.value)
    assert not (tmp_path / "x.zarr").exists()


def test_a_query_cannot_write(server: tuple[str, str], tmp_path: Path) -> None:
    name = f"t{uuid.uuid4().hex}"
    rows_of_postgres(server[0], name, 10)
    with pytest.raises(SourceError, match="read-only transaction"):
        made(Query(f"delete from {name} returning *", server[0]), tmp_path / "x.zarr")
    uri = sqlite(tmp_path / "t.db", rows(10))
    with pytest.raises(SourceError, match=r"readonly database|syntax error"):
        made(Query("delete from t returning *", uri), tmp_path / "x.zarr")
    assert made(Query(f"select * from {name}", server[0]), tmp_path / "x.zarr").n_rows == 10


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("340282366920938463463374607431768211455::uhugeint", "column 'x' of type UHUGEINT: cast it"),
        ("170141183460469231731687303715884105727::hugeint", "a number in column 'x' of more than 38 digits"),
        ("time '10:00'", "column 'x' of type time64"),
    ],
)
def test_what_duckdb_hands_out_as_something_else_is_refused(expression: str, told: str, tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "t.duckdb")) as connection:
        connection.execute("CREATE TABLE t AS SELECT 0 AS time")
    uri = f"duckdb:///{tmp_path / 't.duckdb'}"
    with pytest.raises(SourceError, match=told):
        made(Query(f"select time, {expression} as x from t -- all", uri), tmp_path / "x.zarr", id=None)
    with pytest.raises(SourceError, match="the database refused the query"):
        made(Query(f"copy t to '{tmp_path / 'out.csv'}'", uri), tmp_path / "x.zarr", id=None)
    assert not (tmp_path / "out.csv").exists()


def test_an_infinite_time_and_a_missing_id_are_bad_rows_named_by_row_and_cells(
    server: tuple[str, str], tmp_path: Path
) -> None:
    sql = (
        "select case when k = 3 then null else 'a' end as id, k as v, "
        "case when k = 5 then 'infinity' else timestamp '2020-01-01' + k * interval '1 day' end as time "
        "from generate_series(0, 9) k"
    )
    with pytest.raises(SourceError, match=r"missing id in column 'id'.*row 3: '.*\"v\": 3"):
        made(Query(sql, server[0]), tmp_path / "x.zarr")
    store = made(Query(sql, server[0]), tmp_path / "x.zarr", on_bad_row="quarantine")
    assert store.read("v", 0, store.n_rows).tolist() == [0, 1, 2, 4, 6, 7, 8, 9]
    assert (tmp_path / "x.zarr.quarantine.csv").read_text().splitlines()[0] == "file,part,row,reason,row"


# Parts.


@pytest.mark.parametrize("column", ["k", "time", "v"])
def test_parts_have_every_row_once_also_those_without_a_value(
    column: str, server: tuple[str, str], tmp_path: Path
) -> None:
    name = f"t{uuid.uuid4().hex}"
    rows_of_postgres(server[0], name, 600)
    execute(server[0], f"UPDATE {name} SET v = 'NaN' WHERE k = 8")
    sql = f"select id, time, case when k % 50 = 0 then null else k end as k, v, w from {name}"
    made(Query(sql, server[0]), tmp_path / "one.zarr")
    made(Query(sql, server[0], partition=column, partitions=7), tmp_path / "parts.zarr")
    assert content(tmp_path / "parts.zarr") == content(tmp_path / "one.zarr")
    assert open_store(tmp_path / "parts.zarr").n_rows == 600


@pytest.mark.parametrize("kind", ["timestamp", "timestamptz", "date"])
@pytest.mark.parametrize(
    "ends", [("-infinity", "infinity"), ("0044-03-15 BC", "infinity"), ("-infinity", "290000-01-01")]
)
def test_moments_that_no_calendar_has_are_in_the_first_or_last_part(
    kind: str, ends: tuple[str, str], server: tuple[str, str], tmp_path: Path
) -> None:
    sql = (
        f"select k as time, k as v, case k when 0 then '{ends[0]}'::{kind} when 1 then '{ends[1]}'::{kind} "
        f"when 2 then null else (date '2020-01-01' + k)::{kind} end as p from generate_series(0, 9) k"
    )
    reading: dict[str, Any] = {"id": None, "time_unit": "s", "leave_out": ["p"]}
    store = made(Query(sql, server[0], partition="p"), tmp_path / "s.zarr", **reading)
    assert store.read("v", 0, store.n_rows).tolist() == list(range(10))


def test_a_column_of_texts_has_no_ranges(tmp_path: Path) -> None:
    uri = sqlite(tmp_path / "t.db", rows(20))
    with pytest.raises(UsageError, match="--partition id of type string; expected numbers, times or dates"):
        made(Query("select * from t", uri, partition="id"), tmp_path / "x.zarr")


def test_all_parts_see_one_state_of_a_server_that_is_written_to(
    server: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"t{uuid.uuid4().hex}"
    rows_of_postgres(server[0], name, 300)
    from zstore.writing.sources.sql import spool as sql_spool

    ask = sql_spool._Work._part

    def writing(*args: Any) -> Any:
        execute(server[0], f"UPDATE {name} SET k = 299 - k")  # moves rows from part to part
        return ask(*args)

    monkeypatch.setattr(sql_spool._Work, "_part", writing)
    store = made(Query(f"select * from {name}", server[0], partition="k", partitions=3), tmp_path / "x.zarr")
    assert store.n_rows == 300
    assert sorted(store.read("k", 0, 300).tolist()) == list(range(300))


def test_a_file_that_is_written_to_between_parts_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = sqlite(tmp_path / "t.db", rows(300))
    from zstore.writing.sources.sql import spool as sql_spool

    ask = sql_spool._Work._part

    def writing(*args: Any) -> Any:
        made = ask(*args)
        sqlite(tmp_path / "t.db", [("late", "2020-01-01", len(os.listdir(tmp_path)), 1.0, "a")])
        return made

    monkeypatch.setattr(sql_spool._Work, "_part", writing)
    with pytest.raises(SourceError, match=r"the database was changed while it was read in parts|is locked"):
        made(Query("select * from t", uri, partition="k", partitions=3), tmp_path / "x.zarr")
    assert not (tmp_path / "x.zarr").exists()


@pytest.mark.parametrize("text", ["attempt to write a readonly database", "database disk image is malformed"])
def test_an_error_of_a_file_that_is_being_written_to_is_told_as_the_change_it_is(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> Any:
        sqlite(tmp_path / "t.db", [("late", "2020-01-01", 1, 1.0, "a")])
        raise sqlite3.OperationalError(text)

    uri = sqlite(tmp_path / "t.db", rows(300))
    database = Sqlite(uri, "t")
    with database.reading() as reader:
        snapshot = reader.snapshot
    monkeypatch.setattr(Sqlite, "declared", fails)
    with pytest.raises(ChangedError), database.reading(snapshot) as reader:
        list(reader.batches("select * from t"))


# Appends.


@pytest.mark.parametrize(
    ("kind", "watermark"),
    [("sqlite", "k"), ("sqlite", "time"), ("postgresql", "k"), ("postgresql", "time"), ("alchemy", "k")],
)
def test_an_append_asks_for_what_is_beyond_the_watermark(
    kind: str, watermark: str, server: tuple[str, str], tmp_path: Path
) -> None:
    name = f"t{uuid.uuid4().hex}" if kind == "postgresql" else "t"

    def write(n_rows: int, first: int) -> None:
        if kind == "postgresql":
            rows_of_postgres(server[0], name, n_rows, first)
        else:
            sqlite(tmp_path / "t.db", rows(n_rows, first))

    uris = {"sqlite": f"sqlite:///{tmp_path / 't.db'}", "alchemy": f"sqlite+pysqlite:///{tmp_path / 't.db'}"}
    query = Query(f"select * from {name}", uris.get(kind, server[0]), watermark=watermark)
    write(300, 0)
    made(query, tmp_path / "s.zarr")
    assert zstore.append(query, tmp_path / "s.zarr") is None
    write(100, 300)
    receipt = zstore.append(query, tmp_path / "s.zarr")
    assert receipt is not None
    assert receipt.n_rows_in == 100
    zstore.compact(tmp_path / "s.zarr")
    write(50, 400)
    receipt = zstore.append(query, tmp_path / "s.zarr")
    assert receipt is not None
    assert receipt.n_rows_in == 50
    store = open_store(tmp_path / "s.zarr")
    assert sorted(store.read("k", 0, store.n_rows).tolist()) == list(range(450))


def test_rows_that_come_late_at_the_watermark_are_refused_or_taken_once(tmp_path: Path) -> None:
    uri = sqlite(tmp_path / "t.db", rows(100))
    query = Query("select * from t", uri, watermark="time")
    made(query, tmp_path / "s.zarr")
    last = rows(1, 99)[0][1]
    sqlite(tmp_path / "t.db", [("late", last, 100, 1.0, "a"), *rows(5, 105)])
    with pytest.raises(SourceError, match=r"6 rows with time 2020-01-01 19:00:00, of which 5 were read before"):
        zstore.append(query, tmp_path / "s.zarr")
    receipt = zstore.append(query, tmp_path / "s.zarr", on_duplicate="first")
    assert receipt is not None
    assert (receipt.n_stored, receipt.n_duplicates) == (6, 5)
    assert zstore.append(query, tmp_path / "s.zarr") is None
    store = open_store(tmp_path / "s.zarr")
    assert sorted(store.read("k", 0, store.n_rows).tolist()) == [*range(101), *range(105, 110)]


def test_an_older_version_asks_again_for_what_came_after_it(tmp_path: Path) -> None:
    uri = sqlite(tmp_path / "t.db", rows(100))
    query = Query("select * from t", uri, watermark="k")
    made(query, tmp_path / "s.zarr")
    sqlite(tmp_path / "t.db", rows(50, 100))
    zstore.append(query, tmp_path / "s.zarr")
    zstore.rollback(tmp_path / "s.zarr", 1)
    receipt = zstore.append(query, tmp_path / "s.zarr")
    assert receipt is not None
    assert receipt.n_stored == 50


@pytest.mark.parametrize(
    ("column", "told"),
    [
        ("v", "row without a value in the column 'v' of --watermark|of type double"),
        ("nope", "no column 'nope'; expected one of 'id'"),
    ],
)
def test_a_watermark_that_has_no_order_everywhere_is_refused(column: str, told: str, tmp_path: Path) -> None:
    uri = sqlite(tmp_path / "t.db", rows(20))
    with pytest.raises(ZstoreError, match=told):
        made(Query("select * from t", uri, watermark=column), tmp_path / "x.zarr")


def test_a_watermark_needs_a_store_that_has_one(tmp_path: Path) -> None:
    uri = sqlite(tmp_path / "t.db", rows(20))
    made(Query("select * from t", uri), tmp_path / "s.zarr")
    with pytest.raises(UsageError, match="--watermark k; expected a store that was ingested with --watermark"):
        zstore.append(Query("select * from t", uri, watermark="k"), tmp_path / "s.zarr")
    assert zstore.append(Query("select * from t", uri), tmp_path / "s.zarr") is None
    sqlite(tmp_path / "t.db", rows(5, 20))
    with pytest.raises(SourceError, match=r"duplicate time.*in the store already"):
        zstore.append(Query("select * from t", uri), tmp_path / "s.zarr")


# Runs that die, databases that go away.

DYING = """
import os, sys
import zstore, zstore.writing.sources.sql.spool as spool
note, left = spool.Part.note, [3]
def dying(*args):
    left[0] -= 1
    if not left[0]:
        os._exit(9)
    return note(*args)
spool.Part.note = dying
spool.n_cores = lambda: 1
query = zstore.Query("select * from t", sys.argv[1], partition="k", partitions=6)
zstore.ingest(query, sys.argv[2], id="id", time="time")
"""


@pytest.mark.parametrize("changed", [False, True])
def test_a_run_that_was_killed_is_gone_on_with_unless_the_database_was_written_to(
    changed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python: str
) -> None:
    uri = sqlite(tmp_path / "t.db", rows(600))
    command = [python, "-c", DYING, uri, str(tmp_path / "s.zarr")]
    assert subprocess.run(command, env=os.environ, check=False).returncode == 9
    if changed:
        sqlite(tmp_path / "t.db", rows(10, 600))
    from zstore.writing.sources.sql import spool as sql_spool

    asked: list[str] = []
    write = sql_spool._Work._written

    def told(*args: Any) -> Any:
        asked.append(args[3])
        return write(*args)

    monkeypatch.setattr(sql_spool._Work, "_written", told)
    query = Query("select * from t", uri, partition="k", partitions=6)
    made(query, tmp_path / "s.zarr")
    assert len(asked) == 7 if changed else len(asked) < 7
    assert content(tmp_path / "s.zarr") == of_csv(rows(610 if changed else 600), tmp_path)


def test_a_server_that_goes_away_leaves_nothing_behind(tmp_path: Path, server: tuple[str, str]) -> None:
    name = f"t{uuid.uuid4().hex}"
    rows_of_postgres(server[0], name, 200)
    sql = f"select t.*, pg_sleep(0.05)::text as pause from {name} t"

    def cut() -> None:
        for _ in range(100):
            time.sleep(0.05)
            execute(
                server[0],
                "select pg_terminate_backend(pid) from pg_stat_activity where query like '%pg_sleep(0.05)%' "
                "and pid <> pg_backend_pid()",
            )

    cutter = threading.Thread(target=cut, daemon=True)
    cutter.start()
    with pytest.raises(SourceError, match=r"the database refused the query \(.*(terminat|closed|lost)"):
        made(Query(sql, server[0]), tmp_path / "s.zarr", leave_out=["pause"])
    assert not (tmp_path / "s.zarr" / "zarr.json").exists()
    cutter.join()
    assert made(Query(f"select * from {name}", server[0]), tmp_path / "s.zarr").n_rows == 200


# What may not be told.


def leaks(text: str) -> list[str]:
    return [secret for secret in (SECRET, WRITTEN, "s3cr", "t%pass", "t%25pass") if secret in text]


def test_a_password_is_in_no_file_message_or_log(
    tmp_path: Path, server: tuple[str, str], capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    owner, reader = server
    name = f"t{uuid.uuid4().hex}"
    rows_of_postgres(owner, name, 50)
    execute(owner, "drop role if exists reader", f"create role reader login superuser password '{SECRET}'")
    caplog.set_level(logging.DEBUG)
    store, log = tmp_path / "s.zarr", tmp_path / "run.log"
    table = ["--id", "id", "--time", "time", "--log-file", str(log), "--watermark", "k", "--partition", "k"]
    good = ["--sql", f"select * from {name}", "--connection", reader]
    assert main(["ingest", str(store), *good, *table]) == 0
    rows_of_postgres(owner, name, 50, 50)
    assert main(["ingest", str(store), *good, *table, "--append", "--json"]) == 0
    assert open_store(store).n_rows == 100
    assert main(["inspect", *good]) == 0
    assert main(["ingest", str(tmp_path / "x.zarr"), *good, *table, "--dry-run"]) == 0
    for connection in (
        reader.replace("/postgres?", "/nowhere?"),
        f"postgresql://reader:{WRITTEN}@localhost:1/db",
        f"postgresql://reader:{SECRET}@localhost:1/db",
        f"postgresql://reader@localhost:1/db?password={WRITTEN}",
        f"mysql+nope://reader:{WRITTEN}@localhost/db",
        f"sqlite+pysqlite://reader:{WRITTEN}@/nowhere/t.db",
    ):
        bad = ["--sql", "select * from nope", "--connection", connection]
        assert main(["inspect", *bad]) in (1, 2)
        for flags in ([], ["--dry-run"], ["--append"]):
            assert main(["ingest", str(tmp_path / "x.zarr"), *bad, *table, *flags]) in (1, 2)
        with pytest.raises(ZstoreError) as caught:
            main(["ingest", str(tmp_path / "x.zarr"), *bad, *table, "--debug"])
        assert caught.value.__suppress_context__ or caught.value.__context__ is None
        assert leaks(str(caught.value)) == []
    bad = ["--sql", "select nope from t", "--connection", reader]
    assert main(["ingest", str(tmp_path / "x.zarr"), *bad, *table]) == 1
    shown = capsys.readouterr()
    assert "postgresql:///postgres: select * from" in shown.out
    assert leaks(shown.out + shown.err + caplog.text + log.read_text()) == []
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or leaks(path.read_bytes().decode("latin-1")) == [], path
    assert leaks(repr(Query("select 1", reader)) + str(Query("select 1", reader))) == []


def test_the_connection_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"no connection; expected a URI .*ZSTORE_CONNECTION"):
        made(Query("select * from t"), tmp_path / "x.zarr")
    monkeypatch.setenv("ZSTORE_CONNECTION", sqlite(tmp_path / "t.db", rows(20)))
    assert made(Query("select * from t"), tmp_path / "x.zarr").n_rows == 20


# The rest of the machine.


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--sql", "select 1", "rows.csv"], "--sql with rows.csv"),
        (["--connection", "sqlite:///x"], "--connection without --sql"),
        (["--sql", "select 1", "--delimiter", ";"], "--delimiter ; of queries"),
        (["--sql", " ; "], "--sql is empty"),
    ],
)
def test_the_command_says_what_cannot_be_meant(
    flags: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if "--connection" not in flags:
        monkeypatch.setenv("ZSTORE_CONNECTION", sqlite(tmp_path / "t.db", rows(20)))
    assert main(["ingest", *flags, str(tmp_path / "x.zarr"), "--id", "id", "--time", "time"]) == 2
    assert told in capsys.readouterr().err


def test_queries_and_files_are_not_mixed_and_a_comparison_is_refused(tmp_path: Path) -> None:
    query = Query("select * from t", sqlite(tmp_path / "t.db", rows(20)))
    with pytest.raises(UsageError, match="queries and files"):
        made([query, tmp_path / "t.csv"], tmp_path / "x.zarr")
    store = made(query, tmp_path / "s.zarr")
    with pytest.raises(UsageError, match="--source of a query"):
        compare_sources(store, query)


def test_a_library_that_is_missing_is_named_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=r"no module 'pymysql'.*pip install pymysql"):
        made(Query("select 1", "mysql+pymysql://u@h/d"), tmp_path / "x.zarr")
    monkeypatch.setitem(sys.modules, "adbc_driver_sqlite", None)
    monkeypatch.delitem(sys.modules, "zstore.writing.sources.sql.sqlite")
    with pytest.raises(UsageError, match=r"adbc_driver_sqlite.*pip install 'zstore\[sql\]'"):
        made(Query("select 1", sqlite(tmp_path / "t.db", rows(2))), tmp_path / "x.zarr")


def test_several_queries_are_one_table(tmp_path: Path) -> None:
    uri = sqlite(tmp_path / "t.db", rows(200))
    made([Query(f"select * from t where k % 2 = {n}", uri) for n in range(2)], tmp_path / "s.zarr")
    assert content(tmp_path / "s.zarr") == of_csv(rows(200), tmp_path)
