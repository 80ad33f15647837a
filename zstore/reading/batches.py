"""Rows of a store as Arrow record batches: decoded ahead of whoever takes them, in the order of the store."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zstore.arrow import text_array
from zstore.format.index import StaticAttribute
from zstore.format.schema import Field
from zstore.reading.columns import checked_codes, free_name, id_and_time
from zstore.reading.ranges import RowRanges, Stretches, read_stretches
from zstore.reading.version import StoredVersion
from zstore.storage.portable import n_cores

_BLOCK_ROWS, _FEWEST_ROWS = 1 << 17, 1 << 12
_BLOCK_BYTES, _FIELD_BYTES = 1 << 27, 1 << 25
_MOST_THREADS = 8

_WORDS = pa.dictionary(pa.int32(), pa.string())


@dataclass(frozen=True)
class Columns:
    """The columns of a table made of a store: ids, times, some channels, and static attributes if wanted.

    Parameters
    ----------
    store
        Whose rows.
    channels
        Names of channels, in the order of the columns.
    statics
        Whether static attributes follow, the same in all rows of a series.
    fields
        Names of fields, which come last.
    names
        Names of the columns that are made, in their order; None for all.
    """

    store: StoredVersion
    channels: tuple[str, ...]
    statics: bool = False
    fields: tuple[str, ...] = ()
    names: tuple[str, ...] | None = None

    @cached_property
    def _makers(self) -> dict[str, tuple[Any, Callable[[RowRanges, Stretches], Any]]]:
        """From the name of each column to its Arrow type and what makes it of some rows."""
        store, axis = self.store, self.store.time
        id_, time = id_and_time(store)
        stamp = pa.int64() if axis.unit is None else pa.timestamp(axis.unit, tz=axis.zone)
        columns: dict[str, tuple[Any, Callable[[RowRanges, Stretches], Any]]] = {
            id_: (pa.string(), lambda ranges, _: _repeated(store.ids[ranges.series].tolist(), ranges.sizes)),
            time: (stamp, lambda _, stretches: _from_numpy(stamp, read_stretches(store.times, stretches))),
        }
        for channel, missing in zip(map(store.channel, self.channels), store.missing(self.channels), strict=True):
            if channel.kind == "number":
                kind = pa.from_numpy_dtype(np.dtype(channel.dtype))
                columns[channel.name] = kind, partial(_numbers, store, channel, bool(missing))
            else:
                columns[channel.name] = _WORDS, partial(_categories, store, channel)
        for static in store.statics if self.statics else ():
            name = free_name(static.name, {*columns, *store.channels}, "_static")
            columns[name] = pa.float64() if static.categories is None else _WORDS, partial(_static, static)
        for field in map(store.field, self.fields):
            columns[free_name(field.name, columns)] = _kind_of(field), partial(_values, store, field)
        return columns if self.names is None else {name: columns[name] for name in self.names}

    @cached_property
    def schema(self) -> Any:
        """Names and Arrow types: ids are texts, categories dictionaries, times timestamps in the unit of the store."""
        return pa.schema([(name, kind) for name, (kind, _) in self._makers.items()])

    @property
    def block_rows(self) -> int:
        """Most rows of a batch: a power of two, of whole chunks where they are small enough; of a bucket, of shards.

        With fields, as many as have some 32 MB of them.
        """
        if self.fields:
            widths = (
                max(field.row_bytes, _mean_bytes(self.store, field)) for field in map(self.store.field, self.fields)
            )
            return 1 << max(_FIELD_BYTES // sum(widths), 1).bit_length() - 1
        most = 1 << (_BLOCK_BYTES // (64 + 8 * len(self._makers))).bit_length() - 1
        grid, remote = self.store.schema, self.store.storage.remote
        return max(min(max(_BLOCK_ROWS, grid.shard_rows if remote else grid.chunk_rows), most), _FEWEST_ROWS)

    def batch(self, ranges: RowRanges) -> Any:
        """The rows of one block of :meth:`RowRanges.blocks` as a record batch."""
        stretches = tuple(ranges.near(self.store.schema.chunk_rows))
        arrays = [make(ranges, stretches) for _, make in self._makers.values()]
        if arrays:
            return pa.record_batch(arrays, schema=self.schema)
        return pa.record_batch([pa.nulls(ranges.n_rows)], names=["row"]).select([])  # keeps the number of rows


def record_batches(columns: Columns, parts: Iterable[RowRanges]) -> Iterator[Any]:
    """Record batches of some rows, in their order; one without a row where there is none.

    Parameters
    ----------
    columns
        What a batch has.
    parts
        Rows, in the order of the store; asked for when they are needed.

    Raises
    ------
    CorruptionError
        If the store is damaged.

    Notes
    -----
    Threads decode a few batches ahead of the one that is taken: memory is that of some six batches, each of
    131,072 rows or, in wide tables, some 128 MB, or, with fields, 32 MB of these.
    """
    blocks = (block for part in parts for block in part.blocks(columns.block_rows))
    n_threads = min(n_cores(), _MOST_THREADS)
    pool, pending = ThreadPoolExecutor(n_threads), deque[Future[Any]]()
    empty = True
    try:
        for block in blocks:
            pending.append(pool.submit(columns.batch, block))
            if len(pending) > n_threads + 1:
                yield pending.popleft().result()
                empty = False
        while pending:
            yield pending.popleft().result()
            empty = False
        if empty:
            yield columns.batch(RowRanges.none())
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _numbers(store: StoredVersion, channel: Field, gaps: bool, _: RowRanges, stretches: Stretches) -> Any:
    """(row,) a channel of numbers, of which some may be missing if it has `gaps`."""
    stored = read_stretches(partial(store.read_stored, channel.name), stretches)
    missing = channel.encoding.is_missing(stored) if gaps else None
    values = channel.encoding.unpack(stored, channel.dtype)
    return _from_numpy(pa.from_numpy_dtype(values.dtype), values, missing)


def _categories(store: StoredVersion, channel: Field, _: RowRanges, stretches: Stretches) -> Any:
    """(row,) a channel of categories."""
    stored = read_stretches(partial(store.read_stored, channel.name), stretches)
    return _worded(checked_codes(store, channel, stored).astype(np.int32), channel.categories)


def _kind_of(field: Field) -> Any:
    """The Arrow type of a field: bytes, or tensors of one shape, whose names of dimensions it keeps."""
    if field.n_bytes is not None:
        return pa.large_binary()
    dtype = np.dtype(field.encoding.dtype)
    kind = pa.from_numpy_dtype(np.dtype("uint8") if dtype == np.bool_ else dtype)  # no tensor of Arrow has booleans
    return pa.fixed_shape_tensor(kind, field.shape, dim_names=list(field.dimensions))


def _mean_bytes(store: StoredVersion, field: Field) -> int:
    """Bytes of a row of a field of bytes, on average."""
    return 0 if field.n_bytes is None else field.n_bytes // max(store.n_rows, 1)


def _values(store: StoredVersion, field: Field, ranges: RowRanges, _: Stretches) -> Any:
    """(row,) a field, null where a row has no value."""
    stretches = tuple(ranges.near(1 if field.grid is None else field.grid.chunk_rows))
    absent = ~np.any(read_stretches(partial(store.payload_digests, field.name), stretches), axis=1)
    kind = _kind_of(field)
    if field.n_bytes is not None:
        parts = [store.read_bytes(field.name, start, stop) for start, stop in _bounds(ranges)]
        content = [one for part in parts for one in part]
        return pa.array([None if gone else one for gone, one in zip(absent, content, strict=True)], kind)
    values = read_stretches(partial(store.read_field, field.name), stretches)
    flat = values.reshape(-1)
    lists = pa.FixedSizeListArray.from_arrays(
        pa.array(flat.view(np.uint8) if flat.dtype == np.bool_ else flat),
        type=kind.storage_type,
        mask=pa.array(absent) if absent.any() else None,
    )
    return pa.ExtensionArray.from_storage(kind, lists)


def _bounds(ranges: RowRanges) -> Iterator[tuple[int, int]]:
    return zip(ranges.start.tolist(), ranges.stop.tolist(), strict=True)


def _from_numpy(kind: Any, values: NDArray[Any], missing: NDArray[np.bool_] | None = None) -> Any:
    """An Arrow array over the memory of a numpy array; null where `missing`."""
    n_missing = 0 if missing is None else int(np.count_nonzero(missing))
    known = pa.py_buffer(np.packbits(~missing, bitorder="little")) if missing is not None and n_missing else None
    return pa.Array.from_buffers(kind, len(values), [known, pa.py_buffer(np.ascontiguousarray(values))], n_missing)


def _worded(codes: NDArray[np.int32], words: Sequence[str]) -> Any:
    """Codes, -1 for missing, as a dictionary array."""
    return pa.DictionaryArray.from_arrays(_from_numpy(pa.int32(), codes, codes < 0), text_array(words))


def _repeated(texts: Sequence[str], sizes: NDArray[np.int64]) -> Any:
    """Each text as often as its size says."""
    encoded = [text.encode() for text in texts]
    lengths = np.repeat(np.array([len(text) for text in encoded], np.int64), sizes)
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    content = b"".join([text * size for text, size in zip(encoded, sizes.tolist(), strict=True)])
    return pa.StringArray.from_buffers(len(lengths), pa.py_buffer(offsets), pa.py_buffer(content))


def _static(static: StaticAttribute, ranges: RowRanges, _: Stretches) -> Any:
    """(row,) one static attribute."""
    values = np.repeat(static.values[ranges.series], ranges.sizes)
    if static.categories is not None:
        return _worded(values.astype(np.int32), static.categories)
    return _from_numpy(pa.float64(), values.astype(np.float64), np.isnan(values))
