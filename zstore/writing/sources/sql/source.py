"""Queries of databases as a source: their rows are spooled as Arrow, and read from there."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from zstore.errors import SourceError, UsageError, ZstoreError
from zstore.format.manifest import digest
from zstore.writing.sources.options import TableOptions
from zstore.writing.sources.protocol import SourceSample
from zstore.writing.sources.sql.open import open_database
from zstore.writing.sources.sql.parts import count_at, count_beyond
from zstore.writing.sources.sql.query import AskedQuery, Bound, Query, refused_by_database
from zstore.writing.sources.sql.sample import count_rows, first_rows
from zstore.writing.sources.sql.spool import Spool, spool
from zstore.writing.sources.table import TableSpec
from zstore.writing.sources.typed.arrow_table import ArrowTable
from zstore.writing.sources.typed.file import check_header
from zstore.writing.sources.typed.pathless import PathlessSource
from zstore.writing.sources.typed.spec import typed_spec
from zstore.writing.sources.workspace import Runner, Workspace

_WATERMARK = "watermark"


@dataclass(frozen=True)
class QueryRow:
    """Where a row of a query stands: its part, from 0, -1 where it has one only, and its row there, from 0."""

    part: int
    row: int

    def __str__(self) -> str:
        return f"row {self.row:,}" if self.part < 0 else f"part {self.part:,} row {self.row:,}"


@dataclass(frozen=True)
class QueryTable(ArrowTable):
    """Some rows of a query, on scratch space.

    Parameters
    ----------
    part, first_row
        The part that they are of, -1 for the only one, and the rows of it before them.
    bound
        The greatest watermark of all rows.
    known_units
        The coarsest unit that all moments of a column are whole in, of each column of timestamps.
    """

    part: int = -1
    first_row: int = 0
    bound: Bound | None = None
    known_units: Mapping[str, str] = field(default_factory=dict)

    @property
    def units(self) -> Mapping[str, str]:
        """Those that were seen when rows were spooled."""
        return self.known_units

    def place(self, group: int, row: int) -> Any:
        """A row of its part."""
        return QueryRow(self.part, self.first_row + sum(self.group_rows[:group]) + row)


class SqlSource(PathlessSource):
    """Queries, see :class:`~zstore.writing.sources.protocol.Source`."""

    kind = "sql"
    one = "query"
    many = "queries"
    place = QueryRow
    for_ids = "select one, and name it --id"
    to_compare = "ingest the query anew and compare the stores, or write its rows to a file"
    to_count = "count the rows in the database; they take about 8 bytes a cell on scratch space"

    def takes(self, file: Any) -> bool:
        """Whether it is a query."""
        return isinstance(file, AskedQuery)

    def prepare(self, files: Sequence[Any], encoding: str, space: Workspace, runner: Runner | None) -> list[Any]:
        """The rows of each query, on scratch space. The connection never leaves this process."""
        return [spool(asked, number, space, runner) for number, asked in enumerate(files)]

    def open(
        self,
        files: Sequence[Any],
        prepared: Sequence[Any],
        options: TableOptions,
        others: Collection[str] = (),
        runner: Runner | None = None,
    ) -> tuple[list[Any], TableSpec]:
        """The columns of all queries, and what they mean."""
        tables = [table for asked, rows in zip(files, prepared, strict=True) for table in _tables(asked, rows)]
        return tables, typed_spec(tables, options, others, self.one, runner=runner)

    def sample(self, file: Any, options: TableOptions, encoding: str, folder: Path, n_bytes: int) -> SourceSample:
        """The first rows of a query; the database is asked how many there are."""
        rows, is_all = first_rows(file.query, n_bytes)
        n_rows = rows.num_rows if is_all else count_rows(file.query)
        if n_rows is None:
            raise UsageError(
                f"--dry-run of a query whose rows are not counted soon (the first {rows.num_rows:,} were read)",
                expected="a database that counts them within five seconds",
                where=str(file),
                fix=self.to_count,
            )
        check_header(rows.schema.names, str(file))
        path = folder / "query.arrow"
        path.parent.mkdir(parents=True)
        with pa.ipc.new_file(path, rows.schema) as writer:
            writer.write_table(rows)
        size = max(rows.nbytes, 1)
        all_bytes = size * n_rows // max(rows.num_rows, 1)
        return SourceSample(path, size, 1.0, encoding, prepared=True, source_bytes=all_bytes)

    def since(self, files: Sequence[Any], table: Mapping[str, Any], take_again: bool) -> list[Any]:
        """The queries, each asking for what is beyond the watermark that a store has of it."""
        return [asked for file in files for asked in _since(file, table, take_again)]

    def state(self, tables: Sequence[Any]) -> dict[str, Any]:
        """The watermark, as the store records it."""
        bounds = [table.bound for table in tables if table.bound is not None]
        return {_WATERMARK: bounds[0].to_json()} if bounds else {}


def ask(query: Query) -> AskedQuery:
    """Ask the database of a query for its state.

    Raises
    ------
    SourceError
        If it cannot be reached.
    """
    try:
        state = open_database(query).state()
    except ZstoreError:
        raise
    except Exception as error:
        raise refused_by_database(error, query, "the connection") from None
    known = state if state is not None else uuid.uuid4().hex
    text = repr([query.sql, query.partition, query.partitions, query.watermark, str(query), known])
    return AskedQuery(query, digest(text.encode()), state)


def _tables(asked: AskedQuery, rows: Spool) -> list[QueryTable]:
    """The rows of a query as tables; those without rows are left out if there are others."""
    full = [one for one in rows.files if one.n_rows] or list(rows.files[:1])
    several = rows.n_parts > 1
    tables = [
        replace(
            QueryTable.open(one.file, rows.name),
            part=one.part if several else -1,
            first_row=one.first_row,
            bound=rows.bound,
            known_units=one.units,
        )
        for one in full
    ]
    if not any(one.n_rows for one in full) and any(pa.types.is_null(kind) for kind in tables[0].types.values()):
        raise SourceError(
            "no row",
            expected="some, for the columns have no types without one",
            where=rows.name,
            fix="correct the query, or run again when there are rows",
        )
    return tables


def _since(asked: AskedQuery, table: Mapping[str, Any], take_again: bool) -> list[AskedQuery]:
    query, known = asked.query, table.get(_WATERMARK)
    if query.watermark is None:
        return [asked]
    bound = Bound.from_json(known)
    if bound is None or bound.column != query.watermark:
        raise UsageError(
            f"--watermark {query.watermark}",
            expected=f"--watermark {bound.column}, as before"
            if bound
            else "a store that was ingested with --watermark",
            fix="leave it out, and ask for new rows alone in the query; or ingest with --watermark anew",
        )
    beyond = asked.beyond(bound, inclusive=False)
    try:
        database = open_database(query)
        with database.reading() as reader:
            n_at, n_more = count_at(asked, bound, database, reader), count_beyond(asked, bound, database, reader)
    except ZstoreError:
        raise
    except Exception as error:
        raise refused_by_database(error, query, "to count new rows") from None
    if n_at == bound.n_rows:
        return [beyond] if n_more else []
    if take_again:
        return [asked.beyond(bound, inclusive=True)]
    raise SourceError(
        f"{n_at:,} rows with {bound.column} {bound.value}, of which {bound.n_rows:,} were read before",
        expected="no row to come or go at the watermark, since only rows beyond it are asked for",
        where=str(query),
        fix="--on-duplicate first or last asks for them again, and keeps one row of each id and time",
    )
