"""Static attributes: a second table with one row per series, numbers and categories, read by the reader of rows."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from zstore.arrow import as_numpy, from_strings, to_strings
from zstore.errors import SourceError, UsageError
from zstore.format.index import StaticAttribute
from zstore.storage.file import File
from zstore.storage.protocol import Storage
from zstore.writing.sources.cells import Missing, NumberStyle, is_code, is_excess, lost_digits, shorten
from zstore.writing.sources.channels import Categories
from zstore.writing.sources.csv.blocks import below, read_block, read_bytes
from zstore.writing.sources.csv.exact_borders import exact_blocks
from zstore.writing.sources.csv.header import open_source
from zstore.writing.sources.csv.record_limit import lines_before
from zstore.writing.sources.csv.records import bad_record, is_blank, split_records
from zstore.writing.sources.csv.sniff import refuse_dialect
from zstore.writing.sources.csv.table import CsvBlock, CsvFile, CsvSpec
from zstore.writing.sources.inflate import plain_utf8
from zstore.writing.sources.join import join
from zstore.writing.sources.kinds import source_of
from zstore.writing.sources.options import TableOptions
from zstore.writing.sources.table import ChannelSpec, Columns, MissingTexts, StaticTable
from zstore.writing.sources.times.spec import TimeSpec
from zstore.writing.sources.typed.arrow_source import ArrowSource
from zstore.writing.sources.typed.given import GivenTable
from zstore.writing.sources.typed.parquet_source import ParquetSource
from zstore.writing.typed_statics import TypedStatics, of_given

_LARGEST = sys.float_info.max  # attributes are float64, whatever rows are
_NO_TIMES = TimeSpec("rows", (), None)
_FIX = "correct the file"
_BLOCK_BYTES = 1 << 24


@dataclass(frozen=True)
class CsvStatics:
    """A table of static attributes as CSV.

    Parameters
    ----------
    source, delimiter
        The file, opened, and what stands between fields.
    """

    source: CsvFile
    delimiter: str

    @property
    def header(self) -> tuple[str, ...]:
        """Its columns."""
        return self.source.header

    def read(self, options: TableOptions, missing: MissingTexts) -> StaticTable:
        """All of it, see :func:`read_statics`."""
        return read_statics(self.source, self.delimiter, options, missing)


def open_statics(
    table: File | GivenTable, options: TableOptions, encoding: str, scratch: Storage
) -> CsvStatics | TypedStatics:
    """Find the columns of a table of static attributes.

    Parameters
    ----------
    table
        CSV with a header, Parquet or Arrow; or a table in memory: one row per series.
    options
        How the rows are written. Their delimiter holds here too if it stands in the header; else one is looked for.
    encoding
        Of text files.
    scratch
        Where a plain copy may lie.
    """
    if isinstance(table, GivenTable):
        return of_given(table)
    source = source_of([table])
    if isinstance(source, (ParquetSource, ArrowSource)):
        return TypedStatics(source, source.open_one(table, TableOptions()))
    plain = plain_utf8(table, scratch, "statics.csv", encoding)
    if options.delimiter is not None:
        opened, delimiter = open_source(table, plain, TableOptions(delimiter=options.delimiter))
        if len(opened.header) > 1:
            return CsvStatics(opened, delimiter)
    return CsvStatics(*open_source(table, plain, TableOptions()))


def read_statics(source: CsvFile, delimiter: str, options: TableOptions, missing: MissingTexts) -> StaticTable:
    """Read a table of static attributes, as strictly as rows are read.

    Parameters
    ----------
    source, delimiter
        The file, opened, and what stands between its fields.
    options
        How the rows are written, and the name of the id column; without one it is the first.
    missing
        What means a missing value.

    Returns
    -------
    The ids, and every other column aligned with them: a number where every value is one or missing, else a category.
    Whole numbers with leading zeros are codes, and so is a column that has any.

    Raises
    ------
    SourceError, UsageError
        If a row cannot be stored as written, the file has no id column, or names an id twice.
    """
    id_columns = options.id_names or source.header[:1]
    for lacking in [name for name in id_columns if name not in source.header][:1]:
        raise UsageError(
            f"no column {lacking!r} in the static attributes",
            expected=f"one of {', '.join(map(repr, source.header))}",
            where=f"{source.name} line 1",
            fix="name the id column as in the rows' CSV",
        )
    names = [name for name in source.header if name not in id_columns]
    channels = tuple(ChannelSpec(name, name, text=True) for name in names)
    as_words = MissingTexts((), as_texts=True)
    spec = CsvSpec(
        delimiter=delimiter,
        decimal=options.decimal,
        id=",".join(id_columns),
        id_columns=id_columns,
        time=_NO_TIMES,
        channels=channels,
        missing=as_words,
        largest=_LARGEST,
    )
    blocks = exact_blocks(source, _BLOCK_BYTES, delimiter) or [CsvBlock(source, source.body, source.body)]
    columns = join([_read(block, spec) for block in blocks])
    counts = np.bincount(columns.codes, minlength=len(columns.ids))
    for code in np.flatnonzero(counts > 1)[:1].tolist():
        raise SourceError(
            f"id {columns.ids[code].as_py()!r} stands {counts[code]} times",
            expected="one row per id",
            where=source.name,
            fix="keep one of them",
        )
    reader = _Reader(blocks, delimiter, options, MissingTexts(missing.everywhere) if missing.as_texts else missing)
    attributes = tuple(reader.read(n, column) for n, column in zip(names, columns.channels, strict=True))  # type: ignore[arg-type]  # all are categories
    ids = to_strings(columns.ids)[columns.codes]
    blank = [f"{columns.n_blank:,} blank lines of {source.name} were skipped"] if columns.n_blank else []
    return StaticTable(source.name, ids, attributes, (*reader.notes, *blank), frozenset(reader.seen))


def _read(block: CsvBlock, spec: CsvSpec) -> Columns:
    columns = read_block(block, spec, keep_bad=True)
    if columns.bad:
        raise below(columns.bad[0], lines_before(block.source, block.start)).error(_FIX)
    return columns


@dataclass(frozen=True)
class _Reader:
    """Reads columns of words as attributes, and gathers what should be known of them."""

    blocks: Sequence[CsvBlock]
    delimiter: str
    options: TableOptions
    missing: MissingTexts
    notes: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)

    def read(self, name: str, column: Categories) -> StaticAttribute:
        style = NumberStyle(self.options.decimal, self.options.thousands, name in self.options.percent)
        absent = self.missing.of_numbers(name, style)
        words: list[str] = column.words.to_pylist()
        texts = {word: style.text(word) for word in words}
        known = {w: t for w, t in texts.items() if absent.name(w, None if t is None else float(t)) is None}
        codes = [word for word in known if is_code(word)]
        if name in self.options.categories or (known and (codes or not any(known.values()))):
            if name not in self.options.categories and codes:
                self.notes.append(f"static attribute {name} has codes such as {codes[0]!r} and is stored as words")
            elif name not in self.options.categories:
                refuse_dialect(name, list(known), style, self.blocks[0].name)
            return self._words(name, column, words)
        values = np.array([self._number(name, word, texts[word], absent) for word in words])
        n_lost = sum(text is not None and lost_digits(text) for text in known.values())
        if n_lost:
            self.notes.append(
                f"static attribute {name} has {n_lost:,} values with more digits than float64 keeps (about 16); "
                f"--categories {name} keeps them as words"
            )
        return StaticAttribute(name, values[column.codes] if len(words) else np.full(len(column.codes), np.nan))

    def _words(self, name: str, column: Categories, words: list[str]) -> StaticAttribute:
        absent = self.missing.of_words(name)
        kept = [word for word in words if word not in absent.texts]
        self.seen.update(absent.texts[word] for word in words if word in absent.texts)
        self.notes.extend(self.missing.told(f"static attribute {name}", name, kept))
        code = {word: number for number, word in enumerate(kept)}
        codes = np.array([code.get(word, -1) for word in words], np.int32)
        return StaticAttribute(name, codes[column.codes], tuple(kept))

    def _number(self, name: str, word: str, text: str | None, absent: Missing) -> float:
        label = absent.name(word, None if text is None else float(text))
        if label is not None:
            self.seen.add(label)
            return np.nan
        if text is None:
            raise self._bad_cell(name, word, f"text {shorten(word)!r} in number column {name!r}", "a decimal number")
        if is_excess(text, float(text), _LARGEST):
            most = f"at most {_LARGEST:.2g}"
            raise self._bad_cell(name, word, f"number {shorten(word)} in column {name!r}", most)
        return float(text)

    def _bad_cell(self, name: str, word: str, reason: str, expected: str) -> SourceError:
        """The error of the first row with a cell that cannot be stored."""
        source = self.blocks[0].source
        position, line = source.header.index(name), 1 + lines_before(source, source.body)
        for block in self.blocks:
            content = read_bytes(block)
            for record in split_records(content, self.delimiter, block.start, line, source.framing):
                if not is_blank(record, source.header) and record.fields and record.fields[position] == word:
                    row = bad_record(record, source.name, reason, expected)
                    return row.error(f"--missing {name}={word}, --categories {name}, or {_FIX}")
            line += content.count(b"\n")
        raise AssertionError(name, word)


def match_statics(
    ids: NDArray[Any], known: NDArray[Any], statics: tuple[StaticAttribute, ...]
) -> tuple[tuple[StaticAttribute, ...], int, int]:
    """Bring static attributes into the order of the store's ids.

    Returns
    -------
    The attributes with missing values where an id has none, the number of series without attributes, and the
    number of rows of attributes without a series.
    """
    position = as_numpy(pc.fill_null(pc.index_in(from_strings(ids), value_set=from_strings(known)), -1), "int32")
    found = position >= 0
    matched = []
    for static in statics:
        missing = np.nan if static.categories is None else -1
        values = np.full(len(ids), missing, static.values.dtype)
        values[found] = static.values[position[found]]
        matched.append(StaticAttribute(static.name, values, static.categories))
    return tuple(matched), int(np.count_nonzero(~found)), len(known) - int(np.count_nonzero(found))
