"""Vectors that batches have on their own: as some of the input rows, beside `x`, which has all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from lightning_app.batch import BATCH_KEYS
from lightning_app.data.columns.roles import VectorSteps, as_range
from zstore import FieldSteps, Store, UsageError


@dataclass(frozen=True)
class VectorOptions:
    """What is asked for of a vector, or of a channel, that a batch is to have on its own.

    Parameters
    ----------
    steps
        Rows of it in each window: the last ones of its input rows.
    stride
        Rows from one to the next.
    """

    steps: int = 1
    stride: int = 1

    def to_json(self) -> dict[str, Any]:
        """Plain values, as a configuration has them."""
        return asdict(self)


@dataclass(frozen=True)
class VectorUse:
    """What a batch has of a vector.

    Parameters
    ----------
    channels
        Its channels, in order.
    steps, stride
        How many rows of it, and how many apart.
    """

    channels: tuple[str, ...]
    steps: int
    stride: int

    def to_json(self) -> list[Any]:
        """Plain values for a checkpoint."""
        return [self.steps, self.stride, list(self.channels)]

    @classmethod
    def from_json(cls, document: Sequence[Any]) -> VectorUse:
        """Read :meth:`to_json` back; raises ValueError or TypeError where it is nothing of the kind."""
        steps, stride, channels = document
        if isinstance(channels, str) or not channels or not all(isinstance(name, str) for name in channels):
            raise ValueError("channels of a vector")
        if any(type(number) is not int or number < 1 for number in (steps, stride)):
            raise ValueError("steps of a vector")
        return cls(tuple(channels), steps, stride)


def vector_uses(store: Store, asked: Mapping[str, VectorOptions], lookback: int) -> dict[str, VectorUse]:
    """By name, what batches have of vectors.

    Raises
    ------
    NotFoundError
        If the store has no such vector, and no such channel.
    UsageError
        If one is of categories, has a name that something else of a batch has, or needs more rows than `lookback`.
    """
    uses = {}
    for name, options in asked.items():
        channels = store.chosen_channels(name)
        words = [each for each in channels if store.channel(each).kind == "category"]
        if words:
            raise UsageError(
                f"vector {name!r} of words", expected="numbers", where=store.path, fix="name it in --data.channels"
            )
        if name in BATCH_KEYS:
            raise UsageError(f"a vector called {name!r}", expected="a name that no other part of a batch has")
        FieldSteps(options.steps, options.stride).offsets(name, lookback)
        uses[name] = VectorUse(channels, options.steps, options.stride)
    return uses


def vector_steps(uses: Mapping[str, VectorUse], columns: Sequence[str]) -> dict[str, VectorSteps]:
    """By name, which columns and rows of a window they are; `columns` of the rows, in order."""
    return {
        name: VectorSteps(as_range([columns.index(own) for own in use.channels]), use.steps, use.stride)
        for name, use in uses.items()
    }


def last_rows(rows: Tensor, steps: int, stride: int) -> Tensor:
    """(batch, step, …) the last `steps` of (batch, row, …), `stride` rows apart, ending with the last one; a view."""
    return rows[:, rows.shape[1] - 1 - (steps - 1) * stride :: stride]
