"""The first rows of a query, and how many there are, without asking for all."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from typing import Any, cast

import pyarrow as pa

from zstore.errors import ZstoreError
from zstore.writing.sources.sql.open import open_database
from zstore.writing.sources.sql.parts import part_query
from zstore.writing.sources.sql.query import Query, refused_by_database
from zstore.writing.sources.sql.segments import storable

_MOST_ROWS = 100_000
_COUNT_S = 5.0


def first_rows(query: Query, n_bytes: int) -> tuple[Any, bool]:
    """The first rows of a query, as a table of Arrow; and whether these are all.

    Parameters
    ----------
    query
        The query.
    n_bytes
        Of memory, which the rows hardly exceed. There are 100,000 rows at most, and all have the same types.

    Raises
    ------
    SourceError
        If the database refuses.
    """
    try:
        database = open_database(query)
        sql = part_query(query, "")
        if database.has_limit:
            sql = f"SELECT * FROM ({sql}) q LIMIT {_MOST_ROWS}"
        with database.reading() as reader:
            batches = cast(Generator[Any, None, None], reader.batches(sql))
            with closing(batches):
                return _taken(batches, n_bytes)
    except ZstoreError:
        raise
    except Exception as error:
        raise refused_by_database(error, query, "the query") from None


def count_rows(query: Query) -> int | None:
    """How many rows a query has; None if its database does not say so in five seconds."""
    try:
        return open_database(query).count(f"SELECT COUNT(*) AS n FROM ({part_query(query, '')}) q", _COUNT_S)
    except ZstoreError:
        raise
    except Exception as error:
        raise refused_by_database(error, query, "to count rows") from None


def _taken(batches: Any, n_bytes: int) -> tuple[Any, bool]:
    taken: list[Any] = []
    for batch in map(storable, batches):
        if batch is None:  # all rows come again
            taken = []
            continue
        if taken and batch.num_rows and batch.schema != taken[0].schema:
            if any(one.num_rows for one in taken):
                return pa.Table.from_batches(taken), False
            taken = []
        if not taken or batch.num_rows:
            taken.append(batch)
        rows = pa.Table.from_batches(taken)
        if rows.nbytes >= n_bytes or rows.num_rows >= _MOST_ROWS:
            most = max(n_bytes * rows.num_rows // max(rows.nbytes, 1), 1)
            return rows.slice(0, min(most, _MOST_ROWS)), False
    return pa.Table.from_batches(taken), True
