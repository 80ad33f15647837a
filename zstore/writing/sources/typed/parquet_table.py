"""Parquet files, opened: their columns by type, and their row groups as blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import SEEK_CUR, SEEK_SET
from pathlib import Path
from typing import Any

import pyarrow as pa

from zstore.storage.file import File
from zstore.writing.sources.files import read_source
from zstore.writing.sources.typed.damage import FileState, damage_told, damaged, state_of
from zstore.writing.sources.typed.file import FileLayout, TableFile

KIND = "Parquet file"
_STREAM_BYTES = 1 << 20
_LARGE_GROUP = 1 << 28  # whose columns are read bit by bit


@dataclass(frozen=True)
class GroupRow:
    """Where a row of a Parquet file stands; both numbers count from 0."""

    row_group: int
    row: int

    def __str__(self) -> str:
        return f"row group {self.row_group:,} row {self.row:,}"


class ParquetTable(TableFile):
    """A Parquet file, whose groups are row groups."""

    @staticmethod
    def layout_of(file: File) -> Footer:
        """Its footer.

        Notes
        -----
        Bytes of a row are those before compression of all columns together: Arrow aborts the process where it is asked
        for those of one column, and the footer is damaged.
        """
        return footer(file)

    def place(self, group: int, row: int) -> GroupRow:
        """A row of a row group."""
        return GroupRow(group, row)

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
        with damage_told(self.name, KIND):
            opened = _open(self.file, known.metadata, list(texts), _STREAM_BYTES if large else 0)
            names = [name for name in columns if name in self.types] or [self.header[0]]
            some = opened.iter_batches(n_rows, row_groups=[group], columns=names, use_threads=False)
            for n_read, batch in _counted(some):
                if n_read > known.group_rows[group]:
                    break
                yield batch
        if n_read != known.group_rows[group]:
            raise damaged(self.name, KIND, f"{n_read:,} rows in row group {group}, of {known.group_rows[group]:,}")

    def write_sample(self, path: Path, n_rows: int) -> int:
        """Write the first rows of its first row group to a file."""
        import pyarrow.parquet as pq

        rows = self.first_rows(n_rows, _open(self.file).schema_arrow)
        pq.write_table(rows, path)
        return int(rows.num_rows)


@dataclass(frozen=True)
class Footer(FileLayout):
    """What the end of a file says of all of it.

    Parameters
    ----------
    metadata
        Arrow's own.
    group_bytes
        Bytes before compression of each row group.
    """

    metadata: Any
    group_bytes: tuple[int, ...]


def footer(file: File) -> Footer:
    """The footer of a file; kept in memory, since each block needs it.

    Raises
    ------
    SourceError
        If there is none, or it is damaged.
    """
    return _footer(state_of(file))


@lru_cache(maxsize=64)
def _footer(state: FileState) -> Footer:
    with damage_told(state.name, KIND):
        opened = _open(state.file)
        metadata, schema = opened.metadata, opened.schema_arrow
        groups = [metadata.row_group(n) for n in range(metadata.num_row_groups)]
        n_rows = [group.num_rows for group in groups]
        n_bytes = [max(group.total_byte_size, 0) for group in groups]
        if min(n_rows, default=0) < 0 or sum(n_rows) != metadata.num_rows:
            raise damaged(state.name, KIND, f"{metadata.num_rows:,} rows, and {sum(n_rows):,} in its row groups")
        mean = min(sum(n_bytes), state.n_bytes << 10) // max(sum(n_rows), 1)  # a footer may say anything
        return Footer(tuple(schema.names), tuple(schema.types), tuple(n_rows), mean, metadata, tuple(n_bytes))


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


def _counted(batches: Iterator[Any]) -> Iterator[tuple[int, Any]]:
    n_rows = 0
    for batch in batches:
        n_rows += batch.num_rows
        yield n_rows, batch
