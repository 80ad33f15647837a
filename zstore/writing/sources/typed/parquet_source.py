"""Parquet as a source: row groups as blocks."""

from __future__ import annotations

from pathlib import Path

from zstore.storage.file import File
from zstore.writing.sources.options import id_in_path
from zstore.writing.sources.typed.parquet_table import KIND, GroupRow, ParquetTable, footer, write_sample
from zstore.writing.sources.typed.source import TypedSource, check_header


class ParquetSource(TypedSource):
    """Parquet files, see :class:`~zstore.writing.sources.protocol.Source`."""

    kind = "parquet"
    endings = (".parquet", ".pq")
    one = KIND
    many = "Parquet files"
    place = GroupRow

    def open_one(self, file: File, id_from_path: str | None) -> ParquetTable:
        """One file, whose footer has been read."""
        header = footer(file).names
        check_header(header, str(file))
        id_ = id_in_path(str(file), id_from_path) if id_from_path is not None else None
        return ParquetTable(str(file), file, header, id_)

    def write_sample(self, table: ParquetTable, path: Path, n_rows: int) -> int:
        """Write the first rows of a file, with all their columns; at most those of its first row group."""
        return write_sample(table, path, n_rows)
