"""What a source is: everything that an ingest, an append and a comparison know of the files they read.

Adding one is a module with a class of these methods and a line in :mod:`zstore.writing.sources.kinds`. How a kind of
file is cut, inflated or decoded, how its quotes are counted and its lines numbered, is its own business.

:mod:`~zstore.writing.sources.csv.source` is the example of text. What has types is a ``TypedSource``
(:mod:`~zstore.writing.sources.typed.source`, with :mod:`~zstore.writing.sources.typed.arrow_source` as a short one). It
opens a ``TypedTable`` (:mod:`~zstore.writing.sources.typed.table`), which hands out record batches, and has a
`write_sample` for dry runs. Of a file that is a ``TableFile`` (:mod:`~zstore.writing.sources.typed.file`), which needs
`layout_of`, `place`, `batches` and `write_sample`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from zstore.format.schema import Schema
from zstore.storage.file import File
from zstore.storage.protocol import Storage
from zstore.writing.sources.options import TableOptions
from zstore.writing.sources.table import BadRow, Columns, StaticTable, TableSpec
from zstore.writing.sources.workspace import Runner, Workspace


class RecutError(Exception):
    """A block does not begin and end where records do, so all have to be cut anew (:meth:`Source.recut`)."""


class SourceFile(Protocol):
    """One file, opened: its columns are known."""

    @property
    def name(self) -> str:
        """Its path or URL as the user named it, for messages and the receipt."""
        ...

    @property
    def header(self) -> tuple[str, ...]:
        """Its columns, in its own order."""
        ...

    @property
    def head(self) -> str:
        """Where its columns are named, for messages."""
        ...

    @property
    def id(self) -> str | None:
        """Id of all its rows, where that is taken from its path; else None."""
        ...


class Block(Protocol):
    """What one task reads of a file, or one of several small ones. It can be pickled, and is small."""

    @property
    def name(self) -> str:
        """The file, as the user named it."""
        ...

    @property
    def key(self) -> str:
        """What tells it from the other blocks of all ways to cut the file, in letters that a file name may have."""
        ...

    @property
    def n_bytes(self) -> int:
        """Bytes of memory that its rows take as they are read, about."""
        ...


class Place(Protocol):
    """Where a record stands in its file, as its kind of source counts. A frozen dataclass of integers."""

    def __str__(self) -> str:
        """As messages have it, such as ``line 12``."""
        ...


@dataclass(frozen=True)
class SourceSample:
    """The first rows of a file as a file of its own.

    Parameters
    ----------
    path
        That file.
    n_bytes
        Bytes of its rows as they are read.
    growth
        Such bytes for each byte of the whole file.
    encoding
        Of the sample.
    prepared
        Whether a copy of the file's plain bytes has to lie on scratch space.
    source_bytes
        Bytes of all rows as they are read, of a source that has no size of its own; None for the size of the file.
    """

    path: Path
    n_bytes: int
    growth: float
    encoding: str
    prepared: bool
    source_bytes: int | None = None


class Source(Protocol):
    """One kind of file, such as CSV. Has no state, so any worker can be handed one."""

    @property
    def kind(self) -> str:
        """Its name, as stores record it."""
        ...

    @property
    def endings(self) -> tuple[str, ...]:
        """How the names of such files end."""
        ...

    @property
    def typed(self) -> bool:
        """Whether files say what their columns hold; else that is guessed from their first rows, and looked over."""
        ...

    @property
    def place(self) -> type[Any]:
        """The :class:`Place` of its bad rows."""
        ...

    def check(self, options: TableOptions, encoding: str) -> None:
        """Refuse options that such files do not have.

        Raises
        ------
        UsageError
            Naming the flag.
        """
        ...

    def usual(self, options: TableOptions) -> TableOptions:
        """The options with what all such files say themselves, such as where ids and times are."""
        ...

    def takes(self, file: Any) -> bool:
        """Whether a file, or what else the user has named, is of this kind."""
        ...

    def taken(self, files: Sequence[Any], scratch: Storage, shared: bool) -> list[Any]:
        """What the user has named as it can be read twice: as it is, or on scratch space, under names with `TAKEN`.

        Parameters
        ----------
        files
            What the user has named.
        scratch
            Where to.
        shared
            Whether other processes read it too.
        """
        ...

    def since(self, files: Sequence[Any], table: Mapping[str, Any], take_again: bool) -> list[Any]:
        """What an append is to read of what the user has named; the ledger knows files, and this what has no end.

        Parameters
        ----------
        files
            What the user has named.
        table
            What the store records of how it was read, with :meth:`state` of the last time.
        take_again
            Whether rows may come again that the store has, since one row of each id and time stays.
        """
        ...

    def state(self, files: Sequence[Any]) -> dict[str, Any]:
        """What a store is to record, once their rows are in it, for :meth:`since`; from :meth:`open`."""
        ...

    def prepare(self, files: Sequence[File], encoding: str, space: Workspace, runner: Runner | None) -> list[File]:
        """The files as they can be read in any order: themselves, or copies on scratch space.

        Raises
        ------
        SourceError, StoreError
            If one is damaged, or there is no room.
        """
        ...

    def open(
        self,
        files: Sequence[File],
        prepared: Sequence[File],
        options: TableOptions,
        others: Collection[str] = (),
        runner: Runner | None = None,
    ) -> tuple[Sequence[SourceFile], TableSpec]:
        """The columns of all files, and what they mean, from headers and first rows.

        Parameters
        ----------
        files, prepared
            As the user named them, and from :meth:`prepare`.
        options
            What the user says.
        others
            Columns of static attributes, which options may name too.
        runner
            Looks for the coarsest unit that all times are whole in, where types do not say so; None where a store has
            one already.

        Raises
        ------
        SourceError, UsageError
            If they cannot be rows of one store, or options do not fit.
        """
        ...

    def refuse_damaged(self, files: Sequence[Any]) -> None:
        """Refuse files of which a part was found to be damaged, where bad rows are not set aside; from :meth:`open`.

        Raises
        ------
        SourceError
            Naming the first.
        """
        ...

    def statics(self, files: Sequence[Any]) -> StaticTable | None:
        """Static attributes that files have beside their rows; from :meth:`open`."""
        ...

    def open_known(
        self, file: File, prepared: File, options: TableOptions, others: Collection[str], schema: Schema
    ) -> tuple[SourceFile, TableSpec] | None:
        """As :meth:`open` for one file whose rows a store has: what its columns hold is for the store to say.

        Returns
        -------
        None where the file has none of the series that the options choose.
        """
        ...

    def n_bytes(self, files: Sequence[Any], spec: Any) -> int:
        """Bytes of memory that all rows take as they are read, about."""
        ...

    def cut(self, files: Sequence[Any], spec: Any, block_bytes: int, runner: Runner | None = None) -> Sequence[Block]:
        """All rows as blocks, in the order of the files and of the rows in them.

        Parameters
        ----------
        files, spec
            From :meth:`open`.
        block_bytes
            Bytes of a block, at most where the files allow it.
        runner
            Reads parts of files where that is needed; blocks may then have to be cut anew (:meth:`recut`). None to be
            sure of their borders, whatever that costs.
        """
        ...

    def recut(
        self,
        files: Sequence[Any],
        spec: Any,
        block_bytes: int,
        runner: Runner,
        before: Sequence[Any],
        wrong: Exception | Sequence[BadRow],
    ) -> Sequence[Block] | None:
        """Better blocks than those of `before`, of which one raised `wrong`, or all have those bad rows; or None."""
        ...

    def read(self, block: Any, spec: Any, keep_bad: bool) -> Iterator[Columns]:
        """The rows of a block as typed columns, in parts if they take more memory than a block should.

        Parameters
        ----------
        block
            From :meth:`cut`.
        spec
            What the columns mean.
        keep_bad
            Leave bad rows out and return them, instead of raising on the first.

        Raises
        ------
        SourceError
            On a bad row, naming file and place; or if the file cannot be read.
        RecutError
            If blocks have to be cut anew.
        """
        ...

    def doubt(self, blocks: Sequence[Any]) -> None:
        """Raise a `RecutError` if bad rows of these blocks may be there only because of how they were cut."""
        ...

    def placed(
        self,
        groups: Sequence[Sequence[Any]],
        bad: Sequence[Sequence[BadRow]],
        tallies: Sequence[Sequence[int]],
    ) -> list[BadRow]:
        """The bad rows of all blocks, with their places in the files.

        Parameters
        ----------
        groups
            All blocks, by task.
        bad, tallies
            By task, `bad` and `tallies` of what was read (:class:`~zstore.writing.sources.table.Columns`).
        """
        ...

    def placed_alone(self, row: BadRow, group: Sequence[Any]) -> BadRow:
        """One bad row with its place in the file, without the blocks before those that it was read with."""
        ...

    def most_rows(self, blocks: Sequence[Any], spec: Any) -> int:
        """Good records that some blocks can hold at most."""
        ...

    def explain(self, blocks: Sequence[Any], spec: Any, id_: str, time: int, limit: int) -> list[str]:
        """Where the rows of one id at one time are, as ``file line n``. A slow look for messages."""
        ...

    def rows_at(self, blocks: Sequence[Any], spec: Any, numbers: Sequence[int]) -> list[BadRow]:
        """Some rows of blocks that were read together, as bad rows whose reason is still to be told.

        Parameters
        ----------
        blocks, spec
            What was read.
        numbers
            Of rows, among the good ones of all blocks, ascending.
        """
        ...

    def find_word(self, blocks: Sequence[Any], spec: Any, column: str, word: str) -> str:
        """Where a word first stands in a column. A slow look for messages."""
        ...

    def find_lost(self, blocks: Sequence[Any], spec: Any, column: str) -> str:
        """The first number of a column that no float64 is, and where it stands; empty where that is not told."""
        ...

    def notes(self, n_blank: int, bad: Sequence[BadRow]) -> Iterator[str]:
        """What should be known of how the files were read."""
        ...

    def sample(self, file: File, options: TableOptions, encoding: str, folder: Path, n_bytes: int) -> SourceSample:
        """The first rows of a file, some `n_bytes` as they are read, as a file below `folder`."""
        ...
