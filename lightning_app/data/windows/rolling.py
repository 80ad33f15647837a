"""Rolling origins: splits whose tests begin one behind the other, each with all that lies before it to fit on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lightning_app.data.windows.borders import time_borders
from lightning_app.data.windows.splits import Split
from zstore import Store, UsageError

Int64 = NDArray[np.int64]


def rolling_splits(store: Store, split: Split, n_ahead: int, n_folds: int, every: int) -> list[Split]:
    """A split for each fold: validation lies just before its origin, training before that, from the first row on.

    Parameters
    ----------
    store, split
        What is cut, and how a configuration cuts it: training begins, and the last test ends, where it says so, and
        validation has as many steps as there. Over each series, the last test ends with the series.
    n_ahead
        Steps from an origin to the last target of its forecast.
    n_folds
        How many origins.
    every
        Steps from one to the next.

    Returns
    -------
    By time, the earliest first. Of irregular times, steps are the times at which any series has a row.

    Raises
    ------
    UsageError
        If that is more than the store has, or the split is of another kind.
    """
    if split.by != "time":
        raise UsageError(
            f"a backtest with a split by {split.by}", expected="one by time", fix="--data.split.by time, with its sizes"
        )
    if split.context == "forbid":
        raise UsageError(
            "a backtest with a split whose context is forbid",
            expected="allow: a forecast reads what lies before it",
            fix="--data.split.context allow",
        )
    for name, value in (("folds", n_folds), ("every", every)):
        if value < 1:
            raise UsageError(f"--{name} {value}", expected="1 or more", fix=f"correct --{name}")
    back = [n_ahead + number * every for number in reversed(range(n_folds))]
    return _over_series(store, split, back) if split.over == "series" else _over_store(store, split, n_ahead, back)


def _over_series(store: Store, split: Split, back: list[int]) -> list[Split]:
    """Tests that begin so many steps before the end of each series."""
    n_val = split.shares[1]
    if not float(n_val).is_integer():
        raise UsageError(
            f"a backtest over each series, with {n_val:g} of its steps for validation",
            expected="a whole number of steps",
            fix="--data.split.sizes [-1, 48, 48], for example",
        )
    splits = [replace(split, sizes=(-1, n_val, n + split.embargo), origin=0) for n in back]
    n_rows = int(np.diff(store.index.row_start).max(initial=0))
    if back[0] + n_val + 2 * split.embargo >= n_rows:
        raise _too_many(len(back), n_rows, store)
    time_borders(store, splits[0])  # refused here if times have no steps
    return splits


def _over_store(store: Store, split: Split, n_ahead: int, back: list[int]) -> list[Split]:
    """Tests that begin at times of all series."""
    axis, steps = store.schema.time, Steps(store)
    train, val, test = ((int(start[0]), int(stop[0])) for start, stop in time_borders(store, split))
    first, n_val = steps.before(train[0]), steps.before(val[1]) - steps.before(train[1])
    end = min(steps.before(test[1]), steps.before(int(store.index.time_stop.max())) + 1)
    splits = []
    for n in back:
        stop = end - n
        border = stop - split.embargo  # test begins behind an embargo, which counts as before it
        if border - n_val - first <= split.embargo:
            raise _too_many(len(back), end - first, store)
        edges = (first, border - n_val, border, stop + n_ahead)
        dates = [axis.show(steps.time_of(edge)) for edge in edges]
        splits.append(replace(split, sizes=None, origin=0, dates=(dates[0], dates[1], dates[2], dates[3])))
    return splits


def _too_many(n_folds: int, n_steps: int, store: Store) -> UsageError:
    return UsageError(
        f"--folds {n_folds} of {n_steps:,} steps, which leave the first fold nothing to fit on",
        expected="fewer, or closer to each other",
        where=store.path,
        fix="smaller --folds or --every, or a shorter validation in --data.split",
    )


@dataclass(frozen=True)
class Steps:
    """The steps of a store: by its rule or, where times are irregular, the times at which any series has a row."""

    store: Store

    @cached_property
    def _times(self) -> Int64:
        """Cost: reads all times."""
        return np.unique(self.store.times(0, self.store.n_rows))

    @cached_property
    def _first(self) -> int:
        return int(self.store.index.time_start.min())

    def before(self, time: int) -> int:
        """How many lie before a time."""
        rule = self.store.time.rule
        find: Callable[[int], Int64 | np.intp]
        find = (lambda at: rule.first_step(at, self._first)) if rule.regular else self._times.searchsorted
        return max(int(find(time)), 0)

    def time_of(self, step: int) -> int:
        """The time of a step, from 0; of irregular times beyond the last one, the next unit of time."""
        if self.store.time.rule.regular:
            return int(self.store.time.rule.times(step, self._first))
        return int(self._times[step]) if step < len(self._times) else int(self._times[-1]) + 1
