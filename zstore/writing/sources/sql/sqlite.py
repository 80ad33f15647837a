"""SQLite: by ADBC where columns hold what they declare, else cell by cell, for a cell of SQLite may hold anything."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import quote

import adbc_driver_sqlite
import numpy as np
import pyarrow as pa

from zstore.writing.sources.sql import adbc, databases
from zstore.writing.sources.sql.rows import record_batches

_BATCH_CELLS = 1 << 19
_WHOLE = 2.0**53
_VIEW = "zstore_query"
_STEPS = 10_000  # of the virtual machine, some 0.1 ms


class _OtherError(Exception):
    """A value is not of the type that its column declares."""


class Sqlite:
    """A file of SQLite, opened so that a query cannot write to it."""

    text_order = True
    has_limit = True

    def __init__(self, uri: str, name: str) -> None:
        self._path, self._name = databases.path_of(uri), name

    def quoted(self, column: str) -> str:
        """A column, compared by the bytes of its texts whatever it declares."""
        return f"{databases.quoted(column)} COLLATE BINARY"

    def state(self) -> str:
        """That of its files."""
        return databases.file_state(self._path, "-wal")

    def literal(self, dtype: pa.DataType, value: int | float | str) -> str:
        """A number or a text; there are no other types."""
        return databases.literal(pa.null(), value)

    @contextmanager
    def reading(self, snapshot: Any = None) -> Iterator[SqliteReader]:
        """A connection whose transaction sees one state, if it is the one that a snapshot names.

        While another program commits, a connection that may only read can fail in several ways ("database is locked",
        "attempt to write a readonly database", for it may not roll a journal back): that is a change like any other.
        """
        state = self.state()
        if snapshot is not None and snapshot != state:
            raise databases.ChangedError
        try:
            yield SqliteReader(self, state)
        except Exception as error:
            if snapshot is not None and self.state() != snapshot:
                raise databases.ChangedError from error
            raise
        if snapshot is not None and self.state() != snapshot:
            raise databases.ChangedError

    def count(self, sql: str, most_s: float) -> int | None:
        """The number that a query has as its only cell."""
        end = time.monotonic() + most_s
        with closing(self.connect()) as connection:
            connection.set_progress_handler(lambda: time.monotonic() > end, _STEPS)
            try:
                return int(connection.execute(sql).fetchone()[0])
            except sqlite3.OperationalError as error:
                if "interrupted" in str(error):
                    return None
                raise

    @property
    def uri(self) -> str:
        """The file, for reading only."""
        return f"file:{quote(os.path.abspath(self._path))}?mode=ro"

    def connect(self) -> Any:
        """A connection of the standard library."""
        return sqlite3.connect(self.uri, uri=True, isolation_level=None)

    def declared(self, sql: str) -> list[str]:
        """Types that the columns of a query are declared with: empty for what is computed."""
        with closing(self.connect()) as connection:
            connection.execute(f"CREATE TEMP VIEW {_VIEW} AS {sql}")
            rows = connection.execute(f"PRAGMA temp.table_info({_VIEW})").fetchall()
        return [str(row[2]).upper() for row in rows]

    def fast(self, sql: str, affinities: list[str]) -> Iterator[pa.RecordBatch]:
        """Rows by ADBC. Raises `_OtherError` where a column does not hold what it declares, or may not."""
        options = {"adbc.sqlite.query.batch_rows": str(max(_BATCH_CELLS // len(affinities), 1))}
        database = adbc_driver_sqlite.connect(self.uri)
        with adbc.connected(database) as connection, adbc.asked(connection, sql, **options) as reader:
            if not all(_fits(field.type, own) for field, own in zip(reader.schema, affinities, strict=True)):
                raise _OtherError
            yield databases.empty_batch(reader.schema)
            while True:
                try:
                    batch = reader.read_next_batch()
                except StopIteration:
                    return
                except OSError as error:
                    raise _OtherError from error if "mismatch" in str(error) else None
                for column, own in zip(batch.columns, affinities, strict=True):
                    if own != "REAL" and pa.types.is_floating(column.type) and _may_be_whole(column):
                        raise _OtherError
                yield batch

    def slow(self, sql: str, affinities: list[str]) -> Iterator[pa.RecordBatch]:
        """Rows cell by cell; each batch has the types of its own cells."""
        types = [_TYPES.get(own, pa.null()) for own in affinities]
        with closing(self.connect()) as connection:
            cursor = connection.execute(sql)
            names = [column[0] for column in cursor.description]  # of a view, those that are there twice are renamed
            n_rows = max(_BATCH_CELLS // len(names), 1)
            chunks = iter(lambda: cursor.fetchmany(n_rows), [])
            yield from record_batches(names, chunks, self._name, types)


class SqliteReader:
    """Reads a state of a file."""

    def __init__(self, database: Sqlite, snapshot: str) -> None:
        self._database, self.snapshot = database, snapshot

    def batches(self, sql: str) -> Iterator[pa.RecordBatch | None]:
        """The rows of a query."""
        affinities = list(map(_affinity, self._database.declared(sql)))
        try:
            yield from self._database.fast(sql, affinities)
        except _OtherError:
            yield None
            yield from self._database.slow(sql, affinities)


_TYPES = {"TEXT": pa.string()}  # of what is missing; columns of other types may hold anything


def _affinity(declared: str) -> str:
    """What SQLite makes of a declared type; DATE for those that hold texts of times, as a rule."""
    if "INT" in declared:
        return "INTEGER"
    if any(word in declared for word in ("CHAR", "CLOB", "TEXT")):
        return "TEXT"
    if any(word in declared for word in ("REAL", "FLOA", "DOUB")):
        return "REAL"
    if "DATE" in declared or "TIME" in declared:
        return "DATE"
    return "NUMERIC" if declared and "BLOB" not in declared else ""


def _fits(dtype: pa.DataType, affinity: str) -> bool:
    """Whether the driver has found what a column declares. It looks at the first rows, and is strict from then on."""
    if pa.types.is_integer(dtype):
        return affinity in ("INTEGER", "NUMERIC", "DATE", "")
    if pa.types.is_floating(dtype):
        return affinity in ("REAL", "NUMERIC", "")
    return pa.types.is_string(dtype) and affinity in ("TEXT", "DATE")


def _may_be_whole(column: Any) -> bool:
    """Whether a number may have been a whole one that no float64 is."""
    values = np.abs(column.fill_null(0.0).to_numpy(zero_copy_only=False))
    return bool(np.any((values >= _WHOLE) & np.isfinite(values)))
