"""Calendar arithmetic on whole columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

PARTS = ("year", "month", "day", "hour", "minute", "second")
_LIMITS = {"month": (1, 12), "day": (1, 31), "hour": (0, 23), "minute": (0, 59), "second": (0, 59)}


def seconds_of_parts(columns: Sequence[NDArray[np.int64]]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(row,) seconds since 1970 from (row,) years, months, days … as in `PARTS`, and where there is no such time."""
    wrong = np.zeros(len(columns[0]), bool)
    for name, values in zip(PARTS[1:], columns[1:], strict=False):
        low, high = _LIMITS[name]
        wrong |= (values < low) | (values > high)
    wrong |= (columns[0] < 1) | (columns[0] > 9999)
    year, month, day, *clock = [np.where(wrong, 1, values) for values in columns]
    months = ((year - 1970) * 12 + month - 1).astype("datetime64[M]")
    days = months.astype("datetime64[D]") + (day - 1).astype("timedelta64[D]")
    wrong |= days.astype("datetime64[M]") != months
    seconds = days.astype(np.int64) * 86_400
    for values, size in zip(clock, (3_600, 60, 1), strict=False):
        seconds += values * size
    return seconds, wrong
