"""Numbers and times as a page has them: JSON knows no NaN, and a browser counts seconds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.format.rule_text import UNITS_PER_SECOND
from zstore.format.schema import TimeAxis

MOST_TIME = 2**63 - 2**11
"""The last time that is drawn, either way from 1970."""


def listed(values: NDArray[Any]) -> list[Any]:
    """Numbers for JSON; None in place of NaN and of infinite ones."""
    found: list[Any] = values.tolist()
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        return [value if math.isfinite(value) else None for value in found]
    return found


def number(value: float) -> float | None:
    """One number for JSON."""
    return float(value) if np.isfinite(value) else None


def seconds(times: NDArray[np.int64], axis: TimeAxis) -> NDArray[np.float64]:
    """Stored times as seconds since 1970; plain steps as they are. Exact to some 0.2 µs for times of this century."""
    return times / UNITS_PER_SECOND[axis.unit] if axis.unit else times.astype(np.float64)


def stored_time(second: float, axis: TimeAxis, up: bool) -> int:
    """The first stored time at or after some seconds if `up`, else the last one at or before."""
    scaled = second * (UNITS_PER_SECOND[axis.unit] if axis.unit else 1)
    if abs(scaled) >= MOST_TIME:
        return MOST_TIME if scaled > 0 else -MOST_TIME
    return math.ceil(scaled) if up else math.floor(scaled)


def seconds_of(time: int, axis: TimeAxis) -> float:
    """One stored time as :func:`seconds` has it."""
    return float(seconds(np.array(time), axis))


def stored_span(low: float, high: float, axis: TimeAxis) -> tuple[int, int]:
    """The stored times ``[low, high)`` that seconds from one to the other, both of them, are."""
    return stored_time(low, axis, up=False), stored_time(high, axis, up=True) + 1
