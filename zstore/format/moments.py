"""Mergeable statistics per series and channel: count, mean, M2, min, max, missing.

Two sets of moments merge exactly (Chan, Golub & LeVeque 1979, "Updating formulae and a pairwise algorithm
for computing sample variances"), so shards are summed up where they are written and merged in row order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Moments of groups of values; every field has the same shape, for example (series, channel).

    Parameters
    ----------
    count
        Observed values, int64.
    mean
        Their mean; 0 where `count` is 0.
    m2
        Sum of squared deviations from the mean; the population variance is ``m2 / count``.
    low, high
        Smallest and largest value; ``inf`` and ``-inf`` where `count` is 0.
    n_missing
        Missing values, int64.
    """

    count: NDArray[np.int64]
    mean: Float64
    m2: Float64
    low: Float64
    high: Float64
    n_missing: NDArray[np.int64]

    @classmethod
    def empty(cls, shape: tuple[int, ...]) -> Moments:
        """Moments of nothing."""
        return cls(
            np.zeros(shape, np.int64),
            np.zeros(shape),
            np.zeros(shape),
            np.full(shape, np.inf),
            np.full(shape, -np.inf),
            np.zeros(shape, np.int64),
        )

    @classmethod
    def of_segments(cls, values: NDArray[np.floating], starts: NDArray[np.int64]) -> Moments:
        """Moments of consecutive segments of a column.

        Parameters
        ----------
        values
            (row,) floats, NaN for missing.
        starts
            (segment,) first row of each segment, strictly ascending from 0.

        Returns
        -------
        Moments of shape (segment,). Cost: a few passes over `values`.
        """
        if not len(starts):
            return cls.empty((0,))
        missing = np.isnan(values)
        sizes = np.diff(np.append(starts, len(values)))
        wide = values.astype(np.float64, copy=False)
        scratch, n_missing, any_missing = wide, np.zeros(len(starts), np.int64), bool(missing.any())
        if any_missing:
            n_missing = np.add.reduceat(missing, starts, dtype=np.int64)
            scratch = np.where(missing, 0.0, wide)
        count = sizes - n_missing
        with np.errstate(invalid="ignore", over="ignore"):
            mean = np.add.reduceat(scratch, starts) / np.maximum(count, 1)
            if any_missing:
                np.copyto(scratch, np.inf, where=missing)
            low = np.minimum.reduceat(scratch, starts)
            if any_missing:
                np.copyto(scratch, -np.inf, where=missing)
            high = np.maximum.reduceat(scratch, starts)
            del scratch
            deviation = wide - mean if len(mean) == 1 else np.repeat(mean, sizes)
            if len(mean) > 1:
                np.subtract(wide, deviation, out=deviation)
            if any_missing:
                deviation[missing] = 0.0
            m2 = np.add.reduceat(np.square(deviation, out=deviation), starts)
        return cls(count, mean, m2, low, high, n_missing)

    def merge(self, other: Moments) -> Moments:
        """Moments of the values of both."""
        count = self.count + other.count
        safe = np.maximum(count, 1)
        with np.errstate(invalid="ignore", over="ignore"):
            delta = other.mean - self.mean
            mean = np.where(self.count == 0, other.mean, self.mean + delta * (other.count / safe))
            mean = np.where(other.count == 0, self.mean, mean)
            m2 = (
                self.m2
                + other.m2
                + np.where((self.count == 0) | (other.count == 0), 0.0, delta**2 * (self.count * (other.count / safe)))
            )
        return Moments(
            count,
            mean,
            m2,
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
            self.n_missing + other.n_missing,
        )

    def at(self, where: slice | NDArray[np.int64] | int) -> Moments:
        """The moments at some positions of the first axis."""
        return _rebuild([values[where] for values in self.fields().values()])

    def total(self) -> Moments:
        """Moments over the first axis, merged pairwise."""
        halves = self
        while len(halves.count) > 1:
            odd = len(halves.count) % 2
            paired = halves.at(slice(0, len(halves.count) - odd))
            merged = paired.at(slice(0, None, 2)).merge(paired.at(slice(1, None, 2)))
            if odd:
                tail = halves.at(slice(-1, None))
                merged = stack([merged.at(slice(None)), tail])
            halves = merged
        return halves.at(0) if len(halves.count) else Moments.empty(self.count.shape[1:])

    @property
    def std(self) -> Float64:
        """Population standard deviation (ddof 0); 0 where nothing was observed, and where all values are the same.

        The mean of equal values may be off by a rounding error, so their `m2` need not be 0.
        """
        return np.where(self.low == self.high, 0.0, np.sqrt(self.m2 / np.maximum(self.count, 1)))

    def fields(self) -> dict[str, NDArray[np.generic]]:
        """Every field by name, in the order of the constructor."""
        return {
            "count": self.count,
            "mean": self.mean,
            "m2": self.m2,
            "low": self.low,
            "high": self.high,
            "n_missing": self.n_missing,
        }


def stack(parts: list[Moments], axis: int = 0) -> Moments:
    """Concatenate moments along an axis."""
    names = list(parts[0].fields())
    return _rebuild([np.concatenate([part.fields()[name] for part in parts], axis) for name in names])


def _rebuild(fields: list[Any]) -> Moments:
    return Moments(*fields)
