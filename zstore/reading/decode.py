"""Whole channels of a store, decoded, unpacked, scaled and interleaved into rows: the one bulk read there is."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.errors import CorruptionError, NotFiniteError
from zstore.format.index import SeriesIndex
from zstore.format.layout import n_shards, shard_bounds, shard_key
from zstore.format.schema import Field
from zstore.format.shards import decode_shard
from zstore.reading.scaling import Float64, Scaling
from zstore.reading.version import StoredVersion

_LARGEST = float(np.finfo(np.float32).max)
_SMALLEST = float(np.finfo(np.float32).smallest_subnormal)
_NEAR_LARGEST = 2.0**100
_WHOLE = float(1 << 24)  # up to here float32 holds every whole number
_MANY_SCALES_OF_FLOAT32, _MANY_SCALES_OF_FLOAT64 = 1024.0, 64.0
_MANY_SCALES = float(1 << 24)  # beyond, float64 products leave less than float32 keeps


def decode_rows_of(
    store: StoredVersion,
    channels: Sequence[str],
    out: NDArray[Any],
    scaling: Scaling | None,
    observed: NDArray[np.bool_] | None,
    threads: int = 2,
    fill: bool = True,
) -> None:
    """See :meth:`zstore.reading.store.Store.decode`."""
    blank = 0.0 if fill and observed is not None else np.nan
    wanted = _columns_of(store, channels, scaling, out.dtype)
    schema = store.schema
    grid = (schema.chunk_rows, schema.shard_rows)
    routes = _Routes.of(store.index)
    everyone = store.index.series_of(0, store.n_rows).astype(np.int32) if scaling and scaling.per_series else None

    shards = [
        shard
        for shard in range(n_shards(schema.n_places, schema.shard_rows))
        if routes.any_in(*shard_bounds(shard, schema.n_places, schema.shard_rows))
    ]
    keys = [shard_key(column.channel.variable, shard) for shard in shards for column in wanted]

    def work(shard: int) -> None:
        start, stop = shard_bounds(shard, schema.n_places, schema.shard_rows)
        contents = [ahead.take(shard_key(column.channel.variable, shard)) for column in wanted]
        columns = [
            decode_shard(content, column.channel.encoding.dtype, column.channel.codec, *grid)
            for content, column in zip(contents, wanted, strict=True)
        ]
        buffer: NDArray[Any] = np.empty(schema.chunk_rows, wanted[0].dtype)
        reached = start
        # Chunk by chunk over all channels, so that the rows written to stay in cache.
        for first, chunks in zip(range(start, stop, schema.chunk_rows), zip(*columns, strict=True), strict=False):
            taken, rows = routes.through(first, min(first + schema.chunk_rows, stop))
            series = everyone[rows] if everyone is not None else None
            for position, (chunk, column) in enumerate(zip(chunks, wanted, strict=True)):
                column.unpack(chunk[taken], buffer, out, observed, blank, rows, position, series)
            reached = first + schema.chunk_rows
        if reached < stop and routes.any_in(reached, stop):
            raise ValueError(f"a chunk of the rows at places {reached:,} to {stop - 1:,} was never written")

    def checked(shard: int) -> None:
        try:
            work(shard)
        except ValueError as error:
            raise CorruptionError(
                f"shard {shard:,} cannot be decoded ({error})",
                expected="chunks that inflate to their rows",
                where=store.path,
                fix="restore the store from a copy, or ingest again; zstore verify lists every damaged object",
            ) from error

    with ThreadPoolExecutor(threads) as pool, store.objects.ahead(keys) as ahead:
        list(pool.map(checked, shards))


def decode_part(
    store: StoredVersion,
    channels: Sequence[str],
    start: int,
    out: NDArray[Any],
    scaling: Scaling | None,
    observed: NDArray[np.bool_] | None,
    fill: bool = True,
) -> None:
    """See :meth:`zstore.reading.store.Store.decode_part`."""
    blank = 0.0 if fill and observed is not None else np.nan
    wanted = _columns_of(store, channels, scaling, out.dtype)
    buffer: NDArray[Any] = np.empty(len(out), wanted[0].dtype)
    series = store.index.series_of(start, start + len(out)) if scaling and scaling.per_series else None
    if observed is not None:
        observed[:] = True
    for position, column in enumerate(wanted):
        stored = store.read_stored(column.channel.name, start, start + len(out))
        column.unpack(stored, buffer, out, observed, blank, slice(None), position, series)


@dataclass(frozen=True)
class _Column:
    """How one channel becomes a column of rows: unpacked, less `offset`, over `scale`, as `dtype`.

    `offset` and `scale` are one number, or (series,). `codes`: what is unpacked instead of each stored code; None for
    the codes themselves. `exact`: subtract and divide one after the other, where the
    offset is so many scales that the difference of two products would show its rounding, or 1 / scale overflows.
    """

    channel: Field
    scale: Any
    offset: Any
    log: bool
    missing: bool
    exact: bool
    dtype: type[np.floating[Any]]
    codes: NDArray[np.int64] | None

    def unpack(
        self,
        stored: NDArray[Any],
        buffer: NDArray[Any],
        out: NDArray[Any],
        observed: NDArray[np.bool_] | None,
        blank: float,
        rows: Any,
        position: int,
        series: NDArray[Any] | None,
    ) -> None:
        """Write stored values to some rows of a column, `blank` where they are missing; `buffer` is scratch memory."""
        encoding, values = self.channel.encoding, buffer[: len(stored)]
        values[:] = stored if self.codes is None else self.codes[np.clip(stored, 0, len(self.codes) - 1)]
        unit = encoding.unit
        offset, scale = (self.offset, self.scale) if series is None else (self.offset[series], self.scale[series])
        if self.log:
            values /= unit
            with np.errstate(invalid="ignore", divide="ignore"):  # what stands for missing
                np.log1p(values, out=values)
            unit = 1
        if series is not None or offset or scale != 1:  # in float64: two passes, and no error that float32 shows
            if self.exact:
                values /= unit
                values -= offset
                values /= scale
            else:
                values *= 1 / (unit * scale)
                values -= offset / scale
        elif unit != 1:
            values /= self.dtype(unit)
        if self.missing and (encoding.marked or observed is not None):
            absent = encoding.is_missing(stored)
            values[absent] = blank
            if observed is not None:
                observed[rows, position] = ~absent
        out[rows, position] = values


def require_float32(store: StoredVersion, channels: Sequence[str], scaling: Scaling | None) -> None:
    """See :meth:`zstore.reading.store.Store.require_float32`."""
    scaling = scaling or Scaling.identity(len(channels))
    columns = {name: column for column, name in enumerate(store.channels)}
    chosen = [columns[store.channel(name).name] for name in channels]
    lows, highs = (ends[None] for ends in store.extremes)
    if scaling.offset.ndim == 1 and _all_fit(lows, highs, chosen, scaling):
        return
    moments = store.moments
    if _all_fit(moments.low, moments.high, chosen, scaling):
        return
    for position, name in enumerate(channels):  # to name the one that does not
        log = bool(scaling.log[position])
        offset, scale = (part[..., position] for part in (scaling.offset, scaling.scale))
        column = columns[name]
        largest = 0.0
        codes = scaling.codes_of(position)
        both = (moments.low[:, column], moments.high[:, column])
        if codes is not None and len(codes):
            both = (np.full_like(both[0], codes.min()), np.full_like(both[1], codes.max()))
        for ends in both:
            with np.errstate(all="ignore"):
                scaled = np.abs(((np.log1p(ends) if log else ends) - offset) / scale)
            finite = np.isfinite(ends)
            largest = max(largest, float(scaled[finite].max(initial=0.0)))
            beyond = np.flatnonzero(finite & ~(scaled <= _LARGEST))
            if len(beyond):
                raise _misfit(store, name, int(beyond[0]), float(ends[beyond[0]]), float(scaled[beyond[0]]))
        if 0 < largest < _SMALLEST:
            series = int(np.argmax(moments.count[:, column]))
            raise _misfit(store, name, series, float(moments.high[series, column]), largest)


def _all_fit(low: Float64, high: Float64, columns: list[int], scaling: Scaling) -> bool:
    """Whether the least and largest values, (series, column), surely fit float32; False where one must look closer."""
    if scaling.log.any() or scaling.codes:
        return False
    largest: Float64 = np.zeros(len(columns))
    for ends in (low, high):
        with np.errstate(all="ignore"):
            scaled = np.abs((ends[:, columns] - scaling.offset) / scaling.scale)
        largest = np.maximum(largest, scaled.max(axis=0, initial=0.0))  # NaN stays: no value, or none that fits
    return bool(np.all((largest == 0) | ((largest >= _SMALLEST) & (largest <= _LARGEST))))


def float32_suffices(store: StoredVersion, channels: Sequence[str], scaling: Scaling) -> bool:
    """See :meth:`zstore.reading.store.Store.float32_suffices`."""
    columns = {name: column for column, name in enumerate(store.channels)}
    for position, name in enumerate(channels):
        channel, log = store.channel(name), bool(scaling.log[position])
        offset, scale = (part[..., position] for part in (scaling.offset, scaling.scale))
        column = columns[channel.name]
        low, high = (ends[column : column + 1] for ends in store.extremes)
        if offset.ndim or np.isinf(low[low <= high]).any() or np.isinf(high[low <= high]).any():
            low, high = store.moments.low[:, column], store.moments.high[:, column]
        rows = low <= high  # those with a value
        if offset.ndim:
            offset, scale = offset[rows], scale[rows]
        ends = np.stack([low[rows], high[rows]])
        ends = np.where(np.isfinite(ends), ends, 0.0)
        with np.errstate(all="ignore"):
            n_scales = np.abs(offset / scale)
            if log:  # its own rounding, and that of values near -1
                n_scales = np.maximum(n_scales, np.maximum(np.abs(np.log1p(ends)), 1 / (1 + ends)).max(axis=0) / scale)
            sizes = np.concatenate(
                [np.ravel(scale), np.ravel(1 / scale), np.ravel(np.abs(offset)), np.abs(ends).ravel()]
            )
        largest = float(np.abs(ends).max(initial=0.0))
        if not sizes.max(initial=0.0) <= _NEAR_LARGEST or 0 < largest < 1 / _NEAR_LARGEST:
            return False
        exact = not log and _is_float32(channel, largest)
        limit = np.inf if exact else _MANY_SCALES_OF_FLOAT64 if channel.dtype == "float64" else _MANY_SCALES_OF_FLOAT32
        if not np.max(n_scales, initial=0.0) <= limit:
            return False
    return True


def _is_float32(channel: Field, largest: float) -> bool:
    """Whether float32 holds every value of a channel exactly: few enough whole numbers, or floats as they are."""
    encoding = channel.encoding
    return encoding.unit == 1 and (largest <= _WHOLE if encoding.marked else encoding.dtype == "float32")


def _misfit(store: StoredVersion, channel: str, series: int, value: float, scaled: float) -> NotFiniteError:
    return NotFiniteError(
        f"{value:g} in channel {channel!r} of series {store.ids[series]}, which is {scaled:g} away from 0 once scaled",
        expected=f"at most {_LARGEST:.2g} and in some rows at least {_SMALLEST:.2g}, which float32 holds",
        where=store.path,
        fix="scale the channel by other means (--data.scaler standard or minmax), leave it out with --data.channels, "
        "or correct the value in the source",
    )


def _columns_of(
    store: StoredVersion,
    channels: Sequence[str],
    scaling: Scaling | None,
    wanted: type[np.floating[Any]] | np.dtype[Any],
) -> list[_Column]:
    scaling = scaling or Scaling.identity(len(channels))
    missing = store.missing(channels).tolist()
    columns = []
    for position, name in enumerate(channels):
        offset, scale = (part[..., position] for part in (scaling.offset, scaling.scale))
        log = bool(scaling.log[position])
        dtype = np.float64 if scaling.changes or wanted == np.float64 else np.float32
        channel = store.channel(name)
        with np.errstate(all="ignore"):
            reciprocal = 1 / (channel.encoding.unit * np.asarray(scale, np.float64))
            steep = ~(np.abs(offset / scale) <= _MANY_SCALES)
        exact = bool(np.any(steep) or not np.all(np.isfinite(reciprocal) & (reciprocal != 0)))
        codes = scaling.codes_of(position)
        codes = None if codes is None or not len(codes) else codes
        columns.append(_Column(channel, scale, offset, log, missing[position], exact, dtype, codes))
    return columns


@dataclass(frozen=True)
class _Routes:
    """From places to rows: (piece,) first place, first row and size, in the order of places."""

    place: NDArray[np.int64]
    row: NDArray[np.int64]
    size: NDArray[np.int64]

    @classmethod
    def of(cls, index: SeriesIndex) -> _Routes:
        row, place, size = index.pieces
        order = np.argsort(place)
        return cls(place[order], row[order], size[order])

    def any_in(self, start: int, stop: int) -> bool:
        """Whether any row lies at the places ``[start, stop)``."""
        return bool(np.any((self.place < stop) & (self.place + self.size > start)))

    def through(self, start: int, stop: int) -> tuple[Any, Any]:
        """Which of the places ``[start, stop)`` hold rows, counted from `start`, and those rows: slices or indices."""
        first = max(int(np.searchsorted(self.place, start, side="right")) - 1, 0)
        last = int(np.searchsorted(self.place, stop))
        low = np.maximum(self.place[first:last], start)
        size = np.maximum(np.minimum(self.place[first:last] + self.size[first:last], stop) - low, 0)
        low, size, row = low[size > 0], size[size > 0], (self.row - self.place)[first:last][size > 0]
        if len(low) == 1:
            taken, to = int(low[0]) - start, int(low[0] + row[0])
            return slice(taken, taken + int(size[0])), slice(to, to + int(size[0]))
        place = np.repeat(low - np.cumsum(size) + size, size) + np.arange(int(size.sum()))
        return place - start, place + np.repeat(row, size)
