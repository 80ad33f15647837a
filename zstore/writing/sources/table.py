"""What every kind of source hands on: blocks of bytes going in, typed columns coming out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zstore.format.encodings import Kind
from zstore.format.storage import File
from zstore.writing.sources.cells import Missing, NumberStyle
from zstore.writing.sources.times import TimeSpec


@dataclass(frozen=True)
class Source:
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
    """

    name: str
    file: File
    header: tuple[str, ...]
    body: int
    quoted: bool
    id: str | None = None


@dataclass(frozen=True)
class Block:
    """A record-aligned byte range ``[start, stop)`` of a source."""

    source: Source
    start: int
    stop: int


@dataclass(frozen=True)
class ChannelSpec:
    """One channel of the store to be.

    Parameters
    ----------
    column
        Column of the source; in a wide table of series, the name of the one channel.
    name
        Its name in the store.
    text
        Whether it holds categories.
    units
        Units to record, if any.
    """

    column: str
    name: str
    text: bool = False
    units: str | None = None

    @property
    def kind(self) -> Kind:
        """Of its values."""
        return "category" if self.text else "number"


@dataclass(frozen=True)
class MissingTexts:
    """Texts that mean a missing value, column by column. Never applied to ids.

    Parameters
    ----------
    everywhere
        In columns of numbers and times.
    in_column
        Further ones of some columns, numbers and words alike.
    as_texts
        Whether they are compared as texts alone, and in columns of words too, as stores made before `in_column` was
        there have it.
    """

    everywhere: tuple[str, ...] = ("",)
    in_column: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    as_texts: bool = False

    def of_numbers(self, column: str, style: NumberStyle) -> Missing:
        """Of a column of numbers: compared as numbers where they are some."""
        names = {text: text for text in self.everywhere}
        names |= self._own(column)
        return Missing(names) if self.as_texts else Missing.of_numbers(names, style)

    def of_words(self, column: str) -> Missing:
        """Of a column of words: empty ones, and what is named for it."""
        if self.as_texts:
            return Missing({text: text for text in self.everywhere})
        return Missing({"": "", **self._own(column)})

    def everywhere_as_texts(self, style: NumberStyle) -> frozenset[str]:
        """Texts that mean missing in every column of numbers, but for those that are compared as numbers."""
        return frozenset(replace(self, in_column={}).of_numbers("", style).texts)

    def _own(self, column: str) -> dict[str, str]:
        return {text: f"{column}={text}" for text in self.in_column.get(column, ())}


@dataclass(frozen=True)
class TableSpec:
    """What the columns mean, decided once before any block is read.

    Parameters
    ----------
    delimiter
        Between fields.
    decimal
        ``.`` or ``,``.
    id
        Id column; None when all rows of a file are one series.
    time
        How times are written.
    channels
        The channels, in the store's order.
    series
        In a wide table of series, its columns of series; else empty.
    missing
        What means a missing value.
    largest
        Largest number that is stored.
    thousands
        Character between groups of three digits, if any.
    percent
        Columns of numbers with a ``%`` behind each.
    tracked
        Names of missing texts (see :class:`~zstore.writing.sources.cells.Missing`) of which to tell whether they occur.
    """

    delimiter: str
    decimal: str
    id: str | None
    time: TimeSpec
    channels: tuple[ChannelSpec, ...]
    series: tuple[str, ...]
    missing: MissingTexts
    largest: float
    thousands: str | None = None
    percent: tuple[str, ...] = ()
    tracked: frozenset[str] = frozenset()

    @property
    def dtype(self) -> str:
        """Float type that numbers are stored as."""
        return "float32" if self.largest <= float(np.finfo(np.float32).max) else "float64"

    @cached_property
    def missing_times(self) -> Mapping[str, frozenset[str]]:
        """Per column, texts that stand for a time that is missing, which no row may have.

        Of those for every column no numbers: 0 is an hour.
        """
        everywhere = replace(self.missing, as_texts=False).everywhere_as_texts(NumberStyle()) - {""}
        texts = {name: everywhere.union(self.missing.in_column.get(name, ())) for name in self.time.columns}
        return {name: some for name, some in texts.items() if some}

    @property
    def has_own_missing_times(self) -> bool:
        """Whether a text means a missing time in a column of its own, be it a number."""
        return any(self.missing.in_column.get(name) for name in self.time.columns)

    @cached_property
    def null_texts(self) -> frozenset[str]:
        """Texts that Arrow is to take for missing."""
        return self.missing.everywhere_as_texts(NumberStyle(self.decimal))

    @cached_property
    def styles(self) -> dict[str, tuple[NumberStyle, Missing]]:
        """Per column of numbers, how they are written and what means missing."""
        styles = {column: NumberStyle(self.decimal, self.thousands, column in self.percent) for column in self.numbers}
        return {column: (style, self.missing.of_numbers(column, style)) for column, style in styles.items()}

    @property
    def numbers(self) -> tuple[str, ...]:
        """Columns of numbers."""
        return self.series or tuple(channel.column for channel in self.channels if not channel.text)

    @property
    def texts(self) -> tuple[str, ...]:
        """Columns of categories."""
        return () if self.series else tuple(channel.column for channel in self.channels if channel.text)

    @property
    def needed(self) -> list[str]:
        """Columns that are read."""
        return list(dict.fromkeys([*([self.id] if self.id else []), *self.time.columns, *self.numbers, *self.texts]))


@dataclass(frozen=True)
class BadRow:
    """A record that cannot be stored as written.

    Parameters
    ----------
    source
        The file.
    line, byte
        Where it starts. Lines count from 1, bytes from 0; as long as a block is read, the line is that of the block.
    reason, expected
        What is wrong with it, and what would be right.
    raw
        Its text.
    """

    source: str
    line: int
    byte: int
    reason: str
    expected: str
    raw: str

    @property
    def n_lines(self) -> int:
        """Lines that it goes on over: many where a quote has no closing one."""
        return self.raw.count("\n") + 1


@dataclass(frozen=True)
class Categories:
    """A column of categories.

    Parameters
    ----------
    codes
        (row,) int32 position in `words`; -1 where missing.
    words
        (word,) distinct texts.
    """

    codes: NDArray[np.int32]
    words: pa.Array


@dataclass(frozen=True)
class Columns:
    """The typed columns of one block, in source order.

    Parameters
    ----------
    ids
        (id,) distinct ids, sorted by their UTF-8 bytes.
    codes
        (row,) int32 position in `ids`.
    times
        (row,) int64.
    channels
        Per channel (row,) float64 with NaN for missing, or categories.
    bad
        Records left out.
    n_records
        Records read, bad ones included. In a wide table of series each makes a row per series.
    n_blank
        Lines without a byte, which are no records.
    n_lost
        Per channel, cells with more digits than a float64 keeps whose values do not tell.
    seen
        Texts of --missing that occurred.
    n_lines
        Line breaks of each block that was read; only where bad rows are kept.
    """

    ids: pa.Array
    codes: NDArray[np.int32]
    times: NDArray[np.int64]
    channels: list[NDArray[np.float64] | Categories]
    bad: tuple[BadRow, ...]
    n_records: int
    n_blank: int = 0
    n_lost: tuple[int, ...] = ()
    seen: frozenset[str] = frozenset()
    n_lines: tuple[int, ...] = ()

    @property
    def n_rows(self) -> int:
        """Rows read."""
        return len(self.times)
