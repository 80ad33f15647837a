"""Arrow IPC as a source, which Feather is too: record batches as blocks."""

from __future__ import annotations

from zstore.storage.file import File
from zstore.writing.sources.options import TableOptions
from zstore.writing.sources.typed.arrow_table import KIND, ArrowTable, BatchRow
from zstore.writing.sources.typed.source import TypedSource


class ArrowSource(TypedSource):
    """Arrow files and streams, see :class:`~zstore.writing.sources.protocol.Source`."""

    kind = "arrow"
    endings = (".arrow", ".arrows", ".feather", ".ipc")
    one = KIND
    many = "Arrow files"
    place = BatchRow

    def open_one(self, file: File, options: TableOptions) -> ArrowTable:
        """One file, whose messages have been found."""
        return ArrowTable.open(file, str(file), options.id_from_path)
