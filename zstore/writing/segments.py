"""What a shard knows of each series in it: in memory or, where that is much, on scratch space until it is summed up."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.format.moments import Moments
from zstore.storage.protocol import Storage
from zstore.writing.sort import Spill

Int64 = NDArray[np.int64]

_MUCH_BYTES = 1 << 20  # of a shard; all of them together lie in the memory of the client


@dataclass(frozen=True)
class Segments:
    """Stretches of rows of one series each, as they follow each other in a shard.

    Parameters
    ----------
    series
        (segment,) series, ascending.
    first_time, last_time
        (segment,) times of the first and last row of each.
    moments
        (segment, channel).
    aside
        Where all of that lies on scratch space; what is here is of the first and the last segment then.
    """

    series: NDArray[np.int32]
    first_time: Int64
    last_time: Int64
    moments: Moments
    aside: Spill | None = None

    def at(self, where: slice | list[int]) -> Segments:
        """Some of them, in memory of their own."""
        moments = Moments(*(values[where].copy() for values in self.moments.fields().values()))  # type: ignore[arg-type]
        first, last = self.first_time[where].copy(), self.last_time[where].copy()
        return Segments(self.series[where].copy(), first, last, moments, self.aside)

    def put_aside(self, scratch: Storage | None, name: str) -> Segments:
        """The same on scratch space, if there is any and it is worth it."""
        columns: list[NDArray[Any]] = [self.first_time, self.last_time, self.series]
        columns += [column for values in self.moments.fields().values() for column in values.T]
        if scratch is None or sum(column.nbytes for column in columns) < _MUCH_BYTES:
            return self
        return replace(self.at([0, -1]), aside=Spill.write(scratch, name, columns))

    def brought_back(self) -> Segments:
        """The same in memory."""
        if self.aside is None:
            return self
        columns = self.aside.read_columns(range(len(self.aside.dtypes)), 0, self.aside.n_rows)
        first_time, last_time, series, *rest = columns
        fields, n_channels = list(self.moments.fields()), self.moments.count.shape[1]
        of_fields = [rest[n * n_channels : (n + 1) * n_channels] for n in range(len(fields))]
        moments = Moments.empty((len(series), 0)) if not rest else Moments(*(np.stack(f, axis=1) for f in of_fields))
        return Segments(series, first_time, last_time, moments)
