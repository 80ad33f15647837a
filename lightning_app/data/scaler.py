"""Standard scaling fitted on training rows only, exactly, and kept for the next time."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lightning_app.data.splits import Split, target_rows
from zstore import Moments, Store

ScalerKind = Literal["standard", "none"]


@dataclass(frozen=True)
class Scaler:
    """``scaled = (value - offset) / scale``, per channel.

    Parameters
    ----------
    channels
        Names of the channels.
    offset, scale
        (channel,) float64; the mean and the population standard deviation (ddof 0) of the training rows.
        A channel that does not vary has scale 1.
    """

    channels: tuple[str, ...]
    offset: NDArray[np.float64]
    scale: NDArray[np.float64]

    @classmethod
    def identity(cls, channels: Sequence[str]) -> Scaler:
        """Source units."""
        return cls(tuple(channels), np.zeros(len(channels)), np.ones(len(channels)))

    @classmethod
    def from_moments(cls, channels: Sequence[str], moments: Moments) -> Scaler:
        """Mean and standard deviation of moments of shape (channel,)."""
        return cls(tuple(channels), moments.mean, np.where(moments.std > 0, moments.std, 1.0))

    def of(self, channels: Sequence[str]) -> Scaler:
        """The scaler of some of its channels, in their order."""
        positions = [self.channels.index(name) for name in channels]
        return Scaler(tuple(channels), self.offset[positions], self.scale[positions])

    def to_json(self) -> dict[str, Any]:
        """Plain values for checkpoints and the cache."""
        return {"channels": list(self.channels), "offset": self.offset.tolist(), "scale": self.scale.tolist()}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Scaler:
        """Read :meth:`to_json` back."""
        return cls(tuple(document["channels"]), np.array(document["offset"]), np.array(document["scale"]))


def fit_scaler(store: Store, split: Split, channels: Sequence[str], kind: ScalerKind, cache: Path) -> Scaler:
    """The scaler of a store's training rows, from the cache if it was fitted before.

    Cost: decodes `channels` once, one shard at a time; later calls read a small file.
    """
    if kind == "none":
        return Scaler.identity(channels)
    key = json.dumps([store.schema.uuid, store.version, split.digest(), list(channels), kind])
    path = cache / f"scaler-{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    if path.exists():
        return Scaler.from_json(json.loads(path.read_text()))
    scaler = Scaler.from_moments(channels, training_moments(store, split, channels))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps(scaler.to_json()))
    os.replace(temporary, path)
    return scaler


def training_moments(store: Store, split: Split, channels: Sequence[str]) -> Moments:
    """Moments of shape (channel,) over the training rows, missing values left out."""
    starts, stops = target_rows(store, split, "train")
    kept = stops > starts
    starts, stops = starts[kept], stops[kept]
    moments = Moments.empty((len(channels),))
    size = store.schema.shard_rows
    for low in range(0, store.n_rows, size):
        high = min(low + size, store.n_rows)
        inside = (starts < high) & (stops > low)
        if not inside.any():
            continue
        rows = _covered(np.maximum(starts[inside], low) - low, np.minimum(stops[inside], high) - low)
        columns = [_column_moments(store.read(name, low, high)[rows]) for name in channels]
        moments = moments.merge(Moments(*(np.concatenate(parts) for parts in zip(*columns, strict=True))))
    return moments


def _covered(starts: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.int64]:
    """All rows of some ranges."""
    sizes = stops - starts
    return np.repeat(starts - np.cumsum(sizes) + sizes, sizes) + np.arange(int(sizes.sum()))


def _column_moments(values: NDArray[Any]) -> list[NDArray[Any]]:
    return list(Moments.of_segments(values, np.zeros(1, np.int64)).fields().values())
