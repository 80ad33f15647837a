"""Tables that a program has in memory, or reads as a stream, as Arrow: nothing is copied that Arrow can share."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import xxhash

from zstore.errors import SourceError, UsageError, ZstoreError
from zstore.storage.file import File
from zstore.storage.portable import n_cores

BLOCK_ROWS = 1 << 16
"""Rows that are hashed, and spooled, together, however a table is chunked."""


@runtime_checkable
class ArrowStream(Protocol):
    """A table of any package that hands it out as an Arrow stream: pandas, polars, pyarrow, DuckDB, a selection."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """The PyCapsule of a stream of record batches."""
        ...


@dataclass(frozen=True, eq=False)
class GivenTable:
    """A table that a program hands over; takes the place that a file has among other sources.

    Parameters
    ----------
    name
        What messages and the receipt call it.
    rows
        A ``pyarrow.Table``; or a reader of record batches, which can be read once.
    etag
        Digest of its content; ``""`` where it is not known yet.
    n_bytes
        Of its columns, about.
    spool
        An Arrow stream on scratch space that has the rows instead.
    """

    name: str
    rows: Any
    etag: str = ""
    n_bytes: int = 0
    spool: File | None = None

    def __str__(self) -> str:
        return self.name

    @property
    def once(self) -> bool:
        """Whether it can be read once only."""
        return not isinstance(self.rows, pa.Table)

    @property
    def ledger_name(self) -> str:
        """What the ledger calls its rows."""
        return f"table ({self.etag[:8]})"

    def check(self) -> None:
        """Nothing: who hands it over does not change it meanwhile."""


def is_given(value: Any) -> bool:
    """Whether a value is a table, and not the name of one."""
    return isinstance(value, type) is False and any(
        hasattr(value, name) for name in ("__arrow_c_stream__", "__arrow_c_array__")
    )


def given_table(value: Any, name: str) -> GivenTable:
    """A table of any package as one of Arrow.

    Parameters
    ----------
    value
        A data frame of pandas or polars; a table, record batch or reader of pyarrow; or anything else that has the
        Arrow PyCapsule interface, which is read as a stream.
    name
        What messages call it.

    Raises
    ------
    SourceError
        If a column of Python objects has no type, naming its first odd row.
    UsageError
        If it is no table.
    """
    pandas, polars = (sys.modules.get(package) for package in ("pandas", "polars"))
    try:
        if pandas is not None and isinstance(value, pandas.DataFrame):
            rows = _of_pandas(value, name)
        elif isinstance(value, (pa.Table, pa.RecordBatchReader)):
            rows = value
        elif isinstance(value, pa.RecordBatch):
            rows = pa.Table.from_batches([value])
        elif polars is not None and isinstance(value, polars.DataFrame):
            rows = value.to_arrow(compat_level=polars.CompatLevel.newest())  # as a stream it would be copied whole
        elif hasattr(value, "__arrow_c_stream__"):
            rows = pa.RecordBatchReader.from_stream(value)
        else:
            rows = pa.Table.from_batches([pa.record_batch(value)])
    except (pa.ArrowException, TypeError, ValueError) as error:
        if isinstance(error, ZstoreError):
            raise
        raise UsageError(
            f"{name} of type {type(value).__name__} ({str(error).splitlines()[0]})",
            expected="a table: a data frame, an Arrow table, or a stream of record batches",
            fix="hand over a data frame that has the columns of ids and times",
        ) from error
    if isinstance(rows, pa.Table):
        digest = digest_of_table(rows)
        return GivenTable(name, rows, digest.hexdigest(), digest.n_bytes)
    return GivenTable(name, rows)


def _of_pandas(frame: Any, name: str) -> Any:
    """A data frame as a table: its columns, behind the levels of its index that have names."""
    index = frame.index
    levels = [(level, index.get_level_values(n)) for n, level in enumerate(index.names) if level is not None]
    columns = levels + [(column, frame.iloc[:, n]) for n, column in enumerate(frame.columns)]
    for column, _ in columns:
        if not isinstance(column, str):
            raise UsageError(
                f"column {column!r} ({type(column).__name__}) of {name}",
                expected="names that are text",
                fix="rename it, as df.columns = df.columns.map(str) does",
            )
    arrays = [_of_series(values, str(column), name) for column, values in columns]
    return pa.table(arrays, names=[column for column, _ in columns])


def _of_series(values: Any, column: str, name: str) -> Any:
    """One column; missing values are null."""
    try:
        return pa.array(values, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError) as error:
        cells = values.to_numpy(dtype=object)
        missing = values.isna()
        known = [row for row in range(len(cells)) if not missing[row]] if len(cells) else []
        kinds = {type(cells[row]).__name__: row for row in reversed(known)}
        if len(kinds) < 2:
            raise SourceError(
                f"column {column!r} of type {values.dtype} ({str(error).splitlines()[0]})",
                expected="numbers, texts, categories or times",
                where=name,
                fix="convert it, or leave it out",
            ) from error
        usual, other = sorted(kinds, key=lambda kind: kinds[kind])[:2]
        raise SourceError(
            f"{other} {cells[kinds[other]]!r} in column {column!r}",
            expected=f"{usual} as in the rows before",
            where=f"{name} row {kinds[other]:,}",
            fix=f"convert it, as df[{column!r}].astype(str) does",
        ) from error


def digest_of_table(table: Any) -> TableDigest:
    """The digest of the content of a table: the same however its columns are chunked, and by whichever package.

    Notes
    -----
    Cost: a copy of 65,536 rows of a column at a time, and the hash of it.
    """
    digest = TableDigest(table.schema)

    def column(number: int) -> None:
        for piece in _pieces(table.column(number)):
            digest.add(number, piece)

    with ThreadPoolExecutor(n_cores()) as pool:
        list(pool.map(column, range(table.num_columns)))
    return digest


class TableDigest:
    """The digest of a table that comes in blocks of :data:`BLOCK_ROWS` rows.

    Parameters
    ----------
    schema
        Its columns.
    """

    def __init__(self, schema: Any) -> None:
        self._names = schema.names
        self._types = [str(plain_type(dtype)) for dtype in schema.types]
        self._hashers = [xxhash.xxh3_128() for _ in schema.names]
        self._sizes = [0] * len(schema.names)

    def add(self, number: int, values: Any) -> None:
        """Add a block of a column, :func:`plain`. A copy of it has nothing in it that no value is of."""
        rows = pa.Array.from_buffers(pa.int64(), len(values), [None, pa.py_buffer(np.arange(len(values)))])
        with suppress(pa.ArrowNotImplementedError):  # of a type that no channel can have
            values = values.take(rows)
        octets = memoryview(pa.record_batch([values], ["column"]).serialize())
        self._hashers[number].update(octets)
        self._sizes[number] += len(octets)

    def hexdigest(self) -> str:
        """32 hex digits."""
        digests = [hasher.hexdigest() for hasher in self._hashers]
        return xxhash.xxh3_128_hexdigest(repr([self._names, self._types, digests]).encode())

    @property
    def n_bytes(self) -> int:
        """Bytes of what was added."""
        return sum(self._sizes)


def _pieces(column: Any) -> Iterator[Any]:
    """A column in blocks of a fixed number of rows, as arrays that hold nothing else."""
    for start in range(0, len(column), BLOCK_ROWS):
        yield plain_block(column.slice(start, BLOCK_ROWS).chunks)


def plain_block(chunks: Sequence[Any]) -> Any:
    """Chunks of one type as one array, see :func:`plain`."""
    some = [plain(chunk) for chunk in chunks]
    return some[0] if len(some) == 1 else pa.concat_arrays(some)


def plain(array: Any) -> Any:
    """An array of at most a block without dictionaries, views and extensions: its own values alone."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_dictionary(array.type):
        array = pa.DictionaryArray.from_arrays(array.indices, plain(array.dictionary)).dictionary_decode()
    wanted = plain_type(array.type)
    return array if wanted == array.type else array.cast(wanted)


def plain_type(dtype: Any) -> Any:
    """The type that :func:`plain` makes of one."""
    if isinstance(dtype, pa.BaseExtensionType):
        dtype = dtype.storage_type
    if pa.types.is_dictionary(dtype):
        dtype = dtype.value_type
    if pa.types.is_large_string(dtype) or getattr(pa.types, "is_string_view", lambda _: False)(dtype):
        return pa.string()
    return dtype
