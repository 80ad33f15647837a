"""The kinds of sources there are, and which of them some files are."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zstore.errors import StoreError, UsageError
from zstore.writing.sources.csv.source import CsvSource
from zstore.writing.sources.files import expand
from zstore.writing.sources.hdf5.source import Hdf5Source
from zstore.writing.sources.inflate import COMPRESSED
from zstore.writing.sources.lerobot.meta import is_lerobot
from zstore.writing.sources.lerobot.source import LeRobotSource, lerobot_files
from zstore.writing.sources.protocol import Source
from zstore.writing.sources.sql.query import Query
from zstore.writing.sources.sql.source import SqlSource, ask
from zstore.writing.sources.typed.arrow_source import ArrowSource
from zstore.writing.sources.typed.given import ArrowStream, given_table, is_given
from zstore.writing.sources.typed.given_source import GivenSource
from zstore.writing.sources.typed.parquet_source import ParquetSource

CSV: Source = CsvSource()
SOURCES: tuple[Source, ...] = (
    CSV,
    LeRobotSource(),  # before that of the files it has
    ParquetSource(),
    ArrowSource(),
    Hdf5Source(),
    SqlSource(),
    GivenSource(),
)

Named = str | Path | Query | ArrowStream
"""What a user names as a source: a path, a glob, a URL, a query, or hands over: a table."""


def find_sources(
    sources: Named | Sequence[Named], storage_options: Mapping[str, str] | None = None, skip_empty: bool = False
) -> list[Any]:
    """What the user has named: files, queries whose databases were asked for their state, or tables.

    Raises
    ------
    SourceError
        If there is no such file, or database.
    UsageError
        If they are of several kinds.
    """
    listed = _listed(sources)
    tables = [one for one in listed if is_given(one)]
    if tables and len(tables) == len(listed):
        names = ["the table"] if len(tables) == 1 else [f"table {number}" for number in range(1, len(tables) + 1)]
        return list(map(given_table, tables, names))
    if tables:
        raise UsageError(
            "tables and files", expected="sources of one kind", fix="ingest each kind into a store of its own"
        )
    queries = [one for one in listed if isinstance(one, Query)]
    if not queries:
        return _on_storage([one for one in listed if not isinstance(one, Query)], storage_options, skip_empty)
    if len(queries) < len(listed):
        raise UsageError(
            "queries and files", expected="sources of one kind", fix="ingest each kind into a store of its own"
        )
    return [ask(query) for query in queries]


def _on_storage(paths: Sequence[str | Path], storage_options: Mapping[str, str] | None, skip_empty: bool) -> list[Any]:
    """Files, or those of LeRobot folders."""
    folders = [path for path in paths if is_lerobot(path)]
    if not folders:
        return expand(paths, storage_options, skip_empty)
    if len(folders) < len(paths):
        raise UsageError(
            "LeRobot folders and files", expected="sources of one kind", fix="ingest each kind into a store of its own"
        )
    roots = {os.path.realpath(folder): folder for folder in folders}
    return [file for folder in roots.values() for file in lerobot_files(folder)]


def _listed(sources: Any) -> list[Any]:
    """One source, or several, as a list."""
    if isinstance(sources, (str, Path, Query)) or is_given(sources):
        return [sources]
    listed = list(sources) if isinstance(sources, Iterable) and not isinstance(sources, (Mapping, bytes)) else [sources]
    odd = [one for one in listed if not isinstance(one, (str, Path, Query)) and not is_given(one)]
    if odd or not listed:
        raise UsageError(
            f"source of type {type(odd[0]).__name__}" if odd else "no source",
            expected="a path, a query, or a table: a data frame, an Arrow table or stream; or several of a kind",
            fix="name a file, or hand over a data frame; collect() a lazy one",
        )
    return listed


def source_of(files: Sequence[Any]) -> Source:
    """The kind of some files, by how their names end; those with other endings are CSV.

    Raises
    ------
    UsageError
        If they are of several kinds.
    """
    first = _kind(files[0])
    other = next((file for file in files if _kind(file) is not first), None)
    if other is not None:
        raise UsageError(
            f"files of several kinds: {files[0]} ({first.kind}) and {other} ({_kind(other).kind})",
            expected="files of one kind, which are read in one way",
            fix="ingest each kind into a store of its own",
        )
    return first


def recorded_source(table: Mapping[str, Any]) -> Source:
    """The kind of source that a store was ingested from.

    Parameters
    ----------
    table
        The store's record of how its sources were read. Without a kind, it is of CSV.

    Raises
    ------
    StoreError
        If there is no such kind.
    """
    kind = table.get("source", CSV.kind)
    for source in SOURCES:
        if source.kind == kind:
            return source
    raise StoreError(
        f"source {kind!r} in the store's record of how it was read",
        expected=f"one of {', '.join(source.kind for source in SOURCES)}",
        fix="read it with a newer release of zstore",
    )


def record_of(source: Source) -> dict[str, str]:
    """What a store records of the kind of its sources: nothing of CSV, as in stores from before there were others."""
    return {} if source is CSV else {"source": source.kind}


def kind_of(name: str | Path) -> Source | None:
    """The kind of a path, glob or URL by how it ends; None if no kind of source ends so."""
    ending = str(name).lower()
    return next((source for source in SOURCES if source.endings and ending.endswith(source.endings)), None)


def is_source(name: str | Path) -> bool:
    """Whether a path, glob or URL ends as files do that :func:`zstore.ingest` reads, and stores do not.

    Parameters
    ----------
    name
        It need not be there. Files of text with other endings can be ingested, too: they are read as CSV.
    """
    return kind_of(name) is not None


def stem_of(name: str | Path) -> str:
    """The name of a file without its folder and its ending: that of its kind, or, of others, the last it has."""
    last = Path(str(name)).name
    kind = kind_of(last)
    if kind is None:
        plain = next((last[: -len(ending)] for ending in COMPRESSED if last.lower().endswith(ending)), last)
        return Path(plain).stem
    return last[: -len(next(ending for ending in kind.endings if last.lower().endswith(ending)))]


def _kind(file: Any) -> Source:
    return next((source for source in SOURCES if source.takes(file)), CSV)
