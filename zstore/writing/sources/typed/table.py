"""Tables whose columns have types: what reads them hands out record batches, group by group, and the rest is shared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from zstore.writing.sources.protocol import Place
from zstore.writing.sources.table import TableSpec

_CELL_BYTES = 8
_BANDS = 6  # tasks that there should be, where tables have groups enough to cut


FAULTS = "\0faults"
"""A column that a batch may have beside its own: a text for each row, empty where nothing is wrong with it, else what
is wrong and, behind a line break, what is expected. Such rows are bad."""


@dataclass(frozen=True)
class LostRows:
    """Rows that cannot be read, in the place of a record batch of them.

    Parameters
    ----------
    num_rows
        How many.
    reason, expected
        What is wrong, and what would be right.
    """

    num_rows: int
    reason: str
    expected: str

    def slice(self, start: int, length: int) -> LostRows:
        """Some of them."""
        return LostRows(max(min(length, self.num_rows - start), 0), self.reason, self.expected)


class TypedTable(Protocol):
    """A file, a table in memory or the rows of a query, opened. It can be pickled, for each task gets it.

    A group is what is decoded as a whole: a row group of Parquet, a record batch of Arrow.
    """

    @property
    def name(self) -> str:
        """Its path or what else the user calls it, for messages and the receipt."""
        ...

    @property
    def header(self) -> tuple[str, ...]:
        """Its columns, in its own order, each once."""
        ...

    @property
    def head(self) -> str:
        """Where its columns are named, for messages."""
        ...

    @property
    def id(self) -> str | None:
        """Id of all its rows, where that is taken from its path; else None."""
        ...

    @property
    def types(self) -> dict[str, pa.DataType]:
        """The type of each column."""
        ...

    @property
    def group_rows(self) -> tuple[int, ...]:
        """Rows of each group."""
        ...

    @property
    def mean_bytes(self) -> int:
        """Bytes of memory that a row of all columns takes, on average, texts included; about."""
        ...

    @property
    def units(self) -> Mapping[str, str]:
        """The coarsest unit that all moments of a column are whole in, of columns where that is known unread."""
        ...

    def batches(self, columns: Sequence[str], texts: Sequence[str], group: int, n_rows: int) -> Iterator[Any]:
        """The rows of a group, in order, in record batches of at most `n_rows`, or as :class:`LostRows`.

        Parameters
        ----------
        columns
            Those to read; others may come as well. Where the table has none of them, the batches still have the rows.
        texts
            Columns of texts, which may come as dictionaries.
        group, n_rows
            The group, and rows of a batch.

        Raises
        ------
        SourceError
            If it cannot be read, or is damaged. Nothing is handed out whose offsets or indices lead beyond its bytes.
        """
        ...

    def place(self, group: int, row: int) -> Place:
        """A row of a group, both counted from 0, as messages have it."""
        ...


def whole_batches(table: TypedTable, columns: Sequence[str], texts: Sequence[str], group: int, n_rows: int) -> Any:
    """The record batches of a group, each with its first row in it, without rows that are lost."""
    row = 0
    for batch in table.batches(columns, texts, group, n_rows):
        if not isinstance(batch, LostRows):
            yield row, batch
        row += batch.num_rows


def n_rows_of(table: TypedTable) -> int:
    """Rows of a table."""
    return sum(table.group_rows)


def row_bytes(table: TypedTable, spec: TableSpec) -> int:
    """Bytes of memory that a row takes as it is read, about.

    Notes
    -----
    Texts may be long. How long, only the size of all columns together tells.
    """
    n_cells = len(spec.series or spec.channels) + len(spec.time.columns) + 2 * (spec.id is not None)
    return _CELL_BYTES * n_cells + (table.mean_bytes if spec.texts else 0)


def whole_row_bytes(table: TypedTable) -> int:
    """The same of all columns."""
    return _CELL_BYTES * len(table.header) + table.mean_bytes


@dataclass(frozen=True)
class TypedBlock:
    """The rows ``[start, stop)`` of a group.

    Parameters
    ----------
    table
        The table.
    group
        The group.
    start, stop
        Which rows of it.
    part_rows
        Rows that are read at once; `start` is a multiple of them.
    n_bytes
        Bytes of memory that all of them take, about.
    """

    table: TypedTable
    group: int
    start: int
    stop: int
    part_rows: int
    n_bytes: int

    @property
    def name(self) -> str:
        """The table, as the user named it."""
        return self.table.name

    @property
    def key(self) -> str:
        """What tells it from the other blocks of all ways to cut the table."""
        return f"{self.group}-{self.start}-{self.stop}-{self.part_rows}"

    def batches(self, columns: Sequence[str], texts: Sequence[str]) -> Iterator[tuple[int, Any]]:
        """Record batches of its rows, each with its first row in the group.

        Notes
        -----
        What stands before `start` in the group is decoded as well, for Parquet has no way around that.
        """
        row = 0
        for batch in self.table.batches(columns, texts, self.group, self.part_rows):
            first, last = max(self.start - row, 0), min(self.stop - row, batch.num_rows)
            if last > first:
                yield row + first, batch.slice(first, last - first)
            row += batch.num_rows
            if row >= self.stop < self.table.group_rows[self.group]:
                return


def cut(tables: Sequence[TypedTable], spec: TableSpec, block_bytes: int) -> list[TypedBlock]:
    """Groups as blocks.

    Parameters
    ----------
    tables, spec
        The tables, and what is read of them.
    block_bytes
        Bytes of memory that rows may take which are read at once.

    Notes
    -----
    A larger group is read in parts, one after the other. Where there are few such, each is cut into several blocks:
    more of them are read at the same time then, and the rows before each are decoded twice or more.
    """
    plans = [(table, row_bytes(table, spec)) for table in tables]
    large = sum(rows * size > block_bytes for table, size in plans for rows in table.group_rows)
    blocks: list[TypedBlock] = []
    for table, size in plans:
        part = max(block_bytes // size, 1)
        for group, rows in enumerate(table.group_rows):
            n_parts = -(-rows // part)
            n_blocks = min(-(-_BANDS // max(large, 1)), n_parts)
            for n in range(n_blocks):
                start, stop = (min(n_parts * k // n_blocks * part, rows) for k in (n, n + 1))
                blocks.append(TypedBlock(table, group, start, stop, part, (stop - start) * size))
    return blocks
