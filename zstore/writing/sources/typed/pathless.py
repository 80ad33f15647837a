"""What sources share whose rows lie in no file: tables in memory, and queries."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from zstore.errors import UsageError
from zstore.format.schema import Schema
from zstore.writing.sources.options import TableOptions
from zstore.writing.sources.protocol import SourceSample
from zstore.writing.sources.typed.source import TypedSource


class PathlessSource(TypedSource):
    """Rows without a path, which cannot be had again later.

    A kind of them says how to have ids, a comparison, and the number of rows instead.
    """

    endings = ()
    for_ids: str
    to_compare: str
    to_count: str

    def check(self, options: TableOptions, encoding: str) -> None:
        """Refuse options that only files have."""
        super().check(options, encoding)
        if options.id_from_path is not None:
            raise UsageError(f"--id-from-path of a {self.one}", expected="a column of ids", fix=self.for_ids)

    def open_known(
        self, file: Any, prepared: Any, options: TableOptions, others: Collection[str], schema: Schema
    ) -> Any:
        """Not to be had: what was there once need not be there again."""
        raise UsageError(f"--source of a {self.one}", expected="files", where=str(file), fix=self.to_compare)

    def sample(self, file: Any, options: TableOptions, encoding: str, folder: Path, n_bytes: int) -> SourceSample:
        """Not to be had: there is no file whose size would tell of its rows."""
        raise UsageError(
            f"--dry-run of a {self.one}",
            expected="files, whose sizes are known",
            where=str(file),
            fix=self.to_count,
        )
