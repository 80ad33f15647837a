"""The offset and scale of each channel, as they are applied and as checkpoints keep them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lightning_app.data.scaling.entries import by_channel
from zstore import Scaling, UsageError

ScalerKind = Literal["standard", "minmax", "minmax_signed", "quantile", "robust", "log1p", "none"]
ScaledBy = Literal["channel", "series"]
Float64 = NDArray[np.float64]
Codes = tuple[NDArray[np.int64] | None, ...]


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
    clipped
        Names of the channels whose scaled inputs are clipped to [−1, 1]. Targets never are.
    """

    channels: tuple[str, ...]
    offset: Float64
    scale: Float64
    log: NDArray[np.bool_]
    fitted_on: str = ""
    codes: Codes = ()
    clipped: tuple[str, ...] = ()

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
            tuple(name for name in self.clipped if name in channels),
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
            "clipped": list(self.clipped),
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
            clipped = document.get("clipped", [])  # not in older checkpoints
            if isinstance(clipped, str) or not set(clipped) <= set(channels):
                raise ValueError("clipped channels that are none of these")
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
        return cls(tuple(channels), offset, scale, np.array(log, bool), fitted, clipped=tuple(clipped))


def channel_kinds(
    channels: Sequence[str],
    kind: ScalerKind | Mapping[str, ScalerKind],
    vectors: Mapping[str, Sequence[str]],
) -> dict[str, ScalerKind]:
    """The kind of the scaler of each channel; ``standard`` where no entry fits."""
    if isinstance(kind, str):
        return dict.fromkeys(channels, kind)
    kinds = by_channel(kind, channels, vectors, "scaler")
    return {name: kinds.get(name, "standard") for name in channels}


def channel_floors(
    channels: Sequence[str], floor: float | Mapping[str, float], vectors: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """The smallest deviation or range of each channel that has one."""
    for value in [floor] if isinstance(floor, (int, float)) else floor.values():
        if not 0 <= value < float("inf"):
            raise UsageError(
                f"scale_floor {value}", expected="0, or a finite number above it", fix="change --data.scale_floor"
            )
    if isinstance(floor, (int, float)):
        return dict.fromkeys(channels, float(floor)) if floor else {}
    floors = by_channel(floor, channels, vectors, "scale_floor")
    return {name: float(value) for name, value in floors.items() if value}
