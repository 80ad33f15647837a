"""Which columns of the rows are what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from lightning_app.data.columns.calendar import TimeEncoding, TimeFeature
from zstore import TimeStepRule

CategoryEncoding = Literal["one_hot", "code"]


@dataclass(frozen=True)
class Words:
    """A channel of categories that becomes a column for each of its words.

    Parameters
    ----------
    column
        Of the rows; it holds codes.
    n_words
        Columns that it becomes; codes from there on have none.
    """

    column: int
    n_words: int


@dataclass(frozen=True)
class VectorSteps:
    """A vector that a batch has on its own.

    Parameters
    ----------
    columns
        Of the rows.
    steps, stride
        How many of the last input rows, and how many rows apart.
    """

    columns: Sequence[int]
    steps: int
    stride: int


@dataclass(frozen=True)
class Columns:
    """Which columns of the rows are what, and what is made of their times.

    Parameters
    ----------
    inputs, targets, future
        Columns of the inputs, of the targets, and of the channels known in advance; ranges where they can be.
    observed
        Inputs whose mask, 1 where observed, is an input too.
    words, future_words
        Inputs, and channels known in advance, that become a column for each word, behind the others.
    vectors
        By name, vectors that a batch has beside the inputs.
    calendar
        Time features, of input rows and of target rows.
    encoding
        ``cyclic``: sine and cosine, behind the inputs and the known channels. ``index``: whole hours or days, in
        `x_time` and `y_time`.
    unit
        Of times: s, ms, us or ns.
    rule
        How far it is from one row to the next.
    """

    inputs: Sequence[int]
    targets: Sequence[int]
    future: Sequence[int] = range(0)
    observed: Sequence[int] = range(0)
    words: tuple[Words, ...] = ()
    future_words: tuple[Words, ...] = ()
    vectors: dict[str, VectorSteps] = field(default_factory=dict)
    calendar: list[TimeFeature] = field(default_factory=list)
    encoding: TimeEncoding = "cyclic"
    unit: str = "s"
    rule: TimeStepRule = field(default_factory=lambda: TimeStepRule("irregular"))

    @property
    def step(self) -> int:
        """Units of time between two rows; 0 where that differs, as for months."""
        return self.rule.count if self.rule.kind == "fixed" else 0


def as_range(columns: list[int]) -> Sequence[int]:
    """The same columns, as a range if they lie beside each other."""
    beside = range(columns[0], columns[0] + len(columns)) if columns else range(0)
    return beside if list(beside) == columns else columns
