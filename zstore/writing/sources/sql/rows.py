"""Rows of Python values as record batches, exactly: each batch has the types of its own values, none are guessed."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from itertools import chain
from typing import Any

import pyarrow as pa

from zstore.errors import SourceError

_KINDS: dict[type, str] = {
    bool: "numbers",
    int: "numbers",
    float: "numbers",
    Decimal: "numbers",
    str: "texts",
    uuid.UUID: "texts",
    dt.datetime: "times",
    dt.date: "times",
    list: "lists",
    tuple: "lists",
}
_WHOLE = 1 << 53


def record_batches(
    names: Sequence[str], chunks: Iterable[Sequence[Sequence[Any]]], name: str, first: Sequence[pa.DataType] = ()
) -> Iterator[pa.RecordBatch]:
    """Rows as record batches; at least one, which may be empty.

    Parameters
    ----------
    names
        The columns.
    chunks
        Rows, some at a time.
    name
        The query, for messages.
    first
        Types of columns until they have a value, where the database declares them.

    Raises
    ------
    SourceError
        Naming column and row, if a value is of another kind than those before it, or none that can be stored.
    """
    kinds: list[str | None] = [None] * len(names)
    types = list(first) or [pa.null()] * len(names)
    n_rows = 0
    for rows in chain(chunks, ([],)):  # the last one for queries without rows
        columns = list(zip(*rows, strict=True)) if rows else [()] * len(names)
        arrays = []
        for number, cells in enumerate(columns):
            kinds[number] = _kind(cells, kinds[number], rows, names, number, n_rows, name)
            try:
                array = _array(cells, types[number])
            except (pa.ArrowException, OverflowError, ValueError, TypeError) as error:
                raise SourceError(
                    f"values in column {names[number]!r} that no type of Arrow has ({str(error)[:200]})",
                    expected="numbers of at most 76 digits, texts, times or lists of numbers",
                    where=f"{name} rows {n_rows:,} to {n_rows + len(rows) - 1:,}",
                    fix="cast the column in the query",
                ) from None
            types[number] = array.type
            arrays.append(array)
        if rows or not n_rows:
            yield pa.RecordBatch.from_arrays(arrays, list(names))
        n_rows += len(rows)


def _kind(
    cells: Sequence[Any], known: str | None, rows: Sequence[Any], names: Sequence[str], number: int, n: int, name: str
) -> str | None:
    """The kind of all values of a column, if it is one."""
    for kind in dict.fromkeys(type(cell) for cell in cells if cell is not None):  # in their order, not that of a set
        one = _KINDS.get(kind)
        if one is not None and known in (None, one):
            known = one
            continue
        row, cell = next((row, cell) for row, cell in enumerate(cells) if type(cell) is kind)
        raise SourceError(
            f"{kind.__name__} {str(cell)[:80]!r} in column {names[number]!r}"
            + (f", whose other values are {known}" if known else ""),
            expected=known or "numbers, texts, times or lists of numbers",
            where=f"{name} row {n + row:,}: {dict(zip(names, map(str, rows[row]), strict=True))}"[:400],
            fix="cast the column in the query, or leave it out of it",
        )
    return known


def _array(cells: Sequence[Any], before: pa.DataType) -> pa.Array:
    """A column of a batch; of its own type, or, if it has no value, of that before."""
    kinds = {type(cell) for cell in cells} - {type(None)}
    if not kinds:
        return pa.nulls(len(cells), before)
    if kinds == {uuid.UUID}:
        return pa.array([None if cell is None else str(cell) for cell in cells], pa.string())
    if kinds == {float, int}:
        if all(abs(cell) <= _WHOLE for cell in cells if type(cell) is int):
            return pa.array([None if cell is None else float(cell) for cell in cells], pa.float64())
        kinds = {Decimal, float, int}
    if kinds > {Decimal} or (kinds == {int} and any(abs(cell) >> 63 for cell in cells if cell is not None)):
        return pa.array([None if cell is None else _decimal(cell) for cell in cells])
    if Decimal in kinds:
        return pa.array([None if cell is None or cell.is_nan() else cell for cell in cells])
    if kinds > {dt.date}:
        cells = [dt.datetime(*cell.timetuple()[:3]) if type(cell) is dt.date else cell for cell in cells]
    if dt.datetime in kinds and any(cell is not None and cell.tzinfo is not None for cell in cells):
        if any(cell is not None and cell.tzinfo is None for cell in cells):
            raise ValueError("times with a time zone and times without")
        return pa.array(cells, pa.timestamp("us", "UTC"))
    return pa.array(cells)


def _decimal(cell: Any) -> Decimal | None:
    """A number as a decimal; Python's own of a float has all its digits, the shortest text only those that tell it."""
    number = Decimal(repr(cell) if type(cell) is float else cell)
    return None if number.is_nan() else number
