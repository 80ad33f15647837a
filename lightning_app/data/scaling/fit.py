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
from lightning_app.data.scaling.scaler import ScaledBy, Scaler, ScalerKind, channel_kinds
from lightning_app.data.scaling.training import Training, filled_spread, training_parts
from lightning_app.data.windows.borders import target_rows
from lightning_app.data.windows.splits import Split
from zstore import NotFiniteError, Store, UsageError

Float64 = NDArray[np.float64]
_QUARTILES = (0.25, 0.5, 0.75)
_RULES = 2  # how offsets and scales are worked out; another number fits all of them anew


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
    Missing values are left out. Cost: decodes `channels` once, a shard for each thread of PyTorch at a time
    (``robust``: by channel twice); later calls read a small file. Quantiles are exact.
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
    with ThreadPoolExecutor(torch.get_num_threads(), "scaler") as pool:
        columns = list(pool.map(lambda name: _fit(training, name, kinds[name], count), channels))
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
    spread = filled_spread(training, channel, count, log=kind == "log1p")
    if kind == "minmax":
        with np.errstate(over="ignore"):
            return spread.low, spread.high - spread.low
    return spread.mean, spread.std


def _refuse_infinite(training: Training, channel: str) -> None:
    """Refuse training rows that are infinite. Cost: nothing, where the store's moments know of none."""
    store, moments = training.store, training.store.moments
    column = store.channels.index(store.channel(channel).name)
    ends = np.stack([moments.low[:, column], moments.high[:, column]])[:, moments.count[:, column] > 0]
    if np.isfinite(ends).all():
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
    return float(store.moments.low[:, store.channels.index(store.channel(channel).name)].min())


def _robust(training: Training, channel: str, count: int) -> tuple[Float64, Float64]:
    """(count,) median and interquartile range."""
    dtype = np.dtype(training.store.channel(channel).dtype)
    whole = quantiles(lambda: (values for _, _, values in training_parts(training, channel)), _QUARTILES, dtype)
    quartiles = np.tile(whole, (count, 1))
    if count > 1:
        for series, values in _by_series(training_parts(training, channel)):
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
