"""Files that hold a table with types, opened: what Parquet and Arrow files have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from zstore.errors import SourceError
from zstore.storage.file import File
from zstore.writing.sources.options import id_in_path
from zstore.writing.sources.protocol import Place


@dataclass(frozen=True)
class FileLayout:
    """What a file says of all of it.

    Parameters
    ----------
    names, types
        Of each column.
    group_rows
        Rows of each group.
    row_bytes
        Bytes of memory that a row of all columns takes, about.
    """

    names: tuple[str, ...]
    types: tuple[pa.DataType, ...]
    group_rows: tuple[int, ...]
    row_bytes: int


@dataclass(frozen=True)
class TableFile(ABC):
    """One file as the user named it, see :class:`~zstore.writing.sources.typed.table.TypedTable`.

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

    @classmethod
    def open(cls, file: File, name: str, id_from_path: str | None = None) -> Self:
        """Read what a file says of itself.

        Parameters
        ----------
        file
            The file.
        name
            What messages call it.
        id_from_path
            Regular expression that finds the id of all its rows in its path, if that has it.

        Raises
        ------
        SourceError
            If it is damaged, or has two columns of one name.
        UsageError
            If there is no id in its path.
        """
        header = cls.layout_of(file).names
        check_header(header, name)
        id_ = id_in_path(str(file), id_from_path) if id_from_path is not None else None
        return cls(name, file, header, id_)

    @staticmethod
    @abstractmethod
    def layout_of(file: File) -> FileLayout:
        """What a file says of all of it; kept in memory, since each block needs it."""

    @property
    def head(self) -> str:
        """Where its columns are named."""
        return self.name

    @cached_property
    def types(self) -> dict[str, pa.DataType]:
        """The type of each column."""
        return dict(zip(self.header, self.layout_of(self.file).types, strict=True))

    @property
    def group_rows(self) -> tuple[int, ...]:
        """Rows of each group."""
        return self.layout_of(self.file).group_rows

    @property
    def units(self) -> Mapping[str, str]:
        """None are known: nothing says so but the times themselves."""
        return {}

    @property
    def mean_bytes(self) -> int:
        """Bytes of a row."""
        return self.layout_of(self.file).row_bytes

    @abstractmethod
    def place(self, group: int, row: int) -> Place:
        """A row of a group, both counted from 0."""

    @abstractmethod
    def batches(self, columns: Sequence[str], texts: Sequence[str], group: int, n_rows: int) -> Iterator[Any]:
        """The rows of a group, in order, in record batches of at most `n_rows`."""

    @abstractmethod
    def write_sample(self, path: Path, n_rows: int) -> int:
        """Write the first rows with all columns to another file, see :meth:`first_rows`; returns how many."""

    def first_rows(self, n_rows: int, schema: Any) -> Any:
        """The first rows, as a table; at most those of the first group that has any."""
        group = next((n for n, rows in enumerate(self.group_rows) if rows), None)
        some = [] if group is None else [next(self.batches(self.header, (), group, n_rows))]
        return pa.Table.from_batches(some, schema)


def check_header(header: Sequence[str], name: str) -> None:
    """Refuse a table that has two columns of one name.

    Raises
    ------
    SourceError
        Naming the column.
    """
    twice = sorted(column for column, n_times in Counter(header).items() if n_times > 1)
    if twice:
        raise SourceError(
            f"column {twice[0]!r} stands {header.count(twice[0])} times in the schema",
            expected="every column name once",
            where=name,
            fix="rename one of them",
        )
