"""Tables with types as sources: lists are vectors, and types say what columns hold. Parquet and Arrow share this."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from zstore.errors import UsageError
from zstore.format.schema import Schema
from zstore.storage.file import File
from zstore.writing.sources.base import FileSource
from zstore.writing.sources.columns import has_no_series
from zstore.writing.sources.options import TableOptions, refuse_mapping
from zstore.writing.sources.protocol import SourceSample
from zstore.writing.sources.table import BadRow, Columns, TableSpec, fix_of_row
from zstore.writing.sources.times.spec import STEPS
from zstore.writing.sources.typed.cells import kind_of, numbers_of, words_of
from zstore.writing.sources.typed.damage import damage_told
from zstore.writing.sources.typed.rows import no_columns, read_batch
from zstore.writing.sources.typed.spec import typed_spec
from zstore.writing.sources.typed.table import (
    LostRows,
    TypedBlock,
    TypedTable,
    cut,
    n_rows_of,
    row_bytes,
    whole_row_bytes,
)
from zstore.writing.sources.workspace import Runner

_OF_TEXT: tuple[str, ...] = ("delimiter", "decimal", "thousands", "percent", "censored")
_OF_TEXT += ("skip_lines", "comment", "units_row", "skip_below_header", "no_header", "names", "widths")


class TypedSource(FileSource):
    """What sources of typed tables share, see :class:`~zstore.writing.sources.protocol.Source`.

    A kind of them says what it is called, how files end, where rows stand, and how one is opened and sampled.
    """

    kind: str
    endings: tuple[str, ...]
    one: str
    many: str
    """What one is called, such as ``Parquet file``, and several."""
    place: type[Any]
    typed = True

    def open_one(self, file: Any, options: TableOptions) -> Any:
        """One of them, opened; options may say that ids are in its path."""
        raise NotImplementedError

    def sample(self, file: File, options: TableOptions, encoding: str, folder: Path, n_bytes: int) -> SourceSample:
        """The first rows of one, with all their columns."""
        table = self.open_one(file, replace(options, id_from_path=None))
        size = self.sample_row_bytes(table)
        path = folder / file.key.lstrip("/")  # so that ids are found in the path
        path.parent.mkdir(parents=True)
        n_rows = table.write_sample(path, max(n_bytes // size, 1))
        growth = n_rows_of(table) * size / max(file.n_bytes, 1)
        return SourceSample(path, n_rows * size, growth, encoding, prepared=False)

    def sample_row_bytes(self, table: Any) -> int:
        """Bytes of memory that a row of a sample takes, about."""
        return whole_row_bytes(table)

    def check(self, options: TableOptions, encoding: str) -> None:
        """Refuse options of text: cells have types here."""
        usual = TableOptions()
        given = [(name, getattr(options, name)) for name in _OF_TEXT if getattr(options, name) != getattr(usual, name)]
        given += [("encoding", encoding)] if encoding.lower().replace("_", "-") != "utf-8" else []
        for name, value in given:
            shown = ",".join(value) if isinstance(value, tuple) else value
            raise UsageError(
                f"--{name.replace('_', '-')} {shown} of {self.many}",
                expected="CSV files, whose cells are text",
                fix=f"leave out --{name.replace('_', '-')}: the types of the columns say how they are read",
            )

        refuse_mapping(options, self.many)
        if options.timezone is not None:
            raise UsageError(
                f"--timezone {options.timezone} of {self.many}",
                expected="timestamps that have their zone in their type, or are taken as they stand",
                fix="write timestamps with a zone to the files",
            )
        if options.layout in ("series", "calendar"):
            raise UsageError(
                f"--layout {options.layout} of {self.many}",
                expected="a row per id and time, or a column per series",
                fix="write lists as rows (as explode does) to the files",
            )
        if options.id_columns:
            raise UsageError(
                f"--id {options.id} of {self.many}",
                expected="one column of ids",
                fix="write one column of ids to the files",
            )

    def open(
        self,
        files: Sequence[File],
        prepared: Sequence[File],
        options: TableOptions,
        others: Collection[str] = (),
        runner: Runner | None = None,
    ) -> tuple[list[TypedTable], TableSpec]:
        """The columns of all tables, and what they mean."""
        tables = [self.open_one(file, options) for file in files]
        return tables, typed_spec(tables, options, others, self.one, runner=runner)

    def open_known(
        self, file: File, prepared: File, options: TableOptions, others: Collection[str], schema: Schema
    ) -> tuple[TypedTable, TableSpec] | None:
        """One file whose rows a store has."""
        table = self.open_one(file, options)
        if has_no_series(table, options):
            return None
        known = options.of_header(table.header)
        rename = {column: name for column, name in options.rename.items() if column in table.header}
        words = [channel.name for channel in schema.channels if channel.kind == "category"]
        known = replace(known, rename=rename, categories=()).with_categories(words)
        known = replace(known, categories=tuple(name for name in known.categories if name in table.header))
        if schema.time.unit is None and known.time_format is None:
            known = replace(known, time_unit=STEPS)
        spec = typed_spec([table], known, others, self.one, [channel.name for channel in schema.channels])
        time = replace(spec.time, unit=schema.time.unit)
        if spec.series:
            return table, replace(spec, time=time)
        made = {channel.name: channel for channel in spec.channels}
        kinds = [
            made.get(channel.name, replace(spec.channels[0], column="", name=channel.name, item=None))
            for channel in schema.channels
        ]
        texts = [channel.kind == "category" for channel in schema.channels]
        return table, replace(
            spec, time=time, channels=tuple(replace(c, text=t) for c, t in zip(kinds, texts, strict=True))
        )

    def n_bytes(self, files: Sequence[TypedTable], spec: TableSpec) -> int:
        """Bytes of memory that all rows take."""
        return sum(n_rows_of(table) * row_bytes(table, spec) for table in files)

    def cut(
        self, files: Sequence[TypedTable], spec: TableSpec, block_bytes: int, runner: Runner | None = None
    ) -> list[TypedBlock]:
        """Groups, or parts of large ones."""
        return cut(files, spec, block_bytes)

    def recut(
        self,
        files: Sequence[TypedTable],
        spec: TableSpec,
        block_bytes: int,
        runner: Runner,
        before: Sequence[TypedBlock],
        wrong: Exception | Sequence[BadRow],
    ) -> None:
        """Tables say where their rows are, so nothing can be cut better."""
        return

    def read(self, block: TypedBlock, spec: TableSpec, keep_bad: bool) -> Iterator[Columns]:
        """The rows of a block, part by part.

        Raises
        ------
        SourceError
            On a bad row, unless those are kept; or if the file is damaged.
        """
        for columns, _, _ in _parts(block, spec, self.one, keep_bad):
            if columns.bad and not keep_bad:
                raise columns.bad[0].error(fix_of_row(spec))
            yield columns

    def doubt(self, blocks: Sequence[TypedBlock]) -> None:
        """Borders are never in doubt."""

    def placed(
        self,
        groups: Sequence[Sequence[TypedBlock]],
        bad: Sequence[Sequence[BadRow]],
        tallies: Sequence[Sequence[int]],
    ) -> list[BadRow]:
        """All bad rows; each knows its row."""
        return [row for some in bad for row in some]

    def placed_alone(self, row: BadRow, group: Sequence[TypedBlock]) -> BadRow:
        """The row as it is."""
        return row

    def most_rows(self, blocks: Sequence[TypedBlock], spec: TableSpec) -> int:
        """Rows of some blocks."""
        return sum(block.stop - block.start for block in blocks)

    def explain(self, blocks: Sequence[TypedBlock], spec: TableSpec, id_: str, time: int, limit: int) -> list[str]:
        """Places of the rows of one id at one time."""
        places: list[str] = []
        for block in blocks:
            for columns, rows, _ in _parts(block, spec, self.one):
                ids = columns.ids.to_pylist()
                code = ids.index(id_) if id_ in ids else -1
                hits = np.flatnonzero((columns.codes == code) & (columns.times == time))
                # A wide table has its rows series by series.
                places += [
                    f"{block.name} {block.table.place(block.group, int(rows[hit % len(rows)]))}"
                    for hit in hits.tolist()
                ]
                if len(places) >= limit:
                    return places[:limit]
        return places

    def rows_at(self, blocks: Sequence[TypedBlock], spec: TableSpec, numbers: Sequence[int]) -> list[BadRow]:
        """Some rows, by their numbers among the good ones. Reads their blocks."""
        found: list[BadRow] = []
        before = 0
        for block in blocks:
            for _, rows, batch in _parts(block, spec, self.one):
                for number in numbers:
                    if 0 <= number - before < len(rows):
                        row, first = int(rows[number - before]), batch.first
                        place = block.table.place(block.group, row)
                        found.append(BadRow(block.name, place, "", "", _raw(batch.rows, row - first)))
                before += len(rows)
        return found

    def find_word(self, blocks: Sequence[TypedBlock], spec: TableSpec, column: str, word: str) -> str:
        """The place where a word first stands in a column."""
        for block in blocks:
            if column not in block.table.header:
                continue
            for first, batch in block.batches([column], [column]):
                if isinstance(batch, LostRows):
                    continue
                words = words_of(batch.column(column))
                known = words.words.to_pylist()
                if word in known:
                    row = int(np.flatnonzero(words.codes == known.index(word))[0])
                    return f"{block.name} {block.table.place(block.group, first + row)}"
        return blocks[0].name

    def find_lost(self, blocks: Sequence[TypedBlock], spec: TableSpec, column: str) -> str:
        """The first number of a column that no float64 is, with its row, and id and time of that."""
        keys = [name for name in (spec.id, *spec.time.columns) if name is not None]
        for block in blocks:
            if column not in block.table.header or kind_of(block.table.types[column]) != "number":
                continue
            for first, batch in block.batches([column, *keys], keys):
                lost = None if isinstance(batch, LostRows) else numbers_of(batch.column(column)).lost
                if lost is not None and lost.any():
                    row = int(np.argmax(lost))
                    place = block.table.place(block.group, first + row)
                    cells = ", ".join(f"{name} {_cell(batch.column(name), row)}" for name in keys)
                    return f"{_cell(batch.column(column), row)} in {place}" + (f" ({cells})" if cells else "")
        return ""


class _Batch(NamedTuple):
    first: int  # of its rows, in its group
    rows: Any


def _parts(
    block: TypedBlock, spec: TableSpec, one: str, keep_bad: bool = True
) -> Iterator[tuple[Columns, Any, _Batch]]:
    """The rows of a block, part by part; (record,) the row in its group of each good record; and what was read."""
    texts = [name for name in (spec.id, *spec.time.columns, *spec.texts) if name is not None]
    for first, batch in block.batches(spec.needed, texts):
        if isinstance(batch, LostRows):
            yield _lost(block, spec, first, batch), np.zeros(0, np.int64), _Batch(first, batch)
            continue
        with damage_told(block.name, one):
            columns, good, bad = read_batch(batch, block.table, spec, None if keep_bad else 1)
        rows = np.arange(first, first + batch.num_rows) if good is None else first + np.flatnonzero(good)
        told = tuple(
            BadRow(block.name, block.table.place(block.group, first + row), reason, expected, _raw(batch, row))
            for row, reason, expected in bad
        )
        yield replace(columns, bad=told, n_records=batch.num_rows), rows, _Batch(first, batch)


def _lost(block: TypedBlock, spec: TableSpec, first: int, lost: LostRows) -> Columns:
    """No row, and one bad row that stands for all that are lost."""
    place, n_rows = block.table.place(block.group, first), lost.num_rows
    raw = f"{n_rows:,} rows" if n_rows != 1 else "1 row"
    bad = BadRow(block.name, place, lost.reason, lost.expected, raw, n_lost=n_rows, n_rows=n_rows)
    return replace(no_columns(spec), bad=(bad,), n_records=n_rows)


def _cell(column: Any, row: int) -> str:
    """A cell as text."""
    cell = column.slice(row, 1)
    return str((cell if pa.types.is_dictionary(cell.type) else cell.cast(pa.string()))[0].as_py())


def _raw(batch: Any, row: int) -> str:
    """The columns of a row that are read, as JSON; what that has no word for as Arrow writes it."""
    cells = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if name.startswith("\0"):  # no column of the source
            continue
        cell = column.slice(row, 1)
        kind = cell.type.value_type if pa.types.is_dictionary(cell.type) else cell.type
        if pa.types.is_temporal(kind) or pa.types.is_decimal(kind):
            cell = cell.cast(pa.string())
        try:
            cells[name] = cell[0].as_py()
        except UnicodeDecodeError:
            cells[name] = repr(cell.cast(pa.binary())[0].as_py())
    return json.dumps(cells, ensure_ascii=False, default=str)
