"""How fractions share out whole things, time steps or series: rounded down, and nobody's share to nothing."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from zstore import UsageError

Int64 = NDArray[np.int64]
Sizes = tuple[float, float, float]

_NAMES = ("train", "val", "test")
_DENOMINATOR = 10**6  # of the fractions that sizes stand for: 0.29 of 100 is 29, not 28.99…
_SLACK = 1e-9  # of a sum of fractions


def refuse_overlap(sizes: Sizes, steps: bool = False) -> None:
    """Raise where fractions add up to more than 1.

    Parameters
    ----------
    sizes
        Of train, val and test.
    steps
        Whether whole numbers of steps could be meant.

    Raises
    ------
    UsageError
        If they do.
    """
    if sum(sizes) > 1 + _SLACK:
        kind = "fractions that add up to at most 1" + (", or whole numbers of steps" if steps else "")
        raise UsageError(f"split sizes {list(sizes)} overlap", expected=kind, fix="smaller --data.split.sizes")


def share_out(n: Int64, sizes: Sizes) -> Int64:
    """How many of n each split has.

    Parameters
    ----------
    n
        (group,) numbers to share out.
    sizes
        Fractions for train, val and test that add up to at most 1.

    Returns
    -------
    (group, 3) int64. Each has its fraction rounded down. If fractions add up to 1 nothing is left over: the rest goes
    to val, to train where the fraction of val is 0, and to test where both are. So do Informer's data sets.
    """
    exact = [Fraction(size).limit_denominator(_DENOMINATOR) for size in sizes]
    takes_rest = next((place for place in (1, 0, 2) if sizes[place] > 0), 1)
    numbers, group = np.unique(n, return_inverse=True)
    counts = np.array([[k * share.numerator // share.denominator for share in exact] for k in numbers.tolist()])
    counts = counts.reshape(-1, 3)
    if abs(sum(sizes) - 1) < _SLACK:
        counts[:, takes_rest] += numbers - counts.sum(axis=1)
    shared: Int64 = counts.astype(np.int64)[group.reshape(-1)]
    return shared


def refuse_nothing(counts: Int64, n: int, sizes: Sizes, of: str, flag: str, where: str) -> None:
    """Raise where a fraction that is not 0 comes to nothing in every group.

    Parameters
    ----------
    counts
        (group, 3), see :func:`share_out`.
    n
        The largest number that was shared out.
    sizes
        The fractions.
    of
        What was shared out, such as ``series``.
    flag
        The option that has the fractions.
    where
        The store.

    Raises
    ------
    UsageError
        It names the split.
    """
    for name, size, most in zip(_NAMES, sizes, counts.max(axis=0, initial=0).tolist(), strict=True):
        if size > 0 and not most:
            raise UsageError(
                f"split {name} with {size:g} of {n:,} {of}, which is none (fractions are rounded down)",
                expected=f"one at least, or a fraction of 0 if there is to be no {name}",
                where=where,
                fix=f"larger fraction for {name} in {flag}, or 0",
            )
