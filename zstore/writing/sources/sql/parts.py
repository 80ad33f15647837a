"""A query in parts: ranges of a column that together have every row once, and what is asked for beyond a watermark."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pyarrow as pa

from zstore.errors import UsageError
from zstore.writing.sources.sql.databases import Database, Reader, first_row
from zstore.writing.sources.sql.query import AskedQuery, Bound, Query


def part_query(query: Query, where: str) -> str:
    """The query, of which only some rows are asked for; the query itself where all are. It may end with a comment."""
    return f"SELECT * FROM ({query.sql}\n) q WHERE {where}" if where else f"{query.sql}\n"


def conditions(asked: AskedQuery, database: Database, reader: Reader) -> list[str]:
    """A condition for each part, which together have every row once; an empty one for all rows."""
    beyond = _beyond(asked, database)
    column = asked.query.partition
    if column is None:
        return [beyond]
    name = f"q.{database.quoted(column)}"
    bounds = _borders(asked.query, beyond, database, reader, name)
    ranges = [f"{name} < {bounds[0]}"] if bounds else [f"{name} IS NOT NULL"]
    ranges += [f"{name} >= {low} AND {name} < {high}" for low, high in pairwise(bounds)]
    ranges += [f"{name} >= {bounds[-1]}"] if bounds else []
    return [_and(beyond, part) for part in [*ranges, f"{name} IS NULL"]]


def count_at(asked: AskedQuery, bound: Bound, database: Database, reader: Reader) -> int:
    """Rows of a query that have a watermark now."""
    return _count(asked.query, _compared(bound, database, "="), reader)


def count_beyond(asked: AskedQuery, bound: Bound, database: Database, reader: Reader) -> int:
    """Rows of a query beyond a watermark."""
    return _count(asked.query, _compared(bound, database, ">"), reader)


def count_below(asked: AskedQuery, border: Bound, database: Database, reader: Reader) -> int:
    """Rows that are asked for and are below a value of a column."""
    return _count(asked.query, _and(_beyond(asked, database), _compared(border, database, "<")), reader)


def _count(query: Query, where: str, reader: Reader) -> int:
    return int(first_row(reader, f"SELECT COUNT(*) AS n FROM ({part_query(query, where)}) p")[0].as_py())


def rest_of(asked: AskedQuery, border: Bound, database: Database) -> str:
    """The condition of the rows that are not below a value of a column."""
    missing = f"q.{database.quoted(border.column)} IS NULL"
    return _and(_beyond(asked, database), f"({_compared(border, database, '>=')} OR {missing})")


def _and(beyond: str, other: str) -> str:
    return f"({beyond}) AND {other}" if beyond else other


def _beyond(asked: AskedQuery, database: Database) -> str:
    return "" if asked.bound is None else _compared(asked.bound, database, ">=" if asked.inclusive else ">")


def _compared(bound: Bound, database: Database, sign: str) -> str:
    return f"q.{database.quoted(bound.column)} {sign} {database.literal(type_named(bound.type), bound.value)}"


def type_named(name: str) -> pa.DataType:
    """A type of a watermark, from the name that Arrow shows."""
    if name.startswith("timestamp["):
        unit, _, zone = name.removeprefix("timestamp[").removesuffix("]").partition(", tz=")
        return pa.timestamp(unit, zone or None)
    return {"date32[day]": pa.date32(), "string": pa.string()}.get(name) or pa.type_for_alias(name)


def writable(dtype: pa.DataType) -> tuple[int, int]:
    """The first and last moment of a type that SQL can write, in its unit; infinite ones lie beyond."""
    unit = dtype.unit if pa.types.is_timestamp(dtype) else "ms" if pa.types.is_date64(dtype) else "D"
    ends = (np.datetime64(day, "D") for day in ("0001-01-01", "9999-12-31"))
    if unit == "ns":
        ends = (np.datetime64(day, "D") for day in ("1678-01-01", "2262-01-01"))
    first, last = (int(day.astype(f"M8[{unit}]").astype(np.int64)) for day in ends)
    return first, last


def has_order(dtype: pa.DataType, text_order: bool) -> bool:
    """Whether values of a type have one order here and in the database."""
    times = pa.types.is_timestamp(dtype) or pa.types.is_date32(dtype)
    return bool(pa.types.is_integer(dtype) or times or (pa.types.is_string(dtype) and text_order))


def check_watermark(dtype: pa.DataType, query: Query, text_order: bool) -> None:
    """Refuse a watermark whose order this program and the database may see differently.

    Raises
    ------
    UsageError
        If it is one of floats, of decimals, or of texts that the database does not order by their bytes.
    """
    if not has_order(dtype, text_order):
        raise UsageError(
            f"--watermark {query.watermark} of type {dtype}",
            expected="whole numbers, times or dates, which have one order everywhere",
            where=str(query),
            fix="name another column, or cast it in the query",
        )


def _borders(query: Query, beyond: str, database: Database, reader: Reader, name: str) -> list[str]:
    """Values between the ranges, as SQL; fewer than asked for where there are not as many."""
    sql = f"SELECT MIN({name}) AS low, MAX({name}) AS high FROM ({query.sql}\n) q"
    low, high = first_row(reader, sql + (f" WHERE {beyond}" if beyond else ""))
    dtype = low.type
    if not low.is_valid or not high.is_valid:
        return []
    if pa.types.is_temporal(dtype) and not pa.types.is_time(dtype):
        least, most = writable(dtype)
        first, last = (min(max(int(end.value), least), most) for end in (low, high))
    elif pa.types.is_integer(dtype) or pa.types.is_floating(dtype) or pa.types.is_decimal(dtype):
        if not (math.isfinite(low.as_py()) and math.isfinite(high.as_py())):
            return []
        first, last = math.floor(low.as_py()), math.floor(high.as_py())
    else:
        raise UsageError(
            f"--partition {query.partition} of type {dtype}",
            expected="numbers, times or dates, which have ranges of equal size",
            where=str(query),
            fix="name another column with --partition",
        )
    n = query.partitions
    values = sorted({first + (last - first) * k // n for k in range(1, n)} - {first})
    shown = dtype if pa.types.is_temporal(dtype) else pa.int64()
    return [database.literal(shown, value) for value in values]
