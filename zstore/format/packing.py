"""Lossless packing of decimal numbers into small integers, as CF `scale_factor` describes it.

A CSV number is a decimal. With at most seven decimals and few enough digits it is an integer times a
power of ten, and that integer compresses far better than the bits of a float. Packing is used only where
``float32(integer * scale) == float32(value)`` for *every* value of the channel. Equality is that of numbers:
``-0.0`` is a zero, and in a packed channel it is stored as one.

Blocks of a source are packed one by one, before anybody knows how many decimals the whole channel needs.
Moving a block from ``k`` to ``K >= k`` decimals multiplies its integers by ``10**(K-k)``, and stays exact
while ``|integer| < 2**24``: a float32 rounding border is an odd 25-bit integer times a power of two, so no
decimal of that size lies on one, and none lies nearer to one than ``10**-7 * 2**-25 > 2**-49`` relative,
while ``integer * scale`` in float64 is off by ``2**-52`` at most. Without decimals the scale is 1 and any
int32 is exact. Zstore itself divides by ``10**K`` instead: integer and power are exact in float32, and IEEE 754
rounds the quotient of two exact numbers correctly, so no float64 is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

MAX_DECIMALS = 7
_EXACT_LIMIT = 1 << 24
_INT_LIMIT = (1 << 31) - 1
_SAMPLE = 512
_EXPONENTS = 1 << 11

Values = NDArray[Any]


@dataclass(frozen=True)
class Packing:
    """How one channel lies on disk.

    Parameters
    ----------
    dtype
        On-disk dtype: ``int16``, ``int32``, ``float32`` or ``float64``.
    decimals
        Decimals kept by an integer dtype; None for a float dtype.
    """

    dtype: str
    decimals: int | None = None

    @property
    def packed(self) -> bool:
        """Whether integers are stored."""
        return self.decimals is not None

    @property
    def scale(self) -> float:
        """CF `scale_factor`; 1.0 for floats."""
        return 1.0 if self.decimals is None else scale_of(self.decimals)

    @property
    def fill(self) -> int | float:
        """Stored value that means missing."""
        return fill_of(np.dtype(self.dtype))

    def cf_attributes(self) -> dict[str, float | int]:
        """CF attributes of a packed variable; empty for floats.

        `add_offset` is written beside `scale_factor` so that xarray unpacks in float64, whose cast to
        float32 is the value of the CSV; with `scale_factor` alone it multiplies in float32 and is off by a bit.
        """
        if not self.packed:
            return {}
        return {"scale_factor": self.scale, "add_offset": 0.0, "_FillValue": int(self.fill)}


@dataclass(frozen=True)
class BlockColumn:
    """One channel of one block: packed integers, or floats where packing was not exact.

    Parameters
    ----------
    values
        (row,) int16, int32, float32 or float64.
    decimals
        Decimals of the integers; None for floats.
    largest
        Largest absolute integer; 0 for floats.
    n_inexact
        Values that have more digits than the float dtype of the channel keeps.
    """

    values: Values
    decimals: int | None
    largest: int
    n_inexact: int = 0

    @property
    def form(self) -> BlockForm:
        """All of it but the values."""
        return BlockForm(self.decimals, self.largest, self.n_inexact)


class BlockForm(NamedTuple):
    """What the packing of a whole channel needs to know of one block, see :class:`BlockColumn`."""

    decimals: int | None
    largest: int
    n_inexact: int


def scale_of(decimals: int) -> float:
    """The float64 nearest to ``10**-decimals``."""
    return float(f"1e-{decimals}")


def fill_of(dtype: np.dtype[Any]) -> int | float:
    """The stored value that means missing: the smallest integer, or NaN."""
    return int(np.iinfo(dtype).min) if dtype.kind == "i" else float("nan")


def pack_block(source: NDArray[np.float64], dtype: str, finite: bool = True) -> BlockColumn:
    """Pack one channel of one block if that is exact, else cast it.

    Parameters
    ----------
    source
        (row,) float64 as parsed; NaN is missing.
    dtype
        The channel's float dtype, ``float32`` or ``float64``.
    finite
        Whether infinities are suspect: a number that was too large.

    Returns
    -------
    The column in its smallest exact form. Cost: some six passes over `source`.

    Raises
    ------
    OverflowError
        If `finite` and a number is infinite in `dtype`.
    """
    with np.errstate(over="ignore"):
        kept = source.astype(dtype)
    absent = np.isnan(source)
    missing = absent if absent.any() else None
    most = MAX_DECIMALS if dtype == "float32" else 0  # in float64, integer * scale is not correctly rounded
    head = slice(0, _SAMPLE)
    head_missing = None if missing is None else missing[head]
    decimals = 0
    while decimals <= most:
        # A sample finds the decimals; the whole column confirms them, or needs more.
        if _pack_exactly(source[head], kept[head], head_missing, decimals) is not None:
            column = _pack_exactly(source, kept, missing, decimals)
            if column is not None:
                return column
        decimals += 1
    if finite and np.isinf(kept).any():
        raise OverflowError
    return BlockColumn(kept, None, 0, count_inexact(source, kept))


def count_inexact(source: NDArray[np.float64], kept: Values) -> int:
    """Decimals that cannot be told from their float32.

    Parameters
    ----------
    source
        (row,) float64 as parsed.
    kept
        (row,) the same as float32. Of float64, none is inexact.

    Notes
    -----
    A float32 keeps six to eight significant digits. A value is exact if its float32 is the very number, or if rounding
    the float32 to seven digits (eight after a leading 1) gives the value back. Cost: some ten passes.
    """
    return len(_inexact_rows(source, kept))


def is_inexact(source: NDArray[np.float64], kept: Values) -> NDArray[np.bool_]:
    """(row,) the values that :func:`count_inexact` counts."""
    inexact = np.zeros(len(source), bool)
    inexact[_inexact_rows(source, kept)] = True
    return inexact


def _inexact_rows(source: NDArray[np.float64], kept: Values) -> NDArray[np.int64]:
    if kept.dtype != np.float32:
        return np.zeros(0, np.int64)
    odd = np.flatnonzero((kept != source) & ~np.isnan(source))
    values, floats = source[odd], kept[odd].astype(np.float64)
    shift = _digit_shifts()[values.view(np.int64) >> 52 & (_EXPONENTS - 1)]
    with np.errstate(over="ignore", invalid="ignore"):
        digits = values * shift
        whole = np.rint(digits)
        tens = np.rint(whole / 10) * 10
        off = np.abs(floats * shift - whole)
        told = (off < 0.5) | ((off < 5) & (whole == tens) & (np.abs(whole) >= 1e7))
        exact = told & (np.abs(digits - whole) < 1e-6) & (np.abs(whole) >= 1e5)
    inexact: NDArray[np.int64] = odd[~exact]
    return inexact


@cache
def _digit_shifts() -> NDArray[np.float64]:
    """Per binary exponent of a float64, the power of ten that brings its numbers to 1e6 … 2e7."""
    exponents = np.arange(_EXPONENTS) - 1023
    return np.asarray(10.0 ** np.clip(np.ceil(6 - exponents * np.log10(2)), -308, 308))


def pack_categories(codes: NDArray[np.int32]) -> BlockColumn:
    """Codes of one block, -1 for missing, as a column without decimals."""
    largest = int(codes.max(initial=0))
    dtype = np.dtype("int16" if largest < 1 << 15 else "int32")
    return BlockColumn(np.where(codes < 0, fill_of(dtype), codes).astype(dtype), 0, largest)


def recode(values: Values, places: NDArray[np.int32], packing: Packing) -> Values:
    """Codes of one block to codes of the whole channel.

    Parameters
    ----------
    values
        (row,) codes of the block.
    places
        (word,) code of each word of the block in the whole channel.
    packing
        Of the whole channel.
    """
    missing = values == fill_of(values.dtype)
    known = places[np.where(missing, 0, values)] if len(places) else np.zeros(len(values), np.int32)
    return np.where(missing, np.int32(packing.fill), known).astype(packing.dtype)


def flag_attributes(words: Sequence[str]) -> dict[str, Any]:
    """CF attributes of codes; `categories` has the exact words, which CF's own list joined by spaces cannot keep."""
    return {
        "flag_values": list(range(len(words))),
        "flag_meanings": " ".join("_".join(word.split()) or "_" for word in words),
        "categories": list(words),
    }


def choose(columns: Iterable[BlockForm], dtype: str) -> Packing:
    """The packing of a whole channel from every block's form.

    Exact by the argument in this module's docstring; falls back to `dtype` where that does not reach.
    """
    columns = list(columns)
    found = [column.decimals for column in columns if column.decimals is not None]
    if not columns or len(found) < len(columns):
        return Packing(dtype)
    decimals = max(found)
    largest = max(largest * 10 ** (decimals - k) for k, largest, _ in columns if k is not None)
    if largest >= (_EXACT_LIMIT if decimals else _INT_LIMIT):
        return Packing(dtype)
    return Packing("int16" if largest < 1 << 15 else "int32", decimals)


def repack(values: Values, decimals: int | None, packing: Packing) -> Values:
    """Bring one block's column to the packing of the whole channel; NaN and fill stay missing."""
    if decimals is None:
        return values.astype(packing.dtype, copy=False)
    if not packing.packed:
        return unpack(values, Packing(str(values.dtype), decimals), packing.dtype)
    factor = 10 ** (packing.decimals - decimals)  # type: ignore[operator]  # packed: an int
    if factor == 1 and str(values.dtype) == packing.dtype:
        return values
    wide = values.astype(np.int32, copy=False)
    missing = values == fill_of(values.dtype)
    wide = np.where(missing, np.int32(packing.fill), wide * np.int32(factor))
    return wide.astype(packing.dtype, copy=False)


def unpack(stored: Values, packing: Packing, dtype: str = "float32") -> Values:
    """Stored numbers to float values, NaN where missing."""
    if not packing.packed:
        return stored.astype(dtype, copy=False)
    values: Values = stored.astype(dtype)
    values /= values.dtype.type(10**packing.decimals)  # type: ignore[operator]  # packed: an int
    values[stored == packing.fill] = np.nan
    return values


def _pack_exactly(
    source: NDArray[np.float64], kept: Values, missing: NDArray[np.bool_] | None, decimals: int
) -> BlockColumn | None:
    limit = _EXACT_LIMIT if decimals else _INT_LIMIT
    with np.errstate(invalid="ignore", over="ignore"):
        whole = source * 10.0**decimals
        np.rint(whole, out=whole)
        if missing is not None:
            whole[missing] = 0.0
        largest = max(float(whole.max(initial=0.0)), -float(whole.min(initial=0.0)))
        if not largest < limit:  # also catches infinities
            return None
    dtype = np.dtype("int16" if largest < 1 << 15 else "int32")
    values = whole.astype(dtype)
    # A quotient of exact numbers is the float64 nearest to the decimal: the source itself, unless it has more digits.
    longer = whole / 10.0**decimals != source if decimals else whole != source
    if missing is not None:
        longer &= ~missing
        values[missing] = fill_of(dtype)
    n_inexact = 0
    if longer.any():
        back = np.multiply(whole, scale_of(decimals), out=whole).astype(kept.dtype)
        if np.any((back != kept) & longer):
            return None
        n_inexact = count_inexact(source, kept)
    elif largest >= _EXACT_LIMIT:
        n_inexact = count_inexact(source, kept)
    return BlockColumn(values, decimals, int(largest), n_inexact)
