"""Numbers and times as a page has them: JSON knows no NaN, and a browser counts seconds in numbers of 53 bits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.format.rule_text import DAY_S, UNITS_PER_SECOND
from zstore.format.schema import TimeAxis
from zstore.reading.version import StoredVersion

MOST_TIME = 2**63 - 2**11
"""The last time that is drawn, either way from 1970."""
_EXACT, _ROUNDING = 2**53, 2**-51
_FINE = ("us", "ns")


def listed(values: NDArray[Any]) -> list[Any]:
    """Numbers for JSON; None in place of NaN and of infinite ones."""
    found: list[Any] = values.tolist()
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        return [value if math.isfinite(value) else None for value in found]
    return found


def number(value: float) -> float | None:
    """One number for JSON."""
    return float(value) if np.isfinite(value) else None


@dataclass(frozen=True)
class Clock:
    """Stored times as seconds of a page, and back.

    Parameters
    ----------
    axis
        Of the store.
    origin
        Seconds since 1970 at which those of the page begin, 0 for plain steps.

    Notes
    -----
    Seconds since 1970 as float64 are exact to some 0.2 µs in this century. So those of stores in us and ns begin with
    the first day of the store, and are told apart to the unit for the first 104 days of ns, and 285 years of us.
    """

    axis: TimeAxis
    origin: int = 0

    @classmethod
    def of(cls, store: StoredVersion) -> Clock:
        """That of a store. Cost: one pass over the index if its times are in us or ns."""
        axis, index = store.time, store.index
        if axis.unit not in _FINE or not store.n_rows:
            return cls(axis)
        filled = index.row_size > 0
        first, last = int(index.time_start[filled].min()), int(index.time_stop[filled].max())
        day = DAY_S * UNITS_PER_SECOND[axis.unit]
        return cls(axis, first // day * DAY_S if last - first // day * day < _EXACT else 0)

    @property
    def per_second(self) -> int:
        """Units of stored times in a second; 1 for plain steps."""
        return UNITS_PER_SECOND[self.axis.unit] if self.axis.unit else 1

    @property
    def n_digits(self) -> int:
        """Digits of stored times behind the second."""
        return len(str(self.per_second)) - 1

    def seconds(self, times: NDArray[np.int64]) -> NDArray[np.float64]:
        """Stored times as seconds of the page; plain steps as they are."""
        if not self.origin:
            return times / self.per_second
        return (times - self.origin * self.per_second) / self.per_second

    def second(self, time: int) -> float:
        """One stored time."""
        return (time - self.origin * self.per_second) / self.per_second

    def stored(self, second: float, up: bool) -> int:
        """The first stored time at or after some seconds if `up`, else the last one at or before."""
        scaled = second * self.per_second
        if abs(scaled) >= MOST_TIME:
            return MOST_TIME if scaled > 0 else -MOST_TIME
        whole = round(scaled)
        if abs(scaled - whole) > abs(scaled) * _ROUNDING:  # else it is what `seconds` made of a stored time
            whole = math.ceil(scaled) if up else math.floor(scaled)
        return min(max(whole + self.origin * self.per_second, -MOST_TIME), MOST_TIME)

    def span(self, low: float, high: float) -> tuple[int, int]:
        """The stored times ``[low, high)`` that seconds from one to the other, both of them, are."""
        return self.stored(low, up=False), self.stored(high, up=True) + 1
