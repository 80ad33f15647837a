"""The rows of a query as Arrow streams on scratch space: asked for in parts, each noted when it is whole."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from zstore.errors import SourceError, UsageError, ZstoreError
from zstore.storage.file import File
from zstore.storage.portable import n_cores
from zstore.writing.room import with_room
from zstore.writing.sources.sql.databases import Database
from zstore.writing.sources.sql.open import open_database
from zstore.writing.sources.sql.parts import check_watermark, conditions, part_query
from zstore.writing.sources.sql.query import AskedQuery, Bound, Query, refused_by_database
from zstore.writing.sources.workspace import Workspace

_END = b"\xff\xff\xff\xff\0\0\0\0"
_BUGS = (ArithmeticError, AssertionError, AttributeError, LookupError, NameError, TypeError)


@dataclass(frozen=True)
class SpoolFile:
    """An Arrow stream on scratch space.

    Parameters
    ----------
    file
        The file.
    part
        Number of the part of the query that its rows are of.
    first_row
        Rows of that part in the files before.
    n_rows
        Rows in it.
    """

    file: File
    part: int
    first_row: int
    n_rows: int


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


def spool(asked: AskedQuery, number: int, space: Workspace) -> Spool:
    """Ask a query, and keep its rows on scratch space.

    Parameters
    ----------
    asked
        The query.
    number
        Of the query, among several.
    space
        Where rows go, and notes of parts that an earlier run has read from the same state of the database.

    Raises
    ------
    SourceError
        If the database refuses, goes away or has changed meanwhile.
    """
    query, name = asked.query, str(asked)
    try:
        database = open_database(query)
        with database.reading() as reader:
            wheres = conditions(asked, database, reader)
            ask = partial(_part, asked, database, number, space, reader.snapshot)
            made = [ask((0, wheres[0]), reader)] if len(wheres) == 1 else _all(ask, wheres)
    except (ZstoreError, *_BUGS):
        raise
    except Exception as error:
        raise refused_by_database(error, query, "the query") from None  # its own words may name the password
    files = [file for part in made for file in part.files]
    return Spool(name, len(wheres), tuple(files), _together([part.bound for part in made]) or asked.bound)


def _all(ask: Callable[[tuple[int, str]], _Part], wheres: Sequence[str]) -> list[_Part]:
    """All parts, several at a time; where one fails, those that have not begun never do."""
    with ThreadPoolExecutor(min(len(wheres), max(n_cores(), 2))) as pool:
        try:
            return list(pool.map(ask, enumerate(wheres)))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@dataclass
class _Part:
    """What was read of a part of a query."""

    number: int
    files: list[SpoolFile] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    bound: Bound | None = None

    def to_note(self) -> bytes:
        """The part, as a note has it."""
        files = [
            {
                "key": s.file.key,
                "n_bytes": s.file.n_bytes,
                "digest": digest,
                "first_row": s.first_row,
                "n_rows": s.n_rows,
            }
            for s, digest in zip(self.files, self.digests, strict=True)
        ]
        return json.dumps({"files": files, "bound": self.bound and self.bound.to_json()}).encode()


def _part(
    asked: AskedQuery,
    database: Database,
    number: int,
    space: Workspace,
    snapshot: Any,
    task: tuple[int, str],
    reader: Any = None,
) -> _Part:
    """Ask for one part, unless a note says that it is there."""
    position, where = task
    name = f"query-{number}-{position}"
    known = _noted(space, name, position)
    if known is not None:
        return known
    sql = part_query(asked.query, where)
    if reader is None:
        with database.reading(snapshot) as own:
            made = _written(asked.query, own.batches(sql), name, position, space, database.text_order)
    else:
        made = _written(asked.query, reader.batches(sql), name, position, space, database.text_order)
    space.note(name, made.to_note())
    return made


def _written(query: Query, batches: Any, name: str, position: int, space: Workspace, text_order: bool) -> _Part:
    """All batches as files, a new one whenever types change."""
    made = _Part(position)
    with closing(cast(Generator[Any, None, None], batches)) as some:
        told = _told(some, query)  # for a refusal of the database would look like one of the disk
        for schema, same in groupby(map(_storable, told), key=lambda batch: None if batch is None else batch.schema):
            if schema is None:  # all rows come again
                space.scratch.remove([one.file.key for one in made.files])
                made = _Part(position)
                continue
            run = _Run(schema, query, made.bound, text_order)
            key = f"{name}-{uuid.uuid4().hex}.arrows"
            n_bytes = space.scratch.write_stream(key, with_room(space.scratch, key, run.pieces(same)))
            first_row = sum(one.n_rows for one in made.files)
            made.files.append(SpoolFile(File(space.scratch, key, n_bytes), position, first_row, run.n_rows))
            made.digests.append(run.digest)
            made.bound = run.bound
    return made


def _told(batches: Iterator[Any], query: Query) -> Iterator[Any]:
    """Batches, with errors of the database as what the user sees."""
    try:
        yield from batches
    except (ZstoreError, *_BUGS):
        raise
    except Exception as error:
        raise refused_by_database(error, query, "the query") from None


class _Run:
    """Batches of one schema, on their way to a file."""

    def __init__(self, schema: Any, query: Query, bound: Bound | None, text_order: bool) -> None:
        self._schema, self._query, self._hasher = schema, query, xxhash.xxh3_128()
        self._text_order = text_order
        self.bound, self.n_rows = bound, 0

    @property
    def digest(self) -> str:
        """xxh3-128 of all pieces."""
        return self._hasher.hexdigest()

    def pieces(self, batches: Iterator[Any]) -> Iterator[bytes]:
        """The bytes of an Arrow stream."""
        yield self._hashed(self._schema.serialize())
        for batch in batches:
            self.n_rows += batch.num_rows
            self.bound = _together([self.bound, _bound(batch, self._query, self._text_order)])
            yield self._hashed(batch.serialize())
        yield self._hashed(_END)

    def _hashed(self, piece: Any) -> Any:
        view = memoryview(piece)
        self._hasher.update(view)
        return view


def _storable(batch: Any) -> Any:
    """A batch without dictionaries and extensions, which mean other things elsewhere."""
    if batch is None:
        return None
    arrays = [column.dictionary_decode() if pa.types.is_dictionary(column.type) else column for column in batch.columns]
    arrays = [array.storage if isinstance(array, pa.ExtensionArray) else array for array in arrays]
    return pa.RecordBatch.from_arrays(arrays, batch.schema.names)


def _bound(batch: Any, query: Query, text_order: bool) -> Bound | None:
    """The greatest watermark of a batch."""
    if query.watermark is None:
        return None
    if query.watermark not in batch.schema.names:
        raise UsageError(
            f"no column {query.watermark!r}",
            expected=f"one of {', '.join(map(repr, batch.schema.names))}",
            where=str(query),
            fix="select the column of --watermark too; --leave-out it if it is no channel",
        )
    column = batch.column(query.watermark)
    if column.null_count:
        row = pc.index(pc.is_null(column), True).as_py()
        cells = {name: str(value[row]) for name, value in zip(batch.schema.names, batch.columns, strict=True)}
        raise SourceError(
            f"row without a value in the column {query.watermark!r} of --watermark",
            expected="a value in every row, since rows beyond the greatest are asked for later",
            where=f"{query}: {str(cells)[:300]}",
            fix="name another column, or leave such rows out of the query",
        )
    if not len(column):
        return None
    check_watermark(column.type, query, text_order)
    greatest = pc.max(column)
    n_rows = pc.sum(pc.equal(column, greatest)).as_py()
    dtype = column.type
    value = greatest.value if pa.types.is_temporal(dtype) else greatest.as_py()
    return Bound(query.watermark, str(dtype), value, n_rows)


def _together(bounds: list[Bound | None]) -> Bound | None:
    """The greatest of some, with the rows of all that have it."""
    known = [bound for bound in bounds if bound is not None]
    if not known:
        return None
    if len({isinstance(bound.value, str) for bound in known}) > 1:
        raise SourceError(
            f"texts and numbers in the column {known[0].column!r} of --watermark",
            expected="values that have one order",
            fix="name another column, or cast it in the query",
        )
    greatest = max(known, key=lambda bound: bound.value)
    n_rows = sum(bound.n_rows for bound in known if bound.value == greatest.value)
    return Bound(greatest.column, greatest.type, greatest.value, n_rows)


def _noted(space: Workspace, name: str, position: int) -> _Part | None:
    """A part from the note of it; None if note or files are not whole."""
    try:
        known = json.loads(space.notes[name])
    except (KeyError, ValueError):  # not done, or cut short when its writer was killed
        return None
    part = _Part(position, bound=None if known["bound"] is None else Bound.from_json(known["bound"]))
    for one in known["files"]:
        if not space.is_whole(one["key"], one["n_bytes"], one["digest"]):
            return None
        file = File(space.scratch, one["key"], one["n_bytes"])
        part.files.append(SpoolFile(file, position, one["first_row"], one["n_rows"]))
    return part
