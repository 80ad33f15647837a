"""References to payloads, as columns of a block have them: what holds the payload of each row, and its number there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from zstore.writing.sources.channels import Categories, ChannelValues, NumberValues
from zstore.writing.sources.table import Columns, TableSpec

_MOST_POSITIONS = 2.0**53  # that floats tell apart
_POSITION = "a whole number from 0 on in each row that has a payload: its position"


def references(columns: Columns, spec: TableSpec) -> Iterator[ChannelValues]:
    """Per field, what holds the payload of each row, and its number in there: 0 where holders have one each.

    Rows that :func:`odd_references` tells have any number.
    """
    for holders, positions in _pairs(columns, spec):
        yield holders
        named, numbers = _named(holders, columns), _numbers(positions, columns)
        yield NumberValues(np.where(named & _is_position(numbers), numbers, 0.0))


def odd_references(columns: Columns, spec: TableSpec) -> dict[int, tuple[str, str]]:
    """Rows whose references lead nowhere: what is wrong with each, and what would be right."""
    odd: dict[int, tuple[str, str]] = {}
    for field, (holders, positions) in zip(spec.fields, _pairs(columns, spec), strict=True):
        if isinstance(holders, Categories):
            nul = np.flatnonzero(np.asarray(pc.match_substring(holders.words, "\0")))
            for row in np.flatnonzero(np.isin(holders.codes, nul)).tolist():
                odd.setdefault(row, (f"a name with a NUL in column {field.holder!r}", "names of files"))
        wrong = _named(holders, columns) & ~_is_position(_numbers(positions, columns))
        for row in np.flatnonzero(wrong).tolist():
            odd.setdefault(row, (f"{_shown(positions, row)} in column {field.position!r}", _POSITION))
    return odd


def _pairs(columns: Columns, spec: TableSpec) -> Iterator[tuple[ChannelValues, ChannelValues | None]]:
    """Holders and positions of each field; None where holders have one payload each."""
    values = iter(columns.channels[len(spec.stored) :])
    for field in spec.fields:
        yield next(values), None if field.position is None else next(values)


def _named(holders: ChannelValues, columns: Columns) -> NDArray[np.bool_]:
    """(row,) whether a row has a payload."""
    if isinstance(holders, Categories):
        return holders.codes >= 0
    return np.isfinite(holders.values) if isinstance(holders, NumberValues) else np.zeros(columns.n_rows, np.bool_)


def _numbers(positions: ChannelValues | None, columns: Columns) -> NDArray[Any]:
    """(row,) positions as numbers; NaN where they are none."""
    if positions is None:
        return np.zeros(columns.n_rows)
    if isinstance(positions, NumberValues):
        return positions.values
    assert isinstance(positions, Categories)
    words = [float(word) if word.isdecimal() else np.nan for word in positions.words.to_pylist()]
    return np.array([*words, np.nan])[positions.codes]


def _is_position(numbers: NDArray[Any]) -> NDArray[np.bool_]:
    right: NDArray[np.bool_] = (numbers >= 0) & (numbers < _MOST_POSITIONS) & (np.floor(numbers) == numbers)
    return right


def _shown(positions: ChannelValues | None, row: int) -> str:
    """What stands in the place of a position."""
    if isinstance(positions, Categories):
        return "no number" if positions.codes[row] < 0 else repr(positions.words[int(positions.codes[row])].as_py())
    assert isinstance(positions, NumberValues)
    number = positions.values[row]
    return "no number" if np.isnan(number) else repr(f"{number:g}")
