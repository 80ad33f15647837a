"""A whole store as a dataset of xarray: rows in the order of (id, time), decoded when they are used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from zstore.format.layout import TIME
from zstore.reading.columns import (
    as_times,
    channel_attributes,
    column_dtype,
    flags,
    free_name,
    read_column,
    time_attributes,
    to_words,
)
from zstore.reading.frames import needed
from zstore.reading.ranges import RowRanges, read_stretches, times_at
from zstore.reading.version import StoredVersion

if TYPE_CHECKING:
    import xarray

_FIELD_BYTES = 1 << 24  # of a field that are read together


def to_dataset(
    store: StoredVersion, words: bool, channels: Sequence[str] | None = None, ranges: RowRanges | None = None
) -> xarray.Dataset:
    """See :meth:`zstore.reading.store.Store.to_xarray`; of some channels and rows where these are given."""
    xarray = needed("xarray")
    schema, index = store.schema, store.index
    part = _Part(store, None if ranges is None else ranges.at(ranges.sizes > 0))
    row, series, time, id_, *sizes = (
        free_name(name, store.channels) for name in ("row", "series", TIME, "id", "row_size", "time_start", "time_stop")
    )
    about_time, encoding = time_attributes(schema.time)
    variables: dict[str, Any] = {
        channel.name: xarray.Variable(
            row,
            part.lazily(channel.name, partial(read_column, store, channel, words), column_dtype(channel, words)),
            channel_attributes(channel, words),
        )
        for channel in (schema.channels if channels is None else map(store.channel, channels))
    }
    if channels is None:
        variables |= _fields(part, {*variables, row, series, time, id_, *sizes}, row)
    stamp = as_times(np.zeros(0, np.int64), schema.time).dtype
    times = part.lazily("times of rows", partial(_read_times, store), stamp)
    about_size = {"long_name": "rows of the series", "sample_dimension": row}
    variables[sizes[0]] = xarray.Variable(series, part.row_size, about_size)
    for name, values in zip(sizes[1:], part.first_and_last_times(), strict=True):
        variables[name] = xarray.Variable(series, as_times(values, schema.time), encoding=encoding)
    for static in store.statics:
        values, about = static.values[part.series], {"long_name": static.name}
        if static.categories is not None and words:
            values = to_words(values, static.categories, np.nan)
        elif static.categories is not None:
            about |= flags(static.categories, values.dtype)
        name = free_name(static.name, {*variables, row, series, time, id_}, "_static")
        variables[name] = xarray.Variable(series, values, about)
    ids = np.array(index.ids[part.series].tolist(), dtype=object)
    coordinates = {
        time: xarray.Variable(row, times, about_time, encoding),
        id_: xarray.Variable(series, ids, {"long_name": schema.id_name or "id", "cf_role": "timeseries_id"}),
    }
    about = {"Conventions": "CF-1.11", "featureType": "timeSeries"}
    return xarray.Dataset(variables, coordinates, about)  # type: ignore[no-any-return]


def _fields(part: _Part, taken: set[str], row: str) -> dict[str, Any]:
    """Fields as lazy arrays over the rows."""
    xarray, store, variables = needed("xarray"), part.store, dict[str, Any]()
    for field in store.schema.fields:
        if field.n_bytes is not None:  # nothing that an array of one shape could hold
            continue
        read = partial(store.read_field, field.name)
        values = part.lazily(field.name, read, np.dtype(field.encoding.dtype), field.shape)
        about = {"long_name": field.name} | ({} if field.units is None else {"units": field.units})
        name = free_name(field.name, {*taken, *variables})
        variables[name] = xarray.Variable((row, *field.dimensions), values, about)
    return variables


@dataclass(frozen=True)
class _Part:
    """Rows of a store that a data set has: all, or some ranges that are not empty."""

    store: StoredVersion
    ranges: RowRanges | None

    @property
    def series(self) -> Any:
        """Positions of the series."""
        return slice(None) if self.ranges is None else self.ranges.series

    @property
    def row_size(self) -> NDArray[np.int64]:
        """(series,) rows."""
        return self.store.index.row_size if self.ranges is None else self.ranges.sizes

    def first_and_last_times(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(series,) times of the first and of the last row."""
        index = self.store.index
        if self.ranges is None:
            return index.time_start, index.time_stop
        return times_at(self.store, self.ranges.start), times_at(self.store, self.ranges.stop - 1)

    def lazily(
        self,
        name: str,
        read: Callable[[int, int], NDArray[Any]],
        dtype: np.dtype[Any],
        shape: tuple[int, ...] = (),
    ) -> Any:
        """A dask array over the rows, each of some shape: `read` returns those of the store between two of them."""
        import dask.array
        from dask.base import tokenize

        store, ranges = self.store, self.ranges
        identity = [store.path, store.objects.document["digest"], name, str(dtype), shape]
        row_bytes = prod(shape) * dtype.itemsize
        most = max(_FIELD_BYTES // row_bytes, 1) if shape else store.schema.chunk_rows
        sizes = _even_sizes(store.n_rows, most) if shape else _chunk_sizes(store)
        if ranges is not None:
            starts = np.append(0, np.cumsum(ranges.sizes))
            identity += [tokenize(ranges.start, ranges.stop)]
            sizes = tuple(block.n_rows for block in ranges.blocks(most)) or (0,)
            read = partial(_read_ranges, read, ranges, starts, most)
        source = _Rows(read, (sum(sizes), *shape), dtype)
        return dask.array.from_array(  # type: ignore[no-untyped-call]
            source,
            (sizes, *((length,) for length in shape)),
            name=f"zstore-{tokenize(*identity)}",
            fancy=False,
            asarray=False,
            meta=np.zeros((0,) * (1 + len(shape)), dtype),
        )


def _read_ranges(
    read: Callable[[int, int], NDArray[Any]],
    ranges: RowRanges,
    starts: NDArray[np.int64],
    most_gap: int,
    start: int,
    stop: int,
) -> NDArray[Any]:
    """The rows ``[start, stop)`` of some ranges, of which each begins at one of `starts`."""
    first, last = int(np.searchsorted(starts, start, side="right")) - 1, int(np.searchsorted(starts, stop))
    some = ranges.at(slice(first, last))
    low = np.maximum(start - starts[first:last], 0)
    high = np.minimum(stop - starts[first:last], some.sizes)
    return read_stretches(read, RowRanges(some.series, some.start + low, some.start + high).near(most_gap))


@dataclass(frozen=True)
class _Rows:
    """Some column of a store as dask reads arrays: by slices.

    Parameters
    ----------
    read
        From the first row and the row after the last to the values.
    shape
        Rows of all series, and lengths of other axes.
    dtype
        Of the values.
    """

    read: Callable[[int, int], NDArray[Any]]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        wanted, *others = key if isinstance(key, tuple) else (key,)
        inside = (slice(None), *others)
        if not isinstance(wanted, slice):
            return self.read(int(wanted), int(wanted) + 1)[inside][0]  # type: ignore[no-any-return]
        rows = range(self.shape[0])[wanted]
        if not rows:
            nothing: NDArray[Any] = np.zeros((0, *self.shape[1:]), self.dtype)[inside]
            return nothing
        low, high = min(rows[0], rows[-1]), max(rows[0], rows[-1])
        values: NDArray[Any] = self.read(low, high + 1)[rows[0] - low :: rows.step][: len(rows)][inside]
        return values


def _read_times(store: StoredVersion, start: int, stop: int) -> NDArray[Any]:
    return as_times(store.times(start, stop), store.schema.time)


def _even_sizes(n_rows: int, most: int) -> tuple[int, ...]:
    """Rows of each part of all, `most` of them but for the last."""
    whole, rest = divmod(n_rows, most)
    return (most,) * whole + ((rest,) if rest or not whole else ())


def _chunk_sizes(store: StoredVersion) -> tuple[int, ...]:
    """Rows that are decoded together: stored chunks; in a grown store, neighbouring parts of them."""
    starts = store.chunk_starts
    _, first = np.unique(starts // store.schema.chunk_rows, return_index=True)
    return tuple(np.diff(np.append(starts[first], store.n_rows)).tolist())
