"""What most sources do alike: files are read as they are, and are told apart by their bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from zstore.storage.file import File
from zstore.storage.protocol import Storage
from zstore.writing.sources.options import TableOptions
from zstore.writing.sources.table import BadRow, StaticTable
from zstore.writing.sources.workspace import Runner, Workspace


class FileSource:
    """The answers of a usual source of files, see :class:`~zstore.writing.sources.protocol.Source`."""

    endings: tuple[str, ...]

    def usual(self, options: TableOptions) -> TableOptions:
        """The options as they are."""
        return options

    def takes(self, file: Any) -> bool:
        """Whether its name ends as those of such files do."""
        return isinstance(file, File) and str(file).lower().endswith(self.endings)

    def taken(self, files: Sequence[Any], scratch: Storage, shared: bool) -> list[Any]:
        """The files as they are."""
        return list(files)

    def since(self, files: Sequence[Any], table: Mapping[str, Any], take_again: bool) -> list[Any]:
        """The files as they are."""
        return list(files)

    def state(self, files: Sequence[Any]) -> dict[str, Any]:
        """Nothing: files are told apart by their bytes."""
        return {}

    def prepare(self, files: Sequence[Any], encoding: str, space: Workspace, runner: Runner | None) -> list[Any]:
        """The files themselves, which can be read at any position."""
        return list(files)

    def refuse_damaged(self, files: Sequence[Any]) -> None:
        """Damage is found when rows are read."""

    def statics(self, files: Sequence[Any]) -> StaticTable | None:
        """None: rows are all that there is."""
        return None

    def find_lost(self, blocks: Sequence[Any], spec: Any, column: str) -> str:
        """Nothing: texts of files can be searched for."""
        return ""

    def notes(self, n_blank: int, bad: Sequence[BadRow]) -> Iterator[str]:
        """Nothing."""
        return iter(())
