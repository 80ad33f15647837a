"""What can be wrong with the values or the times of one series; pure numpy, each check a few lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.text import counted

Values = NDArray[Any]
Int64 = NDArray[np.int64]

LEAST_ROWS = 50
"""Series of fewer rows are not judged by the shape of their values."""

_HOUR_S = 3600
_WORDS = "-99 -999 -9999 -99999 -99.9 -999.9 -9999.9 99999 9999 999.9 9999.9 -1e+30 1e+30"
SENTINELS = np.array(sorted({float(kind(word)) for word in _WORDS.split() for kind in (np.float32, np.float64)}))
"""Numbers that people write for a missing value, as float32 and as float64 have them."""

_LEAST_TIMES, _OFTEN = 3, 10  # rows of a sentinel; times as often as any value near it, where there is one
_LEAST_DISTINCT = 10  # values beside one that may be a sentinel, though it is no number that people write for it
_FAR = 10  # inner ranges beyond the inner range, for an outlier
_FLAT_ROWS, _FLAT_TIMES = 24, 10  # rows of one value, and times the 99th percentile of such stretches
_MISSING_ROWS, _MISSING_SHARE = 10, 0.02
_DRIFT, _SPREAD = 1.5, 5.0
_PARTS = 3
_PIECE_ROWS = 1 << 20


@dataclass(frozen=True)
class Stretch:
    """Rows ``[start, stop)`` of a series, and what is the matter with them."""

    start: int
    stop: int
    detail: str


def missing_run(values: Values) -> Stretch | None:
    """The longest stretch of missing values, if it has 10 rows and a fiftieth of the series."""
    start, stop = longest_stretch(np.isnan(values))
    if stop - start < max(_MISSING_ROWS, _MISSING_SHARE * len(values)) or stop - start == len(values):
        return None
    return Stretch(start, stop, f"{stop - start:,} rows without a value")


def infinite(values: Values) -> Stretch | None:
    """The first infinite value, and how many there are."""
    rows = np.flatnonzero(np.isinf(values))
    if not len(rows):
        return None
    return Stretch(int(rows[0]), int(rows[0]) + 1, f"{counted(len(rows), 'value')}, the first {values[rows[0]]:g}")


def flat_line(values: Values) -> Stretch | None:
    """The longest stretch of one value, if it has 24 rows and ten times as many as nearly all others have.

    Nearly all: the 99th percentile of stretches, so that rain, which is 0 on most days, is judged by its dry spells.
    """
    seen = np.flatnonzero(~np.isnan(values))
    if len(seen) < LEAST_ROWS:
        return None
    kept = values[seen]
    begins = np.flatnonzero(np.append(True, kept[1:] != kept[:-1]))
    sizes = np.diff(np.append(begins, len(kept)))
    longest = int(sizes.argmax())
    others = np.delete(sizes, longest)
    if not len(others) or sizes[longest] < max(_FLAT_ROWS, _FLAT_TIMES * float(np.quantile(others, 0.99))):
        return None
    first, last = seen[begins[longest]], seen[begins[longest] + sizes[longest] - 1]
    return Stretch(int(first), int(last) + 1, f"{kept[begins[longest]]:g} in {int(sizes[longest]):,} consecutive rows")


def outliers(values: Values) -> Stretch | None:
    """The farthest value, if it lies ten times the range of the inner 98 % beyond that range."""
    seen = values[~np.isnan(values)]
    if len(seen) < LEAST_ROWS:
        return None
    low, high = np.quantile(seen, [0.01, 0.99])
    reach = _FAR * (high - low)
    with np.errstate(invalid="ignore"):
        far = np.flatnonzero((values < low - reach) | (values > high + reach))
    if not len(far) or not reach:
        return None
    worst = int(far[np.argmax(np.abs(values[far] - (low + high) / 2))])
    some = f"{len(far):,} values such as {values[worst]:g}" if len(far) > 1 else f"a value of {values[worst]:g}"
    return Stretch(worst, worst + 1, f"{some}; 98 % of the values lie between {low:g} and {high:g}")


def sentinels(values: Values) -> Stretch | None:
    """A number in three rows or more that may stand for a missing value.

    Either one that people write for it, and no other value lies half as far from the median on its side, or it is ten
    times as frequent as each of those that do. Or the lowest or highest value, whatever it is, in fewer than half of
    the rows, if it is farther from the others than these are from each other: 0 K among 250 to 303.
    """
    seen = values[~np.isnan(values)]
    if len(seen) < LEAST_ROWS:
        return None
    low, high = float(seen.min()), float(seen.max())
    known = SENTINELS[(low <= SENTINELS) & (high >= SENTINELS)].tolist()
    for word in sorted({*known, low, high}, key=lambda word: (word not in known, -abs(word))):
        rows, others = np.flatnonzero(values == word), seen[seen != word]
        if len(rows) < _LEAST_TIMES or not len(others):
            continue
        if (_is_apart if word in known else _is_far)(word, len(rows), others):
            detail = f"{word:g} in {len(rows):,} of {len(values):,} rows"
            detail += f"; all other values lie between {others.min():g} and {others.max():g}"
            return Stretch(int(rows[0]), int(rows[0]) + 1, detail)
    return None


def _is_apart(word: float, n_rows: int, others: Values) -> bool:
    """Whether a number that people write for a missing value is none of the values beside it."""
    median = float(np.median(others))
    side = np.sign(word - median)
    near = others[side * (others - median) > abs(word - median) / 2]
    if not len(near):
        return True
    _, counts = np.unique(near, return_counts=True)
    return bool(n_rows >= _OFTEN * counts.max())


def _is_far(word: float, n_rows: int, others: Values) -> bool:
    """Whether a value lies farther from all others than these from each other."""
    low, high = float(others.min()), float(others.max())
    gap = low - word if word < low else word - high
    return gap > high - low and n_rows < len(others) and len(np.unique(others)) >= _LEAST_DISTINCT


def drift(values: Values) -> Stretch | None:
    """A first and a last third whose medians or spreads are far apart, judged by the inner 98 % of all thirds."""
    thirds = [part[~np.isnan(part)] for part in np.array_split(values, _PARTS)]
    if min(map(len, thirds)) < LEAST_ROWS:
        return None
    medians = [float(np.median(part)) for part in thirds]
    spreads = [float(np.subtract(*_inner(part))) for part in thirds]
    start, typical = len(values) - len(values) // _PARTS, float(np.mean(spreads))
    if typical and abs(medians[-1] - medians[0]) > _DRIFT * typical:
        return Stretch(start, len(values), _thirds("the median is", medians))
    if min(spreads[0], spreads[-1]) > 0 and not 1 / _SPREAD < spreads[-1] / spreads[0] < _SPREAD:
        return Stretch(start, len(values), _thirds("98 % of the values span", spreads))
    return None


def _inner(values: Values) -> tuple[Any, Any]:
    """The highest and the lowest of the inner 98 % of some values, of which one that is far away is none."""
    return np.quantile(values, 0.99, method="lower"), np.quantile(values, 0.01, method="higher")


def _thirds(what: str, figures: list[float]) -> str:
    return f"{what} {figures[0]:g} in the first third of the rows and {figures[-1]:g} in the last"


def sampling_change(times: Int64, show: Callable[[int], str]) -> Stretch | None:
    """Another usual step in the last third of the times than in the first: its median has changed by half."""
    steps = np.diff(times)
    if len(steps) < LEAST_ROWS:
        return None
    first, last = (float(np.median(part)) for part in np.array_split(steps, _PARTS)[:: _PARTS - 1])
    if 1 / 1.5 < last / first < 1.5:
        return None
    detail = f"a row every {show(round(first))} in the first third, every {show(round(last))} in the last"
    return Stretch(len(times) - len(times) // _PARTS, len(times), detail)


def clock_changes(before: Int64, after: Int64, freq: int, per_second: int) -> Int64:
    """Which gaps look like summer time: an hour that is missing between 1 and 4 on a Sunday in March or April.

    Parameters
    ----------
    before, after
        (gap,) times of the last row before and of the first row behind each gap.
    freq
        Between two rows, less than a day.
    per_second
        Units of time in a second.
    """
    hour = _HOUR_S * per_second
    lost = after - before - freq
    days = after // (24 * hour)
    months = days.astype("M8[D]").astype("M8[M]").astype(np.int64) % 12
    at = after - days * 24 * hour
    sunday = (days + 3) % 7 == 6  # 1970-01-01 was a Thursday
    spring = np.isin(months, [2, 3])
    return np.flatnonzero((lost == hour) & sunday & spring & (at >= hour) & (at <= 4 * hour))


def longest_stretch(marked: NDArray[np.bool_]) -> tuple[int, int]:
    """The longest stretch that is marked: its first row, and the one behind its last; 0 and 0 for none."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], marked, [False]])))
    if not len(edges):
        return 0, 0
    start, stop = edges[::2], edges[1::2]
    best = int((stop - start).argmax())
    return int(start[best]), int(stop[best])


def whole_series(row_start: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Ranges of whole series of some 1 M rows."""
    low, n_series = 0, len(row_start) - 1
    while low < n_series:
        reached = int(np.searchsorted(row_start, row_start[low] + _PIECE_ROWS, side="right")) - 1
        high = min(max(reached, low + 1), n_series)
        yield low, high
        low = high
