"""What databases have in common: how they are quoted, and read in one state."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote

import numpy as np
import pyarrow as pa


class ChangedError(Exception):
    """The database is no longer in the state in which its rows were to be read."""

    def __init__(self) -> None:
        super().__init__("the database was changed while it was read in parts")


class Reader(Protocol):
    """A connection that sees one state of the database."""

    @property
    def snapshot(self) -> Any:
        """What lets other connections see the same state; None where there is no such thing."""
        ...

    def batches(self, sql: str) -> Iterator[pa.RecordBatch | None]:
        """The rows of a query; at least one batch, which may be empty. Types may differ from batch to batch.

        None among them says that those before do not count, for all rows come again.
        """
        ...


class Database(Protocol):
    """One database, to be read only. Its errors are those of its library."""

    text_order: bool
    """Whether it compares texts by their bytes."""
    has_limit: bool
    """Whether it knows ``LIMIT``."""

    def state(self) -> str | None:
        """Something that is equal only if nothing was written in between; None where nothing tells."""
        ...

    def quoted(self, column: str) -> str:
        """A column of a query, as SQL has it."""
        ...

    def literal(self, dtype: pa.DataType, value: int | float | str) -> str:
        """A value as SQL has it; times are integers, in the unit of their type."""
        ...

    def count(self, sql: str, most_s: float) -> int | None:
        """The number that a query has as its only cell; None if it takes longer than some seconds."""
        ...

    def reading(self, snapshot: Any = None) -> AbstractContextManager[Reader]:
        """A connection, which sees what a snapshot sees, or the state of now."""
        ...


def quoted(column: str) -> str:
    """A name in the quotes of standard SQL."""
    return '"' + column.replace('"', '""') + '"'


def literal(dtype: pa.DataType, value: int | float | str) -> str:
    """A value as PostgreSQL and DuckDB have it."""
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if pa.types.is_timestamp(dtype):
        text = str(np.datetime64(int(value), dtype.unit)).replace("T", " ")
        return f"TIMESTAMPTZ '{text}+00'" if dtype.tz is not None else f"TIMESTAMP '{text}'"
    if pa.types.is_date(dtype):
        return f"DATE '{np.datetime64(int(value), 'D')}'"
    return repr(value)


def empty_batch(schema: pa.Schema) -> pa.RecordBatch:
    """A batch without rows."""
    return pa.RecordBatch.from_arrays([pa.nulls(0, field.type) for field in schema], schema.names)


def first_row(reader: Reader, sql: str) -> list[Any]:
    """The cells of the one row that a query has."""
    for batch in reader.batches(sql):
        if batch is not None and batch.num_rows:
            return [column[0] for column in batch.columns]
    raise ValueError("no answer")


def path_of(uri: str) -> str:
    """The path in ``sqlite:///relative``, ``sqlite:////absolute``; there has to be such a file."""
    path = unquote(uri.partition("://")[2].partition("?")[0])
    path = path[1:] if path.startswith("/") else path
    if not Path(path).is_file():
        raise FileNotFoundError(f"no such file: {path}")
    return path


def file_state(path: str, beside: str) -> str:
    """What changes with every write to a database file, or to the log beside it."""
    states = []
    for name in (path, path + beside):
        try:
            status = os.stat(name)
        except FileNotFoundError:
            continue
        if status.st_size:  # a log that is empty comes and goes with connections
            states.append([name, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino])
    return str(states)
