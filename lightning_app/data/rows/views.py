"""How the rows of a store are laid out for windows: series after series, or all series side by side in a panel.

Windows, splits, order and residency know *rows*, each of `width` values. In the view of series a row is one of the
store; in that of a panel it is a step: the rows of all series at one time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_app.data.rows.observed import ObservedTargets
from lightning_app.data.rows.readers import PanelReader, StoreReader, as_rows, scaled_when
from lightning_app.data.rows.residency import Rows
from lightning_app.data.scaling.rowscaling import RowScaling
from lightning_app.data.scaling.scaler import Scaler
from lightning_app.data.windows.borders import TargetRows, target_rows, time_borders
from lightning_app.data.windows.members import positions_of, with_values
from lightning_app.data.windows.splits import NAMES, Split, SplitName, read_ids
from lightning_app.data.windows.subset import SeriesSubset
from zstore import Cache, PanelFile, PanelGrid, Store, UsageError, open_panel, open_rows

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Panel:
    """All series of one time side by side, instead of a series a window.

    Parameters
    ----------
    ids
        Only these series: a list, or a text file with an id on each line.
    attribute, values
        Only series with one of these values of a static attribute, such as a district.
    positions
        Static attributes that hold latitude and longitude of the series, for models that know where they are.
    """

    ids: list[str] | str | None = None
    attribute: str | None = None
    values: list[str | float] | None = None
    positions: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        if (self.attribute is None) != (self.values is None) or (self.ids is not None and self.attribute is not None):
            raise UsageError(
                "a panel by ids and by an attribute, or by an attribute without values, or the other way round",
                expected="--data.panel.ids, or both --data.panel.attribute and --data.panel.values, or none of them",
                fix="correct --data.panel",
            )

    def members(self, store: Store) -> Int64:
        """Positions of its series in the store, ascending.

        Raises
        ------
        UsageError
            If there is no such id, attribute or value.
        """
        if self.ids is not None:
            return np.unique(positions_of(store, read_ids(self.ids, "--data.panel.ids"), "--data.panel.ids"))
        if self.attribute is not None and self.values is not None:
            return np.unique(with_values(store, self.attribute, self.values, "--data.panel.values"))
        return np.arange(store.n_series)


class SeriesView:
    """The rows of the store, as they are.

    Parameters
    ----------
    store, split, columns
        Where rows come from, how targets are shared out, and which channels rows have.
    subset
        Which series have windows; None for all.

    Raises
    ------
    UsageError
        If the store has not what names these series.
    """

    n_nodes = 0
    nodes = None

    def __init__(self, store: Store, split: Split, columns: Sequence[str], subset: SeriesSubset | None = None) -> None:
        self.members = None if subset is None else subset.members(store)  # (series,); None for all
        self.store, self.split, self.columns = store, split, list(columns)
        self.runs, self.n_rows, self.width = store.index.runs, store.n_rows, len(self.columns)
        self.timed = store

    def missing(self, channels: Sequence[str]) -> NDArray[np.bool_]:
        """(channel,) whether any value of some channels is missing."""
        return self.store.missing(channels)

    @cached_property
    def masked(self) -> bool:
        """Whether any value is missing."""
        return bool(self.missing(self.columns).any())

    def positions(self) -> NoReturn:
        """None: raises `UsageError`."""
        raise UsageError(
            "positions of series without a panel",
            expected="one that names the static attributes of latitude and longitude",
            fix="--data.panel.positions [latitude, longitude]",
        )

    def ranges(self, name: SplitName) -> tuple[Int64, Int64]:
        """(run,) rows ``[start, stop)`` in which the targets of a split lie."""
        return target_rows(self.store, self.split, name, self.members)

    def ranges_near(self) -> Callable[[SplitName, int, int], tuple[Int64, Int64]]:
        """What has the same of the runs with any of some rows ``[low, high)``; it works borders out once."""
        return TargetRows(self.store, self.split, self.members).near

    def rows_of(self, series: Int64, start: Int64, stop: Int64) -> Iterator[tuple[int, int, int]]:
        """A series, and rows ``[start, stop)`` of it, for each of some series and ascending ranges of rows."""
        edges = self.store.index.row_start
        for position in series.tolist():
            low, high = int(edges[position]), int(edges[position + 1])
            near = slice(int(np.searchsorted(stop, low, "right")), int(np.searchsorted(start, high)))
            for first, last in zip(start[near].tolist(), stop[near].tolist(), strict=True):
                yield position, max(first, low), min(last, high)

    def open(self, scaler: Scaler, cache: Cache | Path) -> Rows:
        """All rows, from the row file."""
        decoded, later = scaled_when(self.store, scaler, self.masked)
        rows = open_rows(self.store, scaler.channels, decoded, cache, fill=later is None)
        return as_rows(rows, later, torch.from_numpy(self.store.index.row_start[1:]))

    def reader(self, scaler: Scaler, cache: Cache | Path) -> StoreReader:
        """Decodes chunks of the store."""
        self.store.require_float32(scaler.channels, scaler.scaling)
        return StoreReader(self.store.with_cache(cache), scaler, self.masked)

    def observed_targets(self, scaler: Scaler, steps: Int64, cache: Cache | Path) -> ObservedTargets:
        """True values of the targets that a scaler is of, by row; of categories its codes.

        Targets of a window are `steps`, (horizon,), rows behind the first one.
        """
        store, targets = self.store.with_cache(cache), scaler.channels

        def read(start: int, stop: int) -> NDArray[np.float64]:
            values = np.empty((stop - start, len(targets)))
            store.decode_part(targets, start, values, scaler.source_units)
            return values

        return ObservedTargets(read, self.n_rows, 8 * len(targets), steps, store.schema.chunk_rows)

    def observed(
        self, columns: Sequence[int], scaler: Scaler, cache: Cache | Path, whole: bool
    ) -> Iterator[NDArray[np.bool_]]:
        """(row,) whether any of some columns was observed or, if `whole`, all of them, in blocks."""
        store, names = self.store.with_cache(cache), [self.columns[column] for column in columns]
        lows = np.arange(0, self.n_rows, store.schema.chunk_rows)
        highs = np.minimum(lows + store.schema.chunk_rows, self.n_rows)
        store.expect(names, lows, highs)
        for low, high in zip(lows.tolist(), highs.tolist(), strict=True):
            seen = [~np.isnan(store.read(name, low, high)) for name in names]
            yield (np.all if whole else np.any)(np.stack(seen), axis=0)


class PanelView:
    """All series of a panel side by side, a row for each step of their time grid.

    Parameters
    ----------
    store, split, columns
        Where rows come from, how targets are shared out, and which channels each series has.
    panel
        Which series.
    subset
        Which series, where the panel does not say; None for all.

    Raises
    ------
    UsageError
        If series share no time grid, or the split is not by time of the store.
    """

    def __init__(
        self, store: Store, split: Split, columns: Sequence[str], panel: Panel, subset: SeriesSubset | None = None
    ) -> None:
        if split.by != "time" or split.over != "store":
            raise UsageError(
                f"a panel split by {split.by}" + (" over each series" if split.by == "time" else ""),
                expected="by time over the store: a step has all series, and belongs to one split",
                fix="--data.split.by time, and --data.panel.ids for other series",
            )
        self.store, self.split, self.columns, self._panel = store, split, list(columns), panel
        chosen = panel.members(store) if subset is None else np.flatnonzero(subset.members(store))
        self.grid = PanelGrid.of(store, chosen)
        self.runs, self.n_rows, self.n_nodes = self.grid.runs, self.grid.n_steps, self.grid.n_nodes
        self.nodes = self.grid.series  # (node,) positions in the store
        self.width, self.timed = self.n_nodes * len(self.columns), self.grid

    def missing(self, channels: Sequence[str]) -> NDArray[np.bool_]:
        """(channel,) whether any value of some channels is missing, or a series has no row at some step."""
        return self.store.missing(channels) | (not self.grid.whole)

    @cached_property
    def masked(self) -> bool:
        """Whether any value is missing, or a series has no row at some step."""
        return bool(self.missing(self.columns).any())

    @cached_property
    def members(self) -> NDArray[np.bool_] | None:
        """(series,) which series of the store it is of; None for all."""
        inside = np.zeros(self.store.n_series, np.bool_)
        inside[self.grid.series] = True
        return None if inside.all() else inside

    def positions(self) -> NDArray[np.float64]:
        """(node, 2) latitude and longitude of its series.

        Raises
        ------
        UsageError
            If it names no static attributes for them, or one is missing.
        """
        names = self._panel.positions
        if names is None:
            raise UsageError(
                "positions of series",
                expected="a panel that names the static attributes of latitude and longitude",
                fix="--data.panel.positions [latitude, longitude]",
            )
        found = [self.store.static(name).values[self.grid.series] for name in names]
        positions = np.stack(found, axis=1).astype(np.float64)
        blank = np.flatnonzero(np.isnan(positions).any(axis=1))
        if len(blank):
            raise UsageError(
                f"series {self.store.ids[self.grid.series[blank[0]]]} without {' or '.join(names)}",
                expected="both for every series of the panel",
                where=self.store.path,
                fix="correct the static attributes, or leave it out by --data.panel.ids",
            )
        return positions

    def ranges(self, name: SplitName) -> tuple[Int64, Int64]:
        """(1,) steps ``[start, stop)`` in which the targets of a split lie."""
        grid = self.grid
        edges = time_borders(self.store, self.split)[NAMES.index(name)]
        # The first step at or after a border, which may lie between two steps.
        start, stop = (grid.first_step(edge[:1]) for edge in edges)
        return start, np.maximum(start, stop)

    def ranges_near(self) -> Callable[[SplitName, int, int], tuple[Int64, Int64]]:
        """What has the same, whatever the steps."""
        return lambda name, low, high: self.ranges(name)

    def rows_of(self, series: Int64, start: Int64, stop: Int64) -> Iterator[tuple[int, int, int]]:
        """A series, and rows of it, for each of some series that are in the panel and ascending ranges of steps."""
        grid, edges = self.grid, self.store.index.row_start
        for position in np.intersect1d(series, grid.series).tolist():
            low, high = int(edges[position]), int(edges[position + 1])
            times = self.store.times(low, high)
            bounds = (low + np.searchsorted(times, grid.time_of(steps)) for steps in (start, stop))
            for first, last in zip(*(bound.tolist() for bound in bounds), strict=True):
                if first < last:
                    yield position, first, last

    def open(self, scaler: Scaler, cache: Cache | Path) -> Rows:
        """All steps, from the panel file."""
        file, later = self._file(scaler, cache)
        return as_rows(file.rows(), later)

    def reader(self, scaler: Scaler, cache: Cache | Path) -> PanelReader:
        """Reads steps of the panel file."""
        return PanelReader(*self._file(scaler, cache), self.store.path)

    def observed_targets(self, scaler: Scaler, steps: Int64, cache: Cache | Path) -> ObservedTargets:
        """True values of the targets that a scaler is of, by step; from a panel file, float64 where one of them is."""
        targets = scaler.channels
        dtype = np.result_type(*(self.store.channel(name).dtype for name in targets), np.float32)
        file = open_panel(self.store, self.grid, targets, scaler.source_units, cache, str(dtype), fill=False)

        def read(start: int, stop: int) -> NDArray[np.float64]:
            values = np.empty((stop - start, self.n_nodes, len(targets)), dtype)
            file.read(start, values, None)
            return values.astype(np.float64, copy=False)

        return ObservedTargets(read, self.n_rows, 8 * file.width, steps, self.n_rows)

    def observed(
        self, columns: Sequence[int], scaler: Scaler, cache: Cache | Path, whole: bool
    ) -> Iterator[NDArray[np.bool_]]:
        """(step,) whether any series has any of some columns or, if `whole`, all have all of them, in blocks."""
        reader = self.reader(scaler, cache)
        for low, high in zip(reader.chunk_starts, [*reader.chunk_starts[1:], self.n_rows], strict=True):
            seen = np.empty((int(high - low), self.width), np.bool_)
            reader.read(int(low), np.empty(seen.shape, np.float32), seen)
            known = seen.reshape(len(seen), self.n_nodes, -1)[..., columns]
            yield (np.all if whole else np.any)(known, axis=(1, 2))

    def _file(self, scaler: Scaler, cache: Cache | Path) -> tuple[PanelFile, RowScaling | None]:
        decoded, later = scaled_when(self.store, scaler, self.masked, self.grid.series)
        file = open_panel(self.store, self.grid, scaler.channels, decoded, cache, fill=later is None)
        return file, later


View = SeriesView | PanelView
