"""Columns of numbers as float64: from Arrow where it reads them as we do, else from their distinct words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from zstore.arrow import as_numpy, text_array
from zstore.format.encodings.numbers import is_inexact
from zstore.writing.sources.cells import Missing, NumberStyle, is_excess, lost_digits
from zstore.writing.sources.refused import RefusedError

_PIECE = 1 << 19  # bytes looked at at once: few calls, and they stay in the cache
_WORD = 8
_SURE_DIGITS = 15  # that every decimal keeps as a float64
_HIDDEN = 8  # zeros or nines in a row before digits that float32 would not miss, and float64 loses
_WHOLE = float(1 << 53)
_NO_WORD = np.zeros(1, np.uint8)
_FULL_WORD = np.uint64(0x0101010101010101)


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
    sides
        (row,) float64 -1 where the value is below the number, 1 where it is above, 0 elsewhere, NaN where missing. None
        in a column whose numbers are no limits.
    """

    values: NDArray[np.float64]
    seen: frozenset[str] = frozenset()
    n_lost: int = 0
    sides: NDArray[np.float64] | None = None


def reach(column: Any) -> float:
    """Largest absolute value of a parsed column, NaN if it has one that is not missing; 0 where it has no row."""
    values = _raw(column)
    if not len(values):
        return 0.0
    low, high = float(values.min()), float(values.max())
    return float("nan") if low != low else max(-low, high)


def is_suspect(farthest: float, largest: float) -> bool:
    """Whether a column that reaches `farthest` holds a NaN that is not missing, an infinity, or too large a number.

    Those are the cells that Arrow may have read in another way than :class:`NumberStyle` does.
    """
    return not farthest <= largest


def _raw(column: Any) -> NDArray[np.float64]:
    """(row,) float64 of a parsed column, without a look at which are missing: Arrow has zeros there."""
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # no chunk at all
        return np.zeros(0)
    return np.frombuffer(array.buffers()[1], "float64", len(array), array.offset * 8)


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
    sides = np.full(len(words), np.nan) if style.censored else None
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
            if sides is not None and values[position] == values[position]:
                sides[position] = style.side(word)
            lost[position] = (len(text) > _SURE_DIGITS or "e" in text.lower()) and lost_digits(text)
    lost &= ~is_told(values, dtype)
    n_lost = int(np.count_nonzero(lost[codes])) if lost.any() else 0
    if sides is not None:
        sides = sides[codes] if len(values) else np.zeros(0)
    return NumberColumn(values[codes] if len(values) else np.zeros(0), frozenset(seen), n_lost, sides)


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
    rows = np.flatnonzero(is_long & ~np.isnan(values) & ~is_told(values, dtype))
    if not len(rows):
        return 0
    texts = pc.replace_substring(texts.take(_as_arrow(rows)), style.decimal, ".")
    printed = pc.cast(_as_arrow(values[rows]), pa.string())
    return sum(lost_digits(text) for text in texts.filter(pc.not_equal(printed, texts)).to_pylist())


def is_told(values: NDArray[np.float64], dtype: str) -> NDArray[np.bool_]:
    """(row,) the values of which the float that is stored tells that it has fewer digits."""
    with np.errstate(over="ignore"):
        return is_inexact(values, values.astype(dtype))


def _as_arrow(values: NDArray[Any]) -> Any:
    return pa.Array.from_buffers(
        pa.int64() if values.dtype.kind == "i" else pa.float64(), len(values), [None, pa.py_buffer(values)]
    )


def encoded(column: Any) -> tuple[NDArray[np.int32], Any]:
    """(row,) codes and the distinct texts they stand for, in the order met."""
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # no chunk at all
        return np.zeros(0, np.int32), text_array([])
    return as_numpy(array.indices, "int32"), array.dictionary


def may_lose_digits(content: bytes, decimal: str, columns: Sequence[Any], farthest: float, dtype: str) -> bool:
    """Whether any number of a block may lose digits of which its value does not tell.

    Parameters
    ----------
    content
        The block.
    decimal
        Decimal point.
    columns
        Its parsed columns of numbers.
    farthest
        Largest absolute value of them all.
    dtype
        Float type that they will be stored as. What float32 loses is told by the value, unless the digits that a
        float64 keeps are followed by a row of zeros or nines, or are those of a whole number.

    Notes
    -----
    Cost: some 0.12 ns a byte.
    """
    if _has_long_run(content, decimal):
        told = dtype == "float32" and farthest < _WHOLE
        if not told or b"0" * _HIDDEN in content or b"9" * _HIDDEN in content:
            return True
    return (b"e" in content or b"E" in content) and any(map(_has_tiny, columns)) and _has_exponent(content)


def count_newlines(content: bytes) -> int:
    """Line feeds of a block, within quotes or not."""
    return sum(int(np.count_nonzero(piece == ord("\n"))) for piece in _pieces(content, overlap=0))


def _has_tiny(column: Any) -> bool:
    return bool(np.any(np.abs(_raw(column)) < np.finfo(np.float64).tiny))


def _pieces(content: bytes, overlap: int) -> Iterator[NDArray[np.uint8]]:
    octets = np.frombuffer(content, np.uint8)
    for start in range(0, len(octets), _PIECE):
        yield octets[start : start + _PIECE + overlap]


def _has_exponent(content: bytes) -> bool:
    """Whether an ``e-`` stands anywhere."""
    return any(
        bool(((piece[1:] == ord("-")) & (piece[:-1] | 32 == ord("e"))).any()) for piece in _pieces(content, overlap=1)
    )


def _has_long_run(content: bytes, decimal: str) -> bool:
    """Whether more than 15 bytes in a row are digits with decimal points among them.

    So many fill one of the words of 8 bytes that a block is cut into; its neighbours tell how far they go on.
    """
    low = ord(",") if decimal == "," else ord(".")
    shifted, inside = np.empty(_PIECE + 4 * _WORD, np.uint8), np.empty(_PIECE + 4 * _WORD, np.bool_)
    for piece in _pieces(content, overlap=4 * _WORD):
        n = len(piece)
        np.less_equal(np.subtract(piece, np.uint8(low), out=shifted[:n]), np.uint8(ord("9") - low), out=inside[:n])
        whole = n // _WORD * _WORD  # no word of the rest has a neighbour that is full
        if (inside[:whole].view(np.uint64) == _FULL_WORD).any() and _runs_on(inside[:n]):
            return True
    return False


def _runs_on(inside: NDArray[np.bool_]) -> bool:
    """Whether a full word of 8 bytes and its neighbours hold a run of more than 15."""
    words = np.concatenate([_NO_WORD, np.packbits(inside), _NO_WORD])
    full = np.flatnonzero(words == 0xFF)
    return bool(np.any(_ones_after()[words[full - 1]] + _ones_before()[words[full + 1]] >= _WORD))


@cache
def _ones_before() -> NDArray[np.uint8]:
    """(octet,) bits at its beginning that are one."""
    counts = [next((n for n in range(_WORD) if not octet >> (7 - n) & 1), _WORD) for octet in range(256)]
    return np.array(counts, np.uint8)


@cache
def _ones_after() -> NDArray[np.uint8]:
    """(octet,) bits at its end that are one."""
    counts = [next((n for n in range(_WORD) if not octet >> n & 1), _WORD) for octet in range(256)]
    return np.array(counts, np.uint8)
