"""Exact quantiles: of some millions of values by a sort, of more than fit into memory by passes of counting.

The bits of a float, its sign taken care of, order as the numbers do. A first pass counts the upper 16 bits, which tells
in which of 65,536 bins each wanted rank lies; each further pass counts the next 16 bits inside those bins alone: two
passes for float32, four for float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]

_KEPT = 1 << 24  # values
_DIGIT = 16
_BINS = 1 << _DIGIT


def quantiles(
    blocks: Callable[[], Iterable[NDArray[Any]]],
    shares: Sequence[float],
    dtype: np.dtype[Any] = np.dtype(np.float32),  # noqa: B008  # immutable
    most_kept: int = _KEPT,
) -> NDArray[np.float64]:
    """Quantiles, interpolated linearly as ``numpy.quantile`` does.

    Parameters
    ----------
    blocks
        Called once for the same values, in blocks of any size, and of more than `most_kept` once more for each pass;
        NaN is left out.
    shares
        (quantile,) in ``[0, 1]``.
    dtype
        float32 or float64, which the values are taken as. Default: float32.
    most_kept
        Values that are kept and sorted. Of more, none is kept, and passes count them.

    Returns
    -------
    (quantile,) float64, exact; 0 if there are no values. Memory: a block, and `most_kept` values or 1 MB a quantile.
    """
    kept = _collected(blocks(), dtype, most_kept)
    if kept is not None:
        return _of_sorted(np.sort(kept).astype(np.float64), shares)
    return _counted(blocks, shares, dtype)


def _collected(blocks: Iterable[NDArray[Any]], dtype: np.dtype[Any], most: int) -> NDArray[Any] | None:
    """All values but NaN; None where there are too many to keep."""
    kept, count = [np.zeros(0, dtype)], 0
    for block in blocks:
        kept.append(block[~np.isnan(block)].astype(dtype))
        count += len(kept[-1])
        if count > most:
            return None
    return np.concatenate(kept)


def _of_sorted(values: NDArray[np.float64], shares: Sequence[float]) -> NDArray[np.float64]:
    """(quantile,) of values that ascend."""
    if not len(values):
        return np.zeros(len(shares))
    positions = np.array(shares) * (len(values) - 1)
    low, high = values[np.floor(positions).astype(np.int64)], values[np.ceil(positions).astype(np.int64)]
    with np.errstate(over="ignore", invalid="ignore"):  # the caller refuses what is not finite
        exact: NDArray[np.float64] = low + (high - low) * (positions - np.floor(positions))
    return exact


def _counted(
    blocks: Callable[[], Iterable[NDArray[Any]]], shares: Sequence[float], dtype: np.dtype[Any]
) -> NDArray[np.float64]:
    """(quantile,) by passes of counting; values there are."""
    levels = range(8 * dtype.itemsize - _DIGIT, -1, -_DIGIT)
    prefix = np.zeros((2, len(shares)), np.uint64)  # of the values at the ranks below and above each quantile
    for shift in levels:
        known = np.unique(prefix)
        counts = _counts(blocks(), known, shift, dtype)
        if shift == levels[0]:
            total = int(counts.sum())
            positions = np.array(shares) * (total - 1)
            rest = np.stack([np.floor(positions), np.ceil(positions)]).astype(np.int64)
            fraction = positions - rest[0]
        ends, row = np.cumsum(counts, axis=1), np.searchsorted(known, prefix)
        pairs = zip(row.flat, rest.flat, strict=True)
        digit = np.array([np.searchsorted(ends[r], rank, side="right") for r, rank in pairs]).reshape(rest.shape)
        rest = rest - (ends - counts)[row, digit]
        prefix = (prefix << np.uint64(_DIGIT)) | digit.astype(np.uint64)
    low, high = _values(prefix, dtype).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # the caller refuses what is not finite
        exact: NDArray[np.float64] = low + (high - low) * fraction
    return exact


def _counts(blocks: Iterable[NDArray[Any]], known: NDArray[np.uint64], shift: int, dtype: np.dtype[Any]) -> Int64:
    """(prefix, bin) how many values begin with each known prefix and go on with each 16 bits, above `shift` others."""
    counts = np.zeros((len(known), _BINS), np.int64)
    word = _words(dtype)
    for block in blocks:
        keys = _keys(block, dtype) >> word.type(shift)
        digits = (keys & word.type(_BINS - 1)).astype(np.int64)
        above = keys >> word.type(_DIGIT)
        for number, prefix in enumerate(known.tolist()):
            counts[number] += np.bincount(digits[above == word.type(prefix)], minlength=_BINS)
    return counts


def _words(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Unsigned integers of the size of a float."""
    return np.dtype(f"u{dtype.itemsize}")


def _keys(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Unsigned numbers in the order of the values, NaN left out."""
    word = _words(dtype)
    bits = values[~np.isnan(values)].astype(dtype).view(word)
    sign = word.type(8 * dtype.itemsize - 1)
    keys: NDArray[Any] = np.where(bits >> sign, ~bits, bits | (word.type(1) << sign))
    return keys


def _values(keys: NDArray[np.uint64], dtype: np.dtype[Any]) -> NDArray[Any]:
    word = _words(dtype)
    keys = keys.astype(word)
    sign = word.type(8 * dtype.itemsize - 1)
    flipped: NDArray[Any] = np.where(keys >> sign, keys & ~(word.type(1) << sign), ~keys).astype(word)
    return flipped.view(dtype)
