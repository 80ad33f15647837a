"""A query as a source: what is asked of which database, and what may be told of it."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import unquote, urlsplit

from zstore.errors import LostSourceError, SourceError, UsageError
from zstore.format.manifest import digest

CONNECTION = "ZSTORE_CONNECTION"
"""Environment variable that has the connection where none is named."""

_SHOWN = 80
_HIDDEN = "***"
_SECRET = re.compile(r"(?i)(password|passwd|pwd|secret|token|key|passfile)[^=&;]*=([^&;]*)")


@dataclass(frozen=True)
class Query:
    """A query of a database, as a source of :func:`zstore.ingest` and :func:`zstore.append`.

    Parameters
    ----------
    sql
        A ``SELECT``, or what else the database can select from when it stands in parentheses.
    connection
        URI of the database: ``postgresql://USER@HOST/DB``, ``sqlite:///PATH``, ``duckdb:///PATH``, or any URL of
        SQLAlchemy, such as ``mysql+pymysql://…``. None for what the environment variable ``ZSTORE_CONNECTION`` has.
        Neither is ever logged, stored or shown.
    partition
        Column of whole numbers, floats, times or dates by whose ranges the query is asked in parts, over several
        connections; rows that have none are a part too. None to ask once.
    partitions
        Number of those ranges.
    watermark
        Column that grows from row to row, of whole numbers, times or dates (of SQLite also texts): an append asks for
        rows beyond the greatest value that was read. None to ask for all.
    """

    sql: str
    connection: str | None = field(default=None, repr=False)
    partition: str | None = None
    partitions: int = 16
    watermark: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "sql", self.sql.strip().rstrip("; \t\r\n"))
        if not self.sql:
            raise UsageError("--sql is empty", expected="a query such as 'select * from t'", fix="write one")
        if self.partitions < 1:
            raise UsageError(f"{self.partitions} partitions", expected="one or more", fix="a larger --partitions")

    @property
    def uri(self) -> str:
        """The connection. For those alone that connect."""
        uri = self.connection or os.environ.get(CONNECTION, "")
        if "://" not in uri:
            raise UsageError(
                "no connection" if not uri else "a connection that is no URI (not shown, for it may hold a password)",
                expected="a URI such as postgresql://USER@HOST/DB, sqlite:///PATH or duckdb:///PATH",
                fix=f"--connection URI, or the environment variable {CONNECTION}",
            )
        return uri

    def __str__(self) -> str:
        """As messages and the receipt have it: the database, and the beginning of the query."""
        words = " ".join(self.sql.split())
        words = words if len(words) <= _SHOWN else words[:_SHOWN] + "…"
        return f"{database_of(self.uri)}: {hidden(words, self.uri)}"


@dataclass(frozen=True)
class Bound:
    """The greatest value of a watermark that has been read.

    Parameters
    ----------
    column
        Of the query.
    type
        Of its values, as Arrow has it.
    value
        An integer, in the units of a time; or a text.
    n_rows
        Rows that have that value.
    """

    column: str
    type: str
    value: int | str
    n_rows: int

    def to_json(self) -> dict[str, Any]:
        """As a store records it."""
        return {"column": self.column, "type": self.type, "value": self.value, "n_rows": self.n_rows}

    @classmethod
    def from_json(cls, document: Any) -> Bound | None:
        """From a store's record; None where it has none, or no release wrote it so."""
        try:
            bound = cls(**document)
        except TypeError:
            return None
        kinds = ((bound.column, str), (bound.type, str), (bound.value, (int, str)), (bound.n_rows, int))
        return bound if all(isinstance(value, kind) for value, kind in kinds) else None


@dataclass(frozen=True)
class AskedQuery:
    """A query whose database was asked for its state; takes the place that a file has among other sources.

    Parameters
    ----------
    query
        The query.
    etag
        What tells this state of its rows from others, and what of them is asked for.
    state
        Of the database; None where it does not say.
    bound, inclusive
        The watermark beyond which rows are asked for, and whether those that have it come again.
    n_bytes
        Of its rows, which nobody knows before they come.
    """

    query: Query
    etag: str
    state: str | None = None
    bound: Bound | None = None
    inclusive: bool = False
    n_bytes: int = 0

    def __str__(self) -> str:
        return str(self.query)

    @property
    def ledger_name(self) -> str:
        """What the ledger calls its rows."""
        return f"{self} ({self.etag[:8]})"

    def check(self) -> None:
        """Nothing: rows came from one state of the database, or were refused."""

    def beyond(self, bound: Bound, inclusive: bool) -> AskedQuery:
        """The rows beyond a watermark, or from it on."""
        etag = digest(f"{self.etag} {bound} {inclusive}".encode())
        return replace(self, etag=etag, bound=bound, inclusive=inclusive)


def database_of(uri: str) -> str:
    """A database without user, password and options: ``postgresql://host:5432/db``."""
    scheme, _, rest = uri.partition("://")
    rest = rest if rest.startswith("/") else rest.rpartition("@")[2]
    return f"{scheme}://{re.split(r'[?#]', rest, maxsplit=1)[0]}"


def hidden(text: str, uri: str) -> str:
    """A text without what of a connection may be secret, however it was taken apart."""
    parts = [match[2] for match in _SECRET.finditer(uri)]
    user, _, password = uri.partition("://")[2].rpartition("@")[0].partition(":")
    if password:
        parts += [uri, f"{user}:{password}", password, *re.split(r"[@/?#]", password)]
    with suppress(ValueError):  # where it is not even a URI
        parts.append(urlsplit(uri).password or "")
    parts.append(os.environ.get("PGPASSWORD", ""))
    for part in sorted({*parts, *map(unquote, parts)} - {""}, key=len, reverse=True):
        text = text.replace(part, _HIDDEN)
    return text


def refused_by_database(error: BaseException, query: Query, doing: str, kept: bool = False) -> SourceError:
    """The error of a database, without what may be secret in it; `kept` if rows are noted that a later run may use."""
    said = " ".join(str(error).split())
    return (LostSourceError if kept else SourceError)(
        f"the database refused {doing} ({hidden(said, query.uri)})",
        expected="a query that it can answer to the end",
        where=str(query),
        fix="correct --sql or --connection, or run again once the database is there; nothing was committed",
    )
