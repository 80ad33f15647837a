"""Parquet files, opened: their columns by type, and their row groups as blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from io import SEEK_CUR, SEEK_SET
from pathlib import Path
from typing import Any

import pyarrow as pa

from zstore.errors import SourceError
from zstore.storage.file import File
from zstore.writing.sources.files import cannot_read, read_source
from zstore.writing.sources.table import TableSpec

_STREAM_BYTES = 1 << 20
_CELL_BYTES = 8
_LARGE_GROUP = 1 << 28  # whose columns are read bit by bit
_BANDS = 6  # tasks that there should be, where files have row groups enough to cut


@dataclass(frozen=True)
class GroupRow:
    """Where a row of a Parquet file stands; both numbers count from 0."""

    row_group: int
    row: int

    def __str__(self) -> str:
        return f"row group {self.row_group:,} row {self.row:,}"


@dataclass(frozen=True)
class ParquetTable:
    """One file as the user named it.

    Parameters
    ----------
    name
        Its path, for messages and the receipt.
    file
        The file.
    header
        Its columns, in its own order.
    id
        Id of all its rows, where that is taken from its path; else None.
    """

    name: str
    file: File
    header: tuple[str, ...]
    id: str | None = None

    @property
    def head(self) -> str:
        """Where its columns are named."""
        return self.name

    @property
    def types(self) -> dict[str, pa.DataType]:
        """The type of each column."""
        return dict(zip(self.header, footer(self.file).types, strict=True))

    @property
    def group_rows(self) -> tuple[int, ...]:
        """Rows of each row group."""
        return footer(self.file).group_rows

    @property
    def n_rows(self) -> int:
        """Rows of the file."""
        return sum(self.group_rows)

    def row_bytes(self, spec: TableSpec) -> int:
        """Bytes of memory that a row takes as it is read, about.

        Notes
        -----
        Texts may be long. How long, only the size of all columns together tells: Arrow aborts the process where it is
        asked for that of one column, and the footer is damaged.
        """
        n_cells = len(spec.series or spec.channels) + len(spec.time.columns) + 2 * (spec.id is not None)
        return _CELL_BYTES * n_cells + (footer(self.file).row_bytes if spec.texts else 0)

    @property
    def whole_row_bytes(self) -> int:
        """The same of all columns."""
        return _CELL_BYTES * len(self.header) + footer(self.file).row_bytes

    def batches(self, columns: Sequence[str], texts: Sequence[str], group: int, n_rows: int) -> Iterator[Any]:
        """The rows of a row group, in order, in record batches of at most `n_rows`.

        Parameters
        ----------
        columns
            Those to read.
        texts
            Columns of texts that are to come as dictionaries, if they are texts here.
        group, n_rows
            The row group, and rows of a batch.

        Raises
        ------
        SourceError
            If the file cannot be read, or is damaged.
        """
        known, n_read = footer(self.file), 0
        large = known.group_bytes[group] > _LARGE_GROUP
        with damage_told(self.name):
            opened = _open(self.file, known.metadata, list(texts), _STREAM_BYTES if large else 0)
            names = [name for name in columns if name in self.header] or [self.header[0]]
            some = opened.iter_batches(n_rows, row_groups=[group], columns=names, use_threads=False)
            for n_read, batch in _counted(some):
                if n_read > known.group_rows[group]:
                    break
                yield batch
        if n_read != known.group_rows[group]:
            raise _damaged(self.name, f"{n_read:,} rows in row group {group}, of {known.group_rows[group]:,}")


@dataclass(frozen=True)
class ParquetBlock:
    """The rows ``[start, stop)`` of a row group.

    Parameters
    ----------
    table
        The file.
    group
        The row group.
    start, stop
        Which rows of it.
    part_rows
        Rows that are read at once; `start` is a multiple of them.
    n_bytes
        Bytes of memory that all of them take, about.
    """

    table: ParquetTable
    group: int
    start: int
    stop: int
    part_rows: int
    n_bytes: int

    @property
    def name(self) -> str:
        """The file, as the user named it."""
        return self.table.name

    @property
    def key(self) -> str:
        """What tells it from the other blocks of all ways to cut the file."""
        return f"{self.group}-{self.start}-{self.stop}-{self.part_rows}"

    def batches(self, columns: Sequence[str], texts: Sequence[str]) -> Iterator[tuple[int, Any]]:
        """Record batches of its rows, each with its first row in the row group.

        Notes
        -----
        What stands before `start` in the row group is decoded as well, for Parquet has no way around that.
        """
        row = 0
        for batch in self.table.batches(columns, texts, self.group, self.part_rows):
            first, last = max(self.start - row, 0), min(self.stop - row, batch.num_rows)
            if last > first:
                yield row + first, batch.slice(first, last - first)
            row += batch.num_rows
            if row >= self.stop < self.table.group_rows[self.group]:
                return


def cut(tables: Sequence[ParquetTable], spec: TableSpec, block_bytes: int) -> list[ParquetBlock]:
    """Row groups as blocks.

    Parameters
    ----------
    tables, spec
        The files, and what is read of them.
    block_bytes
        Bytes of memory that rows may take which are read at once.

    Notes
    -----
    A larger row group is read in parts, one after the other. Where there are few such, each is cut into several blocks:
    more of them are read at the same time then, and the rows before each are decoded twice or more.
    """
    plans = [(table, table.row_bytes(spec)) for table in tables]
    large = sum(rows * size > block_bytes for table, size in plans for rows in table.group_rows)
    blocks: list[ParquetBlock] = []
    for table, size in plans:
        part = max(block_bytes // size, 1)
        for group, rows in enumerate(table.group_rows):
            n_parts = -(-rows // part)
            n_blocks = min(-(-_BANDS // max(large, 1)), n_parts)
            for n in range(n_blocks):
                start, stop = (min(n_parts * k // n_blocks * part, rows) for k in (n, n + 1))
                blocks.append(ParquetBlock(table, group, start, stop, part, (stop - start) * size))
    return blocks


@dataclass(frozen=True)
class Footer:
    """What the end of a file says of all of it.

    Parameters
    ----------
    metadata
        Arrow's own.
    names, types
        Of each column.
    group_rows, group_bytes
        Rows, and bytes before compression, of each row group.
    row_bytes
        Bytes of a row before compression, on average.
    """

    metadata: Any
    names: tuple[str, ...]
    types: tuple[pa.DataType, ...]
    group_rows: tuple[int, ...]
    group_bytes: tuple[int, ...]
    row_bytes: int


def footer(file: File) -> Footer:
    """The footer of a file; kept in memory, since each block needs it.

    Raises
    ------
    SourceError
        If there is none, or it is damaged.
    """
    return _footer(_State(str(file), file.n_bytes, file.etag, file))


@dataclass(frozen=True)
class _State:
    """A file in one state of its bytes."""

    name: str
    n_bytes: int
    etag: str | None
    file: File = field(compare=False)


@lru_cache(maxsize=64)
def _footer(state: _State) -> Footer:
    with damage_told(state.name):
        opened = _open(state.file)
        metadata, schema = opened.metadata, opened.schema_arrow
        groups = [metadata.row_group(n) for n in range(metadata.num_row_groups)]
        n_rows = [group.num_rows for group in groups]
        n_bytes = [max(group.total_byte_size, 0) for group in groups]
        if min(n_rows, default=0) < 0 or sum(n_rows) != metadata.num_rows:
            raise _damaged(state.name, f"{metadata.num_rows:,} rows, and {sum(n_rows):,} in its row groups")
        mean = min(sum(n_bytes), state.n_bytes << 10) // max(sum(n_rows), 1)  # a footer may say anything
        return Footer(metadata, tuple(schema.names), tuple(schema.types), tuple(n_rows), tuple(n_bytes), mean)


class Seekable:
    """A file for Arrow: read at any position, and refused if it changes meanwhile."""

    closed = False

    def __init__(self, file: File) -> None:
        self._file, self._position = file, 0

    def read(self, n_bytes: int = -1) -> bytes:
        """The next bytes."""
        stop = self._file.n_bytes if n_bytes < 0 else min(self._position + n_bytes, self._file.n_bytes)
        content = read_source(self._file, self._position, stop) if stop > self._position else b""
        self._position += len(content)
        return content

    def seek(self, position: int, whence: int = SEEK_SET) -> int:
        """Go to a position."""
        base = {SEEK_SET: 0, SEEK_CUR: self._position}.get(whence, self._file.n_bytes)
        self._position = base + position
        return self._position

    def tell(self) -> int:
        """The position."""
        return self._position

    def readable(self) -> bool:
        """Whether it can be read."""
        return True

    def seekable(self) -> bool:
        """Whether it can be read at any position."""
        return True

    def close(self) -> None:
        """Nothing is held open."""
        self.closed = True


def write_sample(table: ParquetTable, path: Path, n_rows: int) -> int:
    """Write the first rows of a file, with all its columns, to another; at most those of its first row group.

    Returns
    -------
    How many there are.
    """
    import pyarrow.parquet as pq

    schema = _open(table.file).schema_arrow
    group = next((n for n, rows in enumerate(table.group_rows) if rows), None)
    some = [] if group is None else [next(table.batches(table.header, (), group, n_rows))]
    rows = pa.Table.from_batches(some, schema)
    pq.write_table(rows, path)
    return int(rows.num_rows)


def _open(file: File, metadata: Any = None, texts: Sequence[str] = (), buffer_bytes: int = 0) -> Any:
    import pyarrow.parquet as pq  # only where there are such files: it takes 30 ms

    return pq.ParquetFile(
        pa.PythonFile(Seekable(file), "r"),
        metadata=metadata,
        read_dictionary=list(texts),
        buffer_size=buffer_bytes,
        pre_buffer=False,
        page_checksum_verification=True,
    )


@contextmanager
def damage_told(name: str) -> Iterator[None]:
    """Arrow's refusals as errors that name the file."""
    try:
        yield
    except SourceError:
        raise
    except OSError as error:
        if error.errno is not None:
            raise cannot_read(name, error) from error
        raise _damaged(name, str(error)) from error
    except (pa.ArrowException, ValueError) as error:
        raise _damaged(name, str(error)) from error


def _damaged(name: str, what: str) -> SourceError:
    return SourceError(
        f"damaged Parquet file ({what.splitlines()[0][:200] if what else 'it ends too early'})",
        expected="a whole Parquet file that is not encrypted",
        where=name,
        fix="fetch or write the file again",
    )


def _counted(batches: Iterator[Any]) -> Iterator[tuple[int, Any]]:
    n_rows = 0
    for batch in batches:
        n_rows += batch.num_rows
        yield n_rows, batch
