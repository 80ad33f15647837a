"""What an encoding is: how the values of a field lie on disk, chosen from what was observed block by block."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from zstore.arrow import text_array

Values = NDArray[Any]
Kind = Literal["number", "category", "array"]


class NumberForm(NamedTuple):
    """How the numbers of one block are spilled.

    Parameters
    ----------
    decimals
        Decimals of the integers; None for floats.
    largest
        Largest absolute integer; 0 for floats.
    n_inexact
        Values that have more digits than the float dtype of the field keeps.
    """

    decimals: int | None
    largest: int
    n_inexact: int = 0

    def to_json(self) -> dict[str, Any]:
        """As a note of a block has it."""
        return self._asdict()


class WordForm(NamedTuple):
    """How the categories of one block are spilled: as codes.

    Parameters
    ----------
    words
        (word,) what the codes stand for, as an Arrow array.
    n_inexact
        0: words are exact.
    """

    words: Any
    n_inexact: int = 0

    def to_json(self) -> dict[str, Any]:
        """As a note of a block has it."""
        return {"words": self.words.to_pylist()}


class ArrayForm(NamedTuple):
    """What is known of some values of a field, such as the image of one row.

    Parameters
    ----------
    dtype
        As the source has them.
    fits_bytes
        Whether all are whole numbers from 0 to 255.
    n_inexact
        0: values are kept as they are.
    """

    dtype: str
    fits_bytes: bool
    n_inexact: int = 0

    def to_json(self) -> dict[str, Any]:
        """As a note has it."""
        return self._asdict()


Form = NumberForm | WordForm | ArrayForm


def form_from_json(document: dict[str, Any]) -> Form:
    """Read ``to_json`` of a form back. Raises `KeyError` or `TypeError` if it is none."""
    if "words" in document:
        return WordForm(text_array(document["words"]))
    return ArrayForm(**document) if "fits_bytes" in document else NumberForm(**document)


class Observed(NamedTuple):
    """The values of one block as they are spilled, (row,), and their form."""

    values: Values
    form: Form


class Encoding(ABC):
    """How the values of one field lie on disk.

    Parameters
    ----------
    dtype
        Of what is stored: ``int16``, ``int32``, ``float32`` or ``float64``.
    """

    kind: ClassVar[Kind]
    dtype: str

    @property
    def fill(self) -> int | float:
        """Stored value that means missing."""
        return fill_of(np.dtype(self.dtype))

    @property
    def decimals(self) -> int | None:
        """Decimals of stored integers; None for floats."""
        return None

    @property
    def unit(self) -> int:
        """What stored values are divided by: a power of ten."""
        return 1

    @property
    def marked(self) -> bool:
        """Whether a number stands for missing; else missing values are NaN as they are stored."""
        return True

    @property
    def words(self) -> tuple[str, ...]:
        """What codes stand for; empty for numbers."""
        return ()

    @abstractmethod
    def attributes(self) -> dict[str, Any]:
        """CF attributes of the variable, as the Zarr document has them."""

    @abstractmethod
    def form_of(self, largest: float) -> Form:
        """The form of values that are stored in this encoding, of which none is larger than `largest`."""

    @property
    @abstractmethod
    def empty_form(self) -> Form:
        """The form of a block of int16 that has missing values only."""

    @abstractmethod
    def bringer(self, form: Form) -> Callable[[Values], Values]:
        """What brings the spilled values of a block, (row,), to this encoding; missing ones stay missing.

        It can be pickled, for the workers of a cluster. This encoding must have been chosen with the form among others.
        """

    @abstractmethod
    def is_missing(self, stored: Values) -> NDArray[np.bool_]:
        """(row,) whether stored values are missing."""

    @abstractmethod
    def unpack(self, stored: Values, dtype: str = "float32") -> Values:
        """Stored values, (row,), as floats; NaN where missing. Codes of categories are numbers here."""

    @abstractmethod
    def count_infinite(self, stored: Values) -> int:
        """Stored values that are infinite."""

    def same_arrays(self, other: Encoding) -> bool:
        """Whether what is stored in the other encoding is stored in this one as it is, and means the same."""
        return (self.dtype, self.decimals) == (other.dtype, other.decimals)

    def tidied(self) -> Encoding:
        """The same, as an ingest of all rows at once would have chosen it."""
        return self


class Family(Protocol):
    """The encodings of one kind of values."""

    def choose(
        self, forms: Sequence[Form], dtype: str, before: Encoding | None = None, largest: float = 0.0
    ) -> Encoding:
        """The smallest encoding that every block can be brought to without loss.

        Parameters
        ----------
        forms
            Of every block that has a row.
        dtype
            Float dtype of the field when it is read.
        before
            The encoding of rows that are stored already; None where there are none.
        largest
            Their largest absolute value.
        """
        ...

    def restored(self, document: dict[str, Any]) -> Encoding:
        """The encoding that a root document describes."""
        ...


def fill_of(dtype: np.dtype[Any]) -> int | float:
    """The stored value that means missing: the smallest integer, or NaN."""
    return int(np.iinfo(dtype).min) if dtype.kind == "i" else float("nan")


def narrowest(largest: int) -> str:
    """The integer dtype that holds numbers up to `largest`."""
    return "int16" if largest < 1 << 15 else "int32"
