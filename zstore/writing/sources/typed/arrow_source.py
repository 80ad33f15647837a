"""Arrow IPC as a source, which Feather is too: record batches as blocks."""

from __future__ import annotations

from pathlib import Path

from zstore.storage.file import File
from zstore.writing.sources.options import id_in_path
from zstore.writing.sources.typed.arrow_table import KIND, ArrowTable, BatchRow, layout, write_sample
from zstore.writing.sources.typed.source import TypedSource, check_header


class ArrowSource(TypedSource):
    """Arrow files and streams, see :class:`~zstore.writing.sources.protocol.Source`."""

    kind = "arrow"
    endings = (".arrow", ".arrows", ".feather", ".ipc")
    one = KIND
    many = "Arrow files"
    place = BatchRow

    def open_one(self, file: File, id_from_path: str | None) -> ArrowTable:
        """One file, whose messages have been found."""
        header = layout(file).names
        check_header(header, str(file))
        id_ = id_in_path(str(file), id_from_path) if id_from_path is not None else None
        return ArrowTable(str(file), file, header, id_)

    def write_sample(self, table: ArrowTable, path: Path, n_rows: int) -> int:
        """Write the first rows of a file, with all their columns; at most those of its first record batch."""
        return write_sample(table, path, n_rows)
