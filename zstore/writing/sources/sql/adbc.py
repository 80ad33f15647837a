"""Queries by ADBC itself: its DB-API imports pandas and polars where they are installed, which takes half a second."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
from adbc_driver_manager import AdbcConnection, AdbcStatement, Error

__all__ = ["Error", "asked", "connected", "execute"]


@contextmanager
def connected(database: Any) -> Iterator[AdbcConnection]:
    """A connection that begins a transaction, of which nothing is kept."""
    with database, AdbcConnection(database) as connection:
        connection.set_autocommit(False)
        yield connection


@contextmanager
def asked(connection: AdbcConnection, sql: str, **options: str) -> Iterator[Any]:
    """The rows of a query, as a reader of record batches."""
    with AdbcStatement(connection) as statement:
        statement.set_options(**options)
        statement.set_sql_query(sql)
        rows, _ = statement.execute_query()
        with pa.RecordBatchReader.from_stream(rows) as reader:
            yield reader


def execute(connection: AdbcConnection, sql: str) -> None:
    """Execute a statement that has no rows."""
    with AdbcStatement(connection) as statement:
        statement.set_sql_query(sql)
        statement.execute_update()
