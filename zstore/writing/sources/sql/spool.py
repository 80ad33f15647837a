"""The rows of a query as Arrow streams on scratch space: asked for in parts, each noted when it is whole."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

from zstore.errors import ZstoreError
from zstore.storage.portable import n_cores
from zstore.writing.sources.sql.databases import ChangedError, Database, Reader
from zstore.writing.sources.sql.handover import handed_over
from zstore.writing.sources.sql.open import open_database
from zstore.writing.sources.sql.parts import conditions, count_below, part_query, rest_of
from zstore.writing.sources.sql.query import AskedQuery, Bound, refused_by_database
from zstore.writing.sources.sql.segments import Part, Received, SpoolFile, Writer, joined, noted, segments_noted
from zstore.writing.sources.sql.watermarks import greatest_of
from zstore.writing.sources.workspace import Runner, Workspace

_BUGS = (ArithmeticError, AssertionError, AttributeError, LookupError, NameError, TypeError)


@dataclass(frozen=True)
class Spool:
    """All rows of a query.

    Parameters
    ----------
    name
        The query, for messages.
    n_parts
        In how many parts it was asked.
    files
        The rows, part by part.
    bound
        The greatest value of the watermark, if it has one and rows.
    """

    name: str
    n_parts: int
    files: tuple[SpoolFile, ...]
    bound: Bound | None


def spool(asked: AskedQuery, number: int, space: Workspace, runner: Runner | None) -> Spool:
    """Ask a query, and keep its rows on scratch space.

    Parameters
    ----------
    asked
        The query.
    number
        Of the query, among several.
    space
        Where rows go, and notes of parts that an earlier run has read from the same state of the database.
    runner
        Shows how many bytes have come.

    Raises
    ------
    SourceError
        If the database refuses, goes away or has changed meanwhile.
    """
    received = Received(runner)
    try:
        database = open_database(asked.query)
        work = _Work(asked, database, number, space, received)
        with database.reading() as reader:
            wheres = conditions(asked, database, reader)
            parts = [work.whole(wheres[0], reader)] if len(wheres) == 1 else work.in_parts(wheres, reader.snapshot)
    except (ZstoreError, *_BUGS):
        raise
    except Exception as error:
        is_kept = received.is_noted and not isinstance(error, ChangedError)
        raise refused_by_database(error, asked.query, "the query", is_kept) from None  # its own words may tell secrets
    received.end()
    files = [file for part in parts for file in part.files]
    bound = greatest_of([part.bound for part in parts]) or asked.bound
    return Spool(str(asked), len(wheres), tuple(files), bound)


@dataclass(frozen=True)
class _Work:
    """Asks for the rows of a query, unless a note says that they are there."""

    asked: AskedQuery
    database: Database
    number: int
    space: Workspace
    received: Received

    def in_parts(self, wheres: Sequence[str], snapshot: Any) -> list[Part]:
        """All parts, several at a time; where one fails, those that have not begun never do."""
        with ThreadPoolExecutor(min(len(wheres), max(n_cores(), 2))) as pool:
            try:
                return list(pool.map(partial(self._part, snapshot), enumerate(wheres)))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _part(self, snapshot: Any, task: tuple[int, str]) -> Part:
        position, where = task
        known = noted(self.space, self._name(position), position)
        if known is not None:
            self.received.is_noted = True
            return known
        with self.database.reading(snapshot) as reader:
            return self._written(reader, Part(position), where, 0)

    def whole(self, where: str, reader: Reader) -> Part:
        """All rows; of those that come in the order of a column, only what an earlier run has not read."""
        known = noted(self.space, self._name(0), 0)
        if known is not None:
            return known
        segments = segments_noted(self.space, self._name(0), 0)
        begun = joined(segments) if segments else None
        if begun is None or begun.border is None:
            return self._written(reader, Part(0), where, 0)
        if count_below(self.asked, begun.border, self.database, reader) != begun.n_rows:
            return self._written(reader, Part(0), where, 0)
        self.received.is_noted = True
        rest = rest_of(self.asked, begun.border, self.database)
        return self._written(reader, replace(begun, border=None), rest, len(segments))

    def _name(self, position: int) -> str:
        return f"query-{self.number}-{position}"

    def _written(self, reader: Reader, begun: Part, where: str, n_segments: int) -> Part:
        """The rows of a condition behind those of a part that has begun."""
        query, name = self.asked.query, self._name(begun.number)
        writer = Writer(query, name, self.space, self.database.text_order, n_segments, self.received)
        batches = cast(Generator[Any, None, None], reader.batches(part_query(query, where)))
        with closing(batches):
            part = handed_over(partial(writer.write, begun), batches)
        part.note(name, self.space)
        self.received.is_noted = True
        return part
