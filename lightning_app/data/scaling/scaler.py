"""Scaling fitted on training rows only, exactly and out of core, and kept for the next time."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lightning_app.data.scaling.quantiles import quantiles
from lightning_app.data.windows.splits import Split, target_rows
from zstore import Moments, NotFiniteError, Scaling, Store, UsageError

ScalerKind = Literal["standard", "minmax", "robust", "log1p", "none"]
ScaledBy = Literal["channel", "series"]
Float64 = NDArray[np.float64]
Codes = tuple[NDArray[np.int64] | None, ...]

_QUARTILES = (0.25, 0.5, 0.75)
_RULES = 2  # how offsets and scales are worked out; another number fits all of them anew
_NAMED = 3  # rows that an error names


@dataclass(frozen=True)
class Scaler:
    """``scaled = (value - offset) / scale`` per channel; where `log` is set, of ``log(1 + value)``.

    Parameters
    ----------
    channels
        Names of the channels.
    offset, scale
        (channel,), or (series, channel) where each series has its own; float64.
    log
        (channel,) bool.
    fitted_on
        What it was fitted on, see :func:`fitted_on`; empty for source units.
    codes
        (channel,) what stands for each code of a store where a checkpoint has other codes, see :class:`zstore.Scaling`.
    """

    channels: tuple[str, ...]
    offset: Float64
    scale: Float64
    log: NDArray[np.bool_]
    fitted_on: str = ""
    codes: Codes = ()

    @classmethod
    def identity(cls, channels: Sequence[str]) -> Scaler:
        """Source units."""
        n_channels = len(channels)
        return cls(tuple(channels), np.zeros(n_channels), np.ones(n_channels), np.zeros(n_channels, bool))

    @property
    def scaling(self) -> Scaling:
        """What the store decodes rows with."""
        return Scaling(self.offset, self.scale, self.log, self.codes)

    @property
    def source_units(self) -> Scaling:
        """Source units, with the same codes."""
        n_channels = len(self.channels)
        return Scaling(np.zeros(n_channels), np.ones(n_channels), np.zeros(n_channels, bool), self.codes)

    def of(self, channels: Sequence[str]) -> Scaler:
        """The scaler of some of its channels, in their order."""
        positions = [self.channels.index(name) for name in channels]
        return Scaler(
            tuple(channels),
            self.offset[..., positions],
            self.scale[..., positions],
            self.log[positions],
            self.fitted_on,
            tuple(self.codes[position] for position in positions) if self.codes else (),
        )

    def by_id(self, ids: Sequence[str], wanted: Sequence[str], others: tuple[Float64, Float64]) -> Scaler:
        """A scaler by series, of the ids `ids`, for other series: those of the same id, and `others` for the rest."""
        row = {id_: number for number, id_ in enumerate(ids)}
        rows = [row.get(id_, len(row)) for id_ in wanted]
        parts = zip((self.offset, self.scale), others, strict=True)
        offset, scale = (np.concatenate([part, other[None]])[rows] for part, other in parts)
        return replace(self, offset=offset, scale=scale)

    def to_json(self) -> dict[str, Any]:
        """Plain values for checkpoints and the cache."""
        return {
            "channels": list(self.channels),
            "offset": self.offset.tolist(),
            "scale": self.scale.tolist(),
            "log": self.log.tolist(),
            "fitted_on": self.fitted_on,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Scaler:
        """Read :meth:`to_json` back.

        Raises
        ------
        UsageError
            If it is nothing of the kind, or not finite, or has a scale of 0 or less.
        """
        try:
            offset, scale = (np.array(document[name], np.float64) for name in ("offset", "scale"))
            channels, log, fitted = document["channels"], document["log"], document["fitted_on"]
            if isinstance(channels, str) or not all(isinstance(name, str) for name in [*channels, fitted]):
                raise ValueError("names that are no texts")
            if not all(isinstance(each, bool) for each in log):
                raise ValueError("logarithms that are neither on nor off")
            lengths = {len(channels), len(log), *offset.shape[-1:]}
            if offset.shape != scale.shape or offset.ndim not in (1, 2) or len(lengths) > 1:
                raise ValueError(f"offsets {offset.shape} and scales {scale.shape} of {len(channels)} channels")
            if not (np.isfinite(offset).all() and np.isfinite(scale).all() and (scale > 0).all()):
                raise ValueError("offsets or scales that are not finite, or scales that are not positive")
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(
                f"a scaler that is none ({error})",
                expected="an offset and a scale of each channel",
                fix="another --ckpt_path, or fit again",
            ) from None
        return cls(tuple(channels), offset, scale, np.array(log, bool), fitted)


def fit_scaler(
    store: Store,
    split: Split,
    channels: Sequence[str],
    kind: ScalerKind | Mapping[str, ScalerKind],
    cache: Path,
    by: ScaledBy = "channel",
    members: NDArray[np.bool_] | None = None,
) -> Scaler:
    """The scaler of a store's training rows, from the cache if it was fitted before.

    Parameters
    ----------
    store, split
        Where the training rows are.
    channels
        What is scaled.
    kind
        ``standard``: mean 0 and standard deviation 1 (ddof 0). ``minmax``: from 0 to 1. ``robust``: median 0 and
        interquartile range 1. ``log1p``: ``standard``, of ``log(1 + value)``. ``none``: source units. One for all
        channels, or one by name; those not named are ``standard``. What does not vary in the training
        rows, where its smallest value is its largest, has scale 1.
    cache
        Folder of fitted scalers.
    by
        Whether a channel has one offset and scale, or each series its own. A series without any observed training
        value has those of the channel.
    members
        (series,) which series it is fitted on; None for all.

    Raises
    ------
    UsageError
        If a channel is named that there is none of, or has values of -1 or less for a logarithm.
    NotFiniteError
        If a training value is infinite, or they spread too far for float64; it names the channel and the first rows.

    Notes
    -----
    Missing values are left out. Cost: decodes `channels` once, one shard at a time (``robust``: by channel twice);
    later calls read a small file. Quantiles are exact.
    """
    kinds = channel_kinds(channels, kind)
    fitted = fitted_on(store, split, kinds, by, members)
    training = Training(store, split, members)
    path = cache / f"scaler-{fitted}.json"
    if path.exists():
        with suppress(ValueError, RecursionError):  # cut off or damaged: it is fitted anew
            kept = Scaler.from_json(json.loads(path.read_text()))
            if kept.fitted_on == fitted and list(kept.channels) == list(channels):
                return kept
    count = store.n_series if by == "series" and set(kinds.values()) != {"none"} else 1
    columns = [_fit(training, name, kinds[name], count) for name in channels]
    offset, scale = (np.stack(parts, axis=-1) for parts in zip(*columns, strict=True))
    for position, name in enumerate(channels):
        if not (np.isfinite(offset[:, position]).all() and np.isfinite(scale[:, position]).all()):
            raise NotFiniteError(
                f"a {kinds[name]} scaler of channel {name!r} that is not finite",
                expected="training values that float64 can subtract from each other",
                where=store.path,
                fix="another --data.scaler for it, or leave it out with --data.channels",
            )
    if count == 1:
        offset, scale = offset[0], scale[0]
    log = np.array([kinds[name] == "log1p" for name in channels])
    scaler = Scaler(tuple(channels), offset, np.where(scale > 0, scale, 1.0), log, fitted)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps(scaler.to_json()))
    os.replace(temporary, path)
    return scaler


def fitted_on(
    store: Store,
    split: Split,
    kinds: Mapping[str, ScalerKind],
    by: ScaledBy,
    members: NDArray[np.bool_] | None = None,
) -> str:
    """Digest of all that a scaler depends on: the store and its version, the split, each channel's kind, the series."""
    key = [_RULES, store.digest, split.digest(), list(kinds.items()), by]
    key += [] if members is None else [np.flatnonzero(members).tolist()]
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]


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


def scaled_std(training: Training, scaler: Scaler) -> Float64:
    """(series, channel) population standard deviation of each series' scaled training values.

    That of the channel, 1 in most scalers, where a series has none. Cost: decodes the channels once.
    """
    columns = []
    for position, name in enumerate(scaler.channels):
        spread = _filled(training, name, training.store.n_series, log=bool(scaler.log[position]))
        columns.append(spread.std / scaler.scale[..., position])
    return np.stack(columns, axis=-1)


def source_std(training: Training, channels: Sequence[str]) -> Float64:
    """(series, channel) population standard deviation of each series' training values in source units.

    That of the channel where a series has none. Cost: decodes the channels once.
    """
    n_series = training.store.n_series
    return np.stack([_filled(training, name, n_series, log=False).std for name in channels], axis=-1)


def channel_kinds(channels: Sequence[str], kind: ScalerKind | Mapping[str, ScalerKind]) -> dict[str, ScalerKind]:
    """The kind of the scaler of each channel."""
    if isinstance(kind, str):
        return dict.fromkeys(channels, kind)
    for name in kind:
        if name not in channels:
            raise UsageError(
                f"a scaler for channel {name!r}",
                expected=f"one of those in use: {', '.join(channels)}",
                fix="change --data.scaler",
            )
    return {name: kind.get(name, "standard") for name in channels}


def _fit(training: Training, channel: str, kind: ScalerKind, count: int) -> tuple[Float64, Float64]:
    """(count,) offset and scale of a channel, over all series or of each."""
    if kind == "none":
        return np.zeros(count), np.ones(count)
    _refuse_infinite(training, channel)
    if kind == "robust":
        return _robust(training, channel, count)
    if kind == "log1p" and (low := _lowest(training.store, channel)) <= -1:
        raise UsageError(
            f"a logarithm of channel {channel!r}, which has {low:g}",
            expected="values greater than -1",
            where=training.store.path,
            fix="another --data.scaler for it",
        )
    spread = _filled(training, channel, count, log=kind == "log1p")
    if kind == "minmax":
        with np.errstate(over="ignore"):
            return spread.low, spread.high - spread.low
    return spread.mean, spread.std


@dataclass(frozen=True)
class _Spread:
    """What scalers take from some values: (group,) count, and mean, deviation, lowest and highest, 0 of no values."""

    count: NDArray[np.int64]
    mean: Float64
    std: Float64
    low: Float64
    high: Float64

    @classmethod
    def of(cls, moments: Moments, unit: Float64) -> _Spread:
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


def _spread(training: Training, channel: str, count: int, log: bool) -> _Spread:
    """Of the training rows of a channel, over all series or of each."""
    spread = _Spread.of(_moments(training, channel, count, log, np.ones(count)), np.ones(count))
    if not spread.lost.any():
        return spread
    largest = np.maximum(np.abs(spread.low), np.abs(spread.high))
    unit = np.where(spread.lost, np.ldexp(1.0, np.frexp(largest)[1] - 1), 1.0)  # so that squares are near 1
    return _Spread.of(_moments(training, channel, count, log, unit), unit)


def _filled(training: Training, channel: str, count: int, log: bool) -> _Spread:
    """As :func:`_spread`; series without any observed training value have what the channel has."""
    spread = _spread(training, channel, count, log)
    blank = spread.count == 0
    if count == 1 or not blank.any():
        return spread
    total = _spread(training, channel, 1, log)
    pairs = zip(vars(spread).values(), vars(total).values(), strict=True)
    return _Spread(*(np.where(blank, whole, own) for own, whole in pairs))


def _refuse_infinite(training: Training, channel: str) -> None:
    """Refuse training rows that are infinite. Cost: nothing, where the store's moments know of none."""
    store, moments = training.store, training.store.moments
    column = store.channels.index(store.channel(channel).name)
    ends = np.stack([moments.low[:, column], moments.high[:, column]])[:, moments.count[:, column] > 0]
    if np.isfinite(ends).all():
        return
    starts, stops = target_rows(store, training.split, "train", training.members)
    named: list[str] = []
    n_infinite = 0
    for start, stop, series in zip(starts.tolist(), stops.tolist(), store.index.runs.series.tolist(), strict=True):
        values = store.read(channel, start, stop)
        rows = np.flatnonzero(np.isinf(values))
        n_infinite += len(rows)
        for row in rows[: _NAMED - len(named)].tolist():
            time = store.schema.time.show(int(store.times(start + row, start + row + 1)[0]))
            named.append(f"{values[row]:g} in {store.ids[series]} at {time}")
    if n_infinite:
        raise NotFiniteError(
            f"{n_infinite:,} infinite training values in channel {channel!r} ({', '.join(named)})",
            expected="finite numbers",
            where=store.path,
            fix="correct the source, or ingest it with those values as missing; or leave the channel out with "
            "--data.channels and --data.targets",
        )


def _lowest(store: Store, channel: str) -> float:
    return float(store.moments.low[:, store.channels.index(store.channel(channel).name)].min())


def _moments(training: Training, channel: str, count: int, log: bool, unit: Float64) -> Moments:
    """(count,) moments of the training rows of a channel over `unit`, (count,), over all series or of each."""
    moments, scaled = Moments.empty((count,)), bool((unit != 1).any())
    for series, starts, values in _training_parts(training, channel):
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


def _robust(training: Training, channel: str, count: int) -> tuple[Float64, Float64]:
    """(count,) median and interquartile range."""
    dtype = np.dtype(training.store.channel(channel).dtype)
    whole = quantiles(lambda: (values for _, _, values in _training_parts(training, channel)), _QUARTILES, dtype)
    quartiles = np.tile(whole, (count, 1))
    if count > 1:
        for series, values in _by_series(_training_parts(training, channel)):
            seen = values[~np.isnan(values)]
            if len(seen):
                quartiles[series] = np.quantile(seen.astype(dtype).astype(np.float64), _QUARTILES)
    with np.errstate(over="ignore"):
        return quartiles[:, 1], quartiles[:, 2] - quartiles[:, 0]


def _by_series(
    parts: Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]],
) -> Iterator[tuple[int, NDArray[Any]]]:
    """All values of each series at once: rows are sorted by series, so only the last of a part may go on."""
    last, kept = -1, [np.zeros(0)]
    for series, starts, values in parts:
        for number, own in zip(series.tolist(), np.split(values, starts[1:]), strict=True):
            if number != last and last >= 0:
                yield last, np.concatenate(kept)
            kept = [*kept, own] if number == last else [own]
            last = number
    if last >= 0:
        yield last, np.concatenate(kept)


def _training_parts(
    training: Training, channel: str
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]]:
    """Training rows of a channel by shard: (segment,) series and first value of each segment, and (row,) values."""
    store = training.store
    starts, stops = target_rows(store, training.split, "train", training.members)
    kept = stops > starts
    starts, stops, series = starts[kept], stops[kept], store.index.runs.series[kept]
    size = store.schema.shard_rows
    for low in range(0, store.n_rows, size):
        high = min(low + size, store.n_rows)
        inside = (starts < high) & (stops > low)
        if not inside.any():
            continue
        first, last = np.maximum(starts[inside], low) - low, np.minimum(stops[inside], high) - low
        values = training.read(channel, low, high)[_covered(first, last)]
        begins = np.cumsum(last - first) - (last - first)
        owner = series[inside]
        new = np.diff(owner, prepend=-1) != 0
        yield owner[new], begins[new], values


def _covered(starts: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.int64]:
    """All rows of some ranges."""
    sizes = stops - starts
    return np.repeat(starts - np.cumsum(sizes) + sizes, sizes) + np.arange(int(sizes.sum()))
