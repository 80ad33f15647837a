"""Months and weekdays since 1970, from days since 1970 and back, and differences of times. Pure arithmetic."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]

_MOST = int(np.iinfo(np.int64).max)
EPOCH_WEEKDAY = 3
"""1970-01-01 was a Thursday; 0 is Monday."""


def months_of(days: Int64) -> Int64:
    """Months since 1970 of days since 1970."""
    return days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)


def month_starts(months: Int64) -> Int64:
    """Days since 1970 of the first of each month since 1970."""
    return months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)


def days_of_months(months: Int64, day: int) -> Int64:
    """Days since 1970 of one day in each month since 1970, or of the last day of those that are shorter."""
    start, following = month_starts(months), month_starts(months + 1)
    return np.asarray(start + np.minimum(day, following - start) - 1)


def month_lengths(count: int) -> tuple[int, int]:
    """Days of the shortest and of the longest `count` months on end."""
    starts = month_starts(np.arange(4800 + count))  # the calendar repeats after 400 years
    lengths = starts[count:] - starts[:-count]
    return int(lengths.min()), int(lengths.max())


def weekdays_of(days: Int64) -> Int64:
    """Weekdays since 1970 of days since 1970; a Saturday or Sunday counts as the Friday before."""
    week, day = np.divmod(days + EPOCH_WEEKDAY, 7)
    return week * 5 + np.minimum(day, 4) - EPOCH_WEEKDAY


def days_of_weekdays(weekdays: Int64) -> Int64:
    """Days since 1970 of weekdays since 1970."""
    week, day = np.divmod(weekdays + EPOCH_WEEKDAY, 5)
    return week * 7 + day - EPOCH_WEEKDAY


def far_apart(times: Int64, origins: Int64) -> bool:
    """Whether a difference between some times and some origins may be more than an int64 holds."""
    if not times.size or not origins.size:
        return False
    return int(times.max()) - int(origins.min()) > _MOST or int(times.min()) - int(origins.max()) < -_MOST


def ceil_divided(numbers: Int64, divisor: int) -> Int64:
    """Numbers divided and rounded up, in their own memory: there may be ten million."""
    if divisor > 1:
        np.negative(numbers, out=numbers)
        numbers //= divisor
        np.negative(numbers, out=numbers)
    return numbers
