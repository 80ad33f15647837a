"""How targets are shared out between train, val and test: by time, by series, or both; never to two of them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from lightning_app.data.windows.split_table import table_digest
from zstore import UsageError

SplitName = Literal["train", "val", "test"]
NAMES: tuple[SplitName, ...] = ("train", "val", "test")
_USUAL = (0.7, 0.1, 0.2)
_REST = -1  # as the size of train: all steps that val and test leave
_COLUMN = "split"  # of a table
_LATER = ("origin", "table", "group")  # options that came after others were named by digests


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
    origin
        Rolling origin, with -1 for train: 0 tests on the last steps, 1 on as many steps before those, 2 on as many
        before those again, and so on. Later steps belong to nobody.
    dates
        By time, instead of `sizes`: first time of train, of val, of test, and the time after test.
    over
        What fractions and steps of time count from: the first time of the ``store``, so that borders are the same for
        every series, or the first time of each ``series``.
    series_sizes
        By both: fractions of the series; `sizes` are of time.
    ids
        Series by name, instead of fractions: for each of train, val and test a list of ids, or the path of a text file
        with an id on each line. What is no id may be a pattern of them, in which ``*`` is any text and ``?`` any one
        letter. Series that are not named belong to nobody.
    attribute
        Static attribute by whose value series are shared out, as told by `values`; with `table` a column of that,
        ``split`` if it is not named.
    values
        For each of train, val and test the values of `attribute`. With `table`, they default to the words ``train``,
        ``val`` and ``test``. Series with another value belong to nobody.
    table
        CSV with a header and a line for each series, such as a list of patients. Its ids stand in the column that is
        called as in the source of the store, else in the first; those that the store has not are passed over.
    folds
        Share series out in so many equal parts, of which `fold` is test, the next one val, and all others train.
    fold
        Which part is test, from 0.
    group
        Static attribute whose series stay together, such as ``patient``: fractions and folds are of its values, and a
        way to name series by which one value would be in two of train, val and test is refused.
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
    origin: int = 0
    over: Literal["store", "series"] = "store"
    series_sizes: tuple[float, float, float] = _USUAL
    ids: dict[SplitName, list[str] | str] | None = None
    attribute: str | None = None
    values: dict[SplitName, list[str | float]] | None = None
    table: str | None = None
    folds: int | None = None
    fold: int = 0
    group: str | None = None
    context: Literal["allow", "forbid"] = "allow"
    embargo: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        _check_sizes(self)
        _check_origin(self)
        _check_ways(self)
        _check_series(self)

    @property
    def shares(self) -> tuple[float, float, float]:
        """`sizes`, or what stands for them."""
        return _USUAL if self.sizes is None else self.sizes

    @property
    def from_end(self) -> bool:
        """Whether test and val have so many of the last time steps, and train has all others."""
        train, *others = self.shares
        return train == _REST and all(size >= 0 and float(size).is_integer() for size in others)

    @property
    def column(self) -> str:
        """Column of `table`."""
        return self.attribute or _COLUMN

    @property
    def listed(self) -> dict[SplitName, list[str | float]]:
        """`values`, or what stands for them."""
        return {name: [name] for name in NAMES} if self.values is None else self.values

    def named(self, name: SplitName) -> list[str] | None:
        """The ids that `ids` lists for a split; None without such lists.

        Raises
        ------
        UsageError
            If a file of ids cannot be read.
        """
        return None if self.ids is None else read_ids(self.ids.get(name, []), "--data.split.ids")

    def is_empty(self, name: SplitName) -> bool:
        """Whether it is said that train, val or test gets nothing, as val by ids that are of train and test alone."""
        if self.ids is not None:
            return not self.named(name)
        if self.table is not None or self.attribute is not None:
            return not self.listed.get(name)
        return self.dates is None and self.folds is None and self.shares[NAMES.index(name)] == 0

    def digest(self) -> str:
        """16 hex digits that name this split in checkpoints, predictions and caches; of what files hold, too."""
        content = {**asdict(self), "ids": [self.named(name) for name in NAMES]}
        for name in _LATER:  # where they do nothing, a split has the digest that it had before there were such
            if content[name] == getattr(Split, name):
                del content[name]
        if self.table is not None:
            content["table"] = table_digest(self.table)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _check_sizes(split: Split) -> None:
    """Refuse sizes that are no sizes, and two ways to say borders in time."""
    for name, sizes in (("sizes", split.shares), ("series_sizes", split.series_sizes)):
        if not all(size >= 0 for size in sizes) and not (name == "sizes" and split.from_end):  # nor NaN
            rest = ", or -1 for train and whole numbers for val and test" if name == "sizes" else ""
            raise UsageError(
                f"split {name} {list(sizes)}",
                expected=f"numbers, no negative ones{rest}",
                fix=f"change --data.split.{name}",
            )
    if split.from_end and split.by == "series":
        raise UsageError(
            f"split sizes {list(split.shares)} by series",
            expected="fractions of the series",
            fix="change --data.split.sizes, or pass --data.split.by time",
        )
    if split.sizes is not None and split.dates is not None:
        raise UsageError(
            f"split sizes {list(split.sizes)} and dates {list(split.dates)}",
            expected="one of them",
            fix="--data.split.dates null, or --data.split.sizes null",
        )
    if split.over == "series" and split.dates is not None:
        raise UsageError("split dates over each series", expected="sizes", fix="drop dates or over")
    if split.embargo < 0:
        raise UsageError(f"embargo {split.embargo}", expected="0 or more steps", fix="correct --data.split.embargo")


def _check_origin(split: Split) -> None:
    """Refuse an origin where there are no last steps to go back from."""
    if split.origin < 0:
        raise UsageError(f"split origin {split.origin}", expected="0 or more", fix="correct --data.split.origin")
    if split.origin and not (split.from_end and split.shares[2] > 0):
        raise UsageError(
            f"split origin {split.origin} with sizes {list(split.shares)}",
            expected="sizes that end with the last steps, such as [-1, 0, 48]",
            fix="change --data.split.sizes, or drop --data.split.origin",
        )


def _check_ways(split: Split) -> None:
    """Refuse options of another way to split than `by`."""
    timed = {"dates": split.dates is not None, "embargo": split.embargo > 0, "over": split.over == "series"}
    for name in [name for name, given in timed.items() if given and split.by == "series"]:
        raise UsageError(
            f"split {name} by series", expected="none", fix=f"--data.split.by time or both, or drop {name}"
        )
    told = {name: getattr(split, name) is not None for name in ("ids", "table", "attribute", "folds", "group")}
    for name in [name for name, given in told.items() if given and split.by == "time"]:
        raise UsageError(
            f"split {name} by time", expected="none", fix=f"--data.split.by series or both, or drop {name}"
        )


def _check_series(split: Split) -> None:
    """Refuse two ways to share series out, and half of one."""
    told = {
        "ids": split.ids is not None,
        "attribute": split.attribute is not None and split.table is None,
        "table": split.table is not None,
        "folds": split.folds is not None,
    }
    if sum(told.values()) > 1:
        both = " and ".join(name for name, given in told.items() if given)
        raise UsageError(f"series split by {both}", expected="one of them", fix="drop the others")
    if split.table is None and (split.attribute is None) != (split.values is None):
        raise UsageError(
            "a split by a static attribute without its values, or the other way round",
            expected="both --data.split.attribute and --data.split.values",
            fix="name the other one too",
        )
    if split.folds is not None and not (split.folds >= 3 and 0 <= split.fold < split.folds):
        raise UsageError(
            f"fold {split.fold} of {split.folds}",
            expected="3 or more folds, and one of them from 0 on",
            fix="correct --data.split.folds and --data.split.fold",
        )


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
        return [line for line in Path(listed).read_text(encoding="utf-8-sig").split("\n") if line]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"ids in {listed} ({error})", expected="a text file with an id on each line", fix=f"correct {option}"
        ) from None
