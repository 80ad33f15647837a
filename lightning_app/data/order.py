"""Shuffling as arithmetic: a keyed bijection of sample numbers, so no permutation is ever stored.

A Feistel network (Luby & Rackoff 1988, "How to construct pseudorandom permutations from pseudorandom
functions") permutes ``[0, 4**k)``; positions that fall outside ``[0, n)`` are sent round again until they do
not (cycle walking: Black & Rogaway 2002, "Ciphers with arbitrary finite domains").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
    return walk(positions, n, _half(n), keys(seed, epoch))


def shuffled_within(
    positions: NDArray[np.int64], n: NDArray[np.int64], part: NDArray[np.int64], seed: int, epoch: int
) -> NDArray[np.int64]:
    """As :func:`shuffled`, each position in a part of its own size and order.

    Parameters
    ----------
    positions
        (batch,) positions in ``[0, n)``.
    n
        (batch,) samples of the part.
    part
        (batch,) number of the part, a further key.
    seed, epoch
        Key of the order.
    """
    mixed = (part.astype(np.uint64) + np.uint64(1)) * _MIX
    each = [(mixed ^ key) * _MIX for key in keys(seed, epoch)]
    bits = np.ceil(np.log2(np.maximum(n, 2))).astype(np.uint64)
    return walk(positions, n, (bits + np.uint64(1)) // np.uint64(2), each)


def keys(*seed: int) -> NDArray[np.uint64]:
    """(round,) keys from some numbers."""
    entropy = [number & (2**64 - 1) for number in seed]
    return np.random.SeedSequence(entropy).generate_state(_ROUNDS, np.uint64).astype(np.uint64)


def walk(
    positions: NDArray[np.int64], n: Any, half: Any, round_keys: Sequence[Any] | NDArray[np.uint64]
) -> NDArray[np.int64]:
    """Permute ``[0, n)`` by going round in ``[0, 4**half)``; all but `positions` may be numbers or (batch,) arrays."""
    samples = _permute(positions.astype(np.uint64), half, round_keys)
    outside = np.flatnonzero(samples >= n)
    while len(outside):
        these = [_at(key, outside) for key in round_keys]
        samples[outside] = _permute(samples[outside], _at(half, outside), these)
        outside = outside[samples[outside] >= _at(n, outside)]
    permuted: NDArray[np.int64] = samples.astype(np.int64)
    return permuted


def _half(n: int) -> np.uint64:
    return np.uint64(max((int(n - 1).bit_length() + 1) // 2, 1))


def _at(value: Any, places: NDArray[np.int64]) -> Any:
    return value[places] if np.ndim(value) else value


def _permute(values: NDArray[np.uint64], half: Any, round_keys: Sequence[Any] | NDArray[np.uint64]) -> Any:
    low_bits = (np.uint64(1) << half) - np.uint64(1)
    left, right = values >> half, values & low_bits
    for key in round_keys:
        mixed = (right ^ key) * _MIX
        mixed ^= mixed >> np.uint64(29)
        mixed *= _MIX
        left, right = right, left ^ ((mixed >> np.uint64(32)) & low_bits)
    return (left << half) | right
