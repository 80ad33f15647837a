"""A record batch as typed columns, and the rows of it that cannot be stored."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.arrow import text_array
from zstore.writing.sources.cells import PLAIN, excess_from
from zstore.writing.sources.channels import ChannelValues, NumberValues
from zstore.writing.sources.ids import SINGLE_ID
from zstore.writing.sources.table import ChannelSpec, Columns, TableSpec
from zstore.writing.sources.typed.cells import (
    Bool,
    Numbers,
    Words,
    kind_of,
    numbers_of,
    raw_values,
    vectors_of,
    without_numbers,
    without_words,
    words_of,
)
from zstore.writing.sources.typed.moments import Fault, read_times
from zstore.writing.sources.typed.table import FAULTS, TypedTable

Told = list[tuple[int, str, str]]
"""Row, what is wrong with it, and what would be right."""


def read_batch(
    batch: Any, table: TypedTable, spec: TableSpec, most_told: int | None = None
) -> tuple[Columns, Bool | None, Told]:
    """The rows of a record batch.

    Parameters
    ----------
    batch
        With the columns of `spec` that the file has.
    table, spec
        The file, and what its columns mean.
    most_told
        Bad rows of which to tell what is wrong; None for all.

    Returns
    -------
    The good rows; (row,) which are good, None if all; and what is wrong with the first others.
    """
    faults: list[Fault] = []
    seen: set[str] = set()
    ids = None if spec.id is None else _ids(batch.column(spec.id), spec.id, faults)
    if FAULTS in batch.schema.names:
        faults += _known(batch.column(FAULTS))
    times, wrong_times = read_times(batch, spec.time, dict(spec.missing_times))
    faults += wrong_times
    reader = _Reader(batch, spec, faults, seen)
    if spec.series:
        names = sorted((name for name in spec.series if name in table.header), key=str.encode)
        channels: list[Any] = [reader.number(name) for name in names]
    else:
        channels = [reader.channel(channel) for channel in spec.channels]
    good, told = _sifted(faults, batch.num_rows, most_told)
    rows = None if good is None else np.flatnonzero(good)
    if rows is not None:
        times, channels = times[rows], [channel.take(rows) for channel in channels]
        ids = None if ids is None else ids.take(rows)
    lost = [channel.n_lost(spec.dtype) for channel in channels]
    if spec.series:
        codes = np.repeat(np.arange(len(names), dtype=np.int32), len(times))
        values = np.concatenate([np.zeros(0), *(channel.values for channel in channels)])
        series = text_array(names if len(times) else [])
        melted = Columns(
            series, codes, np.tile(times, len(names)), [NumberValues(values)], (), len(times), 0, (sum(lost),)
        )
        return replace(melted, seen=frozenset(seen)), good, told
    if ids is None:
        words: Any = text_array([table.id or SINGLE_ID] if len(times) else [])
        codes = np.zeros(len(times), np.int32)
    else:
        words, codes = ids.words, ids.codes
    columns = [channel.column() for channel in channels]
    return Columns(words, codes, times, columns, (), len(times), 0, tuple(lost), frozenset(seen)), good, told


def no_columns(spec: TableSpec) -> Columns:
    """No row, of all channels."""
    channels = [Words(np.zeros(0, np.int32), text_array([])) if c.text else Numbers(np.zeros(0)) for c in spec.channels]
    columns: list[ChannelValues] = [channel.column() for channel in channels]
    n_lost = (0,) * len(channels)
    return Columns(text_array([]), np.zeros(0, np.int32), np.zeros(0, np.int64), columns, (), 0, 0, n_lost)


class _Reader:
    """Reads the channels of a batch, and gathers what is wrong with them."""

    def __init__(self, batch: Any, spec: TableSpec, faults: list[Fault], seen: set[str]) -> None:
        self._batch, self._spec, self._faults, self._seen = batch, spec, faults, seen
        self._names = frozenset(batch.schema.names)
        self._vectors: dict[str, tuple[NDArray[np.float64], Bool | None]] = {}
        self._widths: dict[str, int] = {}
        for channel in spec.channels:
            if channel.item is not None:
                self._widths[channel.column] = max(self._widths.get(channel.column, 0), channel.item + 1)

    def channel(self, channel: ChannelSpec) -> Numbers | Words:
        """One channel; missing where the file has no such column."""
        if channel.column not in self._names:
            n_rows = self._batch.num_rows
            empty = Words(np.full(n_rows, -1, np.int32), text_array([]))
            return empty if channel.text else Numbers(np.full(n_rows, np.nan))
        if channel.text:
            return self._words(channel.column)
        if channel.item is None:
            return self.number(channel.column)
        if channel.column not in self._vectors:
            self._vectors[channel.column] = self._vector(channel.column)
        values, lost = self._vectors[channel.column]
        item = channel.item
        return Numbers(np.ascontiguousarray(values[:, item]), None if lost is None else lost[:, item])

    def number(self, column: str) -> Numbers:
        """A column of numbers."""
        numbers = numbers_of(self._batch.column(column))
        values = self._checked(column, numbers.values)
        return numbers if values is numbers.values else Numbers(values, numbers.lost)

    def _checked(self, column: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values without those that mean missing; too large ones are faults of their rows."""
        missing = self._spec.missing.of_numbers(column, PLAIN).numbers
        values, seen = without_numbers(values, missing)
        self._seen |= seen
        limit = excess_from(self._spec.largest)
        if limit is None or not values.size:
            return values
        if max(float(np.fmax.reduce(values, axis=None)), -float(np.fmin.reduce(values, axis=None))) >= limit:
            excess = (np.abs(values) >= limit) & ~np.isinf(values)
            rows: Bool = excess if excess.ndim == 1 else np.asarray(excess.any(axis=1))
            expected = f"at most {self._spec.largest:.2g}; --dtype float64 has more"

            def reason(row: int) -> str:
                cells = np.atleast_1d(values[row])
                return f"number {cells[np.argmax(np.atleast_1d(excess[row]))]!s} in column {column!r}"

            self._faults.append(Fault(rows, reason, expected))
        return values

    def _vector(self, column: str) -> tuple[NDArray[np.float64], Bool | None]:
        array, width = self._batch.column(column), self._widths[column]
        if kind_of(array.type) != "vector":  # nothing but missing values
            return np.full((len(array), width), np.nan), None
        values, lost, wrong, lengths = vectors_of(array, width)
        if wrong is not None:

            def reason(row: int) -> str:
                known = f"list of {lengths[row]:,} values" if lengths[row] >= 0 else "missing list"
                return f"{known} in column {column!r}"

            self._faults.append(Fault(wrong, reason, f"a list of {width:,} values in every row"))
        return self._checked(column, values), lost

    def _words(self, column: str) -> Words:
        words = words_of(self._batch.column(column))
        if words.broken is not None:
            reason = f"text in column {column!r} that is not UTF-8"
            self._faults.append(Fault(words.broken, lambda _: reason, "text in UTF-8"))
        own = {text: f"{column}={text}" for text in self._spec.missing.in_column.get(column, ())}
        words, seen = without_words(words, own)
        self._seen |= seen
        return words


def _known(array: Any) -> list[Fault]:
    """What the table itself says is wrong with some rows."""
    texts = array.dictionary.to_pylist()
    codes = raw_values(array.indices, "int32")
    bad = np.array([bool(text) for text in texts])
    by_expected: dict[str, list[int]] = {}
    for code, text in enumerate(texts):
        by_expected.setdefault(text.rpartition("\n")[2], []).append(code)
    return [
        Fault(bad[codes] & np.isin(codes, some), lambda row: texts[codes[row]].rpartition("\n")[0], expected)
        for expected, some in by_expected.items()
    ]


def _ids(array: Any, column: str, faults: list[Fault]) -> Words:
    """Ids; rows without one are faults."""
    ids = words_of(array)
    if ids.broken is not None:
        reason = f"id in column {column!r} that is not UTF-8"
        faults.append(Fault(ids.broken, lambda _: reason, "text in UTF-8"))
    if array.null_count or (ids.codes < 0).any():
        faults.append(Fault(ids.codes < 0, lambda _: f"missing id in column {column!r}", "the id of the series"))
    if len(ids.words) and ids.words[0].as_py() == "":
        faults.append(Fault(ids.codes == 0, lambda _: f"empty id in column {column!r}", "the id of the series"))
    return ids


def _sifted(faults: list[Fault], n_rows: int, most: int | None) -> tuple[Bool | None, Told]:
    """(row,) which rows are good, None if all; and the first thing that is wrong with each of the others."""
    occurring = [fault for fault in faults if fault.rows.any()]
    if not occurring:
        return None, []
    first = np.full(n_rows, -1)
    for number, fault in reversed(list(enumerate(occurring))):
        first[fault.rows] = number
    bad = np.flatnonzero(first >= 0)[:most]
    pairs = ((row, occurring[first[row]]) for row in bad.tolist())
    return first < 0, [(row, fault.reason(row), fault.expected) for row, fault in pairs]
