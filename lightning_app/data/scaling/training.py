"""The training rows of a store, and how they spread."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_app.data.scaling.scaler import Scaler
from lightning_app.data.windows.borders import TargetRows
from lightning_app.data.windows.splits import Split
from zstore import Moments, Store

Float64 = NDArray[np.float64]

_LONG = 256  # values, from which on a range is copied by itself


@dataclass(frozen=True)
class Training:
    """The training rows of a store, or of some of its series; `codes` by channel as :class:`Scaler` has them."""

    store: Store
    split: Split
    members: NDArray[np.bool_] | None = None
    codes: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)

    def read(self, channel: str, start: int, stop: int) -> NDArray[Any]:
        """Rows of a channel, NaN where missing."""
        values, codes = self.store.read(channel, start, stop), self.codes.get(channel)
        if codes is None or not len(codes):
            return values
        seen = np.isfinite(values)
        values[seen] = codes[values[seen].astype(np.int64)]
        return values


def scaled_std(training: Training, scaler: Scaler, filled: bool = True) -> Float64:
    """(series, channel) population standard deviation of each series' scaled training values.

    Where a series has none it is that of the channel, 1 in most scalers, or 0 unless `filled`. Cost: decodes the
    channels once.
    """
    columns = []
    for position, name in enumerate(scaler.channels):
        spread_of = filled_spread if filled else _spread
        spread = spread_of(training, name, training.store.n_series, log=bool(scaler.log[position]))
        columns.append(spread.std / scaler.scale[..., position])
    return np.stack(columns, axis=-1)


def source_std(training: Training, channels: Sequence[str]) -> Float64:
    """(series, channel) population standard deviation of each series' training values in source units.

    That of the channel where a series has none. Cost: decodes the channels once.
    """
    n_series = training.store.n_series
    return np.stack([filled_spread(training, name, n_series, log=False).std for name in channels], axis=-1)


@dataclass(frozen=True)
class Spread:
    """What scalers take from some values: (group,) count, and mean, deviation, lowest and highest, 0 of no values."""

    count: NDArray[np.int64]
    mean: Float64
    std: Float64
    low: Float64
    high: Float64

    @classmethod
    def of(cls, moments: Moments, unit: Float64) -> Spread:
        """From moments of values that were divided by a power of 2."""
        seen, constant = moments.count > 0, moments.low == moments.high
        low, high = (np.where(seen, ends, 0.0) * unit for ends in (moments.low, moments.high))
        mean = np.where(constant, moments.low, moments.mean)
        return cls(moments.count, np.where(seen, mean, 0.0) * unit, moments.std * unit, low, high)

    @property
    def lost(self) -> NDArray[np.bool_]:
        """Groups whose sums or squares left the range of float64, above or below."""
        sound = np.isfinite(self.mean) & np.isfinite(self.std) & ((self.std > 0) | (self.low == self.high))
        lost: NDArray[np.bool_] = (self.count > 0) & np.isfinite(self.low) & np.isfinite(self.high) & ~sound
        return lost


def _spread(training: Training, channel: str, count: int, log: bool) -> Spread:
    """Of the training rows of a channel, over all series or of each."""
    spread = Spread.of(_moments(training, channel, count, log, np.ones(count)), np.ones(count))
    if not spread.lost.any():
        return spread
    largest = np.maximum(np.abs(spread.low), np.abs(spread.high))
    unit = np.where(spread.lost, np.ldexp(1.0, np.frexp(largest)[1] - 1), 1.0)  # so that squares are near 1
    return Spread.of(_moments(training, channel, count, log, unit), unit)


def filled_spread(training: Training, channel: str, count: int, log: bool) -> Spread:
    """As :func:`_spread`; series without any observed training value have what the channel has."""
    spread = _spread(training, channel, count, log)
    blank = spread.count == 0
    if count == 1 or not blank.any():
        return spread
    total = _spread(training, channel, 1, log)
    pairs = zip(vars(spread).values(), vars(total).values(), strict=True)
    return Spread(*(np.where(blank, whole, own) for own, whole in pairs))


def _moments(training: Training, channel: str, count: int, log: bool, unit: Float64) -> Moments:
    """(count,) moments of the training rows of a channel over `unit`, (count,), over all series or of each."""
    moments, scaled = Moments.empty((count,)), bool((unit != 1).any())
    for series, starts, values in training_parts(training, channel):
        values = np.log1p(values.astype(np.float64)) if log else values
        if scaled:
            sizes = np.diff(np.append(starts, len(values)))
            values = values / (unit[0] if count == 1 else np.repeat(unit[series], sizes))
        if count == 1:
            moments = moments.merge(Moments.of_segments(values, np.zeros(1, np.int64)))
        else:
            merged = moments.at(series).merge(Moments.of_segments(values, starts))
            for old, new in zip(moments.fields().values(), merged.fields().values(), strict=True):
                old[series] = new
    return moments


def training_parts(
    training: Training, channel: str
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]]:
    """Training rows of a channel by shard: (segment,) series and first value of each segment, and (row,) values."""
    store, runs = training.store, training.store.index.runs
    targets, size = TargetRows(store, training.split, training.members), store.schema.shard_rows
    # Without a regular rule, borders are found by reading the times of whole runs: once, not again for each shard.
    every = None if store.time.rule.regular else targets.of("train")
    for low in range(0, store.n_rows, size):
        high = min(low + size, store.n_rows)
        some = slice(int(np.searchsorted(runs.stop, low, side="right")), int(np.searchsorted(runs.start, high)))
        starts, stops = targets.of("train", some) if every is None else (every[0][some], every[1][some])
        first, last = np.maximum(starts, low) - low, np.minimum(stops, high) - low
        kept = last > first
        if not kept.any():
            continue
        first, last, owner = first[kept], last[kept], runs.series[some][kept]
        values = _covered(training.read(channel, low, high), first, last)
        begins = np.cumsum(last - first) - (last - first)
        new = np.diff(owner, prepend=-1) != 0
        yield owner[new], begins[new], values


def _covered(values: NDArray[Any], starts: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[Any]:
    """The values of some ranges, beside each other."""
    sizes = stops - starts
    n_values = int(sizes.sum())
    if n_values >= _LONG * len(sizes):
        return np.concatenate([values[start:stop] for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)])
    turns = np.zeros(len(values) + 1, np.int8)
    turns[starts] += 1
    turns[stops] -= 1
    return values[np.cumsum(turns[:-1], dtype=np.int8).view(np.bool_)]
