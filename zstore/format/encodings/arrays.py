"""Values of fields, such as images: numbers of one dtype, as the source has them, or bytes where that loses nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.format.encodings.base import ArrayForm, Encoding, Form, Values

ARRAY_DTYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64"),
)
"""What values of a field may be stored as."""

_PART = 1 << 16


@dataclass(frozen=True)
class Dense(Encoding):
    """Numbers as they are, or as bytes.

    Parameters
    ----------
    dtype
        Of what is stored: one of :data:`ARRAY_DTYPES`.
    source_dtype
        Of the values in the source: the same, or a float whose values were all found to be whole, from 0 to 255.
    """

    kind = "array"
    dtype: str
    source_dtype: str

    @property
    def fill(self) -> int | float:
        """0: that a row has no value is told by its digest, not by a number."""
        return 0

    @property
    def marked(self) -> bool:
        """No number is free to stand for missing."""
        return False

    def attributes(self) -> dict[str, Any]:
        """None: what is stored is the value."""
        return {}

    def form_of(self, largest: float) -> ArrayForm:
        """Values as the source had them."""
        return ArrayForm(self.source_dtype, fits_bytes=self.dtype == "uint8")

    @property
    def empty_form(self) -> ArrayForm:
        """Zeros, which any encoding holds."""
        return ArrayForm(self.source_dtype, fits_bytes=True)

    def bringer(self, form: Form) -> Callable[[Values], Values]:
        """Casts, which loses nothing."""
        return partial(np.asarray, dtype=self.dtype)

    def holds(self, form: ArrayForm) -> bool:
        """Whether values of a form are stored in this encoding without loss."""
        return form.dtype == self.source_dtype and (self.dtype == self.source_dtype or form.fits_bytes)

    def is_missing(self, stored: Values) -> NDArray[np.bool_]:
        """Nowhere: a value is missing as a whole, or not at all."""
        return np.zeros(stored.shape, bool)

    def unpack(self, stored: Values, dtype: str = "float32") -> Values:
        """As floats."""
        return stored.astype(dtype)

    def count_infinite(self, stored: Values) -> int:
        """Infinite floats."""
        return int(np.isinf(stored).sum()) if stored.dtype.kind == "f" else 0


class Arrays:
    """The encodings of values of fields."""

    def choose(self, forms: Sequence[Form], dtype: str, before: Encoding | None = None, largest: float = 0.0) -> Dense:
        """Bytes where all values fit, whole numbers or not; else the dtype of the source, one for all of them."""
        known = [form for form in forms if isinstance(form, ArrayForm)]
        if isinstance(before, Dense):
            known.append(before.form_of(largest))
        source = known[0].dtype if known else dtype
        as_bytes = np.dtype(source).kind == "f" and all(form.fits_bytes for form in known)
        return Dense("uint8" if as_bytes else source, source)

    def restored(self, document: dict[str, Any]) -> Dense:
        """From ``stored`` and ``dtype``."""
        return Dense(document["stored"], document["dtype"])


def observe_array(values: NDArray[Any]) -> ArrayForm:
    """The form of some values. Cost: for floats, a pass over them that ends where a part has another number."""
    if values.dtype.kind != "f":
        return ArrayForm(str(values.dtype), fits_bytes=values.dtype == np.uint8)
    flat = values.reshape(-1)
    fits = all(_fits_bytes(flat[start : start + _PART]) for start in range(0, len(flat), _PART))
    return ArrayForm(str(values.dtype), fits)


def _fits_bytes(values: NDArray[Any]) -> bool:
    with np.errstate(invalid="ignore"):  # NaN, and what lies beyond
        same = values.astype(np.uint8).astype(values.dtype) == values
    return bool(same.all()) and not np.signbit(values).any()  # -0.0 has other bits than 0
