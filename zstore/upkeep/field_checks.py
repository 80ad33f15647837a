"""What can be wrong with the values of a field, such as frames; pure numpy, one row at a time, then row beside row."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]

GLANCE = np.dtype(
    [
        ("uniform", "?"),  # one value throughout; NaN throughout counts as one
        ("black", "?"),  # which is 0
        ("infinite", "?"),  # some value is
        ("value", "f8"),  # the one value, or the lowest
        ("at_low", "f4"),  # share of the values that are the lowest that the dtype has
        ("at_high", "f4"),
    ]
)
"""What is kept of each row of a field: 19 bytes."""

_SATURATED_SHARE, _SATURATED_TIMES = 0.2, 10.0
_FAR = 2.0
_LONG = 1024  # values of a row


def glances(values: NDArray[Any]) -> NDArray[Any]:
    """Look at each row of a field.

    Parameters
    ----------
    values
        (row, …) in the dtype that is stored.

    Returns
    -------
    (row,) of :data:`GLANCE`. Cost: each value is compared two to four times.
    """
    found = np.zeros(len(values), GLANCE)
    flat = values.reshape(len(values), -1)
    if values.dtype == np.bool_:
        flat = flat.view(np.uint8)
    low, high = np.fmin.reduce(flat, axis=1), np.fmax.reduce(flat, axis=1)
    found["value"] = low
    found["uniform"] = low == high
    if flat.dtype.kind == "f":
        found["infinite"] = np.isinf(low) | np.isinf(high)
        rows = np.flatnonzero((low == high) | np.isnan(high))
        found["uniform"][rows] = np.isin(np.isnan(flat[rows]).sum(axis=1), (0, flat.shape[1]))
    elif values.dtype != np.bool_:
        ends = np.iinfo(flat.dtype)
        for name, reached, end in (("at_low", low, ends.min), ("at_high", high, ends.max)):
            rows = np.flatnonzero(reached == end)
            found[name][rows] = _n_equal(flat, rows, end) / flat.shape[1]
    found["black"] = found["uniform"] & (low == 0)
    return found


def _n_equal(flat: NDArray[Any], rows: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    """(row,) how many values of some rows are a number; numpy counts those of a long row faster one by one."""
    if flat.shape[1] < _LONG:
        counts: NDArray[np.int64] = np.count_nonzero(flat[rows] == number, axis=1)
        return counts
    return np.array([np.count_nonzero(flat[row] == number) for row in rows.tolist()], np.int64)


def saturated(share: NDArray[np.float32]) -> Bools:
    """(row,) whether a fifth of the values of a row are at an end of the dtype, and ten times as many as usual.

    Usual is the median of all rows, so that a white background is none.
    """
    usual = float(np.median(share)) if len(share) else 0.0
    return (share >= _SATURATED_SHARE) & (share > _SATURATED_TIMES * usual)


def far_sizes(sizes: NDArray[np.float64]) -> Bools:
    """(row,) whether any of the sizes of a row is more than twice, or less than half, the median of all rows.

    Parameters
    ----------
    sizes
        (row, axis) such as millimetres of a voxel, or voxels of a scan.
    """
    if not len(sizes):
        return np.zeros(0, np.bool_)
    usual = np.median(sizes, axis=0)
    far: Bools = np.any((sizes > _FAR * usual) | (sizes * _FAR < usual), axis=1).astype(np.bool_)
    return far


def repeats(digests: NDArray[np.uint8]) -> tuple[Bools, Bools]:
    """(row,) whether a row has a payload, and whether it has the one of the row before.

    Parameters
    ----------
    digests
        (row, 16) of payloads; zeros for none.
    """
    present = np.any(digests, axis=1).astype(np.bool_)
    same = np.zeros(len(digests), np.bool_)
    same[1:] = np.all(digests[1:] == digests[:-1], axis=1)
    return present, present & same
