"""PostgreSQL by ADBC: rows as binary COPY, in read-only transactions that share one snapshot."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import adbc_driver_postgresql
import pyarrow as pa
import pyarrow.compute as pc

from zstore.errors import UsageError
from zstore.writing.sources.sql import adbc, databases
from zstore.writing.sources.sql.databases import Reader

_DRIVER = "adbc-driver-postgresql"
_OTHER_TYPES = ("money", "oid", "xid", "cid", "tid", "xid8", "regclass")
_MOST_DIGITS = 76
_BATCH_BYTES = 1 << 24
_STATE = """SELECT current_database() || ' ' || system_identifier || ' ' || pg_current_snapshot() AS state,
pg_postmaster_start_time()::text AS started, current_setting('fsync')::bool AND NOT pg_is_in_recovery()
AND NOT EXISTS (SELECT FROM pg_class WHERE relpersistence = 'u' AND relkind IN ('r', 'm')) AS is_logged
FROM pg_control_system()"""
_FLUSHES, _FLUSH_S = 6, 0.1  # the server flushes its log five times a second


class Postgres:
    """A database of a PostgreSQL server."""

    text_order = False
    has_limit = True

    def __init__(self, uri: str) -> None:
        self._uri = uri

    quoted = staticmethod(databases.quoted)
    literal = staticmethod(databases.literal)

    def state(self) -> str:
        """The transactions that there have been: equal only if none has written since.

        Notes
        -----
        A server that is started again after a crash knows all that was on disk. What was not, and tables that are not
        logged, may be lost, and their transactions' numbers be given out again. So when the server was started counts
        where there is any such thing, and everywhere that cannot be seen.
        """
        with self.reading() as reader:
            state, started, is_logged = (cell.as_py() for cell in databases.first_row(reader, _STATE))
            return state if is_logged and _is_on_disk(reader) else f"{state} {started}"

    def count(self, sql: str, most_s: float) -> int | None:
        """The number that a query has as its only cell."""
        with self.reading() as reader:
            reader.execute(f"SET LOCAL statement_timeout = {int(1000 * most_s)}")
            try:
                return int(databases.first_row(reader, sql)[0].as_py())
            except (OSError, adbc.Error) as error:
                if "statement timeout" in str(error):
                    return None
                raise

    @contextmanager
    def reading(self, snapshot: Any = None) -> Iterator[PostgresReader]:
        """A transaction that cannot write, and sees one state."""
        with adbc.connected(adbc_driver_postgresql.connect(self._uri)) as connection:
            reader = PostgresReader(connection, snapshot)
            reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            if snapshot is None:
                reader.snapshot = str(databases.first_row(reader, "SELECT pg_export_snapshot() AS snapshot")[0])
            else:
                reader.execute(f"SET TRANSACTION SNAPSHOT '{snapshot}'")
            yield reader


def _is_on_disk(reader: Reader) -> bool:
    """Whether all that was written before is on disk, or is soon."""
    written = databases.first_row(reader, "SELECT pg_current_wal_insert_lsn()::text AS lsn")[0]
    for _ in range(_FLUSHES):
        sql = f"SELECT pg_current_wal_flush_lsn() >= '{written}'::pg_lsn AS flushed"
        if databases.first_row(reader, sql)[0].as_py():
            return True
        time.sleep(_FLUSH_S)
    return False


class PostgresReader:
    """A transaction of one snapshot."""

    def __init__(self, connection: Any, snapshot: str | None) -> None:
        self._connection, self.snapshot = connection, snapshot

    def execute(self, sql: str) -> None:
        """Execute a statement that has no rows."""
        adbc.execute(self._connection, sql)

    def batches(self, sql: str) -> Iterator[pa.RecordBatch]:
        """The rows of a query, with the types that the server declares."""
        options = {"adbc.postgresql.batch_size_hint_bytes": str(_BATCH_BYTES)}
        with adbc.asked(self._connection, sql, **options) as reader:
            schema, scales = reader.schema, list(map(_declared_scale, reader.schema))
            refuse_unnamed_types(schema)
            yield _plain(schema, [pa.nulls(0, _storage(field.type)) for field in schema], scales)
            for batch in reader:
                yield _plain(schema, batch.columns, scales)


def _uuid_text(cell: Any) -> str:
    return str(cell if isinstance(cell, uuid.UUID) else uuid.UUID(bytes=cell))


def refuse_unnamed_types(schema: pa.Schema) -> None:
    """Refuse rows of a driver that hands out money as whole numbers, and numerics as texts, without saying so.

    Raises
    ------
    UsageError
        If a column comes without the name of its type, as from drivers before version 1.13.
    """
    name = next((field.name for field in schema if not _own_type(field)), None)
    if name is not None:
        raise UsageError(
            f"column {name!r} without the name of its type from {_DRIVER} {version(_DRIVER)}",
            expected="a driver that names the types of PostgreSQL",
            fix="pip install --upgrade 'zstore[sql]'",
        )


def _own_type(field: pa.Field) -> str:
    name: bytes = (field.metadata or {}).get(b"POSTGRESQL:type", b"")
    return name.decode()


def _storage(dtype: pa.DataType) -> pa.DataType:
    return dtype.storage_type if isinstance(dtype, pa.BaseExtensionType) else dtype


def _declared_scale(field: pa.Field) -> int:
    """Decimals of a numeric column, where it declares them; else 0."""
    modifier = int((field.metadata or {}).get(b"POSTGRESQL:typmod", b"-1"))
    return max((((modifier - 4) & 0x7FF) ^ 0x400) - 0x400, 0) if modifier >= 4 else 0  # 11 bits, of which one is a sign


def _plain(schema: pa.Schema, columns: Sequence[Any], scales: list[int]) -> pa.RecordBatch:
    """Columns without types of PostgreSQL's own; scales of decimals only grow, so that types seldom change."""
    arrays = []
    for number, (field, column) in enumerate(zip(schema, columns, strict=True)):
        array = _plain_column(field, column, scales[number])
        scales[number] = array.type.scale if pa.types.is_decimal(array.type) else 0
        arrays.append(array)
    return pa.RecordBatch.from_arrays(arrays, schema.names)


def _plain_column(field: pa.Field, array: Any, scale: int) -> Any:
    own = _own_type(field)
    if own in _OTHER_TYPES:
        raise ValueError(f"column {field.name!r} of type {own}: cast it to numeric or text in the query")
    if own == "uuid":
        return pa.array([None if cell is None else _uuid_text(cell) for cell in array.to_pylist()], pa.string())
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    return decimals(array, scale) if own == "numeric" else array


def decimals(texts: Any, scale: int = 0) -> Any:
    """Numbers of any number of digits, which come as texts, as decimals of some scale or more; NaN is missing.

    Raises
    ------
    ValueError
        If there are infinite ones, or one of more than 76 digits.
    """
    texts = texts.cast(pa.string())
    special = pc.fill_null(pc.is_in(texts, pa.array(["nan", "NaN"])), False)
    if pc.any(special).as_py():
        texts = pc.if_else(special, pa.scalar(None, pa.string()), texts)
    if pc.any(pc.match_substring(texts, "nf")).as_py():
        raise ValueError("an infinite numeric: cast it to double precision in the query")
    point = pc.find_substring(texts, ".")
    behind = pc.if_else(pc.less(point, 0), 0, pc.subtract(pc.subtract(pc.utf8_length(texts), point), 1))
    scale = max(pc.max(behind).as_py() or 0, scale)
    whole = pc.max(pc.subtract(pc.utf8_length(texts), behind)).as_py() or 1
    if scale + whole > _MOST_DIGITS:
        raise ValueError(f"a numeric of {scale + whole} digits: round it, or cast it to text in the query")
    return texts.cast(pa.decimal128(38, scale) if scale + whole <= 38 else pa.decimal256(_MOST_DIGITS, scale))
