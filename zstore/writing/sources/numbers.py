"""Columns of numbers as float64: from Arrow where it reads them as we do, else from their distinct words."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from zstore.format.packing import is_inexact
from zstore.writing.sources.arrow import RefusedError, as_numpy, text_array
from zstore.writing.sources.cells import Missing, NumberStyle, is_excess, lost_digits

_PIECE = 1 << 18  # bytes looked at at once, so that they stay in the cache
_WORD = 8
_SURE_DIGITS, _MOST_DIGITS = 15, 17  # digits that every decimal keeps as a float64; that some do
_HIDDEN = 8  # zeros or nines in a row between digits that a float32 would keep and those that it loses
_WHOLE = float(1 << 53)
_FULL = 0x0101010101010101


@dataclass(frozen=True)
class NumberColumn:
    """One column of numbers.

    Parameters
    ----------
    values
        (row,) float64, NaN where missing.
    seen
        Texts of --missing that occurred.
    n_lost
        Cells whose digits a float64 loses, where the value as stored would not tell.
    """

    values: NDArray[np.float64]
    seen: frozenset[str] = frozenset()
    n_lost: int = 0


def is_suspect(column: Any, largest: float) -> bool:
    """Whether a parsed column holds a NaN that is not missing, an infinity, or a number that is too large.

    Those are the cells that Arrow may have read in another way than :class:`NumberStyle` does.
    """
    total = pc.sum(column).as_py()
    return total is not None and not (math.isfinite(total) and reach(column) <= largest)


def reach(column: Any) -> float:
    """Largest absolute value of a parsed column; 0 where it has none."""
    ends = pc.min_max(column).as_py()
    return float(max(abs(ends["min"] or 0.0), abs(ends["max"] or 0.0)))


def from_arrow(column: Any, missing: Missing) -> NumberColumn:
    """A column that Arrow has parsed as float64; its nulls are missing, and so are numbers that mean missing."""
    values: NDArray[np.float64] = as_numpy(column, "float64")
    seen = set()
    for number, text in missing.numbers.items():
        hit = values == number
        if hit.any():
            values = values if values.flags.writeable else values.copy()
            values[hit] = np.nan
            seen.add(text)
    return NumberColumn(values, frozenset(seen))


def from_words(column: Any, style: NumberStyle, missing: Missing, largest: float, dtype: str) -> NumberColumn:
    """A column of texts as numbers, each distinct text read once.

    Parameters
    ----------
    column
        Dictionary-encoded texts.
    style, missing
        What they mean.
    largest
        Largest number that is stored.
    dtype
        Float type that they will be stored as.

    Raises
    ------
    RefusedError
        If a text is no number, or too large.
    """
    codes, words = encoded(column)
    values, lost = np.full(len(words), np.nan), np.zeros(len(words), bool)
    seen = set()
    for position, word in enumerate(words.to_pylist()):
        text = style.text(word)
        name = missing.name(word, None if text is None else float(text))
        if name is not None:
            seen.add(name)
        elif text is None or is_excess(text, float(text), largest):
            raise RefusedError("a cell is no number that can be stored")
        else:
            values[position] = float(text)
            lost[position] = (len(text) > _SURE_DIGITS or "e" in text.lower()) and lost_digits(text)
    lost &= ~_is_told(values, dtype)
    n_lost = int(np.count_nonzero(lost[codes])) if lost.any() else 0
    return NumberColumn(values[codes] if len(values) else np.zeros(0), frozenset(seen), n_lost)


def count_lost(column: Any, values: NDArray[np.float64], style: NumberStyle, dtype: str) -> int:
    """Cells whose digits a float64 loses, where the value as stored would not tell.

    Parameters
    ----------
    column
        Texts of a column.
    values
        (row,) what Arrow has made of them; NaN where missing.
    style, dtype
        As for :func:`from_words`.

    Notes
    -----
    Most long numbers were printed from a float64 and are what it prints; only others are looked at one by one.
    """
    texts = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(texts, pa.ChunkedArray):
        return 0
    long = pc.or_(pc.greater(pc.binary_length(texts), _SURE_DIGITS), pc.match_substring(texts, "e-", ignore_case=True))
    is_long = as_numpy(long.cast(pa.int8()), "int8").astype(bool)
    rows = np.flatnonzero(is_long & ~np.isnan(values) & ~_is_told(values, dtype))
    if not len(rows):
        return 0
    texts = pc.replace_substring(texts.take(_as_arrow(rows)), style.decimal, ".")
    printed = pc.cast(_as_arrow(values[rows]), pa.string())
    return sum(lost_digits(text) for text in texts.filter(pc.not_equal(printed, texts)).to_pylist())


def _is_told(values: NDArray[np.float64], dtype: str) -> NDArray[np.bool_]:
    """(row,) the values of which the float that is stored tells that it has fewer digits."""
    with np.errstate(over="ignore"):
        return is_inexact(values, values.astype(dtype))


def _as_arrow(values: NDArray[Any]) -> Any:
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(values)])


def encoded(column: Any) -> tuple[NDArray[np.int32], Any]:
    """(row,) codes and the distinct texts they stand for, in the order met."""
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # no chunk at all
        return np.zeros(0, np.int32), text_array([])
    return as_numpy(array.indices, "int32"), array.dictionary


def may_lose_digits(content: bytes, decimal: str, columns: list[Any], dtype: str) -> bool:
    """Whether any number of a block may have more digits than a float64 keeps.

    Parameters
    ----------
    content
        The block.
    decimal
        Decimal point.
    columns
        Its parsed columns of numbers.
    dtype
        Float type that they will be stored as: what float32 loses is counted by the value, so fewer texts matter.

    Notes
    -----
    Cost: some 0.2 ns a byte. Any run of 15 digits fills one of the words of 8 bytes that a block is cut into.
    """
    run = _longest_run(content, decimal)
    if run > _MOST_DIGITS and (dtype == "float64" or b"0" * _HIDDEN in content or b"9" * _HIDDEN in content):
        return True
    if run > _SURE_DIGITS and (dtype == "float64" or any(reach(column) >= _WHOLE for column in columns)):
        return True
    return (b"e" in content or b"E" in content) and any(map(_has_tiny, columns)) and _has_exponent(content)


def _has_tiny(column: Any) -> bool:
    values = as_numpy(column, "float64")
    return bool((np.abs(values) < np.finfo(np.float64).tiny).any())


def _pieces(content: bytes, overlap: int) -> Iterator[NDArray[np.uint8]]:
    octets = np.frombuffer(content, np.uint8)
    for start in range(0, len(octets), _PIECE):
        yield octets[start : start + _PIECE + overlap]


def _has_exponent(content: bytes) -> bool:
    """Whether an ``e-`` stands anywhere."""
    return any(
        bool(((piece[1:] == ord("-")) & (piece[:-1] | 32 == ord("e"))).any()) for piece in _pieces(content, overlap=1)
    )


def _longest_run(content: bytes, decimal: str) -> int:
    """Bytes of the longest run of digits with decimal points among them, of those longer than 15; else 0."""
    low = ord(",") if decimal == "," else ord(".")
    longest = 0
    for piece in _pieces(content, overlap=4 * _WORD):
        inside = (piece - np.uint8(low)) <= np.uint8(ord("9") - low)
        whole = inside[: len(inside) // _WORD * _WORD].view(np.uint64) == _FULL
        if not whole.any():
            continue
        at = np.flatnonzero(whole)[:, None] * _WORD
        around = np.arange(1, 2 * _WORD + 1)
        left = np.logical_and.accumulate(inside[np.maximum(at - around, 0)] & (at >= around), axis=1)
        after = at + _WORD - 1 + around
        right = np.logical_and.accumulate(inside[np.minimum(after, len(inside) - 1)] & (after < len(inside)), axis=1)
        longest = max(longest, int((_WORD + left.sum(axis=1) + right.sum(axis=1)).max()))
    return longest if longest > _SURE_DIGITS else 0
