"""One series: its rows by time, as numpy or a data frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zstore.format.layout import TIME
from zstore.reading.batches import Columns, record_batches
from zstore.reading.columns import (
    as_times,
    channel_attributes,
    free_name,
    read_column,
    time_attributes,
)
from zstore.reading.frames import needed, pandas_frame, polars_frame
from zstore.reading.ranges import RowRanges, parse_bound, row_ranges
from zstore.reading.version import StoredVersion

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas
    import polars
    import xarray


@dataclass(frozen=True)
class Series:
    """All rows of one id.

    Parameters
    ----------
    store
        Where it is.
    position
        Its position in ``store.ids``.
    id
        Its id.
    """

    store: StoredVersion
    position: int
    id: str

    def __len__(self) -> int:
        return int(self.store.index.row_size[self.position])

    def __repr__(self) -> str:
        show = self.store.schema.time.show
        index = self.store.index
        first, last = show(int(index.time_start[self.position])), show(int(index.time_stop[self.position]))
        return f"<zstore.Series {self.id!r}: {len(self):,} rows, {first} to {last}>"

    def _repr_html_(self) -> str:
        from zstore.look.series import series_html

        return series_html(self)

    @property
    def statics(self) -> dict[str, Any]:
        """Static attributes of this series: a float, or a word, or None where missing."""
        found: dict[str, Any] = {}
        for static in self.store.statics:
            value = static.values[self.position]
            if static.categories is None:
                found[static.name] = None if np.isnan(value) else float(value)
            else:
                found[static.name] = None if value < 0 else static.categories[int(value)]
        return found

    def rows(self, start: str | int | None = None, stop: str | int | None = None) -> tuple[int, int]:
        """Row range of the times ``[start, stop)``.

        Parameters
        ----------
        start
            First time: an ISO date (and time), or a step number. None for the first row.
        stop
            Time to stop before. None to stop behind the last row.

        Raises
        ------
        UsageError
            If `start` or `stop` is not a time.
        """
        low, high = parse_bound(self.store, start, "start"), parse_bound(self.store, stop, "stop")
        ranges = row_ranges(self.store, np.array([self.position]), low, high)
        return int(ranges.start[0]), int(ranges.stop[0])

    def times(self, start: str | int | None = None, stop: str | int | None = None) -> NDArray[Any]:
        """(row,) times as datetime64, in UTC where the source wrote zones, or int64 for plain steps."""
        return self._times(self.rows(start, stop))

    def read(self, channel: str, start: str | int | None = None, stop: str | int | None = None) -> NDArray[Any]:
        """(row,) floats of one channel, NaN where missing; of categories, their codes."""
        return self.store.read(channel, *self.rows(start, stop))

    def to_pandas(self, start: str | int | None = None, stop: str | int | None = None) -> pandas.DataFrame:
        """All channels, and no field, as a data frame over time, with the types of :meth:`Selection.to_pandas`.

        The index is called ``time``; ``time_`` beside a channel ``time``.
        """
        return pandas_frame(self._table(start, stop)).set_index(free_name(TIME, self.store.channels))

    def to_polars(self, start: str | int | None = None, stop: str | int | None = None) -> polars.DataFrame:
        """All channels as a polars data frame, with a column `time` first and the types of :meth:`Selection.to_polars`.

        The column is called ``time_`` beside a channel ``time``. Fields are left out.
        """
        return polars_frame(self._table(start, stop))

    def to_xarray(
        self, start: str | int | None = None, stop: str | int | None = None, words: bool = False
    ) -> xarray.Dataset:
        """All channels over `time`, with the id and static attributes as scalar coordinates, in memory.

        Names and, with `words`, categories are those of :meth:`zstore.Store.to_xarray`; missing static attributes and
        fields are left out.
        """
        xarray = needed("xarray")
        rows, store = self.rows(start, stop), self.store
        time, id_ = free_name(TIME, store.channels), free_name("id", store.channels)
        columns = {
            channel.name: (time, read_column(store, channel, words, *rows), channel_attributes(channel, words))
            for channel in store.schema.channels
        }
        coordinates: dict[str, Any] = {
            time: (time, self._times(rows), *time_attributes(store.schema.time)),
            id_: self.id,
        }
        for name, value in self.statics.items():
            if value is not None:
                coordinates[free_name(name, {*columns, *coordinates}, "_static")] = value
        return xarray.Dataset(columns, coordinates)  # type: ignore[no-any-return]

    def _table(self, start: str | int | None, stop: str | int | None) -> Any:
        """Times and all channels as an Arrow table."""
        first, last = self.rows(start, stop)
        ranges = RowRanges(*(np.array([number]) for number in (self.position, first, last)))
        columns = Columns(self.store, self.store.channels)
        table = pa.Table.from_batches(record_batches(columns, [ranges]))
        return table.select(table.column_names[1:]).rename_columns(
            [free_name(TIME, self.store.channels), *self.store.channels]
        )

    def _times(self, rows: tuple[int, int]) -> NDArray[Any]:
        return as_times(self.store.times(*rows), self.store.schema.time)

    def plot(
        self,
        channels: Sequence[str] | str | None = None,
        start: str | int | None = None,
        stop: str | int | None = None,
    ) -> Any:
        """Draw channels over time, below each other.

        Parameters
        ----------
        channels
            One or several, or vectors. Default: all that are numbers.
        start, stop
            Times ``[start, stop)``.

        Returns
        -------
        Matplotlib's axes, one for each channel.
        """
        from zstore.look.series import plot_series

        return plot_series(self, channels, start, stop)
