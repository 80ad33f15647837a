"""Which targets belong to train, val and test: by time, by series, or both; never two of them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lightning_app.data.windows.fractions import refuse_nothing, refuse_overlap, share_out
from lightning_app.data.windows.step_counts import count_of
from zstore import NotFoundError, Store, UsageError

Int64 = NDArray[np.int64]
SplitName = Literal["train", "val", "test"]
NAMES: tuple[SplitName, ...] = ("train", "val", "test")
_USUAL = (0.7, 0.1, 0.2)
_ROWS_OF_SERIES = "0, or --data.split.over series, since steps are the rows of each series"
_REST = -1  # as the size of train: all steps that val and test leave


class NoWindowError(UsageError):
    """A split has no window, or none with an observed target."""


@dataclass(frozen=True)
class Split:
    """How targets are shared out between train, val and test.

    Parameters
    ----------
    by
        ``time``: train comes first, then val, then test. ``series``: every series belongs to one of them. ``both``:
        training series in the training period, other series in the validation period, and others still in the test
        period; all else belongs to nobody.
    sizes
        Train, val and test as fractions that add up to at most 1, or (by time) as whole numbers of time
        steps. By series: fractions of the series. Default, where nothing else shares targets out: 0.7, 0.1 and 0.2.
        Fractions of time steps and of series are rounded down; if they add up to 1, val has the rest (train, where val
        has 0), as in the data sets of Informer and what came after it. A fraction that comes to nothing is refused.
        By time, -1 for train with whole numbers for val and test: test has the last steps, val those before them, and
        train all others. With ``over: series``, ``[-1, 0, 48]`` tests on the last 48 steps of each series, as forecast
        competitions do. A series that is too short for all three has test first, then val.
    dates
        By time, instead of `sizes`: first time of train, of val, of test, and the time after test.
    over
        What fractions and steps of time count from: the first time of the ``store``, so that borders are the same for
        every series, or the first time of each ``series``.
    series_sizes
        By both: fractions of the series; `sizes` are of time.
    ids
        Series by name, instead of fractions: for each of train, val and test a list of ids, or the path of a text file
        with an id on each line.
    attribute
        Static attribute by whose value series are shared out, as told by `values`.
    values
        For each of train, val and test the values of `attribute`.
    folds
        Share series out in so many equal parts, of which `fold` is test, the next one val, and all others train.
    fold
        Which part is test, from 0.
    context
        Whether the inputs of a window may reach back over the border before its targets.
    embargo
        Time steps after each border whose targets belong to nobody; 0 where times are irregular, for they have none.
    seed
        Of the shuffle that deals series out.
    """

    by: Literal["time", "series", "both"] = "time"
    sizes: tuple[float, float, float] | None = None
    dates: tuple[str, str, str, str] | None = None
    over: Literal["store", "series"] = "store"
    series_sizes: tuple[float, float, float] = _USUAL
    ids: dict[SplitName, list[str] | str] | None = None
    attribute: str | None = None
    values: dict[SplitName, list[str | float]] | None = None
    folds: int | None = None
    fold: int = 0
    context: Literal["allow", "forbid"] = "allow"
    embargo: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.embargo < 0:
            raise UsageError(f"embargo {self.embargo}", expected="0 or more steps", fix="correct --data.split.embargo")
        for name, sizes in (("sizes", self.shares), ("series_sizes", self.series_sizes)):
            if not all(size >= 0 for size in sizes) and not (name == "sizes" and self.from_end):  # nor NaN
                rest = ", or -1 for train and whole numbers for val and test" if name == "sizes" else ""
                raise UsageError(
                    f"split {name} {list(sizes)}",
                    expected=f"numbers, no negative ones{rest}",
                    fix=f"change --data.split.{name}",
                )
        if self.from_end and self.by == "series":
            raise UsageError(
                f"split sizes {list(self.shares)} by series",
                expected="fractions of the series",
                fix="change --data.split.sizes, or pass --data.split.by time",
            )
        if self.sizes is not None and self.dates is not None:
            raise UsageError(
                f"split sizes {list(self.sizes)} and dates {list(self.dates)}",
                expected="one of them",
                fix="--data.split.dates null, or --data.split.sizes null",
            )
        timed = {"dates": self.dates is not None, "embargo": self.embargo > 0, "over": self.over == "series"}
        told = {
            "ids": self.ids is not None,
            "attribute": self.attribute is not None,
            "folds": self.folds is not None,
        }
        for name in [name for name, given in timed.items() if given and self.by == "series"]:
            raise UsageError(
                f"split {name} by series", expected="none", fix=f"--data.split.by time or both, or drop {name}"
            )
        for name in [name for name, given in told.items() if given and self.by == "time"]:
            raise UsageError(
                f"split {name} by time", expected="none", fix=f"--data.split.by series or both, or drop {name}"
            )
        if sum(told.values()) > 1:
            both = " and ".join(name for name, given in told.items() if given)
            raise UsageError(f"series split by {both}", expected="one of them", fix="drop the others")
        if self.over == "series" and self.dates is not None:
            raise UsageError("split dates over each series", expected="sizes", fix="drop dates or over")
        if (self.attribute is None) != (self.values is None):
            raise UsageError(
                "a split by a static attribute without its values, or the other way round",
                expected="both --data.split.attribute and --data.split.values",
                fix="name the other one too",
            )
        if self.folds is not None and not (self.folds >= 3 and 0 <= self.fold < self.folds):
            raise UsageError(
                f"fold {self.fold} of {self.folds}",
                expected="3 or more folds, and one of them from 0 on",
                fix="correct --data.split.folds and --data.split.fold",
            )

    @property
    def shares(self) -> tuple[float, float, float]:
        """`sizes`, or what stands for them."""
        return _USUAL if self.sizes is None else self.sizes

    @property
    def from_end(self) -> bool:
        """Whether test and val have so many of the last time steps, and train has all others."""
        train, *others = self.shares
        return train == _REST and all(size >= 0 and float(size).is_integer() for size in others)

    def named(self, name: SplitName) -> list[str] | None:
        """The ids that `ids` lists for a split; None without such lists.

        Raises
        ------
        UsageError
            If a file of ids cannot be read.
        """
        return None if self.ids is None else read_ids(self.ids.get(name, []), "--data.split.ids")

    def digest(self) -> str:
        """16 hex digits that name this split in checkpoints, predictions and caches; of what files of ids hold."""
        content = {**asdict(self), "ids": [self.named(name) for name in NAMES]}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def read_ids(listed: list[str] | str, option: str) -> list[str]:
    """Ids from a list, or from a text file with one on each line.

    Raises
    ------
    UsageError
        If the file cannot be read; it names the option.
    """
    if isinstance(listed, list):
        return listed
    try:
        return [line for line in Path(listed).read_text(encoding="utf-8").splitlines() if line]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"ids in {listed} ({error})", expected="a text file with an id on each line", fix=f"correct {option}"
        ) from None


def target_rows(
    store: Store, split: Split, name: SplitName, members: NDArray[np.bool_] | None = None
) -> tuple[Int64, Int64]:
    """Where the targets of one split lie.

    Parameters
    ----------
    store, split, name
        What is cut, how, and which part.
    members
        (series,) which series count; None for all.

    Returns
    -------
    (run,) start and stop of the row range in each run of ``store.index.runs``; empty where start equals stop.

    Raises
    ------
    UsageError
        If the sizes, dates, ids or values do not fit the store, or splits would overlap.
    """
    runs, position = store.index.runs, NAMES.index(name)
    if split.by == "series":
        start, stop = runs.start, runs.stop
    else:
        edges = time_borders(store, split)[position]
        start, stop = (_rows_at(store, edge[runs.series]) for edge in edges)
    if split.by != "time":
        mine = assign_series(store, split)[runs.series] == position
        stop = np.where(mine, stop, start)
    if members is not None:
        stop = np.where(members[runs.series], stop, start)
    return start, np.maximum(stop, start)


def assign_series(store: Store, split: Split) -> Int64:
    """(series,) 0, 1 or 2 for train, val and test, -1 for none.

    Raises
    ------
    UsageError
        If the sizes are not fractions, one of them or a fold comes to no series, a series would be in two splits, or
        there is no such id, attribute or value.
    """
    n_series = store.n_series
    if split.ids is not None:
        return _assign(store, [positions_of(store, split.named(name) or [], "--data.split.ids") for name in NAMES])
    if split.attribute is not None and split.values is not None:
        return _assign(
            store,
            [with_values(store, split.attribute, split.values.get(name, []), "--data.split.values") for name in NAMES],
        )
    order = np.random.default_rng(split.seed).permutation(n_series)
    assigned = np.full(n_series, -1, np.int64)
    if split.folds is not None:
        if split.folds > n_series:
            raise UsageError(
                f"{split.folds} folds of {n_series:,} series",
                expected="one series at least in each fold",
                where=store.path,
                fix="fewer --data.split.folds",
            )
        part = np.arange(n_series) * split.folds // n_series
        role = (part - split.fold) % split.folds
        assigned[order] = np.where(role == 0, 2, np.where(role == 1, 1, 0))
        return assigned
    sizes, flag = (split.series_sizes, "series_sizes") if split.by == "both" else (split.shares, "sizes")
    refuse_overlap(sizes)
    counts = share_out(np.array([n_series]), sizes)
    refuse_nothing(counts, n_series, sizes, "series", f"--data.split.{flag}", store.path)
    dealt = np.repeat(np.arange(3), counts[0])
    assigned[order[: len(dealt)]] = dealt
    return assigned


def _assign(store: Store, members: list[Int64]) -> Int64:
    assigned = np.full(store.n_series, -1, np.int64)
    for (first, ours), (second, theirs) in combinations(zip(NAMES, members, strict=True), 2):
        twice = np.intersect1d(ours, theirs)
        if len(twice):
            raise UsageError(
                f"series {store.ids[twice[0]]} in both {first} and {second}",
                expected="every series in one split at most",
                fix="correct --data.split",
            )
    for number, mine in enumerate(members):
        assigned[mine] = number
    return assigned


def positions_of(store: Store, ids: list[str], option: str) -> Int64:
    """Positions of some ids in the store.

    Raises
    ------
    UsageError
        If there is no such id; it names the option.
    """
    try:
        return np.array([store.position(id_) for id_ in ids], np.int64)
    except NotFoundError as error:
        raise UsageError(f"{option}: {error}", fix=f"correct {option}") from None


def with_values(store: Store, attribute: str, values: list[str | float], option: str) -> Int64:
    """Positions of the series with one of some values of a static attribute, ascending.

    Raises
    ------
    UsageError
        If there is no such attribute, or no series with such a value; it names the option.
    """
    static = store.static(attribute)
    if static.categories is not None:
        codes = {word: code for code, word in enumerate(static.categories)}
        unknown = len(codes)
        wanted = np.array([codes.get(v, unknown) if isinstance(v, str) else unknown for v in values], np.int64)
    else:
        wanted = np.array([_number(value) for value in values], np.float64)
    absent = np.flatnonzero(~np.isin(wanted, static.values))
    if len(absent):
        raise UsageError(
            f"no series has {attribute} {values[absent[0]]}",
            expected=f"one of {', '.join(static.categories)}" if static.categories else "a value that occurs",
            where=store.path,
            fix=f"change {option}",
        )
    return np.flatnonzero(np.isin(static.values, wanted))


def _number(value: str | float) -> float:
    """A value of an attribute of numbers; NaN, which no series has, if it is none."""
    try:
        return float(value)
    except ValueError:
        return np.nan


def time_borders(store: Store, split: Split) -> list[tuple[Int64, Int64]]:
    """Time range ``[start, stop)`` of train, val and test, each (series,) int64.

    Raises
    ------
    UsageError
        If they do not fit the store, or overlap.
    """
    index, whole = store.index, np.ones(store.n_series, np.int64)
    if split.over == "series":
        first, last = index.time_start, index.time_stop
    else:
        first, last = index.time_start.min(initial=2**62) * whole, index.time_stop.max(initial=-(2**62)) * whole
    count = count_of(store, split.over == "series")
    if split.embargo and count.units:
        raise UsageError(
            f"embargo of {split.embargo:,} steps",
            expected="0, since times are irregular" if store.time.rule.kind == "irregular" else _ROWS_OF_SERIES,
            where=str(store.path),
            fix="--data.split.embargo 0, and dates that leave such a time to nobody",
        )
    if split.dates is not None:
        edges = [date * whole for date in _dates(store, split.dates)]
    elif split.from_end or (all(float(size).is_integer() for size in split.shares) and sum(split.shares) > 1):
        n_steps = count.n_steps(first, last)
        counts, n_asked = _whole_counts(n_steps, split)
        most = int(n_steps.max(initial=0))
        if count.units or n_asked > most:
            raise UsageError(
                f"split of {n_asked:,} steps",
                expected="fractions or dates, since times are irregular" if count.units else f"at most {most:,} steps",
                where=str(store.path),
                fix="smaller --data.split.sizes",
            )
        edges = [first, *(count.later(first, n) for n in counts.cumsum(axis=1).T)]
    else:
        refuse_overlap(split.shares, steps=True)
        n_steps = count.n_steps(first, last)
        counts = share_out(n_steps, split.shares)
        longest = int(n_steps.max(initial=0))
        refuse_nothing(counts, longest, split.shares, "time steps", "--data.split.sizes", store.path)
        edges = [first, *(count.later(first, n) for n in counts.cumsum(axis=1).T)]
    begins = [count.later(edge, whole * split.embargo) if n else edge for n, edge in enumerate(edges[:3])]
    return list(zip(begins, edges[1:], strict=True))


def _whole_counts(n_steps: Int64, split: Split) -> tuple[Int64, int]:
    """(series, 3) steps that each split has where sizes are whole numbers of them, and how many those add up to."""
    train, val, test = map(int, split.shares)
    if not split.from_end:
        return np.tile(np.array([train, val, test], np.int64), (len(n_steps), 1)), train + val + test
    n_test = np.minimum(n_steps, test)
    n_val = np.minimum(n_steps - n_test, val)
    return np.stack([n_steps - n_test - n_val, n_val, n_test], axis=1), val + test


def _dates(store: Store, dates: tuple[str, str, str, str]) -> list[int]:
    try:
        edges = [store.schema.time.parse(date) for date in dates]
    except ValueError:
        raise UsageError(
            f"split dates {list(dates)}", expected="ISO dates, or step numbers", fix="correct --data.split.dates"
        ) from None
    if edges != sorted(edges):
        raise UsageError(
            f"split dates {list(dates)} go back in time, so targets would be in two splits",
            expected="first time of train, of val, of test, and the time after test, in order",
            fix="correct --data.split.dates",
        )
    return edges


def _rows_at(store: Store, time: Int64) -> Int64:
    """(run,) first row of each run whose time is not before `time`, (run,)."""
    runs, rule = store.index.runs, store.time.rule
    if rule.regular:
        rows: Int64 = np.clip(runs.start + rule.first_step(time, runs.time), runs.start, runs.stop)
        return rows
    times = store.times(0, store.n_rows)
    bounds = zip(runs.start, runs.stop, time, strict=True)
    return np.array([start + np.searchsorted(times[start:stop], at) for start, stop, at in bounds], np.int64)
