"""The greatest value that a query's watermark has in its rows, and how many rows have it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from zstore.errors import SourceError, UsageError
from zstore.writing.sources.sql.parts import check_watermark
from zstore.writing.sources.sql.query import Bound, Query


def bound_of(batch: Any, query: Query, text_order: bool) -> Bound | None:
    """The greatest watermark of a batch.

    Raises
    ------
    SourceError, UsageError
        If a row has none, or there is no such column, or its values have no order everywhere.
    """
    if query.watermark is None:
        return None
    if query.watermark not in batch.schema.names:
        raise UsageError(
            f"no column {query.watermark!r}",
            expected=f"one of {', '.join(map(repr, batch.schema.names))}",
            where=str(query),
            fix="select the column of --watermark too; --leave-out it if it is no channel",
        )
    column = batch.column(query.watermark)
    if column.null_count:
        row = pc.index(pc.is_null(column), True).as_py()
        cells = {name: str(value[row]) for name, value in zip(batch.schema.names, batch.columns, strict=True)}
        raise SourceError(
            f"row without a value in the column {query.watermark!r} of --watermark",
            expected="a value in every row, since rows beyond the greatest are asked for later",
            where=f"{query}: {str(cells)[:300]}",
            fix="name another column, or leave such rows out of the query",
        )
    if not len(column):
        return None
    check_watermark(column.type, query, text_order)
    greatest = pc.max(column)
    n_rows = pc.sum(pc.equal(column, greatest)).as_py()
    dtype = column.type
    value = greatest.value if pa.types.is_temporal(dtype) else greatest.as_py()
    return Bound(query.watermark, str(dtype), value, n_rows)


def greatest_of(bounds: list[Bound | None]) -> Bound | None:
    """The greatest of some, with the rows of all that have it.

    Raises
    ------
    SourceError
        If texts are among numbers.
    """
    known = [bound for bound in bounds if bound is not None]
    if not known:
        return None
    if len({isinstance(bound.value, str) for bound in known}) > 1:
        raise SourceError(
            f"texts and numbers in the column {known[0].column!r} of --watermark",
            expected="values that have one order",
            fix="name another column, or cast it in the query",
        )
    greatest = max(known, key=lambda bound: bound.value)
    n_rows = sum(bound.n_rows for bound in known if bound.value == greatest.value)
    return Bound(greatest.column, greatest.type, greatest.value, n_rows)
