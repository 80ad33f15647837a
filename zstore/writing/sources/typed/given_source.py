"""Tables in memory as a source; those that are streams, or that other processes read, go through scratch space."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pyarrow as pa

from zstore.errors import SourceError
from zstore.storage.file import File
from zstore.storage.protocol import Storage
from zstore.writing.room import with_room
from zstore.writing.sources.options import TableOptions
from zstore.writing.sources.typed.arrow_table import ArrowTable, check_array
from zstore.writing.sources.typed.damage import damage_told
from zstore.writing.sources.typed.file import check_header
from zstore.writing.sources.typed.given import BLOCK_ROWS, GivenTable, TableDigest, plain_block, plain_type
from zstore.writing.sources.typed.pathless import PathlessSource
from zstore.writing.sources.workspace import TAKEN

_GROUP_ROWS = 1 << 18
_END = b"\xff\xff\xff\xff\0\0\0\0"
_MOST_CHUNKS = 4  # of a group that are read one by one


@dataclass(frozen=True)
class TableRow:
    """Where a row of a table stands, counted from 0."""

    row: int

    def __str__(self) -> str:
        return f"row {self.row:,}"


@dataclass(frozen=True)
class TableInMemory:
    """A table in the memory of this process, see :class:`~zstore.writing.sources.typed.table.TypedTable`.

    Parameters
    ----------
    name
        What messages call it.
    rows
        The ``pyarrow.Table``.
    """

    name: str
    rows: Any
    id: None = None

    @cached_property
    def header(self) -> tuple[str, ...]:
        """Its columns."""
        return tuple(self.rows.column_names)

    @property
    def head(self) -> str:
        """Where its columns are named."""
        return self.name

    @cached_property
    def types(self) -> dict[str, pa.DataType]:
        """The type of each column."""
        return dict(zip(self.header, self.rows.schema.types, strict=True))

    @cached_property
    def group_rows(self) -> tuple[int, ...]:
        """Rows of each group: stretches of the table, whatever its chunks are."""
        n_rows = len(self.rows)
        return tuple(min(_GROUP_ROWS, n_rows - start) for start in range(0, n_rows, _GROUP_ROWS))

    @property
    def units(self) -> Mapping[str, str]:
        """None are known: nothing says so but the times themselves."""
        return {}

    @cached_property
    def mean_bytes(self) -> int:
        """Bytes of a row."""
        return int(self.rows.nbytes // max(len(self.rows), 1))

    def place(self, group: int, row: int) -> TableRow:
        """A row, counted from the first of the table."""
        return TableRow(group * _GROUP_ROWS + row)

    def batches(self, columns: Sequence[str], texts: Sequence[str], group: int, n_rows: int) -> Iterator[Any]:
        """The rows of a group, in order, without a copy where chunks are long enough."""
        names = [name for name in columns if name in self.types] or [self.header[0]]
        part = self.rows.select(names).slice(group * _GROUP_ROWS, _GROUP_ROWS)
        if max(column.num_chunks for column in part.columns) > _MOST_CHUNKS:
            part = part.combine_chunks()
        for batch in part.to_batches(max_chunksize=n_rows):
            with damage_told(self.name, "table"):
                for column in batch.columns:
                    check_array(column)
            yield batch


@dataclass(frozen=True)
class SpooledTable(ArrowTable):
    """A table on scratch space."""

    def place(self, group: int, row: int) -> Any:
        """A row, counted from the first of the table."""
        return TableRow(sum(self.group_rows[:group]) + row)


class GivenSource(PathlessSource):
    """Tables in memory, see :class:`~zstore.writing.sources.protocol.Source`."""

    kind = "table"
    one = "table"
    many = "tables"
    place = TableRow
    for_ids = "add one, and name it id"
    to_compare = "compare with a file of it"
    to_count = "ingest it"

    def takes(self, file: Any) -> bool:
        """Whether it is a table."""
        return isinstance(file, GivenTable)

    def taken(self, files: Sequence[Any], scratch: Storage, shared: bool) -> list[Any]:
        """Tables as they can be read in any order: in memory, or on scratch space."""
        scratch.remove(scratch.sizes(TAKEN))  # of a run that died
        return [_spooled(table, scratch) if shared or table.once else table for table in files]

    def open_one(self, file: Any, options: TableOptions) -> Any:
        """A table."""
        if file.spool is None:
            check_header(file.rows.column_names, file.name)
            return TableInMemory(file.name, file.rows)
        return SpooledTable.open(file.spool, file.name)


def _spooled(table: GivenTable, scratch: Storage) -> GivenTable:
    """The same table on scratch space, block by block, with its digest."""
    key, digest = f"{TAKEN}{uuid.uuid4().hex}.arrows", TableDigest(table.rows.schema)

    def pieces() -> Iterator[Any]:
        schema = table.rows.schema
        names, types = schema.names, [plain_type(dtype) for dtype in schema.types]
        yield memoryview(pa.schema(list(zip(names, types, strict=True))).serialize())
        for columns in _blocks(table):
            for number, column in enumerate(columns):
                digest.add(number, column)
            yield memoryview(pa.record_batch(columns, names).serialize())
        yield _END

    n_bytes = scratch.write_stream(key, with_room(scratch, key, pieces()))
    file = File(scratch, key, n_bytes)
    return replace(table, rows=None, etag=digest.hexdigest(), n_bytes=digest.n_bytes, spool=file)


def _blocks(table: GivenTable) -> Iterator[list[Any]]:
    """All rows, column by column, in blocks of one number of rows; what a stream cannot give is told."""
    held: list[Any] = []
    n_held = n_rows = 0
    try:
        for batch in table.rows.to_batches() if not table.once else table.rows:
            start = 0
            while batch.num_rows - start >= BLOCK_ROWS - n_held:
                taken = BLOCK_ROWS - n_held
                yield _columns([*held, batch.slice(start, taken)])
                start, held, n_held = start + taken, [], 0
            if start < batch.num_rows:
                held.append(batch.slice(start))
                n_held += batch.num_rows - start
            n_rows += batch.num_rows
    except pa.ArrowException as error:
        raise SourceError(
            f"the stream ended with an error ({str(error).splitlines()[0]})",
            expected="all its rows",
            where=f"{table.name} behind row {n_rows:,}",
            fix="make it anew and run again; nothing was committed",
        ) from error
    if held:
        yield _columns(held)


def _columns(batches: Sequence[Any]) -> list[Any]:
    return [plain_block([batch.column(number) for batch in batches]) for number in range(batches[0].num_columns)]
