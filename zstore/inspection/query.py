"""A look at a query before it is ingested: its columns as the database declares them, and the command."""

from __future__ import annotations

import re
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from zstore.errors import ZstoreError
from zstore.inspection.column import ColumnLook, look_at
from zstore.inspection.command import command_of
from zstore.inspection.frame import Frame
from zstore.inspection.guess import Guess, see_cells, see_roles
from zstore.inspection.roles import layout_of
from zstore.reading.store import open_store
from zstore.writing.ingest import ingest
from zstore.writing.sources.sql.query import CONNECTION, Query, hidden
from zstore.writing.sources.sql.sample import first_rows
from zstore.writing.sources.typed.file import check_header
from zstore.writing.sources.typed.moments import time_kind

_BYTES = 1 << 20
_LOOKED_AT = 5000  # rows whose cells are guessed from
_WIDEST = 40  # characters of names and types that are written below each other
_OF_QUERIES = ("id", "time", "time_format", "time_unit", "layout", "leave_out", "missing", "freq", "start")


@dataclass(frozen=True)
class QueryInspection:
    """What the first rows of a query say.

    Parameters
    ----------
    query
        Database and query, without what may be secret.
    n_rows, is_all
        Rows that were looked at, and whether there are no more.
    columns, types
        In the order of the query; types are those that the database declares, as Arrow has them.
    ids, times
        Columns that may hold ids and times, the likeliest first.
    step
        The time step rule of the sample, if it could be ingested.
    command
        What would ingest the query.
    questions
        What only a person can say; the command is a guess as long as there are some.
    """

    query: str
    n_rows: int
    is_all: bool
    columns: tuple[ColumnLook, ...]
    types: tuple[str, ...]
    ids: tuple[str, ...]
    times: tuple[str, ...]
    step: str
    command: str
    questions: tuple[str, ...]

    def __str__(self) -> str:
        read = f"all {self.n_rows:,} rows read" if self.is_all else f"the first {self.n_rows:,} rows read"
        lines = [
            f"{self.query}: {len(self.columns)} columns, {read}",
            f"  ids {', '.join(self.ids) or 'none'}; times {', '.join(self.times) or 'none'}"
            + (f"; step {self.step}" if self.step else ""),
        ]
        name, kind = (
            min(max([20 - 8 * n, *map(len, texts)]), _WIDEST)
            for n, texts in enumerate(([column.name for column in self.columns], self.types))
        )
        for column, dtype in zip(self.columns, self.types, strict=True):
            missing = f"; {column.n_missing:,} missing" if column.n_missing else ""
            lines.append(f"  {column.name:<{name}} {dtype:<{kind}} {', '.join(column.examples)}{missing}")
        lines += [f"ask: {question}" for question in self.questions]
        return "\n".join([*lines, self.command])


def inspect_query(query: Query) -> QueryInspection:
    """Look at the first rows of a query: what they are, and how they could be ingested.

    Parameters
    ----------
    query
        The query.

    Raises
    ------
    SourceError
        If the database refuses.

    Notes
    -----
    Reads 1 MiB of rows, and ingests them, as the command says, into a temporary folder.
    """
    rows, is_all = first_rows(query, _BYTES)
    check_header(rows.schema.names, str(query))
    some = [_texts(column) for column in rows.slice(0, _LOOKED_AT).columns]
    frame = Frame(0, None, ",", True, tuple(rows.schema.names), rows=[list(row) for row in zip(*some, strict=True)])
    columns = tuple(_look(field, cells) for field, cells in zip(rows.schema, some, strict=True))
    layout = layout_of(frame, columns) if frame.rows else "long"
    guess = Guess({}, [], "long" if layout == "series" else layout)
    if frame.rows:
        see_roles(frame, columns, guess)
        see_cells(frame, columns, guess)
    else:
        guess.questions.append("no row to tell ids and times from: name them with --id and --time")
    _only_one(guess)
    step, problem = _try(rows, guess.flags, str(query)) if frame.rows else ("", "")
    if problem:
        guess.questions.append(f"the sample is refused so: {problem}")
    return QueryInspection(
        query=str(query),
        n_rows=rows.num_rows,
        is_all=is_all,
        columns=columns,
        types=tuple(str(field.type) for field in rows.schema),
        ids=guess.ids,
        times=guess.times,
        step=step,
        command=_command(query, guess),
        questions=tuple(guess.questions),
    )


def _texts(column: Any) -> list[str]:
    """Cells as CSV would have them."""
    try:
        texts = column.cast(pa.string()).to_pylist()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # lists, bytes, texts that are not UTF-8
        texts = [None if cell is None else str(cell) for cell in _cells(column)]
    return ["" if text is None else text for text in texts]


def _cells(column: Any) -> list[Any]:
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        return list(column.cast(pa.binary()).to_pylist())


def _look(field: pa.Field, cells: Sequence[str]) -> ColumnLook:
    """What a column looks like, of which the database says whether it has moments."""
    column = look_at(field.name, cells)
    return replace(column, kind="time", times=("",), odd=()) if time_kind(field.type) == "moment" else column


def _only_one(guess: Guess) -> None:
    """Ask about what options of files would say, and queries say themselves."""
    for name in ("id", "time"):
        if len(guess.flags.get(name, [])) > 1 and (name == "id" or len(guess.flags["time"]) == 2):
            columns = guess.flags.pop(name)
            joined = " || ' ' || ".join(columns)
            guess.questions.append(f"{', '.join(columns)} together are --{name}: select {joined} as {name}")
            guess.flags.pop("time_format" if name == "time" else "", None)
    others = [name for name in guess.flags if name not in _OF_QUERIES]
    for name in others:
        del guess.flags[name]
    if others:
        guess.questions.append("texts that are numbers: cast these columns in the query")


def _command(query: Query, guess: Guess) -> str:
    """The command line; a connection is in it only if it holds no secret."""
    uri = query.uri
    known = query.connection is not None and hidden(uri, uri) == uri
    if query.connection is not None and not known:
        guess.questions.append(f"the connection holds a password, and is not shown: set {CONNECTION} to it")
    options: dict[str, Any] = {"sql": hidden(query.sql, uri)} | ({"connection": uri} if known else {}) | guess.flags
    table = re.search(r"\bfrom\s+(?:\w+\.)*(\w+)", query.sql, re.IGNORECASE)
    words = shlex.split(command_of(f"{table[1] if table else 'query'}.csv", options))
    return shlex.join([*words[:2], *words[3:]])  # without the file


def _try(rows: Any, flags: dict[str, Any], name: str) -> tuple[str, str]:
    """The step of the sample, ingested as the flags say; or why it is refused."""
    with tempfile.TemporaryDirectory(prefix="zstore-") as folder:
        try:
            ingest(rows, Path(folder) / "s.zarr", workers=1, **flags)
        except ZstoreError as error:
            return "", f"{error.what}; expected {error.expected}. Fix: {error.fix}"
        return str(open_store(Path(folder) / "s.zarr").schema.time.rule), ""
