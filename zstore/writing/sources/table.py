"""What every kind of source is told, and what it hands on: what the columns mean, typed columns, bad rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zstore.errors import NoColumnError, SourceError
from zstore.format.encodings import Kind
from zstore.format.index import StaticAttribute
from zstore.writing.sources.cells import Missing, NumberStyle, shorten
from zstore.writing.sources.channels import Categories, ChannelValues
from zstore.writing.sources.digests import PieceDigest
from zstore.writing.sources.payloads import FieldSpec
from zstore.writing.sources.times.spec import TimeSpec

FIX_ROW = "--on-bad-row quarantine to set such rows aside, or clean the file"
FIX_NUMBERED_ROW = "clean the file; a row that counts for a time cannot be set aside"


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
    item
        Position in the vectors of the column; None in a column of single values.
    sides
        Whether it says where the numbers of the column are limits that the values are beyond, and has none of them.
    reference
        Whether it says where payloads of a field lie, and is not stored itself.
    """

    column: str
    name: str
    text: bool = False
    units: str | None = None
    item: int | None = None
    sides: bool = False
    reference: bool = False

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

    def told(self, what: str, column: str, words: Iterable[str]) -> list[str]:
        """A note of words that mean missing in columns of numbers, and in this column, which is `what`, do not."""
        texts = [word for word in words if word in self.everywhere] if not self.as_texts else []
        return [f"{what} has the word {text!r}; --missing {column}={text} makes it missing" for text in texts]

    def _own(self, column: str) -> dict[str, str]:
        return {text: f"{column}={text}" for text in self.in_column.get(column, ())}


@dataclass(frozen=True, kw_only=True)
class TableSpec:
    """What the columns mean, decided once before any block is read.

    Parameters
    ----------
    id
        Id column; None when all rows of a file are one series.
    time
        How times are written.
    channels
        The channels, in the store's order; behind them, references of `fields`: holder, and position where it has one.
    fields
        What rows have beside scalar channels.
    series
        In a wide table of series, its columns of series; in one with a row per series, the columns of its values; else
        empty.
    missing
        What means a missing value.
    largest
        Largest number that is stored.
    tracked
        Names of missing texts (see :class:`~zstore.writing.sources.cells.Missing`) of which to tell whether they occur.
    id_columns
        Where ids are joined from several columns, these; `id` then only names them all.
    offsets, months
        Where each record is a year or a day, how far each column of `series` is from its time, and whether that is
        counted in months or in seconds; else empty.
    """

    id: str | None
    time: TimeSpec
    channels: tuple[ChannelSpec, ...]
    fields: tuple[FieldSpec, ...] = ()
    series: tuple[str, ...] = ()
    missing: MissingTexts = MissingTexts()
    largest: float
    tracked: frozenset[str] = frozenset()
    id_columns: tuple[str, ...] = ()
    offsets: tuple[int, ...] = ()
    months: bool = False

    @property
    def stored(self) -> tuple[ChannelSpec, ...]:
        """The channels that are stored."""
        return tuple(channel for channel in self.channels if not channel.reference)

    def with_fields(self, fields: Sequence[FieldSpec]) -> TableSpec:
        """The same with fields whose references are read as channels: they stand behind all others from now on."""
        columns = {channel.column: channel for channel in self.channels}
        names = [name for field in fields for name in (field.holder, field.position) if name is not None]
        absent = next((name for name in names if name not in columns), None)
        if absent is not None:
            raise NoColumnError(
                f"no column {absent!r}",
                expected=f"one of {', '.join(map(repr, columns))}",
                fix="name one that there is",
            )
        references = [replace(columns[name], reference=True) for name in names]
        others = [channel for channel in self.channels if channel.column not in names]
        return replace(self, channels=(*others, *references), fields=tuple(fields))

    @property
    def id_names(self) -> tuple[str, ...]:
        """Columns that ids are in."""
        return self.id_columns or (() if self.id is None else (self.id,))

    @property
    def across(self) -> bool:
        """Whether each record is a series, whose rows stand side by side in it."""
        return self.time.kind == "columns"

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

    def style(self, column: str) -> NumberStyle:
        """How numbers of a column are written, where they are texts."""
        return NumberStyle()

    @property
    def numbers(self) -> tuple[str, ...]:
        """Columns of numbers."""
        return self.series or tuple(dict.fromkeys(channel.column for channel in self.channels if not channel.text))

    @property
    def texts(self) -> tuple[str, ...]:
        """Columns of categories."""
        return () if self.series else tuple(channel.column for channel in self.channels if channel.text)

    @property
    def needed(self) -> list[str]:
        """Columns that are read."""
        return list(dict.fromkeys([*self.id_names, *self.time.columns, *self.numbers, *self.texts]))


@dataclass(frozen=True)
class BadRow:
    """A record that cannot be stored as written.

    Parameters
    ----------
    source
        The file.
    place
        Where it stands there, as its kind of source counts: a frozen dataclass of integers, which reads as messages
        have it.
    reason, expected
        What is wrong with it, and what would be right.
    raw
        Its text.
    n_lost
        Records that it may have swallowed, itself included: lines that a quote without a closing one goes on over.
    n_rows
        Rows that it stands for, where they can only be lost together.
    """

    source: str
    place: Any
    reason: str
    expected: str
    raw: str
    n_lost: int = 1
    n_rows: int = 1

    def error(self, fix: str = FIX_ROW) -> SourceError:
        """As the error that refuses the ingest."""
        return SourceError(
            self.reason,
            expected=self.expected,
            where=f"{self.source} {self.place}: {shorten(self.raw)!r}",
            fix=fix,
        )


@dataclass(frozen=True)
class StaticTable:
    """A table of static attributes.

    Parameters
    ----------
    name
        The file.
    ids
        (row,) its ids.
    attributes
        Each with a value per row of the table.
    notes
        What should be known of it.
    seen
        Texts of --missing that occurred.
    """

    name: str
    ids: NDArray[Any]
    attributes: tuple[StaticAttribute, ...]
    notes: tuple[str, ...] = ()
    seen: frozenset[str] = frozenset()


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
        Per channel its values: numbers, or categories.
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
    tallies
        A number for each block that was read, by which its source places bad rows (:meth:`Source.placed`); only where
        those are kept.
    pieces
        Digests of the pieces of the source that were read for it.
    """

    ids: pa.Array
    codes: NDArray[np.int32]
    times: NDArray[np.int64]
    channels: list[ChannelValues]
    bad: tuple[BadRow, ...]
    n_records: int
    n_blank: int = 0
    n_lost: tuple[int, ...] = ()
    seen: frozenset[str] = frozenset()
    tallies: tuple[int, ...] = ()
    pieces: tuple[PieceDigest, ...] = ()

    @property
    def n_rows(self) -> int:
        """Rows read."""
        return len(self.times)

    def at(self, rows: NDArray[np.int64]) -> Columns:
        """Some rows, as if there were no others of its good ones."""
        ids = Categories(self.codes, self.ids).at(rows)
        channels = [column.at(rows) for column in self.channels]
        return replace(self, ids=ids.words, codes=ids.codes, times=self.times[rows], channels=channels)


def fix_of_row(spec: TableSpec) -> str:
    """What helps against a bad row: rows that are counted, for want of a time column, cannot be set aside."""
    return FIX_NUMBERED_ROW if spec.time.kind == "rows" else FIX_ROW
