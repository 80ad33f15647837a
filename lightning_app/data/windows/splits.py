"""How targets are shared out between train, val and test: by time, by series, or both; never to two of them."""

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
from zstore import NotFoundError, Store, UsageError

Int64 = NDArray[np.int64]
SplitName = Literal["train", "val", "test"]
NAMES: tuple[SplitName, ...] = ("train", "val", "test")
_USUAL = (0.7, 0.1, 0.2)
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
