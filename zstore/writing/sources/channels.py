"""The values of one channel as a block of a source has them: numbers, or words. Each kind knows how it goes on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zstore.arrow import numbered, text_array
from zstore.format.encodings.base import Observed
from zstore.format.encodings.numbers import count_inexact, observe_numbers
from zstore.format.encodings.words import observe_codes


class ChannelValues(ABC):
    """The values of one channel, (row,)."""

    @abstractmethod
    def observe(self, order: Any, dtype: str) -> Observed:
        """Pack the values.

        Parameters
        ----------
        order
            (row,) rows in their order, or a slice of all.
        dtype
            Float dtype of the channels of numbers.
        """

    @abstractmethod
    def at(self, rows: NDArray[np.int64]) -> Self:
        """Some rows, as if there were no others."""

    @abstractmethod
    def followed_by(self, others: Sequence[Self]) -> Self:
        """One column of these rows and those of others of its kind, in their order."""

    @abstractmethod
    def as_stored(self, words: Sequence[str], dtype: str) -> NDArray[Any]:
        """(row,) the values as a store gives them back, NaN where missing; words as their positions in `words`."""

    @abstractmethod
    def n_inexact(self, stored: NDArray[Any]) -> int:
        """Values that have more digits than what :meth:`as_stored` gave keeps."""


@dataclass(frozen=True)
class NumberValues(ChannelValues):
    """A column of numbers.

    Parameters
    ----------
    values
        (row,) float64, NaN where missing.
    """

    values: NDArray[np.float64]

    @classmethod
    def missing(cls, n_rows: int) -> NumberValues:
        """A column that has no value."""
        return cls(np.full(n_rows, np.nan))

    def observe(self, order: Any, dtype: str) -> Observed:
        """In the fewest decimals; numbers that are too large were refused as they were read."""
        values, form = observe_numbers(self.values, dtype, finite=False)
        return Observed(values[order], form)  # packed before they are sorted: fewer bytes to move

    def at(self, rows: NDArray[np.int64]) -> NumberValues:
        """Their numbers."""
        return NumberValues(self.values[rows])

    def followed_by(self, others: Sequence[NumberValues]) -> NumberValues:
        """Row after row."""
        return NumberValues(np.concatenate([self.values, *(other.values for other in others)]))

    def as_stored(self, words: Sequence[str], dtype: str) -> NDArray[Any]:
        """Rounded to the dtype."""
        with np.errstate(over="ignore"):
            return self.values.astype(dtype)

    def n_inexact(self, stored: NDArray[Any]) -> int:
        """As :func:`~zstore.format.encodings.numbers.count_inexact` has it."""
        return count_inexact(self.values, stored)


@dataclass(frozen=True)
class Categories(ChannelValues):
    """A column of categories.

    Parameters
    ----------
    codes
        (row,) int32 position in `words`; -1 where missing.
    words
        (word,) distinct texts.
    """

    codes: NDArray[np.int32]
    words: pa.Array

    @classmethod
    def missing(cls, n_rows: int) -> Categories:
        """A column that has no word."""
        return cls(np.full(n_rows, -1, np.int32), text_array([]))

    def observe(self, order: Any, dtype: str) -> Observed:
        """Codes in the narrowest integers."""
        return observe_codes(self.codes[order], self.words)

    def at(self, rows: NDArray[np.int64]) -> Categories:
        """Their words, and no others."""
        codes = self.codes[rows]
        used = np.unique(codes[codes >= 0])
        place = np.full(len(self.words) + 1, -1, np.int32)
        place[used] = np.arange(len(used))
        return Categories(place[codes], self.words.take(used))

    def followed_by(self, others: Sequence[Categories]) -> Categories:
        """In terms of the words of all."""
        columns = (self, *others)
        return Categories(*recoded([column.words for column in columns], [column.codes for column in columns]))

    def as_stored(self, words: Sequence[str], dtype: str) -> NDArray[Any]:
        """Positions as floats; -1 where a word is not among them."""
        code = {word: float(number) for number, word in enumerate(words)}
        codes = np.array([*(code.get(word, -1.0) for word in self.words.to_pylist()), np.nan])
        return codes[self.codes].astype(dtype)

    def n_inexact(self, stored: NDArray[Any]) -> int:
        """0: words are exact."""
        return 0


def recoded(texts: Sequence[Any], codes: Sequence[NDArray[np.int32]]) -> tuple[NDArray[np.int32], Any]:
    """(row,) codes in terms of all texts, -1 where they were, and the texts."""
    everything, positions = numbered(texts)
    places = [np.append(position, np.int32(-1)) for position in positions]
    return np.concatenate([place[old] for place, old in zip(places, codes, strict=True)]), everything
