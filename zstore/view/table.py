"""The table of series: sought, filtered and sorted on the server, a page at a time."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.errors import UsageError
from zstore.reading.store import Store
from zstore.view.numbers import Clock, listed

MOST_LINES = 500
"""Series on one page."""
_MOST_WORDS = 20
_CONDITION = re.compile(r"^(.+?)(<=|>=|=|<|>)(.*)$")
_COMPARED: dict[str, Callable[[Any, Any], Any]] = {
    "<": np.less,
    ">": np.greater,
    "<=": np.less_equal,
    ">=": np.greater_equal,
    "=": np.equal,
}


class SeriesTable:
    """Series of one version of a store, as a table.

    Parameters
    ----------
    store
        The version.

    Notes
    -----
    Columns are ``id``, ``rows``, ``first``, ``last``, ``missing`` (share of the values of all channels), and each
    static attribute under ``static:NAME``. An order is kept once it was asked for, 8 bytes a series.
    """

    def __init__(self, store: Store) -> None:
        self.store, self._clock = store, Clock.of(store)
        self._order = lru_cache(maxsize=8)(self._sorted)
        self._found = lru_cache(maxsize=8)(self._search)
        self._lower: NDArray[Any] | None = None
        self._more: dict[str, NDArray[np.float64]] = {}

    def page(self, query: str, sort: str, descending: bool, first: int, n: int) -> dict[str, Any]:
        """Some lines of the table.

        Parameters
        ----------
        query
            Words that ids contain, whatever their case, and conditions on columns, ``area_km2>100`` or
            ``country=Kenya``; all must hold. Of a word of the table with a space write ``"a b"``.
        sort
            Name of a column.
        descending
            Whether the largest come first. What is missing comes last either way.
        first, n
            The first line, and how many, at most :data:`MOST_LINES`.

        Returns
        -------
        ``n`` lines that were found of ``n_all``, and ``lines`` with the values of each column.
        """
        found = self._found(query)
        order = self._order(sort, descending)
        if found is not None:
            order = order[found[order]]
        chosen = order[first : first + min(n, MOST_LINES)]
        return {"n": len(order), "n_all": self.store.n_series, "lines": self._lines(chosen)}

    def add(self, name: str, values: NDArray[np.float64]) -> None:
        """Take a column of numbers, (series,), NaN where missing, such as a score."""
        if self._more.get(name) is values:
            return
        self._more = {**self._more, name: values}  # a new one: lines are made in other threads
        self._order.cache_clear()
        self._found.cache_clear()

    @property
    def columns(self) -> list[str]:
        """Names of all columns."""
        statics = [f"static:{static.name}" for static in self.store.statics]
        return ["id", "rows", "first", "last", "missing", *self._more, *statics]

    def _lines(self, chosen: NDArray[np.int64]) -> list[dict[str, Any]]:
        store, index = self.store, self.store.index
        columns: dict[str, list[Any]] = {
            "id": [str(store.ids[position]) for position in chosen.tolist()],
            "rows": index.row_size[chosen].tolist(),
            "first": self._moments(index.time_start, chosen),
            "last": self._moments(index.time_stop, chosen),
            "missing": listed(self._missing[chosen]),
        }
        columns |= {name: listed(values[chosen]) for name, values in self._more.items()}
        for static in store.statics:
            own = static.values[chosen]
            if static.categories is None:
                columns[f"static:{static.name}"] = listed(own.astype(np.float64))
            else:
                words = [static.categories[int(code)] if code >= 0 else None for code in own.tolist()]
                columns[f"static:{static.name}"] = words
        return [dict(zip(columns, line, strict=True)) for line in zip(*columns.values(), strict=True)]

    def _moments(self, times: NDArray[np.int64], chosen: NDArray[np.int64]) -> list[Any]:
        """Of each series a time in seconds; None where it has no row."""
        found = self._clock.seconds(times[chosen])
        return listed(np.where(self.store.index.row_size[chosen] > 0, found, np.nan))

    @property
    def _missing(self) -> NDArray[np.float64]:
        """(series,) share of missing values."""
        n_values = self.store.index.row_size * max(len(self.store.channels), 1)
        return self.store.moments.n_missing.sum(axis=1) / np.maximum(n_values, 1)  # type: ignore[no-any-return]

    def _column(self, name: str) -> NDArray[Any]:
        """(series,) what a column is sorted by; NaN where missing."""
        index = self.store.index
        known: dict[str, Callable[[], NDArray[Any]]] = {
            "rows": lambda: index.row_size,
            "first": lambda: index.time_start,
            "last": lambda: index.time_stop,
            "missing": lambda: self._missing,
        }
        if name in self._more:
            return self._more[name]
        if name in known:
            return known[name]()
        if name.startswith("static:"):
            static = self.store.static(name.removeprefix("static:"))
            if static.categories is None:
                return np.asarray(static.values, np.float64)
            ranks = np.argsort(np.argsort(np.array(static.categories, dtype=object))).astype(np.float64)
            return np.where(static.values >= 0, ranks[np.maximum(static.values, 0)], np.nan)
        raise UsageError(f"a table sorted by {name!r}", expected=f"one of {', '.join(self.columns)}")

    def _sorted(self, name: str, descending: bool) -> NDArray[np.int64]:
        if name == "id":
            order = np.arange(self.store.n_series)
            return order[::-1] if descending else order
        values = self._column(name)
        order = np.argsort(values, kind="stable")
        n_known = len(values) - (int(np.isnan(values).sum()) if values.dtype.kind == "f" else 0)
        known = order[:n_known][::-1] if descending else order[:n_known]
        return np.concatenate([known, order[n_known:]])

    def _search(self, query: str) -> NDArray[np.bool_] | None:
        """(series,) which fulfil all of a query; None where it asks for nothing."""
        words = [quoted or plain for quoted, plain in re.findall(r'"([^"]*)"|(\S+)', query)]
        if len(words) > _MOST_WORDS:
            raise UsageError(f"{len(words):,} words", expected=f"at most {_MOST_WORDS} to find series by")
        found: NDArray[np.bool_] | None = None
        for word in words:
            own = self._fulfilling(word)
            found = own if found is None else found & own
        return found

    def _fulfilling(self, word: str) -> NDArray[np.bool_]:
        condition = _CONDITION.match(word)
        if condition is not None:
            name, relation, value = condition.groups()
            statics = {static.name for static in self.store.statics}
            if name in statics or name in ("rows", "missing", *self._more):
                return self._compared(f"static:{name}" if name in statics else name, relation, value)
            if not (contain := self._containing(word)).any():
                named = ["rows", "missing", *self._more, *sorted(statics)]
                raise UsageError(f"{word}: no column {name!r}, and no such id", expected=f"one of {', '.join(named)}")
            return contain
        return self._containing(word)

    def _containing(self, word: str) -> NDArray[np.bool_]:
        """(series,) whose id has a word in it."""
        if self._lower is None:
            self._lower = np.strings.lower(np.asarray(self.store.ids).astype(np.dtypes.StringDType()))
        found: NDArray[np.bool_] = np.strings.find(self._lower, word.lower()) >= 0
        return found

    def _compared(self, column: str, relation: str, value: str) -> NDArray[np.bool_]:
        static = self.store.static(column.removeprefix("static:")) if column.startswith("static:") else None
        if static is not None and static.categories is not None:
            if relation != "=":
                raise UsageError(f"{column.removeprefix('static:')}{relation}{value}", expected="=, for it has words")
            codes = [code for code, word in enumerate(static.categories) if word.lower() == value.lower()]
            return np.isin(static.values, codes)
        try:
            wanted = float(value)
        except ValueError:
            raise UsageError(f"{column.removeprefix('static:')}{relation}{value}", expected="a number") from None
        with np.errstate(invalid="ignore"):
            return _COMPARED[relation](self._column(column), wanted)  # type: ignore[no-any-return]
