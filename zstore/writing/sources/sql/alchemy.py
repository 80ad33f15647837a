"""Any other database, by its dialect of SQLAlchemy: rows are streamed, and keep the types of Python."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import sqlalchemy

from zstore.writing.sources.sql.rows import record_batches

_BATCH_CELLS = 1 << 18
_BUFFER_ROWS = 1 << 13


class Alchemy:
    """A database that SQLAlchemy has a dialect of."""

    text_order = False
    has_limit = False

    def __init__(self, uri: str, name: str) -> None:
        self._engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.pool.NullPool)
        self._name = name

    def state(self) -> None:
        """Nothing tells, in general."""
        return

    def quoted(self, column: str) -> str:
        """A column as the dialect quotes it."""
        return str(self._engine.dialect.identifier_preparer.quote(column))

    def literal(self, dtype: pa.DataType, value: int | float | str) -> str:
        """A value as the dialect writes it."""
        known: Any = value
        if pa.types.is_timestamp(dtype):
            known = np.datetime64(int(value), dtype.unit).astype("M8[us]").item()
            known = known.replace(tzinfo=dt.UTC) if dtype.tz is not None else known
        elif pa.types.is_date(dtype):
            known = np.datetime64(int(value), "D").item()
        compiled = sqlalchemy.literal(known).compile(self._engine, compile_kwargs={"literal_binds": True})
        return str(compiled)

    def count(self, sql: str, most_s: float) -> None:
        """Not to be had: nothing ends a query in time, in general."""
        return

    @contextmanager
    def reading(self, snapshot: Any = None) -> Iterator[AlchemyReader]:
        """A connection of its own; what several see is what the database promises of several."""
        with self._engine.connect() as connection:
            yield AlchemyReader(connection, self._name)


class AlchemyReader:
    """A connection whose results stay at the server until they are read."""

    snapshot = None

    def __init__(self, connection: Any, name: str) -> None:
        self._connection, self._name = connection, name

    def batches(self, sql: str) -> Iterator[pa.RecordBatch]:
        """The rows of a query."""
        options = {"stream_results": True, "no_parameters": True, "max_row_buffer": _BUFFER_ROWS}
        with self._connection.execution_options(**options).exec_driver_sql(sql) as result:
            names = list(result.keys())
            n_rows = max(_BATCH_CELLS // len(names), 1)
            chunks = iter(lambda: result.fetchmany(n_rows), [])
            yield from record_batches(names, chunks, self._name)
