"""Which series are meant: by their ids, and by static attributes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from zstore.arrow import from_strings, text_array
from zstore.errors import NotFoundError, UsageError
from zstore.format.index import StaticAttribute
from zstore.reading.columns import to_words
from zstore.reading.version import StoredVersion

Int64 = NDArray[np.int64]
Mask = NDArray[np.bool_]

_FEW_IDS = 32


def choose_series(store: StoredVersion, ids: Iterable[str] | str | None, where: Mapping[str, Any] | None) -> Int64:
    """(series,) ascending positions of the series that have some ids and some static attributes; each once.

    Parameters
    ----------
    store
        Whose series.
    ids
        Exact ids, or one; None for all.
    where
        From the name of a static attribute to what it must be: a number or word; one of a list; missing, for None; or
        what a function finds. It is called once, with (series,) float64, NaN where missing, or Python strings, None
        where missing, and returns (series,) bool.

    Raises
    ------
    NotFoundError
        If the store has no such id, attribute, or word in an attribute.
    UsageError
        If a condition cannot be meant.
    """
    # Of the index, which was checked: nothing is allocated on the word of the root document.
    chosen = np.ones(len(store.ids), np.bool_) if ids is None else _by_ids(store, ids)
    for name, condition in (where or {}).items():
        chosen &= _by_attribute(store, store.static(name), condition)
    return np.flatnonzero(chosen)


def _by_ids(store: StoredVersion, ids: Iterable[str] | str) -> Mask:
    names = [ids] if isinstance(ids, str) else list(ids)
    for name in names:
        if not isinstance(name, str):
            raise UsageError(f"id {name!r} ({type(name).__name__})", expected="text: ids are kept as exact text")
    chosen = np.zeros(len(store.ids), np.bool_)
    if len(names) <= _FEW_IDS:
        chosen[[store.position(name) for name in names]] = True
        return chosen
    known = pc.index_in(text_array(names), value_set=from_strings(store.ids))
    if known.null_count:
        store.position(names[known.is_null().index(True).as_py()])  # refuses it
    chosen[np.frombuffer(known.buffers()[1], np.int32, len(known))] = True
    return chosen


def _by_attribute(store: StoredVersion, static: StaticAttribute, condition: Any) -> Mask:
    if callable(condition):
        return _found_by(static, condition)
    wanted = [condition]
    if isinstance(condition, Iterable) and not isinstance(condition, (str, bytes)):
        wanted = list(condition)
    chosen = np.zeros(len(store.ids), np.bool_)
    for value in wanted:
        chosen |= _equal(store, static, value)
    return chosen


def _equal(store: StoredVersion, static: StaticAttribute, value: Any) -> Mask:
    missing = value is None or (isinstance(value, (float, np.floating)) and np.isnan(value))
    if static.categories is None:
        if missing:
            return np.asarray(np.isnan(static.values))
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
            raise _not_meant(static, value, "a number, a list of numbers, None for missing, or a function")
        return np.asarray(static.values == value)
    if missing:
        return np.asarray(static.values < 0)
    if not isinstance(value, str):
        raise _not_meant(static, value, "a word, a list of words, None for missing, or a function")
    if value not in static.categories:
        raise NotFoundError(
            f"no series with {static.name} {value!r}",
            expected=f"one of {', '.join(static.categories)}",
            where=store.path,
        )
    return np.asarray(static.values == static.categories.index(value))


def _found_by(static: StaticAttribute, function: Callable[[NDArray[Any]], Any]) -> Mask:
    values = static.values if static.categories is None else to_words(static.values, static.categories)
    found = np.asarray(function(values.copy()))
    if found.dtype != np.bool_ or found.shape != values.shape:
        raise UsageError(
            f"the function for {static.name} returns {found.dtype} of shape {found.shape}",
            expected=f"bool of shape {values.shape}, one for each series",
            fix="as in lambda values: values > 100",
        )
    return found


def _not_meant(static: StaticAttribute, value: Any, expected: str) -> UsageError:
    return UsageError(f"where {static.name} is {value!r} ({type(value).__name__})", expected=expected)
