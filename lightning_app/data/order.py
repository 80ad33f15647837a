"""Shuffling as arithmetic: a keyed bijection of sample numbers, so no permutation is ever stored.

A Feistel network (Luby & Rackoff 1988, "How to construct pseudorandom permutations from pseudorandom
functions") permutes ``[0, 4**k)``; positions that fall outside ``[0, n)`` are sent round again until they do
not (cycle walking: Black & Rogaway 2002, "Ciphers with arbitrary finite domains").
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 6
_MIX = np.uint64(0x9E3779B97F4A7C15)


def shuffled(positions: NDArray[np.int64], n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The samples at some positions of the shuffled epoch.

    Parameters
    ----------
    positions
        (batch,) positions in ``[0, n)``.
    n
        Samples in all.
    seed, epoch
        Key of the order.

    Returns
    -------
    (batch,) sample numbers; over all positions each of ``[0, n)`` once. Cost: O(batch), no state.
    """
    if n <= 1:
        return positions.copy()
    half = np.uint64(max((int(n - 1).bit_length() + 1) // 2, 1))
    keys = _keys(seed, epoch)
    samples = _permute(positions.astype(np.uint64), half, keys)
    outside = np.flatnonzero(samples >= n)
    while len(outside):
        samples[outside] = _permute(samples[outside], half, keys)
        outside = outside[samples[outside] >= n]
    return samples.astype(np.int64)


def _keys(seed: int, epoch: int) -> NDArray[np.uint64]:
    return np.random.SeedSequence([seed & (2**64 - 1), epoch]).generate_state(_ROUNDS, np.uint64).astype(np.uint64)


def _permute(values: NDArray[np.uint64], half: np.uint64, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    low_bits = (np.uint64(1) << half) - np.uint64(1)
    left, right = values >> half, values & low_bits
    for key in keys:
        mixed = (right ^ key) * _MIX
        mixed ^= mixed >> np.uint64(29)
        mixed *= _MIX
        left, right = right, left ^ ((mixed >> np.uint64(32)) & low_bits)
    return (left << half) | right
