"""The ID index: which rows belong to which series, where its runs begin and end, and its static attributes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.format.encodings.words import flag_attributes
from zstore.format.layout import safe_names
from zstore.format.spans import blocks

Int64 = NDArray[np.int64]

INDEX_FIELDS = frozenset(
    ["id", "series", "row_size", "extent_ptr", "extent_start", "extent_stop"]
    + [f"run_{field}" for field in ("start", "stop", "series", "time")]
    + ["time_start", "time_stop"]
)


COLUMNS = (
    *("id", "row_size", "extent_ptr", "extent_start", "extent_stop"),
    *("run_start", "run_stop", "run_series", "run_time", "time_start", "time_stop"),
)
"""Names of the arrays of an index, but for static attributes."""


@dataclass(frozen=True)
class StaticAttribute:
    """One number or category per series.

    Parameters
    ----------
    name
        The column's name.
    values
        (series,) float64 with NaN for missing; or int32 codes with -1 for missing.
    categories
        What the codes mean; None for numbers.
    """

    name: str
    values: Any
    categories: tuple[str, ...] | None = None

    def attributes(self) -> dict[str, Any]:
        """CF attributes: flags for categories, with the exact words beside their CF spelling."""
        if self.categories is None:
            return {"long_name": self.name}
        return {"long_name": self.name, **flag_attributes(self.categories)}


@dataclass(frozen=True)
class RunTable:
    """Maximal stretches of rows of one series with no time gap, in row order.

    Parameters
    ----------
    start, stop
        (run,) row range ``[start, stop)``.
    series
        (run,) position of the series in the index.
    time
        (run,) time of the first row.
    """

    start: Int64
    stop: Int64
    series: Int64
    time: Int64


@dataclass(frozen=True)
class SeriesIndex:
    """Everything known per series; a few numbers each, never a number per row.

    Rows are numbered in the order of (series, time), without holes. Where they lie in the arrays is told by the
    extents alone, whose bounds are positions along the arrays' dimension `row`: *places*. In a store that was
    ingested in one go, row and place are the same.

    Parameters
    ----------
    texts
        (series,) exact ids as text, sorted by their UTF-8 bytes; or what reads them when they are first asked for.
    row_size
        (series,) rows of each series.
    extent_ptr
        (series + 1,) where the extents of each series begin in `extent_start` and `extent_stop`.
    extent_start, extent_stop
        (extent,) places ``[start, stop)`` of each extent, in the order of their rows.
    runs
        The run table.
    time_start, time_stop
        (series,) first and last time of each series.
    statics
        Static attributes, each (series,).
    """

    texts: NDArray[Any] | Callable[[], NDArray[Any]]
    row_size: Int64
    extent_ptr: Int64
    extent_start: Int64
    extent_stop: Int64
    runs: RunTable
    time_start: Int64
    time_stop: Int64
    statics: tuple[StaticAttribute, ...] = field(default=())

    @cached_property
    def ids(self) -> NDArray[Any]:
        """(series,) exact ids."""
        return self.texts() if callable(self.texts) else self.texts

    @property
    def n_series(self) -> int:
        """Series."""
        return len(self.row_size)

    @property
    def n_rows(self) -> int:
        """Rows of all series."""
        return int(self.row_size.sum())

    @property
    def n_runs(self) -> int:
        """Runs."""
        return len(self.runs.series)

    @property
    def loaded(self) -> SeriesIndex:
        """The index in memory: this one."""
        return self

    def sizes(self) -> Iterator[Int64]:
        """Rows of each series, of some series after the other."""
        yield self.row_size

    def time_ends(self) -> tuple[int, int] | None:
        """First and last time of all series; None without any."""
        return (int(self.time_start.min()), int(self.time_stop.max())) if self.n_series else None

    @cached_property
    def row_start(self) -> Int64:
        """(series + 1,) first row of each series."""
        starts = np.zeros(len(self.row_size) + 1, np.int64)
        np.cumsum(self.row_size, out=starts[1:])
        return starts

    def series_of(self, start: int, stop: int) -> Int64:
        """(row,) the series of each of the rows ``[start, stop)``."""
        first, last = np.searchsorted(self.row_start, [start, max(stop - 1, start)], side="right") - 1
        bounds = np.clip(self.row_start[first : last + 2], start, stop)
        sizes: Int64 = bounds[1:] - bounds[:-1]
        return np.repeat(np.arange(first, last + 1), sizes)

    @cached_property
    def pieces(self) -> tuple[Int64, Int64, Int64]:
        """Where rows lie: (piece,) first row, first place and size, in row order; adjoining extents are one piece."""
        rows, places, n_rows = [], [], 0
        for some in blocks(len(self.extent_start)):
            start, size = self.extent_start[some], self.extent_stop[some] - self.extent_start[some]
            before = self.extent_stop[max(some.start - 1, 0) : some.stop - 1]
            new = start[-len(before) :] != before if len(before) else np.zeros(0, np.bool_)
            first = np.flatnonzero(new if some.start else np.append(True, new))
            ends = n_rows + np.cumsum(size)
            rows.append((ends - size)[first])
            places.append(start[first])
            n_rows = int(ends[-1])
        if not rows:
            return self.extent_start, self.extent_start, self.extent_start
        joined = np.concatenate(rows)
        return joined, np.concatenate(places), np.diff(joined, append=n_rows)

    def places(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Places of the rows ``[start, stop)``, as ranges in row order."""
        rows, places, sizes = self.pieces
        first = max(int(np.searchsorted(rows, start, side="right")) - 1, 0)
        last = int(np.searchsorted(rows, stop))
        low = np.maximum(rows[first:last], start)
        high = np.minimum(rows[first:last] + sizes[first:last], stop)
        shift = places[first:last] - rows[first:last]
        kept = high > low
        return list(zip((low + shift)[kept].tolist(), (high + shift)[kept].tolist(), strict=True))

    def places_of(self, rows: Int64) -> Int64:
        """(row,) places of some rows, in any order."""
        first, places, _ = self.pieces
        piece = np.searchsorted(first, rows, side="right") - 1
        found: Int64 = rows + (places - first)[piece]
        return found

    def chunk_starts(self, chunk_rows: int) -> Int64:
        """(chunk,) the rows that a chunk, or the first row of one, begins with, ascending from 0.

        Rows between two of them lie in as few chunks as may be: in one, where the store was ingested in one go.
        """
        rows, places, sizes = self.pieces
        first, last = -(-places // chunk_rows), -(-(places + sizes) // chunk_rows)
        n_chunks = last - first
        chunk = np.repeat(first - np.cumsum(n_chunks) + n_chunks, n_chunks) + np.arange(int(n_chunks.sum()))
        return np.unique(np.append(0, chunk * chunk_rows + np.repeat(rows - places, n_chunks)))

    def n_chunks_stored(self, chunk_rows: int) -> int:
        """Chunks that any row lies in."""
        _, places, sizes = self.pieces
        order = np.argsort(places)
        first, last = places[order] // chunk_rows, -(-(places + sizes)[order] // chunk_rows)
        return int(np.sum(last - np.maximum(first, np.append(0, last[:-1])))) if len(places) else 0

    def n_chunks(self, start: int, stop: int, chunk_rows: int) -> int:
        """Chunks that the rows ``[start, stop)`` lie in."""
        places = self.places(start, stop)
        return len({chunk for low, high in places for chunk in range(low // chunk_rows, -(-high // chunk_rows))})

    @property
    def _strings(self) -> NDArray[Any]:
        """(series,) the ids as ``StringDType``: themselves where they are that, since numpy copies to convert."""
        return self.ids if self.ids.dtype.kind == "T" else self.ids.astype(np.dtypes.StringDType())

    @property
    def contiguous(self) -> bool:
        """Whether places are rows, so that the arrays are a CF contiguous ragged array."""
        rows, places, _ = self.pieces
        return len(rows) == 0 or (len(rows) == 1 and int(places[0]) == 0)

    def to_arrays(self, time_attributes: dict[str, Any]) -> dict[str, tuple[NDArray[Any], str, dict[str, Any]]]:
        """Every array of the index group as ``name: (values, dimension, CF attributes)``."""
        arrays = (self._strings, self.row_size, self.extent_ptr, self.extent_start, self.extent_stop)
        runs = (self.runs.start, self.runs.stop, self.runs.series, self.runs.time)
        columns = dict(zip(COLUMNS, (*arrays, *runs, self.time_start, self.time_stop), strict=True))
        return described_arrays(columns, self.statics, self.contiguous, time_attributes)

    @classmethod
    def from_arrays(
        cls, arrays: dict[str, tuple[NDArray[Any], dict[str, Any]]], texts: Callable[[], NDArray[Any]]
    ) -> SeriesIndex:
        """Read :meth:`to_arrays` back, given ``name: (values, CF attributes)`` of all but ids, and what reads those."""
        statics = tuple(
            StaticAttribute(
                attributes["long_name"],
                values,
                tuple(attributes["categories"]) if "categories" in attributes else None,
            )
            for values, attributes in sorted(
                (pair for pair in arrays.values() if "zstore_static" in pair[1]),
                key=lambda pair: int(pair[1]["zstore_static"]),
            )
        )
        plain = {name: values for name, (values, _) in arrays.items()}
        return cls(
            texts=texts,
            row_size=plain["row_size"],
            extent_ptr=plain["extent_ptr"],
            extent_start=plain["extent_start"],
            extent_stop=plain["extent_stop"],
            runs=RunTable(plain["run_start"], plain["run_stop"], plain["run_series"], plain["run_time"]),
            time_start=plain["time_start"],
            time_stop=plain["time_stop"],
            statics=statics,
        )


def described_arrays(
    columns: Mapping[str, Any],
    statics: tuple[StaticAttribute, ...],
    contiguous: bool,
    time_attributes: dict[str, Any],
) -> dict[str, tuple[Any, str, dict[str, Any]]]:
    """Every array of an index as ``name: (values, dimension, CF attributes)``, given :data:`COLUMNS` by name."""
    ragged = {"sample_dimension": "row"} if contiguous else {}
    stamp = {key: value for key, value in time_attributes.items() if key in ("units", "calendar")}
    attributes = {
        "id": {"cf_role": "timeseries_id"},
        "row_size": {"long_name": "rows of the series", **ragged},
        **dict.fromkeys(("run_time", "time_start", "time_stop"), stamp),
    }
    dimensions = {"extent_ptr": "series_bound", "extent_start": "extent", "extent_stop": "extent"}
    dimensions |= dict.fromkeys(("run_start", "run_stop", "run_series", "run_time"), "run")
    arrays = {name: (columns[name], dimensions.get(name, "series"), dict(attributes.get(name, {}))) for name in COLUMNS}
    names = safe_names([static.name for static in statics], reserved=INDEX_FIELDS)
    for place, (variable, static) in enumerate(zip(names, statics, strict=True)):
        arrays[variable] = (static.values, "series", {"zstore_static": place, **static.attributes()})
    return arrays


def usual_step(steps: Int64, counts: Int64, n_steps: int) -> int | None:
    """The time step that more than half of all steps have, else None.

    Parameters
    ----------
    steps, counts
        (step,) distinct steps between neighbouring rows of a series, and how often each occurs; rare ones may be left
        out.
    n_steps
        Steps in all.
    """
    if not len(steps):
        return None
    best = int(np.argmax(counts))
    return int(steps[best]) if 2 * int(counts[best]) > n_steps else None


def cut_runs(
    extent_start: Int64, extent_series: Int64, n_rows: int, breaks: Int64, times: Int64, extent_time: Int64
) -> RunTable:
    """Cut extents into runs at the rows before which time does not advance by the usual step.

    Parameters
    ----------
    extent_start, extent_series, extent_time
        (extent,) first row, series and first time of each extent, in row order.
    n_rows
        Row after the last extent.
    breaks, times
        (break,) rows that start a new run inside an extent, ascending, and the time of each.
    """
    if len(breaks):
        behind = np.searchsorted(extent_start, breaks, side="right")
        start, time = np.insert(extent_start, behind, breaks), np.insert(extent_time, behind, times)
        series = np.insert(extent_series, behind, extent_series[behind - 1])
    else:
        start, series, time = extent_start, extent_series, extent_time
    return RunTable(start, np.append(start[1:], n_rows).astype(np.int64, copy=False)[: len(start)], series, time)
