"""DuckDB by its own library, which hands out Arrow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import duckdb
import pyarrow as pa

from zstore.writing.sources import databases
from zstore.writing.sources.sql_sqlite import file_state, path_of

_BATCH_CELLS = 1 << 20


class Duck:
    """A DuckDB file, opened so that nobody can write to it."""

    text_order = True

    def __init__(self, uri: str) -> None:
        self._path = path_of(uri)
        self._connection: Any = None

    quoted = staticmethod(databases.quoted)
    literal = staticmethod(databases.literal)

    def state(self) -> str:
        """That of its files."""
        return file_state(self._path, ".wal")

    @contextmanager
    def reading(self, snapshot: Any = None) -> Iterator[DuckReader]:
        """A connection of its own to the database that the first one has opened."""
        if snapshot is not None:
            with snapshot.cursor() as cursor:
                yield DuckReader(cursor)
            return
        with duckdb.connect(self._path, read_only=True) as connection:
            yield DuckReader(connection)


class DuckReader:
    """A connection, from which others can be made."""

    def __init__(self, connection: Any) -> None:
        self.snapshot = connection

    def batches(self, sql: str) -> Iterator[pa.RecordBatch]:
        """The rows of a query."""
        with self.snapshot.cursor() as cursor:
            relation = cursor.sql(sql)
            read = getattr(relation, "to_arrow_reader", None) or relation.fetch_arrow_reader
            reader = read(max(_BATCH_CELLS // len(relation.columns), 1))
            yield databases.empty_batch(reader.schema)
            yield from reader
