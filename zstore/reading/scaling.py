"""How values are scaled while they are decoded."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import xxhash
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Scaling:
    """``(value - offset) / scale`` of each channel, or ``(log(1 + value) - offset) / scale``.

    Parameters
    ----------
    offset, scale
        (channel,), or (series, channel) where each series has its own.
    log
        (channel,) whether the logarithm of 1 + value is scaled instead of the value.
    codes
        (channel,) of channels of categories, (code,) the number that stands for each code of the store; None where
        codes stand for themselves. Empty: nowhere.
    """

    offset: Float64
    scale: Float64
    log: NDArray[np.bool_]
    codes: tuple[NDArray[np.int64] | None, ...] = field(default=())

    @classmethod
    def identity(cls, n_channels: int) -> Scaling:
        """Source units."""
        return cls(np.zeros(n_channels), np.ones(n_channels), np.zeros(n_channels, bool))

    @classmethod
    def linear(cls, offset: Float64, scale: Float64) -> Scaling:
        """Without any logarithm."""
        return cls(offset, scale, np.zeros(offset.shape[-1], bool))

    @property
    def per_series(self) -> bool:
        """Whether each series has its own offset and scale."""
        return self.offset.ndim == 2

    @property
    def changes(self) -> bool:
        """Whether it is anything but the identity."""
        return bool(self.log.any() or self.offset.any() or (self.scale != 1).any())

    @property
    def in_source_units(self) -> bool:
        """Whether values stay as they are, codes of categories too."""
        return not self.changes and all(codes is None for codes in self.codes)

    def codes_of(self, position: int) -> NDArray[np.int64] | None:
        """What stands for the codes of a channel; None where they stand for themselves."""
        return self.codes[position] if self.codes else None

    def digest(self) -> str:
        """What names it in caches."""
        parts = [np.ascontiguousarray(part).tobytes() for part in (self.offset, self.scale, self.log)]
        parts.append(bytes(str(self.offset.shape), "ascii"))
        parts += [f"{n}:{codes.tolist()}".encode() for n, codes in enumerate(self.codes) if codes is not None]
        return xxhash.xxh3_128_hexdigest(b"".join(parts))
