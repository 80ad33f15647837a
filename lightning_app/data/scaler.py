"""Scaling fitted on training rows only, exactly and out of core, and kept for the next time."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lightning_app.data.quantiles import quantiles
from lightning_app.data.splits import Split, target_rows
from zstore import Moments, Scaling, Store, UsageError

ScalerKind = Literal["standard", "minmax", "robust", "log1p", "none"]
ScaledBy = Literal["channel", "series"]
Float64 = NDArray[np.float64]

_QUARTILES = (0.25, 0.5, 0.75)


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
    """

    channels: tuple[str, ...]
    offset: Float64
    scale: Float64
    log: NDArray[np.bool_]
    fitted_on: str = ""

    @classmethod
    def identity(cls, channels: Sequence[str]) -> Scaler:
        """Source units."""
        n_channels = len(channels)
        return cls(tuple(channels), np.zeros(n_channels), np.ones(n_channels), np.zeros(n_channels, bool))

    @property
    def scaling(self) -> Scaling:
        """What the store decodes rows with."""
        return Scaling(self.offset, self.scale, self.log)

    def of(self, channels: Sequence[str]) -> Scaler:
        """The scaler of some of its channels, in their order."""
        positions = [self.channels.index(name) for name in channels]
        return Scaler(
            tuple(channels),
            self.offset[..., positions],
            self.scale[..., positions],
            self.log[positions],
            self.fitted_on,
        )

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
        """Read :meth:`to_json` back."""
        offset, scale = (np.array(document[name], np.float64) for name in ("offset", "scale"))
        return cls(tuple(document["channels"]), offset, scale, np.array(document["log"], bool), document["fitted_on"])


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
        channels, or one by name; those not named are ``standard``. What does not vary has scale 1.
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

    Notes
    -----
    Missing values are left out. Cost: decodes `channels` once, one shard at a time (``robust``: by channel twice);
    later calls read a small file. Quantiles are exact, of values as float32.
    """
    kinds = _kinds(channels, kind)
    fitted = fitted_on(store, split, kinds, by, members)
    training = Training(store, split, members)
    path = cache / f"scaler-{fitted}.json"
    if path.exists():
        kept = Scaler.from_json(json.loads(path.read_text()))
        if kept.fitted_on == fitted and list(kept.channels) == list(channels):
            return kept
    count = store.n_series if by == "series" and set(kinds.values()) != {"none"} else 1
    columns = [_fit(training, name, kinds[name], count) for name in channels]
    offset, scale = (np.stack(parts, axis=-1) for parts in zip(*columns, strict=True))
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
    key = [store.schema.uuid, store.version, split.digest(), list(kinds.items()), by]
    key += [] if members is None else [np.flatnonzero(members).tolist()]
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Training:
    """The training rows of a store, or of some of its series."""

    store: Store
    split: Split
    members: NDArray[np.bool_] | None = None


def scaled_std(training: Training, scaler: Scaler) -> Float64:
    """(series, channel) population standard deviation of each series' scaled training values.

    That of the channel, 1 in most scalers, where a series has none. Cost: decodes the channels once.
    """
    columns = []
    for position, name in enumerate(scaler.channels):
        moments = _moments(training, name, training.store.n_series, log=bool(scaler.log[position]))
        found = np.where(moments.count > 0, moments.std, moments.total().std)
        columns.append(found / scaler.scale[..., position])
    return np.stack(columns, axis=-1)


def _kinds(channels: Sequence[str], kind: ScalerKind | Mapping[str, ScalerKind]) -> dict[str, ScalerKind]:
    if isinstance(kind, str):
        return dict.fromkeys(channels, kind)
    for name in kind:
        if name not in channels:
            raise UsageError(
                f"a scaler for channel {name!r}",
                expected=f"one of those in use: {', '.join(channels)}",
                fix="mend --data.scaler",
            )
    return {name: kind.get(name, "standard") for name in channels}


def _fit(training: Training, channel: str, kind: ScalerKind, count: int) -> tuple[Float64, Float64]:
    """(count,) offset and scale of a channel, over all series or of each."""
    if kind == "none":
        return np.zeros(count), np.ones(count)
    if kind == "robust":
        return _robust(training, channel, count)
    if kind == "log1p" and (low := _lowest(training.store, channel)) <= -1:
        raise UsageError(
            f"a logarithm of channel {channel!r}, which has {low:g}",
            expected="values greater than -1",
            where=training.store.path,
            fix="another --data.scaler for it",
        )
    moments = _moments(training, channel, count, log=kind == "log1p")
    if count > 1 and (moments.count == 0).any():
        total = moments.total()
        blank = moments.count == 0
        moments = Moments(
            *(np.where(blank, whole, own) for own, whole in zip(_values(moments), _values(total), strict=True))
        )
    if kind == "minmax":
        seen = moments.count > 0
        return np.where(seen, moments.low, 0.0), np.where(seen, moments.high - moments.low, 1.0)
    return moments.mean, moments.std


def _values(moments: Moments) -> list[NDArray[Any]]:
    return list(moments.fields().values())


def _lowest(store: Store, channel: str) -> float:
    return float(store.moments.low[:, store.channels.index(store.channel(channel).name)].min())


def _moments(training: Training, channel: str, count: int, log: bool) -> Moments:
    """(count,) moments of the training rows of a channel, over all series or of each."""
    moments = Moments.empty((count,))
    for series, starts, values in _training_parts(training, channel):
        values = np.log1p(values.astype(np.float64)) if log else values
        if count == 1:
            moments = moments.merge(Moments.of_segments(values, np.zeros(1, np.int64)))
        else:
            merged = moments.at(series).merge(Moments.of_segments(values, starts))
            for old, new in zip(_values(moments), _values(merged), strict=True):
                old[series] = new
    return moments


def _robust(training: Training, channel: str, count: int) -> tuple[Float64, Float64]:
    whole = quantiles(lambda: (values for _, _, values in _training_parts(training, channel)), _QUARTILES)
    found = np.tile(whole, (count, 1))
    if count > 1:
        for series, values in _by_series(_training_parts(training, channel)):
            seen = values[~np.isnan(values)]
            if len(seen):
                found[series] = np.quantile(seen.astype(np.float32).astype(np.float64), _QUARTILES)
    return found[:, 1], found[:, 2] - found[:, 0]


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
        values = store.read(channel, low, high)[_covered(first, last)]
        begins = np.cumsum(last - first) - (last - first)
        owner = series[inside]
        new = np.diff(owner, prepend=-1) != 0
        yield owner[new], begins[new], values


def _covered(starts: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.int64]:
    """All rows of some ranges."""
    sizes = stops - starts
    return np.repeat(starts - np.cumsum(sizes) + sizes, sizes) + np.arange(int(sizes.sum()))
