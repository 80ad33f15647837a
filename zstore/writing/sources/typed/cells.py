"""Columns that have types as channels, ids and vectors: Arrow arrays in, numpy and masks out. Nothing is guessed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from zstore.arrow import text_array
from zstore.writing.sources.cells import lost_digits
from zstore.writing.sources.channels import Categories, NumberValues
from zstore.writing.sources.numbers import is_told

Kind = Literal["number", "words", "vector", "unknown"]
Bool = NDArray[np.bool_]

_WHOLE_BITS = np.uint64(53)  # of a float64
_MOST_WHOLE = 1 << 53
_SURE = 10**15  # so many digits a float64 keeps
_FAST_SCALE = 22  # powers of ten up to this one are float64s


@dataclass(frozen=True)
class Numbers:
    """A column of numbers.

    Parameters
    ----------
    values
        (row,) float64, NaN where missing.
    lost
        (row,) whether a float64 has fewer digits; None where none has.
    """

    values: NDArray[np.float64]
    lost: Bool | None = None

    def take(self, rows: NDArray[np.int64]) -> Numbers:
        """Some rows."""
        return Numbers(self.values[rows], None if self.lost is None else self.lost[rows])

    def column(self) -> NumberValues:
        """As a channel."""
        return NumberValues(self.values)

    def n_lost(self, dtype: str) -> int:
        """Values of which a float64 loses digits, where the value as stored would not tell."""
        return 0 if self.lost is None else int(np.count_nonzero(self.lost & ~is_told(self.values, dtype)))


@dataclass(frozen=True)
class Words:
    """A column of words, or of ids.

    Parameters
    ----------
    codes
        (row,) int32 position in `words`; -1 where there is none.
    words
        (word,) distinct texts that occur, sorted by their UTF-8 bytes.
    broken
        (row,) whether the bytes of a text are not UTF-8; None where all are.
    """

    codes: NDArray[np.int32]
    words: pa.Array
    broken: Bool | None = None

    def take(self, rows: NDArray[np.int64]) -> Words:
        """Some rows, and the words of those alone."""
        return _compact(self.codes[rows], self.words)

    def column(self) -> Categories:
        """As a channel."""
        return Categories(self.codes, self.words)

    def n_lost(self, dtype: str) -> int:
        """0: words are exact."""
        return 0


def kind_of(dtype: pa.DataType) -> Kind | None:
    """What a column of a type can be as a channel; None where it can be none."""
    if pa.types.is_dictionary(dtype):
        inner = kind_of(dtype.value_type)
        return inner if inner in ("number", "words") else None
    if is_text(dtype):
        return "words"
    if pa.types.is_null(dtype):
        return "unknown"
    if _is_list(dtype):
        return "vector" if kind_of(dtype.value_type) in ("number", "unknown") else None
    return "number" if _is_number(dtype) else None


def is_text(dtype: pa.DataType) -> bool:
    """Whether values of a type are texts."""
    views = getattr(pa.types, "is_string_view", lambda _: False)
    return bool(pa.types.is_string(dtype) or pa.types.is_large_string(dtype) or views(dtype))


def is_exact_text(dtype: pa.DataType) -> bool:
    """Whether values of a type can be kept as exact texts: words, whole numbers, decimals and booleans."""
    inner = dtype.value_type if pa.types.is_dictionary(dtype) else dtype
    plain = pa.types.is_integer(inner) or pa.types.is_decimal(inner) or pa.types.is_boolean(inner)
    return is_text(inner) or bool(plain) or bool(pa.types.is_null(inner))


def width_of(dtype: pa.DataType) -> int | None:
    """Values of each vector of a type; None where the type leaves that open."""
    return int(dtype.list_size) if pa.types.is_fixed_size_list(dtype) else None


def missing_of(array: Any) -> Bool | None:
    """(row,) which values are missing; None where none is."""
    if array.null_count == 0:
        return None
    return _bits(pc.is_null(array))


def raw_values(array: Any, dtype: str) -> NDArray[Any]:
    """(row,) the values of an array of fixed width, whatever they are where some are missing; not to be written to."""
    return np.frombuffer(array.buffers()[1] or b"", dtype, len(array), array.offset * np.dtype(dtype).itemsize)


def numbers_of(array: Any) -> Numbers:
    """Numbers of any type as float64, and which of them lose digits.

    Parameters
    ----------
    array
        Of booleans, whole numbers, floats, decimals or nothing; or a dictionary of some.
    """
    dtype = array.type
    if pa.types.is_dictionary(dtype):
        return numbers_of(array.dictionary_decode())
    missing = missing_of(array)
    if pa.types.is_null(dtype):
        return Numbers(np.full(len(array), np.nan))
    if pa.types.is_decimal(dtype):
        return _decimals(array, missing)
    lost: Bool | None = None
    if pa.types.is_boolean(dtype):
        values = _bits(array).astype(np.float64)
    else:
        raw = raw_values(array, _numpy_name(dtype))
        values = raw.astype(np.float64, copy=False)
        if raw.dtype.kind in "iu" and raw.dtype.itemsize == 8:
            lost = _beyond_whole(raw, missing)
    if missing is not None:
        values = values if values.flags.writeable else values.copy()
        values[missing] = np.nan
    return Numbers(values, lost)


def words_of(array: Any) -> Words:
    """Texts, or whole numbers, decimals and booleans as their exact texts; or a dictionary of some."""
    if pa.types.is_dictionary(array.type):
        inner = words_of(array.dictionary)
        keys = pc.fill_null(array.indices.cast(pa.int64()), -1)
        positions = raw_values(keys, "int64")
        if len(positions) and not -1 <= int(positions.min()) <= int(positions.max()) < len(array.dictionary):
            raise pa.ArrowInvalid("an index beyond its dictionary")
        broken = None if inner.broken is None else np.append(inner.broken, False)[positions]
        words = _compact(np.append(inner.codes, np.int32(-1))[positions], inner.words)
        return Words(words.codes, words.words, broken)
    if not is_text(array.type) or not pa.types.is_string(array.type):
        array = array.cast(pa.string())
    encoded = array.dictionary_encode()
    keys = raw_values(encoded.indices, "int32")
    codes = np.where(_bits(pc.is_valid(encoded.indices)), keys, np.int32(-1)) if encoded.null_count else keys
    words, broken_words = _as_utf8(encoded.dictionary)
    broken = None
    if broken_words is not None:
        broken = np.append(broken_words, False)[codes]
        codes = np.where(broken, np.int32(-1), codes)
    compact = _compact(codes, words)
    return Words(compact.codes, compact.words, broken)


def vectors_of(array: Any, width: int) -> tuple[NDArray[np.float64], Bool | None, Bool | None, NDArray[np.int64]]:
    """Lists as rows of a matrix.

    Parameters
    ----------
    array
        Of lists of numbers.
    width
        Values that each should have.

    Returns
    -------
    values
        (row, item) float64, NaN where a value, or the whole list, is missing, or the list has another length.
    lost
        (row, item) whether a float64 has fewer digits; None where none has.
    wrong
        (row,) whether a list is missing or has another length; None where none is.
    lengths
        (row,) values of each list.
    """
    missing = missing_of(array)
    n_rows = len(array)
    if pa.types.is_fixed_size_list(array.type):
        size = array.type.list_size
        lengths = np.full(n_rows, size, np.int64)
        starts = np.arange(n_rows, dtype=np.int64) * size
        flat = numbers_of(array.values.slice(array.offset * size, n_rows * size))
    else:
        kind = "int64" if pa.types.is_large_list(array.type) else "int32"
        offsets = raw_values(array.offsets, kind).astype(np.int64)
        lengths, starts = np.diff(offsets), offsets[:-1] - (offsets[0] if len(offsets) else 0)
        first, last = (int(offsets[0]), int(offsets[-1])) if len(offsets) else (0, 0)
        flat = numbers_of(array.values.slice(first, last - first))
    wrong = lengths != width if missing is None else (lengths != width) | missing
    if not wrong.any() and len(flat.values) == n_rows * width:
        shape = (n_rows, width)
        return flat.values.reshape(shape), None if flat.lost is None else flat.lost.reshape(shape), None, lengths
    values = np.full((n_rows, width), np.nan)
    good = np.flatnonzero(~wrong)
    where = starts[good, None] + np.arange(width)
    values[good] = flat.values[where]
    lost = None
    if flat.lost is not None:
        lost = np.zeros((n_rows, width), bool)
        lost[good] = flat.lost[where]
    return values, lost, wrong, np.where(missing, -1, lengths) if missing is not None else lengths


def without_numbers(values: NDArray[np.float64], missing: Mapping[float, str]) -> tuple[NDArray[np.float64], set[str]]:
    """Values with NaN for numbers that mean missing, and what names those that occurred."""
    seen = set()
    for number, name in missing.items():
        hit = values == number
        if hit.any():
            values = np.where(hit, np.nan, values)
            seen.add(name)
    return values, seen


def without_words(words: Words, missing: Mapping[str, str]) -> tuple[Words, set[str]]:
    """Words without those that mean missing, and what names those that occurred."""
    texts = words.words.to_pylist() if missing else []
    seen = {missing[text] for text in texts if text in missing}
    if not seen:
        return words, seen
    keep = np.array([text not in missing for text in texts])
    codes = np.where(np.append(keep, False)[words.codes], words.codes, np.int32(-1))
    compact = _compact(codes, words.words)
    return Words(compact.codes, compact.words, words.broken), seen


def _is_number(dtype: pa.DataType) -> bool:
    is_number = (pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    return any(check(dtype) for check in is_number)


def _is_list(dtype: pa.DataType) -> bool:
    return bool(pa.types.is_list(dtype) or pa.types.is_large_list(dtype) or pa.types.is_fixed_size_list(dtype))


def _numpy_name(dtype: pa.DataType) -> str:
    return {"halffloat": "float16", "float": "float32", "double": "float64"}.get(str(dtype), str(dtype))


def _bits(array: Any) -> Bool:
    """(row,) an array of booleans without missing values, or whatever stands where they are missing."""
    octets = np.frombuffer(array.buffers()[1] or b"", np.uint8)
    return np.unpackbits(octets, bitorder="little")[array.offset : array.offset + len(array)].astype(bool)


def _beyond_whole(values: NDArray[Any], missing: Bool | None) -> Bool | None:
    """(row,) which whole numbers are no float64: those whose digits from the first to the last 1 are more than 53."""
    size = values.view(np.uint64)
    if values.dtype.kind == "i":
        size = np.where(values < 0, np.uint64(0) - size, size)
    if not len(size) or int(size.max()) >> 53 == 0:
        return None
    lowest = size & (np.uint64(0) - size)
    lost: Bool = size // np.maximum(lowest, np.uint64(1)) >= np.uint64(1) << _WHOLE_BITS
    if missing is not None:
        lost &= ~missing
    return lost if lost.any() else None


def _decimals(array: Any, missing: Bool | None) -> Numbers:
    """Decimals as the float64 nearest to each.

    Notes
    -----
    Both the digits and the power of ten are float64s where there are at most 53 bits and 22 decimals, and the quotient
    of two float64s is rounded once. All others are read as texts.
    """
    scale = array.type.scale
    values, lost = np.full(len(array), np.nan), np.zeros(len(array), bool)
    known = np.ones(len(array), bool) if missing is None else ~missing
    by_text = known
    if array.type.bit_width < 128:
        array = array.cast(pa.decimal128(array.type.precision, scale))
    if array.type.bit_width == 128 and 0 <= scale <= _FAST_SCALE:
        pairs = np.frombuffer(array.buffers()[1] or b"", "<i8", 2 * len(array), array.offset * 16).reshape(-1, 2)
        digits = pairs[:, 0]
        exact = known & (pairs[:, 1] == digits >> 63) & (digits <= _MOST_WHOLE) & (digits >= -_MOST_WHOLE)
        values[exact] = digits[exact] / 10.0**scale
        by_text = known & ~(exact & (digits < _SURE) & (digits > -_SURE))
    rows = np.flatnonzero(by_text)
    if len(rows):
        texts = words_of(array.take(_indices(rows)))
        words = texts.words.to_pylist()
        values[rows] = np.array([float(word) for word in words])[texts.codes]
        lost[rows] = np.array([lost_digits(word) for word in words])[texts.codes]
    return Numbers(values, lost if lost.any() else None)


def _indices(rows: NDArray[np.int64]) -> Any:
    return pa.Array.from_buffers(pa.int64(), len(rows), [None, pa.py_buffer(np.ascontiguousarray(rows))])


def _as_utf8(words: Any) -> tuple[Any, Bool | None]:
    """Distinct texts, and which of them are not UTF-8, as Parquet does not look at that; those are emptied."""
    try:
        words.validate(full=True)
        return words, None
    except pa.ArrowInvalid:
        texts = words.view(pa.binary()).to_pylist()
    broken = np.zeros(len(texts), bool)
    for position, text in enumerate(texts):
        try:
            text.decode()
        except UnicodeDecodeError:
            broken[position] = True
            texts[position] = b""
    return text_array([text.decode() for text in texts]), broken


def _compact(codes: NDArray[np.int32], words: Any) -> Words:
    """The words that occur, each once and sorted, and codes of them."""
    used = np.zeros(len(words) + 1, bool)
    used[codes] = True  # -1 is the last one
    order = raw_values(pc.sort_indices(words), "uint64").astype(np.int64)
    order = order[used[order]]
    rank = np.full(len(words) + 1, -1, np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    return Words(rank[codes], words.take(_indices(order)))
