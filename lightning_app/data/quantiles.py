"""Exact quantiles of more values than fit into memory: two passes of counting, as a radix sort would.

The bits of a float32, its sign taken care of, order as the numbers do. A first pass counts the upper 16 bits, which
tells in which of 65,536 bins each wanted rank lies; a second pass counts the lower 16 bits inside those bins alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BINS = 1 << 16


def quantiles(blocks: Callable[[], Iterable[NDArray[Any]]], shares: Sequence[float]) -> NDArray[np.float64]:
    """Quantiles, interpolated linearly as ``numpy.quantile`` does.

    Parameters
    ----------
    blocks
        Called twice for the same values, in blocks of any size; NaN is left out.
    shares
        (quantile,) in ``[0, 1]``.

    Returns
    -------
    (quantile,) float64, exact for the values as float32; 0 if there are none. Memory: a block, and 0.5 MB a quantile.
    """
    upper = np.zeros(_BINS, np.int64)
    for block in blocks():
        upper += np.bincount(_keys(block) >> np.uint32(16), minlength=_BINS)
    ends, total = np.cumsum(upper), int(upper.sum())
    if not total:
        return np.zeros(len(shares))
    places = np.array(shares) * (total - 1)
    ranks = np.stack([np.floor(places), np.ceil(places)]).astype(np.int64)
    bins = np.searchsorted(ends, ranks, side="right")
    wanted = np.unique(bins)
    lower = np.zeros((len(wanted), _BINS), np.int64)
    for block in blocks():
        keys = _keys(block)
        at = keys >> np.uint32(16)
        for number, bin_ in enumerate(wanted.tolist()):
            lower[number] += np.bincount(keys[at == bin_] & np.uint32(_BINS - 1), minlength=_BINS)
    row = np.searchsorted(wanted, bins)
    rest = ranks - (ends - upper)[bins]
    inner = np.cumsum(lower, axis=1)
    low_bits = np.array([np.searchsorted(inner[r], n, side="right") for r, n in zip(row.flat, rest.flat, strict=True)])
    found = _values((bins.astype(np.uint32) << np.uint32(16)) | low_bits.reshape(bins.shape).astype(np.uint32))
    low, high = found.astype(np.float64)
    exact: NDArray[np.float64] = low + (high - low) * (places - ranks[0])
    return exact


def _keys(values: NDArray[Any]) -> NDArray[np.uint32]:
    """Unsigned numbers in the order of the values, NaN left out."""
    seen = values[~np.isnan(values)].astype(np.float32)
    bits = seen.view(np.uint32)
    keys: NDArray[np.uint32] = np.where(bits >> np.uint32(31), ~bits, bits | np.uint32(1 << 31))
    return keys


def _values(keys: NDArray[np.uint32]) -> NDArray[np.float32]:
    bits = np.where(keys >> np.uint32(31), keys & np.uint32((1 << 31) - 1), ~keys).astype(np.uint32)
    return bits.view(np.float32)
