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

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.format.encodings.base import Encoding, Form, NumberForm, Observed, Values, fill_of, narrowest

MAX_DECIMALS = 7
_EXACT_LIMIT = 1 << 24
_INT_LIMIT = (1 << 31) - 1
_SAMPLE = 512
_TILE_ROWS = 1 << 15  # of which floats stay in the cache of a core
_EXPONENTS = 1 << 11


@dataclass(frozen=True)
class DecimalPacked(Encoding):
    """Integers that are decimals times a power of ten.

    Parameters
    ----------
    dtype
        ``int16`` or ``int32``.
    decimals
        Decimals kept.
    """

    kind = "number"
    dtype: str
    decimals: int = 0

    @property
    def unit(self) -> int:
        """Ten to the number of decimals."""
        return int(10**self.decimals)

    def attributes(self) -> dict[str, Any]:
        """CF `scale_factor` and what belongs to it.

        `add_offset` is written beside `scale_factor` so that xarray unpacks in float64, whose cast to
        float32 is the value of the CSV; with `scale_factor` alone it multiplies in float32 and is off by a bit.
        """
        return {"scale_factor": scale_of(self.decimals), "add_offset": 0.0, "_FillValue": int(self.fill)}

    def form_of(self, largest: float) -> NumberForm:
        """Integers of its decimals."""
        return NumberForm(self.decimals, round(largest * self.unit))

    @property
    def empty_form(self) -> NumberForm:
        """Integers without decimals."""
        return NumberForm(0, 0)

    def bringer(self, form: Form) -> Callable[[Values], Values]:
        """Multiplies integers of fewer decimals."""
        return partial(_more_decimals, factor=10 ** (self.decimals - _decimals(form)), dtype=self.dtype)

    def is_missing(self, stored: Values) -> NDArray[np.bool_]:
        """Where the fill value is."""
        missing: NDArray[np.bool_] = stored == fill_of(stored.dtype)
        return missing

    def unpack(self, stored: Values, dtype: str = "float32") -> Values:
        """Integers over a power of ten."""
        return _divided(stored, self.decimals, dtype)

    def count_infinite(self, stored: Values) -> int:
        """No integer is."""
        return 0


@dataclass(frozen=True)
class Plain(Encoding):
    """Floats as they are.

    Parameters
    ----------
    dtype
        ``float32`` or ``float64``.
    """

    kind = "number"
    dtype: str

    @property
    def marked(self) -> bool:
        """Missing values are NaN."""
        return False

    def attributes(self) -> dict[str, Any]:
        """None: floats mean themselves."""
        return {}

    def form_of(self, largest: float) -> NumberForm:
        """Floats."""
        return NumberForm(None, 0)

    @property
    def empty_form(self) -> NumberForm:
        """Integers without decimals."""
        return NumberForm(0, 0)

    def bringer(self, form: Form) -> Callable[[Values], Values]:
        """Casts floats, and divides integers."""
        if _decimals(form) is None:
            return partial(np.ndarray.astype, dtype=self.dtype, copy=False)
        return partial(_divided, decimals=_decimals(form), dtype=self.dtype)

    def is_missing(self, stored: Values) -> NDArray[np.bool_]:
        """Where NaN is."""
        missing: NDArray[np.bool_] = np.isnan(stored)
        return missing

    def unpack(self, stored: Values, dtype: str = "float32") -> Values:
        """Cast, if need be."""
        return stored.astype(dtype, copy=False)

    def count_infinite(self, stored: Values) -> int:
        """Infinities of either sign."""
        return int(np.count_nonzero(np.isinf(stored)))


class Numbers:
    """The encodings of numbers."""

    def choose(
        self, forms: Sequence[Form], dtype: str, before: Encoding | None = None, largest: float = 0.0
    ) -> Encoding:
        """Integers where every block has them, and they reach; else floats.

        Exact by the argument in this module's docstring. Without any form it is the encoding `before`, or floats.
        """
        known = [] if before is None else [before.form_of(largest)]
        columns = [form for form in (*known, *forms) if isinstance(form, NumberForm)]
        decimals = max((form.decimals for form in columns if form.decimals is not None), default=0)
        if not columns or any(form.decimals is None for form in columns):
            return Plain(dtype)
        most = max(form.largest * 10 ** (decimals - (form.decimals or 0)) for form in columns)
        if most >= (_EXACT_LIMIT if decimals else _INT_LIMIT):
            return Plain(dtype)
        return DecimalPacked(narrowest(most), decimals)

    def restored(self, document: dict[str, Any]) -> Encoding:
        """From ``stored`` and ``decimals``."""
        if document["decimals"] is None:
            return Plain(document["stored"])
        return DecimalPacked(document["stored"], document["decimals"])


def scale_of(decimals: int) -> float:
    """The float64 nearest to ``10**-decimals``."""
    return float(f"1e-{decimals}")


def observe_numbers(source: NDArray[np.float64], dtype: str, finite: bool = True) -> Observed:
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
    absent = np.isnan(source)
    missing = absent if absent.any() else None
    most = MAX_DECIMALS if dtype == "float32" else 0  # in float64, integer * scale is not correctly rounded
    head = slice(0, _SAMPLE)
    head_missing = None if missing is None else missing[head]
    decimals = 0
    while decimals <= most:
        # A sample finds the decimals; the whole column confirms them, or needs more.
        if _pack_exactly(source[head], head_missing, decimals, dtype) is not None:
            column = _pack_exactly(source, missing, decimals, dtype)
            if column is not None:
                return column
        decimals += 1
    kept = _rounded(source, dtype)
    if finite and np.isinf(kept).any():
        raise OverflowError
    return Observed(kept, NumberForm(None, 0, count_inexact(source, kept)))


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


def _decimals(form: Form) -> Any:
    """Decimals of a block of numbers."""
    return form.decimals if isinstance(form, NumberForm) else 0


def _more_decimals(values: Values, factor: int, dtype: str) -> Values:
    """Integers times a power of ten; the fill value stays one."""
    if factor == 1 and str(values.dtype) == dtype:
        return values
    wide = values.astype(np.int32, copy=False)
    missing = values == fill_of(values.dtype)
    wide = np.where(missing, np.int32(fill_of(np.dtype(dtype))), wide * np.int32(factor))
    return wide.astype(dtype, copy=False)


def _divided(values: Values, decimals: int, dtype: str) -> Values:
    """Integers over a power of ten as floats; NaN for the fill value."""
    floats: Values = values.astype(dtype)
    floats /= floats.dtype.type(10**decimals)
    floats[values == fill_of(values.dtype)] = np.nan
    return floats


def _rounded(source: NDArray[np.float64], dtype: str) -> Values:
    with np.errstate(over="ignore"):
        return source.astype(dtype)


def _pack_exactly(
    source: NDArray[np.float64], missing: NDArray[np.bool_] | None, decimals: int, dtype: str
) -> Observed | None:
    """A column as integers, if their decimals are enough and `dtype` cannot tell the difference."""
    found = _whole_numbers(source, missing, decimals)
    if found is None:
        return None
    whole, largest, longer = found
    n_inexact = 0
    if longer:
        back = (whole * scale_of(decimals)).astype(dtype)
        kept = _rounded(source, dtype)
        odd = back != kept  # where the quotient is the source, so is the product once it is rounded
        if missing is not None:
            odd &= ~missing
        if odd.any():
            return None
        n_inexact = count_inexact(source, kept)
    elif largest >= _EXACT_LIMIT:
        n_inexact = count_inexact(source, _rounded(source, dtype))
    if missing is not None:
        whole[missing] = fill_of(whole.dtype)
    return Observed(whole, NumberForm(decimals, largest, n_inexact))


def _whole_numbers(
    source: NDArray[np.float64], missing: NDArray[np.bool_] | None, decimals: int
) -> tuple[Values, int, bool] | None:
    """(row,) narrowest integers nearest to each value times a power of ten, 0 where missing; None if one is too large.

    Also the largest absolute one, and whether any value has more decimals. Some rows at a time, which stay in cache.
    """
    limit, unit = _EXACT_LIMIT if decimals else _INT_LIMIT, 10.0**decimals
    integers: Values = np.empty(len(source), np.int16)
    scratch = np.empty(min(len(source), _TILE_ROWS))
    largest, longer = 0.0, False
    with np.errstate(invalid="ignore", over="ignore"):
        for first in range(0, len(source), _TILE_ROWS):
            rows = slice(first, first + _TILE_ROWS)
            some, absent = source[rows], None if missing is None else missing[rows]
            whole = scratch[: len(some)]
            np.rint(np.multiply(some, unit, out=whole), out=whole)
            if absent is not None:
                whole[absent] = 0.0
            largest = max(largest, float(whole.max()), -float(whole.min()))
            if not largest < limit:  # also catches infinities
                return None
            integers = integers.astype(narrowest(int(largest)), copy=False)
            integers[rows] = whole
            if not longer:
                # A quotient of exact numbers is the float64 nearest to the decimal: the source itself, unless it has
                # more digits.
                more = (np.divide(whole, unit, out=whole) if decimals else whole) != some
                longer = bool(np.any(more if absent is None else more & ~absent))
    return integers, int(largest), longer
