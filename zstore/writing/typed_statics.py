"""Static attributes from a table with types: a data frame, or a file of Parquet or Arrow. Types say what they are."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from zstore.arrow import to_strings
from zstore.errors import SourceError, UsageError
from zstore.format.index import StaticAttribute
from zstore.writing.sources.channels import Categories
from zstore.writing.sources.columns import check_channels
from zstore.writing.sources.ids import joined_ids
from zstore.writing.sources.join import join
from zstore.writing.sources.options import TableOptions
from zstore.writing.sources.table import Columns, MissingTexts, StaticTable, TableSpec
from zstore.writing.sources.times.spec import TimeSpec
from zstore.writing.sources.typed.columns import channels_of, check_id
from zstore.writing.sources.typed.given import GivenTable
from zstore.writing.sources.typed.given_source import GivenSource
from zstore.writing.sources.typed.source import TypedSource

_LARGEST = sys.float_info.max  # attributes are float64, whatever rows are
_BLOCK_BYTES = 1 << 24
_FIX = "correct the table of static attributes, or leave the column or the row out of it"


@dataclass(frozen=True)
class TypedStatics:
    """A table of static attributes whose columns have types.

    Parameters
    ----------
    source
        What reads it.
    table
        The table, opened.
    """

    source: TypedSource
    table: Any

    @property
    def header(self) -> tuple[str, ...]:
        """Its columns."""
        return tuple(self.table.header)

    def read(self, options: TableOptions, missing: MissingTexts) -> StaticTable:
        """All of it.

        Parameters
        ----------
        options
            The name of the id column, the first one without it; and columns of numbers that are words.
        missing
            What means a missing value.

        Raises
        ------
        SourceError, UsageError
            If a row cannot be stored as it stands, there is no id column, or an id is there twice.
        """
        ids = options.id_names or self.header[:1]
        for lacking in [name for name in ids if name not in self.header][:1]:
            raise UsageError(
                f"no column {lacking!r} in the static attributes",
                expected=f"one of {', '.join(map(repr, self.header))}",
                where=self.table.name,
                fix="name the id column as in the rows; of a pandas index, name the index",
            )
        try:
            columns, names = self._columns(ids, options, missing)
        except SourceError as error:  # of the reader of rows, whose options do not help here
            raise SourceError(error.what, expected=error.expected, where=error.where, fix=_FIX) from error
        counts = np.bincount(columns.codes, minlength=len(columns.ids))
        for code in np.flatnonzero(counts > 1)[:1].tolist():
            raise SourceError(
                f"id {columns.ids[code].as_py()!r} stands {counts[code]} times",
                expected="one row per id",
                where=self.table.name,
                fix="keep one of them",
            )
        attributes = tuple(_attribute(n, column) for n, column in zip(names, columns.channels, strict=True))
        texts = to_strings(columns.ids)[columns.codes]
        notes = tuple(_notes(names, columns, attributes, missing))
        return StaticTable(self.table.name, texts, attributes, notes, columns.seen)

    def _columns(
        self, ids: tuple[str, ...], options: TableOptions, missing: MissingTexts
    ) -> tuple[Columns, tuple[str, ...]]:
        """Its columns as channels, with ids of several columns joined; and their names."""
        first, several = ids[0], len(ids) > 1
        check_id([self.table], TableOptions(id=first))
        wanted = tuple(name for name in self.header if name not in ids or (several and name in ids))
        words = tuple(name for name in self.header if name in options.categories or (several and name in ids))
        channels = channels_of([self.table], wanted, TableOptions(categories=words))
        check_channels(channels, wanted)
        spec = TableSpec(
            id=None if several else first,
            time=TimeSpec("rows", (), None),
            channels=channels,
            missing=MissingTexts(missing.everywhere) if missing.as_texts else missing,
            largest=_LARGEST,
        )
        blocks = self.source.cut([self.table], spec, _BLOCK_BYTES)
        parts = [part for block in blocks for part in self.source.read(block, spec, keep_bad=False)]
        if not parts:
            raise SourceError("no row", expected="a row per id", where=self.table.name, fix="")
        columns = join(parts)
        names = tuple(channel.name for channel in channels)
        if not several:
            return columns, names
        pairs = []
        for name in ids:
            column = columns.channels[names.index(name)]
            if not isinstance(column, Categories) or (column.codes < 0).any():
                raise SourceError(
                    f"missing id in column {name!r}",
                    expected="an id in every row",
                    where=self.table.name,
                    fix="fill it",
                )
            pairs.append((column.codes, column.words))
        codes, joined = joined_ids(pairs)
        kept = [n for n, name in enumerate(names) if name not in ids]
        columns = replace(
            columns,
            ids=joined,
            codes=codes,
            channels=[columns.channels[n] for n in kept],
            n_lost=tuple(columns.n_lost[n] for n in kept),
        )
        return columns, tuple(names[n] for n in kept)


def of_given(given: GivenTable) -> TypedStatics:
    """A table in memory, or a stream of one, which is read whole."""
    source = GivenSource()
    whole = replace(given, rows=given.rows.read_all()) if given.once else given
    return TypedStatics(source, source.open_one(whole, TableOptions()))


def _attribute(name: str, column: Any) -> StaticAttribute:
    if isinstance(column, Categories):
        return StaticAttribute(name, column.codes, tuple(column.words.to_pylist()))
    return StaticAttribute(name, column.values)


def _notes(
    names: tuple[str, ...], columns: Columns, attributes: tuple[StaticAttribute, ...], missing: MissingTexts
) -> Iterator[str]:
    for name, n_lost in zip(names, columns.n_lost, strict=True):
        if n_lost:
            yield (
                f"static attribute {name} has {n_lost:,} values with more digits than float64 keeps (about 16); "
                f"--categories {name} keeps them as words"
            )
    for attribute in attributes:
        yield from missing.told(f"static attribute {attribute.name}", attribute.name, attribute.categories or ())
