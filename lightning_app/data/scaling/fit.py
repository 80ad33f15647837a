"""Scalers fitted on training rows only, exactly and out of core, and kept for the next time."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_app.data.infinite import infinite_values
from lightning_app.data.scaling.quantiles import quantiles
from lightning_app.data.scaling.scaler import ScaledBy, Scaler, ScalerKind, channel_floors, channel_kinds
from lightning_app.data.scaling.training import Training, filled_spread, training_parts
from lightning_app.data.windows.borders import target_rows
from lightning_app.data.windows.splits import Split
from zstore import NotFiniteError, Store, UsageError

Float64 = NDArray[np.float64]
_QUARTILES = (0.25, 0.5, 0.75)
_PERCENTILES = (0.01, 0.99)
_RULES = 2  # how offsets and scales are worked out; another number fits all of them anew


def fit_scaler(
    store: Store,
    split: Split,
    channels: Sequence[str],
    kind: ScalerKind | Mapping[str, ScalerKind],
    cache: Path,
    by: ScaledBy = "channel",
    members: NDArray[np.bool_] | None = None,
    floor: float | Mapping[str, float] = 0.0,
) -> Scaler:
    """The scaler of a store's training rows, from the cache if it was fitted before.

    Parameters
    ----------
    store, split
        Where the training rows are.
    channels
        What is scaled.
    kind
        ``standard``: mean 0 and standard deviation 1 (ddof 0). ``minmax``: from 0 to 1. ``minmax_signed``: from −1 to
        1. ``quantile``: the 1st percentile to −1, the 99th to 1; inputs beyond them are clipped, targets are not.
        ``robust``: median 0 and interquartile range 1. ``log1p``: ``standard``, of ``log(1 + value)``. ``none``: source
        units. One for all channels, or by name, vector or pattern, see :func:`by_channel`; where none fits,
        ``standard``. Where the deviation or range that is divided by is 0, as of what does not vary in the training
        rows, the scale is 1.
    cache
        Folder of fitted scalers.
    by
        Whether a channel has one offset and scale, or each series its own. A series without any observed training
        value has those of the channel.
    members
        (series,) which series it is fitted on; None for all.
    floor
        The smallest deviation (of logarithms for ``log1p``) or range that is divided by, in source units: a smaller
        one, 0 too, counts as this. For all channels, or as `kind` by name, vector or pattern. Default: none.

    Raises
    ------
    UsageError
        If an entry of `kind` or `floor` is about no channel, or a channel has values of -1 or less for a logarithm.
    NotFiniteError
        If a training value is infinite, or they spread too far for float64; it names the channel and the first rows.

    Notes
    -----
    Missing values are left out. Cost: decodes `channels` once, a shard for each thread of PyTorch at a time; for
    exact quantiles of more than 16 million rows three times or more. Later calls read a small file.
    """
    kinds = channel_kinds(channels, kind, store.vectors)
    floors = channel_floors(channels, floor, store.vectors)
    fitted = fitted_on(store, split, kinds, by, members, floors)
    training = Training(store, split, members)
    path = cache / f"scaler-{fitted}.json"
    if path.exists():
        with suppress(ValueError, RecursionError):  # cut off or damaged: it is fitted anew
            kept = Scaler.from_json(json.loads(path.read_text()))
            if kept.fitted_on == fitted and list(kept.channels) == list(channels):
                return kept
    count = store.n_series if by == "series" and set(kinds.values()) != {"none"} else 1
    with ThreadPoolExecutor(torch.get_num_threads(), "scaler") as pool:
        fits = pool.map(lambda name: _fit(training, name, kinds[name], count, floors.get(name, 0.0)), channels)
        columns = list(fits)
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
    clipped = tuple(name for name in channels if kinds[name] == "quantile")
    scaler = Scaler(tuple(channels), offset, np.where(scale > 0, scale, 1.0), log, fitted, clipped=clipped)
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
    floors: Mapping[str, float] | None = None,
) -> str:
    """Digest of all that a scaler depends on: the store, the split, each channel's kind and floor, the series."""
    key = [_RULES, store.digest, split.digest(), list(kinds.items()), by]
    key += [] if members is None else [np.flatnonzero(members).tolist()]
    key += [dict(floors)] if floors else []
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]


def _fit(training: Training, channel: str, kind: ScalerKind, count: int, floor: float) -> tuple[Float64, Float64]:
    """(count,) offset and scale of a channel, over all series or of each."""
    if kind == "none":
        return np.zeros(count), np.ones(count)
    _refuse_infinite(training, channel)
    if kind == "log1p" and (low := _lowest(training.store, channel)) <= -1:
        raise UsageError(
            f"a logarithm of channel {channel!r}, which has {low:g}",
            expected="values greater than -1",
            where=training.store.path,
            fix="another --data.scaler for it",
        )
    if kind == "robust":
        low, middle, high = _quantiles(training, channel, count, _QUARTILES).T
        return middle, _range(low, high, floor)
    if kind == "quantile":
        low, high = _quantiles(training, channel, count, _PERCENTILES).T
        return _signed(low, high, floor)
    spread = filled_spread(training, channel, count, log=kind == "log1p")
    if kind == "minmax":
        return spread.low, _range(spread.low, spread.high, floor)
    if kind == "minmax_signed":
        return _signed(spread.low, spread.high, floor)
    return spread.mean, np.maximum(spread.std, floor)


def _range(low: Float64, high: Float64, floor: float) -> Float64:
    with np.errstate(over="ignore"):  # the caller refuses what is not finite
        return np.maximum(high - low, floor)


def _signed(low: Float64, high: Float64, floor: float) -> tuple[Float64, Float64]:
    """(count,) offset and scale that bring these ends to −1 and 1."""
    return low / 2 + high / 2, _range(low, high, floor) / 2


def _refuse_infinite(training: Training, channel: str) -> None:
    """Refuse training rows that are infinite. Cost: nothing, where the store's moments know of none."""
    store = training.store
    if not store.n_infinite_series(channel):
        return
    starts, stops = target_rows(store, training.split, "train", training.members)
    ranges = zip(store.index.runs.series.tolist(), starts.tolist(), stops.tolist(), strict=True)
    n_infinite, named = infinite_values(store, channel, ranges)
    if n_infinite:
        raise NotFiniteError(
            f"{n_infinite:,} infinite training values in channel {channel!r} ({named})",
            expected="finite numbers",
            where=store.path,
            fix="correct the source, or ingest it with those values as missing; or leave the channel out with "
            "--data.channels and --data.targets",
        )


def _lowest(store: Store, channel: str) -> float:
    return float(store.extremes[0][store.channels.index(store.channel(channel).name)])


def _quantiles(training: Training, channel: str, count: int, shares: tuple[float, ...]) -> Float64:
    """(count, quantile) over all series or of each; those of the channel where a series has no value."""
    dtype = np.dtype(training.store.channel(channel).dtype)
    whole = quantiles(lambda: (values for _, _, values in training_parts(training, channel)), shares, dtype)
    found = np.tile(whole, (count, 1))
    if count > 1:
        for series, values in _by_series(training_parts(training, channel)):
            seen = values[~np.isnan(values)]
            if len(seen):
                found[series] = np.quantile(seen.astype(dtype).astype(np.float64), shares)
    return found


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
