"""What the rows of CSV files are cut into, and how their cells are written."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from zstore.storage.file import File
from zstore.writing.sources.cells import Missing, NumberStyle
from zstore.writing.sources.csv.framing import PLAIN, Framing
from zstore.writing.sources.table import TableSpec

Borders = Literal["plain", "counted", "exact"]


@dataclass(frozen=True)
class Line:
    """Where a record of a CSV file starts.

    Parameters
    ----------
    line
        Counts from 1; as long as a block is read, it is that of the block.
    byte
        Counts from 0.
    """

    line: int
    byte: int

    def __str__(self) -> str:
        return f"line {self.line:,}"


@dataclass(frozen=True)
class CsvFile:
    """One file as the user named it.

    Parameters
    ----------
    name
        Its path, for messages and the receipt.
    file
        Where its plain UTF-8 bytes lie: itself, or a copy in the scratch folder.
    header
        Its column names, in its own order.
    body
        Byte of the first record after the header.
    quoted
        Whether its first bytes hold a quote.
    id
        Id of all its rows, where that is taken from its path; else None.
    framing
        What is not plain CSV about it.
    header_line
        Line of the header; None where it has none, and the user named the columns.
    units
        Units of the columns, where it has a row of them; None for a column without.
    """

    name: str
    file: File
    header: tuple[str, ...]
    body: int
    quoted: bool
    id: str | None = None
    framing: Framing = PLAIN
    header_line: int | None = 1
    units: tuple[str | None, ...] = ()

    @property
    def head(self) -> str:
        """Where its columns are named."""
        return f"{self.name} with --names" if self.header_line is None else f"{self.name} line {self.header_line:,}"


@dataclass(frozen=True)
class CsvBlock:
    """A record-aligned byte range ``[start, stop)`` of a file.

    Parameters
    ----------
    source
        The file.
    start, stop
        The range.
    borders
        How its borders were found: ``plain``, as if no quote stood before them; ``counted``, by the number of quotes;
        ``exact``, by reading every quote.
    """

    source: CsvFile
    start: int
    stop: int
    borders: Borders = field(default="counted", compare=False)

    @property
    def name(self) -> str:
        """The file, as the user named it."""
        return self.source.name

    @property
    def key(self) -> str:
        """What tells it from the other blocks of all ways to cut the file."""
        return f"{self.start}-{self.stop}-{self.borders}"

    @property
    def n_bytes(self) -> int:
        """Its length."""
        return self.stop - self.start


@dataclass(frozen=True, kw_only=True)
class CsvSpec(TableSpec):
    """What the columns of CSV files mean, and how their cells are written.

    Parameters
    ----------
    delimiter
        Between fields.
    decimal
        ``.`` or ``,``.
    thousands
        Character between groups of three digits, if any.
    percent
        Columns of numbers with a ``%`` behind each.
    censored
        Columns of numbers that may have a ``<`` or ``>`` before them.
    """

    delimiter: str
    decimal: str = "."
    thousands: str | None = None
    percent: tuple[str, ...] = ()
    censored: tuple[str, ...] = ()

    @cached_property
    def null_texts(self) -> frozenset[str]:
        """Texts that Arrow is to take for missing."""
        return self.missing.everywhere_as_texts(NumberStyle(self.decimal))

    @cached_property
    def styles(self) -> dict[str, tuple[NumberStyle, Missing]]:
        """Per column of numbers, how they are written and what means missing."""
        return {name: (self.style(name), self.missing.of_numbers(name, self.style(name))) for name in self.numbers}

    def style(self, column: str) -> NumberStyle:
        """How numbers of a column are written."""
        return NumberStyle(self.decimal, self.thousands, column in self.percent, column in self.censored)
