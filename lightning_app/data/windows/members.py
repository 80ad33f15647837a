"""Which series belong to train, val and test: by name, by what a table or the store says of them, or dealt out."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from lightning_app.data.patterns import compile_pattern, is_pattern
from lightning_app.data.windows.fractions import refuse_nothing, refuse_overlap, share_out
from lightning_app.data.windows.groups import Groups
from lightning_app.data.windows.split_table import read_split_table, same_value
from lightning_app.data.windows.splits import NAMES, Split
from zstore import NotFoundError, Store, UsageError, shown

Int64 = NDArray[np.int64]


def assign_series(store: Store, split: Split, members: NDArray[np.bool_] | None = None) -> Int64:
    """(series,) 0, 1 or 2 for train, val and test, -1 for none.

    `members`, (series,), says which series there are: those that are dealt out are of these alone. None for all.

    Raises
    ------
    UsageError
        If the sizes are not fractions, one of them or a fold comes to no series, a series or a group of them would be
        in two splits, or there is no such id, attribute or value.
    """
    chosen = np.arange(store.n_series) if members is None else np.flatnonzero(members)
    groups = None if split.group is None else Groups.of(store, split.group, chosen)
    if _is_told(split):
        of_chosen = _told(store, split, chosen)[chosen]
    elif groups is None:
        of_chosen = _dealt(store, split, len(chosen), "series")
    else:
        of_chosen = _dealt(store, split, len(groups), f"values of {split.group}")[groups.of_series]
    if groups is not None:
        groups.require_whole(of_chosen, store.path)
    assigned = np.full(store.n_series, -1, np.int64)
    assigned[chosen] = of_chosen
    return assigned


def _is_told(split: Split) -> bool:
    """Whether it is said of each series what it is for, and none is dealt out."""
    return any(way is not None for way in (split.ids, split.table, split.attribute))


def _told(store: Store, split: Split, chosen: Int64) -> Int64:
    """(series,) as it is said of each; a table has a line for each that is `chosen`."""
    if split.ids is not None:
        option = "--data.split.ids"
        return _assign(store, [ids_or_patterns(store, split.named(name) or [], option) for name in NAMES])
    if split.table is not None:
        return _assign(store, _listed(store, split, split.table, chosen))
    attribute, values = split.attribute or "", split.values or {}
    option = "--data.split.values"
    return _assign(store, [with_values(store, attribute, values.get(name, []), option) for name in NAMES])


def _dealt(store: Store, split: Split, n_series: int, dealt_out: str) -> Int64:
    """(unit,) of what is dealt out: so many series, or groups of them."""
    order = np.random.default_rng(split.seed).permutation(n_series)
    assigned = np.full(n_series, -1, np.int64)
    if split.folds is not None:
        if split.folds > n_series:
            raise UsageError(
                f"{split.folds} folds of {n_series:,} {dealt_out}",
                expected="one at least in each fold",
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
    refuse_nothing(counts, n_series, sizes, dealt_out, f"--data.split.{flag}", store.path)
    dealt = np.repeat(np.arange(3), counts[0])
    assigned[order[: len(dealt)]] = dealt
    return assigned


def ids_or_patterns(store: Store, ids: list[str], option: str) -> Int64:
    """Positions of the series that ids and patterns name, ascending where there is a pattern.

    Raises
    ------
    UsageError
        If there is no such id, or none fits a pattern; it names the option.
    """
    patterns = [text for text in ids if is_pattern(text) and text not in store.ids]
    if not patterns:
        return positions_of(store, ids, option)
    positions = [positions_of(store, [text for text in ids if text not in patterns], option)]
    for text in patterns:
        matches = compile_pattern(text).fullmatch
        fitting = np.array([n for n, id_ in enumerate(store.ids) if matches(id_)], np.int64)
        if not len(fitting):
            raise UsageError(
                f"no series whose id fits {text!r}",
                expected="a pattern of ids, in which * is any text and ? any one letter",
                where=store.path,
                fix=f"correct {option}",
            )
        positions.append(fitting)
    return np.unique(np.concatenate(positions))


def _listed(store: Store, split: Split, table: str, chosen: Int64) -> list[Int64]:
    """Positions of the series of train, val and test, by a table."""
    of_id = read_split_table(table, store.schema.id_name or "id", split.column)
    unlisted = next((id_ for id_ in store.ids[chosen] if id_ not in of_id), None)
    if unlisted is not None:
        raise UsageError(
            f"no line of series {unlisted} in {table}",
            expected="one for each series of the store",
            where=store.path,
            fix=f"add it, with no value in {split.column} if it belongs to nobody",
        )
    values = [of_id.get(id_, "") for id_ in store.ids]
    members = []
    for name in NAMES:
        asked = split.listed.get(name, [])
        for value in asked if split.values is not None else ():
            if not any(same_value(text, value) for text in values):
                raise UsageError(
                    f"no series of {store.path} has {split.column} {value}",
                    expected="a value that occurs",
                    where=table,
                    fix="change --data.split.values",
                )
        members.append(
            np.array([n for n, text in enumerate(values) if any(same_value(text, value) for value in asked)], np.int64)
        )
    if not any(len(positions) for positions in members):
        seen = ", ".join(sorted(set(values))[:5])
        raise UsageError(
            f"no series is of train, val or test by {split.column}",
            expected=f"one of these words; it has {shown(seen)}",
            where=table,
            fix="say by --data.split.values what its values mean",
        )
    return members


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
