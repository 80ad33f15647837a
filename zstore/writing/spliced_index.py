"""The index and the moments of a version made of those of the version before, array by array."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.format.index import COLUMNS, SeriesIndex, StaticAttribute, described_arrays
from zstore.format.moments import Moments
from zstore.reading.store import Store
from zstore.writing.spliced import Edits, Spliced

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class SplicedIndex:
    """The index of a version made of that of the version before; what stays is read when it is written.

    Parameters
    ----------
    columns
        By name, every array of the index but static attributes.
    statics
        Static attributes; values that stay are spliced too.
    n_rows
        Rows of all series.
    contiguous
        Whether places are rows, see :attr:`SeriesIndex.contiguous`.
    """

    columns: Mapping[str, Spliced]
    statics: tuple[StaticAttribute, ...]
    n_rows: int
    contiguous: bool

    @property
    def n_series(self) -> int:
        """Series."""
        return len(self.columns["row_size"])

    def to_arrays(self, time_attributes: dict[str, Any]) -> dict[str, tuple[Any, str, dict[str, Any]]]:
        """As :meth:`SeriesIndex.to_arrays`."""
        return described_arrays(self.columns, self.statics, self.contiguous, time_attributes)

    @property
    def n_runs(self) -> int:
        """Runs."""
        return len(self.columns["run_start"])

    def sizes(self) -> Iterator[Int64]:
        """As :meth:`SeriesIndex.sizes`."""
        return self.columns["row_size"].parts()

    def time_ends(self) -> tuple[int, int] | None:
        """As :meth:`SeriesIndex.time_ends`."""
        if not self.n_series:
            return None
        first, last = self.columns["time_start"], self.columns["time_stop"]
        return min(int(some.min()) for some in first.parts()), max(int(some.max()) for some in last.parts())

    @cached_property
    def loaded(self) -> SeriesIndex:
        """The same in memory, without static attributes."""
        values = {name: column.whole() for name, column in self.columns.items() if name != "id"}
        return SeriesIndex.from_arrays({name: (array, {}) for name, array in values.items()}, self.columns["id"].whole)


@dataclass(frozen=True)
class SplicedMoments:
    """The moments of a version made of those of the version before, by name."""

    columns: Mapping[str, Spliced]

    def fields(self) -> Mapping[str, Spliced]:
        """As :meth:`Moments.fields`."""
        return self.columns


IndexOf = SeriesIndex | SplicedIndex
MomentsOf = Moments | SplicedMoments


def spliced_statics(base: Store, unknown: Int64) -> tuple[StaticAttribute, ...]:
    """Static attributes of a store and of new series, which have none; of those (new series,) series come before."""
    found = []
    for name, column, categories in base.static_columns:
        missing = np.full(len(unknown), np.nan if categories is None else -1, column.dtype)
        found.append(StaticAttribute(name, Spliced.of(column, Edits.of((unknown, missing))), categories))
    return tuple(found)


def unchanged(base: Store) -> tuple[SplicedIndex, SplicedMoments]:
    """The index and the moments of a version, for another one that has the same."""
    columns = {name: Spliced.of(base.column(name)) for name in COLUMNS}
    moments = {name: Spliced.of(base.moments_column(name)) for name in Moments.empty((0,)).fields()}
    statics = spliced_statics(base, np.zeros(0, np.int64))
    return SplicedIndex(columns, statics, base.n_rows, base.contiguous), SplicedMoments(moments)
