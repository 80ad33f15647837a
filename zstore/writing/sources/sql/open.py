"""The database of a query, by the scheme of its URI; libraries are imported where they are needed."""

from __future__ import annotations

from zstore.errors import UsageError
from zstore.writing.sources.sql.databases import Database
from zstore.writing.sources.sql.query import Query


def open_database(query: Query) -> Database:
    """The database of a query; not connected to yet.

    Raises
    ------
    UsageError
        If a library is missing; names what to install.
    """
    scheme = query.uri.partition("://")[0].lower()
    try:
        if scheme in ("postgresql", "postgres"):
            from zstore.writing.sources.sql.postgres import Postgres

            return Postgres(query.uri)
        if scheme == "sqlite":
            from zstore.writing.sources.sql.sqlite import Sqlite

            return Sqlite(query.uri, str(query))
        if scheme == "duckdb":
            from zstore.writing.sources.sql.duckdb import Duck

            return Duck(query.uri)
        from zstore.writing.sources.sql.alchemy import Alchemy

        return Alchemy(query.uri, str(query))
    except ModuleNotFoundError as error:
        own = (error.name or "").partition(".")[0]
        package = "'zstore[sql]'" if own.startswith(("adbc", "sqlalchemy")) else own.replace("_", "-")
        raise UsageError(
            f"no module {error.name!r} for {scheme}://",
            expected="the library of the database",
            where=str(query),
            fix=f"pip install {package}",
        ) from None
