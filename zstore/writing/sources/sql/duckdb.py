"""DuckDB by its own library, which hands out Arrow."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import duckdb
import pyarrow as pa

from zstore.writing.sources.sql import databases

_BATCH_CELLS = 1 << 20


class Duck:
    """A DuckDB file, opened so that nobody can write to it."""

    text_order = True
    has_limit = True

    def __init__(self, uri: str) -> None:
        self._path = databases.path_of(uri)
        self._connection: Any = None

    quoted = staticmethod(databases.quoted)
    literal = staticmethod(databases.literal)

    def state(self) -> str:
        """That of its files."""
        return databases.file_state(self._path, ".wal")

    def count(self, sql: str, most_s: float) -> int | None:
        """The number that a query has as its only cell."""
        with duckdb.connect(self._path, read_only=True) as connection:
            clock = threading.Timer(most_s, connection.interrupt)
            clock.start()
            try:
                return int(connection.execute(sql).fetchall()[0][0])
            except duckdb.InterruptException:
                return None
            finally:
                clock.cancel()
                clock.join()

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
            relation = cursor.sql(f"SELECT * FROM ({sql}\n) q")  # so that it cannot be a COPY to a file
            for name, kind in zip(relation.columns, relation.types, strict=True):
                if "UHUGEINT" in str(kind):  # which Arrow has not: DuckDB hands out other numbers
                    raise ValueError(f"column {name!r} of type {kind}: cast it to a decimal or text in the query")
            read = getattr(relation, "to_arrow_reader", None) or relation.fetch_arrow_reader
            reader = read(max(_BATCH_CELLS // len(relation.columns), 1))
            yield databases.empty_batch(reader.schema)
            for batch in reader:
                for field, column in zip(batch.schema, batch.columns, strict=True):
                    if pa.types.is_decimal(field.type):
                        _check_digits(field, column)
                yield batch


def _check_digits(field: pa.Field, column: Any) -> None:
    """Refuse integers of 128 bits that have more digits than the decimals that they are handed out as."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid as error:
        raise ValueError(f"a number in column {field.name!r} of more than 38 digits: cast it in the query") from error
