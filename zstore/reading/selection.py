"""Some rows of a store: which, is told at once; they are decoded when a table is made of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zstore.errors import UsageError
from zstore.reading.batches import Columns, record_batches
from zstore.reading.dataset import to_dataset
from zstore.reading.eviction import Cache
from zstore.reading.fieldreader import FieldReader
from zstore.reading.fieldrows import FieldSteps, open_field
from zstore.reading.frames import pandas_frame, polars_frame, polars_scan
from zstore.reading.gather import WINDOW_KEYS, WindowField, Windows, observed_key
from zstore.reading.ranges import RowRanges, row_ranges
from zstore.reading.rowfile import open_rows
from zstore.reading.scaling import Scaling
from zstore.reading.version import StoredVersion
from zstore.reading.windows import WindowIndex
from zstore.reading.windowshape import Padding, WindowShape
from zstore.text import shown

if TYPE_CHECKING:
    import pandas
    import polars
    import xarray

Int64 = NDArray[np.int64]

_GROUP_ROWS = 1 << 22
_SHOWN = 8


@dataclass(frozen=True, repr=False)
class Selection:
    """Some series, times and channels of a store, as a table that is not there yet.

    Rows are in the order of (id, time), that of the store, and each is there once, however ids were named. Made by
    :meth:`zstore.Store.sel`; any package that reads Arrow streams takes it as it is (``__arrow_c_stream__``).

    Parameters
    ----------
    store
        The version of a store that it is of.
    series
        (series,) their positions in ``store.ids``, ascending.
    low, high
        Times ``[low, high)`` in units of the time axis; None for no bound.
    channels
        Names of the channels, in the order of the columns.
    """

    store: StoredVersion
    series: Int64
    low: int | None
    high: int | None
    channels: tuple[str, ...]

    @property
    def n_series(self) -> int:
        """Series."""
        return len(self.series)

    @property
    def ids(self) -> NDArray[Any]:
        """(series,) their ids, in order."""
        ids: NDArray[Any] = self.store.ids[self.series]
        return ids

    @property
    def n_rows(self) -> int:
        """Rows of all. Cost: none of a row; where a bound cuts irregular times, those of its series are read."""
        return self.ranges.n_rows

    @property
    def ranges(self) -> RowRanges:
        """Which rows of the store they are."""
        return row_ranges(self.store, self.series, self.low, self.high)

    def __repr__(self) -> str:
        show = self.store.time.show
        parts = [f"{self.n_series:,} of {self.store.n_series:,} series"]
        parts += [f"from {show(self.low)}"] if self.low is not None else []
        parts += [f"before {show(self.high)}"] if self.high is not None else []
        names = [shown(name) for name in self.channels[:_SHOWN]]
        names += [f"and {len(self.channels) - _SHOWN:,} more"] if len(self.channels) > _SHOWN else []
        parts.append(f"channels {', '.join(names)}" if names else "no channel")
        known = self.store.time.rule.regular or (self.low is None and self.high is None)
        rows = f": {self.n_rows:,} rows" if known else ""
        return f"<zstore.Selection of {self.store.path} version {self.store.version}{rows}, {', '.join(parts)}>"

    def to_arrow(self, statics: bool = False, fields: Sequence[str] | str | None = None) -> Any:
        """A ``pyarrow.RecordBatchReader``, whose batches are decoded ahead of the one that is read.

        Parameters
        ----------
        statics
            Whether static attributes are columns too, the same in all rows of a series.
        fields
            Fields that are columns too; None for none, as in all other tables.

        Returns
        -------
        Columns: ids, called as in the source, or ``id``; ``time``; channels; static attributes. Ids are texts, times
        timestamps in the unit of the store (in UTC where the source wrote zones), or int64 for plain steps; numbers
        are null where missing; categories are dictionaries that have every word of the channel. ``id`` and ``time``
        get ``_`` behind their names where a channel is called so, static attributes ``_static``. Fields come last:
        bytes as they are, others as ``arrow.fixed_shape_tensor`` with the names of their dimensions, booleans as 0 and
        1; null where a row has no value.

        Raises
        ------
        NotFoundError
            If there is no such field.
        UsageError
            If a field is named twice.
        CorruptionError
            If the store is damaged, when the batch is read.

        Notes
        -----
        Memory: some six batches of 131,072 rows, whatever the number of rows; with fields, of some 32 MB.
        """
        columns = self._columns(statics, fields)
        return pa.RecordBatchReader.from_batches(columns.schema, record_batches(columns, self._groups()))

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """The rows as a stream of the Arrow PyCapsule interface."""
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def to_pandas(self, statics: bool = False) -> pandas.DataFrame:
        """A data frame with the columns of :meth:`to_arrow`; categories are Categorical, missing numbers NaN.

        Fields are left out: :meth:`zstore.Store.read_field` has them.

        Parameters
        ----------
        statics
            Whether static attributes are columns too.

        Raises
        ------
        UsageError
            If pandas is not installed.
        """
        return pandas_frame(self.to_arrow(statics).read_all())

    def to_polars(self, statics: bool = False, lazy: bool = False) -> polars.DataFrame | polars.LazyFrame:
        """A data frame of polars with the columns of :meth:`to_arrow`; categories are Enum, what is missing is null.

        Fields are left out: :meth:`zstore.Store.read_field` has them.

        Parameters
        ----------
        statics
            Whether static attributes are columns too.
        lazy
            Return a query instead, which reads batch by batch, only columns that it needs, and as many rows.

        Notes
        -----
        Polars has no seconds: times are milliseconds where the store has seconds.

        Raises
        ------
        UsageError
            If polars is not installed.
        """
        if not lazy:
            return polars_frame(self.to_arrow(statics).read_all())
        columns = self._columns(statics)

        def batches(names: Sequence[str] | None) -> Iterator[Any]:
            wanted = None if names is None else tuple(names)
            return record_batches(replace(columns, names=wanted), self._groups())

        return polars_scan(columns.batch(RowRanges.none()), batches)

    def to_xarray(self, words: bool = False) -> xarray.Dataset:
        """The rows as a lazy CF contiguous ragged array, see :meth:`zstore.Store.to_xarray`.

        Parameters
        ----------
        words
            As there.

        Notes
        -----
        Series without a row between the bounds are left out, and so are fields.
        """
        return to_dataset(self.store, words, self.channels, self.ranges)

    def head(self, n_rows: int = 5) -> pandas.DataFrame:
        """The first rows as a data frame, with as little decoded as may be.

        Parameters
        ----------
        n_rows
            How many.
        """
        columns, batches = self._columns(statics=False), []
        for group in self._groups():
            first = group.first(max(n_rows, 0))
            batches += [columns.batch(block) for block in first.blocks(columns.block_rows)]
            n_rows -= first.n_rows
            if n_rows <= 0:
                break
        return pandas_frame(pa.Table.from_batches(batches or [columns.batch(RowRanges.none())]))

    def windows(
        self,
        lookback: int,
        horizon: int,
        *,
        delay: int = 0,
        stride: int = 1,
        target_stride: int = 1,
        pad_before: Padding = "none",
        pad_after: Padding = "none",
        targets: Sequence[str] | str | None = None,
        fields: Mapping[str, int | tuple[int, int] | FieldSteps] | None = None,
        cache: Cache | str | Path | None = None,
    ) -> Windows:
        """Every window all of whose rows are selected; see :meth:`zstore.Store.windows`.

        Parameters
        ----------
        lookback, horizon, delay, stride, target_stride, pad_before, pad_after
            See :class:`zstore.WindowShape`. What is not selected is padded, as what lies beyond a run.
        targets
            Target channels, or vectors, which need not be selected; None for the input channels, which are those that
            are selected.
        fields
            By name of a field, how many of the last input rows of a window it has; or that, and how many rows apart
            they are; or those, and the part in the middle of each row that it has.
        cache
            Folder of row files, as there.

        Returns
        -------
        As there; ``series`` are positions in ``store.ids``. The row file has all rows of the store, so that all
        selections share it.

        Raises
        ------
        UsageError
            If there is no such window.
        """
        outputs = self.store.chosen_channels(targets) if targets else self.channels
        shape = WindowShape(lookback, horizon, delay, stride, target_stride, pad_before, pad_after)
        wanted = tuple(dict.fromkeys(self.channels + outputs))
        if not self.channels:
            raise UsageError("windows of no channel", expected="at least one", fix="name channels")
        index = self._window_index(shape)
        asked = {name: FieldSteps.of(given) for name, given in (fields or {}).items()}
        taken = {*WINDOW_KEYS, *map(observed_key, asked)}
        for name in taken.intersection(asked):
            raise UsageError(f"a field called {name!r}", expected="a name that no other part of a window has")
        readers = {name: FieldReader.of(self.store, name) for name in asked}
        parts = {name: steps.centre(name, readers[name].shape) for name, steps in asked.items()}
        offsets = {name: steps.offsets(name, lookback) for name, steps in asked.items()}
        rows = open_rows(self.store, wanted, Scaling.identity(len(wanted)), cache, fill=False).values
        times = None if self.store.time.rule.regular else self.store.times(0, self.store.n_rows)
        columns = [wanted.index(name) for name in self.channels], [wanted.index(name) for name in outputs]
        arrays = {
            name: WindowField(open_field(self.store, name, cache)[:, *part], offsets[name], readers[name].observed)
            for name, part in parts.items()
        }
        again = partial(self.windows, **asdict(shape), targets=outputs, fields=fields, cache=cache)
        return Windows(rows, index, *columns, times, again, arrays)

    def _window_index(self, shape: WindowShape) -> WindowIndex:
        runs, ranges = self.store.index.runs, self.ranges
        bounds = np.zeros((2, self.store.n_series), np.int64)
        bounds[:, ranges.series] = ranges.start, ranges.stop
        start, stop = np.maximum(bounds[0][runs.series], runs.start), np.minimum(bounds[1][runs.series], runs.stop)
        index = WindowIndex.build(runs, shape, self.store.time.rule, (start, stop), context=False)
        if not len(index):
            raise no_window(self.store, shape, int(np.max(stop - start, initial=0)))
        return index

    def _columns(self, statics: bool, fields: Sequence[str] | str | None = None) -> Columns:
        names = (fields,) if isinstance(fields, str) else tuple(fields or ())
        for name in names:
            self.store.field(name)
            if names.count(name) > 1:
                raise UsageError(f"field {name!r} twice", expected="each once")
        return Columns(self.store, self.channels, statics, names)

    def _groups(self) -> Iterator[RowRanges]:
        """The rows in parts, so that the first are there before the last are looked for."""
        cuts = np.flatnonzero(np.diff(self.store.index.row_start[self.series] // _GROUP_ROWS)) + 1
        for series in np.split(self.series, cuts):
            yield row_ranges(self.store, series, self.low, self.high)


def no_window(store: StoredVersion, shape: WindowShape, longest: int, where: str = "") -> UsageError:
    """The error for a window that fits nowhere."""
    return UsageError(
        f"no window: {shape.needs}",
        expected=f"at most {longest:,}, the longest stretch without a gap",
        where=where or store.path,
        fix="a smaller lookback or horizon",
    )
