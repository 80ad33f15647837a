"""Shuffling as arithmetic: a keyed bijection of sample numbers, so no permutation is ever stored.

Rounds of three steps that can each be undone (xor with a key, multiplication by an odd number modulo a power of two,
xor with the upper half) permute ``[0, 2**bits)``, as the finalizers of hash functions do (Steele, Lea & Flood 2014,
"Fast splittable pseudorandom number generators"); positions that fall outside ``[0, n)`` are sent round again until
they do not (cycle walking: Black & Rogaway 2002, "Ciphers with arbitrary finite domains").
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_FACTORS = [
    np.uint64(factor) for factor in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xD6E8FEB86659FD93)
]
_LEAST_BITS = 6  # rounds on fewer reach few of the permutations there are
_DRAWN = 0x6A697474  # a further key: what is drawn must not follow the order

Int64 = NDArray[np.int64]


def shuffled(positions: Int64, n: int | Int64, seed: int, epoch: int, part: Int64 | None = None) -> Int64:
    """The samples at some positions of the shuffled epoch.

    Parameters
    ----------
    positions
        (batch,) positions in ``[0, n)``.
    n
        Samples in all; or (batch,) samples of each position's part.
    seed, epoch
        Key of the order.
    part
        (batch,) numbers of parts, each of which is shuffled by itself; a further key.

    Returns
    -------
    (batch,) sample numbers; over all positions each of ``[0, n)`` once. Cost: O(batch), some 50 ns each; no state.
    """
    entropy = [seed & (2**64 - 1), epoch]
    keys = list(np.random.SeedSequence(entropy).generate_state(len(_FACTORS), np.uint64).astype(np.uint64))
    if part is not None:
        mixed = (part.astype(np.uint64) + np.uint64(1)) * _FACTORS[0]
        keys = [(mixed ^ key) * _FACTORS[1] for key in keys]
    bits: Any = np.ceil(np.log2(np.maximum(n, 1 << _LEAST_BITS))).astype(np.uint64)
    samples = _permute(positions.astype(np.uint64), bits, keys)
    outside = np.flatnonzero(samples >= n)
    while len(outside):
        samples[outside] = _permute(samples[outside], _at(bits, outside), [_at(key, outside) for key in keys])
        outside = outside[samples[outside] >= _at(n, outside)]
    permuted: Int64 = samples.astype(np.int64)
    return permuted


def drawn(positions: Int64, n: Int64, seed: int, epoch: int, *key: int) -> Int64:
    """A number for each of some positions of an epoch, each by itself.

    Parameters
    ----------
    positions
        (batch,) positions.
    n
        (batch,) how many numbers there are to choose from, 1 or more and far fewer than 2**32.
    seed, epoch
        Key of what is drawn.
    key
        What else is drawn for the same positions, in [1, 2**32): another key draws independently.

    Returns
    -------
    (batch,) numbers in ``[0, n)``, each as likely as the others.
    """
    entropy = [seed & (2**64 - 1), epoch, _DRAWN, *key]
    keys = np.random.SeedSequence(entropy).generate_state(len(_FACTORS), np.uint64)
    values = _permute(positions.astype(np.uint64), np.uint64(62), list(keys)) >> np.uint64(30)  # 32 bits
    chosen: Int64 = (values * n.astype(np.uint64) >> np.uint64(32)).astype(np.int64)
    return chosen


def _at(value: Any, places: Int64) -> Any:
    return value[places] if np.ndim(value) else value


def _permute(values: NDArray[np.uint64], bits: Any, keys: list[Any]) -> NDArray[np.uint64]:
    mask, half = (np.uint64(1) << bits) - np.uint64(1), (bits + np.uint64(1)) >> np.uint64(1)
    permuted = values.copy()  # changed in place: it stays in cache
    for key, factor in zip(keys, _FACTORS, strict=True):
        permuted ^= key
        permuted *= factor
        permuted &= mask
        permuted ^= permuted >> half
    return permuted
