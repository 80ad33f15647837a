"""Parquet as a source: row groups as blocks."""

from __future__ import annotations

from zstore.storage.file import File
from zstore.writing.sources.options import TableOptions
from zstore.writing.sources.typed.parquet_table import KIND, GroupRow, ParquetTable
from zstore.writing.sources.typed.source import TypedSource


class ParquetSource(TypedSource):
    """Parquet files, see :class:`~zstore.writing.sources.protocol.Source`."""

    kind = "parquet"
    endings = (".parquet", ".pq")
    one = KIND
    many = "Parquet files"
    place = GroupRow

    def open_one(self, file: File, options: TableOptions) -> ParquetTable:
        """One file, whose footer has been read."""
        return ParquetTable.open(file, str(file), options.id_from_path)
