"""Which targets belong to train, val and test: by time or by series, never both sides of a border."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from zstore import Store, UsageError

Int64 = NDArray[np.int64]
SplitName = Literal["train", "val", "test"]
NAMES: tuple[SplitName, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """How targets are shared out between train, val and test.

    Parameters
    ----------
    by
        ``time``: train comes first, then val, then test, with the same borders for every series.
        ``series``: every series belongs to one of them.
    sizes
        Train, val and test as fractions that add up to at most 1, or (by time) as whole numbers of time
        steps counted from the first time of the store.
    dates
        By time, instead of `sizes`: first time of train, of val, of test, and the time after test.
    context
        Whether the inputs of a window may reach back over the border before its targets.
    embargo
        Time steps after each border whose targets belong to nobody.
    seed
        Of the shuffle that deals series out.
    """

    by: Literal["time", "series"] = "time"
    sizes: tuple[float, float, float] = (0.7, 0.1, 0.2)
    dates: tuple[str, str, str, str] | None = None
    context: Literal["allow", "forbid"] = "allow"
    embargo: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.embargo < 0:
            raise UsageError(f"embargo {self.embargo}", expected="0 or more steps", fix="mend --data.split.embargo")
        if min(self.sizes) < 0:
            raise UsageError(
                f"split sizes {list(self.sizes)}", expected="no negative ones", fix="mend --data.split.sizes"
            )
        if self.by == "series" and self.dates is not None:
            raise UsageError("split dates by series", expected="sizes", fix="--data.split.by time, or drop the dates")

    def digest(self) -> str:
        """16 hex digits that name this split in checkpoints and caches."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


def target_rows(store: Store, split: Split, name: SplitName) -> tuple[Int64, Int64]:
    """Where the targets of one split lie.

    Returns
    -------
    (run,) start and stop of the row range in each run of ``store.index.runs``; empty where start equals stop.

    Raises
    ------
    UsageError
        If the sizes or dates do not fit the store, or splits would overlap.
    """
    runs = store.index.runs
    if split.by == "series":
        mine = assign_series(store.n_series, split)[runs.series] == NAMES.index(name)
        return runs.start, np.where(mine, runs.stop, runs.start)
    borders = time_borders(store, split)
    position = NAMES.index(name)
    return _rows_at(store, borders[position][0]), _rows_at(store, borders[position][1])


def assign_series(n_series: int, split: Split) -> NDArray[np.int64]:
    """(series,) 0, 1 or 2 for train, val and test, -1 for none.

    Raises
    ------
    UsageError
        If the sizes are not fractions.
    """
    _check_fractions(split)
    stops = np.round(np.cumsum(split.sizes) * n_series).astype(np.int64)
    order = np.random.default_rng(split.seed).permutation(n_series)
    assigned = np.full(n_series, -1, np.int64)
    for number, (start, stop) in enumerate(zip([0, *stops[:-1]], stops, strict=True)):
        assigned[order[start:stop]] = number
    return assigned


def time_borders(store: Store, split: Split) -> list[tuple[int, int]]:
    """Time range ``[start, stop)`` of train, val and test.

    Raises
    ------
    UsageError
        If they do not fit the store, or overlap.
    """
    index, axis = store.index, store.schema.time
    first, last = int(index.time_start.min()), int(index.time_stop.max())
    step = axis.freq or 1
    if split.dates is not None:
        try:
            edges = [axis.parse(date) for date in split.dates]
        except ValueError:
            raise UsageError(
                f"split dates {list(split.dates)}", expected="ISO dates, or step numbers", fix="mend --data.split.dates"
            ) from None
        if edges != sorted(edges):
            raise UsageError(
                f"split dates {list(split.dates)} go back in time, so targets would be in two splits",
                expected="first time of train, of val, of test, and the time after test, in order",
                fix="mend --data.split.dates",
            )
    elif all(float(size).is_integer() for size in split.sizes) and sum(split.sizes) > 1:
        steps = np.cumsum([0, *map(int, split.sizes)])
        n_steps = (last - first) // step + 1
        if axis.freq is None or steps[-1] > n_steps:
            raise UsageError(
                f"split of {steps[-1]:,} steps",
                expected=f"at most {n_steps:,} steps" if axis.freq else "fractions or dates, since times are irregular",
                where=str(store.path),
                fix="mend --data.split.sizes",
            )
        edges = [first + int(n) * step for n in steps]
    else:
        _check_fractions(split)
        total = last - first + step
        edges = [first + _whole(total * float(share), step) for share in np.cumsum([0.0, *split.sizes])]
    gap = split.embargo * step
    return [(edges[n] + (gap if n else 0), edges[n + 1]) for n in range(3)]


def _whole(span: float, step: int) -> int:
    return round(span / step) * step


def _check_fractions(split: Split) -> None:
    if sum(split.sizes) > 1 + 1e-9:
        kind = "fractions that add up to at most 1" + (", or whole numbers of steps" if split.by == "time" else "")
        raise UsageError(f"split sizes {list(split.sizes)} overlap", expected=kind, fix="mend --data.split.sizes")


def _rows_at(store: Store, time: int) -> Int64:
    """(run,) first row of each run whose time is not before `time`."""
    runs, freq = store.index.runs, store.schema.time.freq
    if freq is not None:
        rows: Int64 = np.clip(runs.start - (runs.time - time) // freq, runs.start, runs.stop)
        return rows
    times = store.times(0, store.n_rows)
    bounds = zip(runs.start, runs.stop, strict=True)
    return np.array([start + np.searchsorted(times[start:stop], time) for start, stop in bounds], np.int64)
