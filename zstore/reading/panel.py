"""Panels: the series of a store side by side on one time grid, decoded into a file in time order.

Rows of a store lie by series, then time. In a panel a row is a *step*: all series at one time. A window of a panel is
then one stretch of steps, as a window of a series is one stretch of rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from zstore.errors import UsageError
from zstore.format.index import RunTable
from zstore.format.timesteps import TimeStepRule
from zstore.reading.cached import Observed, map_values, open_cached
from zstore.reading.decode import decode_part, require_float32
from zstore.reading.eviction import Cache
from zstore.reading.heldfile import HeldFile
from zstore.reading.rowfile import RowFile, new_entry, scaling_key
from zstore.reading.scaling import Scaling
from zstore.reading.version import StoredVersion

Int64 = NDArray[np.int64]

_LAYOUT = 2
_BUFFER_BYTES = 1 << 27  # of series that are brought into time order together
_PIECE_BYTES = 1 << 24  # of rows that are decoded at once, and of steps that are written at once


@dataclass(frozen=True)
class PanelGrid:
    """Some series of a store on one time grid.

    Parameters
    ----------
    series
        (node,) positions of the series in the store, ascending.
    time
        Of the first step.
    rule
        How far it is from one step to the next.
    n_steps
        From the first row of any of these series to the last one.
    run_start, run_stop, run_node, run_step
        (run,) rows of the store, which of the series they belong to, and the step of the first of them.
    all_times
        (step,) times of the steps, where the rule is ``rows``: all times that any of these series has.
    """

    series: Int64
    time: int
    rule: TimeStepRule
    n_steps: int
    run_start: Int64
    run_stop: Int64
    run_node: Int64
    run_step: Int64
    all_times: Int64 | None = None

    @classmethod
    def of(cls, store: StoredVersion, series: Int64 | None = None) -> PanelGrid:
        """The grid of some series, or of all.

        Raises
        ------
        UsageError
            If there are none, times are irregular, or series lie between each other's steps.
        """
        rule, runs = store.time.rule, store.index.runs
        chosen = np.arange(store.n_series) if series is None else np.unique(np.asarray(series, np.int64))
        if rule.kind == "irregular":
            raise UsageError(
                "a panel of series whose times are irregular",
                expected="one time grid",
                where=store.path,
                fix="ingest with --fill-gaps, and --freq if it is not the usual step",
            )
        if rule.kind == "rows":
            return cls._of_rows(store, chosen)
        node_of = np.full(store.n_series, -1)
        node_of[chosen] = np.arange(len(chosen))
        kept = node_of[runs.series] >= 0
        start, stop, node, time = (values[kept] for values in (runs.start, runs.stop, node_of[runs.series], runs.time))
        if not len(start):
            raise UsageError("a panel without rows", expected="one series that has some", where=store.path)
        fitting = time[rule.fits(time)]
        first = int(fitting.min() if len(fitting) else time.min())
        step, on_grid = rule.steps(time, first)
        off = np.flatnonzero(~on_grid)
        if len(off):
            where = store.schema.time.show(int(time[off[0]]))
            raise UsageError(
                f"series {store.ids[chosen[node[off[0]]]]} is off the others' time grid, at {where}",
                expected=f"times that are whole steps of {rule.count if rule.plain else rule} apart in all series of a "
                "panel",
                where=store.path,
                fix="series that share a grid, by --data.panel.ids or --data.panel.attribute",
            )
        return cls(chosen, first, rule, int((step + stop - start).max()), start, stop, node, step)

    @classmethod
    def _of_rows(cls, store: StoredVersion, chosen: Int64) -> PanelGrid:
        """The grid of all times that any series has: a row is a step, whatever lies between two."""
        bounds = store.index.row_start
        ranges = [(node, int(bounds[series]), int(bounds[series + 1])) for node, series in enumerate(chosen.tolist())]
        ranges = [(node, start, stop) for node, start, stop in ranges if stop > start]
        if not ranges:
            raise UsageError("a panel without rows", expected="one series that has some", where=store.path)
        every: Int64 = np.zeros(0, np.int64)
        for _, start, stop in ranges:
            every = np.union1d(every, store.times(start, stop))
        rows: list[NDArray[np.int64]] = []
        for node, start, stop in ranges:
            step = np.searchsorted(every, store.times(start, stop))
            first = np.flatnonzero(np.diff(step, prepend=-2) != 1)
            last = np.append(first[1:], stop - start)
            rows.append(np.stack([start + first, start + last, np.full(len(first), node), step[first]]))
        runs = np.concatenate(rows, axis=1)
        return cls(chosen, int(every[0]), store.time.rule, len(every), runs[0], runs[1], runs[2], runs[3], every)

    @property
    def freq(self) -> int | None:
        """Units of time from each step to the next; None where that differs, as for months."""
        return self.rule.count if self.rule.kind == "fixed" else None

    def times(self, start: int, stop: int) -> Int64:
        """(step,) times of the steps ``[start, stop)``, in units of the time axis."""
        return self.time_of(np.arange(start, stop))

    def time_of(self, steps: Int64) -> Int64:
        """Time of each of some steps; of `n_steps`, one that is later than all."""
        if self.all_times is not None:
            return np.append(self.all_times, self.all_times[-1] + 1)[steps]
        return self.rule.times(steps, self.time)

    def first_step(self, times: Int64) -> Int64:
        """The first step at or after each of some times, from 0 to `n_steps`."""
        if self.all_times is not None:
            return np.searchsorted(self.all_times, times).astype(np.int64)
        return np.clip(self.rule.first_step(times, self.time), 0, self.n_steps)

    @property
    def n_nodes(self) -> int:
        """Series side by side."""
        return len(self.series)

    @property
    def runs(self) -> RunTable:
        """The panel as one series without a gap."""
        one = np.zeros(1, np.int64)
        return RunTable(one, one + self.n_steps, one, one + self.time)

    @cached_property
    def whole(self) -> bool:
        """Whether every series has a row at every step."""
        return int((self.run_stop - self.run_start).sum()) == self.n_steps * self.n_nodes

    def pieces(self, low: int, high: int, n_rows: int) -> Iterator[tuple[int, int, Int64]]:
        """Ranges of at most so many rows that cover the runs of some nodes, and which runs begin or go on there."""
        mine = np.flatnonzero((self.run_node >= low) & (self.run_node < high))
        start, stop = self.run_start[mine], self.run_stop[mine]
        breaks = np.flatnonzero(start[1:] != stop[:-1]) + 1
        for runs in np.split(mine, breaks):
            first, last = int(self.run_start[runs[0]]), int(self.run_stop[runs[-1]])
            for begin in range(first, last, n_rows):
                end = min(begin + n_rows, last)
                yield begin, end, runs[(self.run_start[runs] < end) & (self.run_stop[runs] > begin)]


@dataclass(frozen=True)
class PanelFile:
    """A panel in a file of the cache.

    Parameters
    ----------
    grid
        Which series, and when.
    n_channels
        Columns of each series.
    masked
        Whether any value is missing.
    file
        Held open: (step, node, channel) float32, then as many bytes that say what was observed, if `masked`.
    itemsize
        4; 8 where values are float64.
    """

    grid: PanelGrid
    n_channels: int
    masked: bool
    file: HeldFile
    itemsize: int = 4

    @property
    def path(self) -> Path:
        """Where the file is, or was when it was opened."""
        return self.file.path

    @property
    def width(self) -> int:
        """Values of a step."""
        return self.grid.n_nodes * self.n_channels

    def rows(self) -> RowFile:
        """All steps, memory-mapped: (step, node * channel)."""
        return RowFile(*map_values(self.file, (self.grid.n_steps, self.width), self.masked))

    def read(self, start: int, values: NDArray[Any], observed: Observed | None) -> None:
        """Copy steps from `start` on out of the file, without mapping it.

        Parameters
        ----------
        start
            First step.
        values, observed
            (step, node * channel), contiguous, to be filled; `values` of the dtype of the file.
        """
        self.file.fill(values, start * self.width * self.itemsize)
        if observed is not None:
            self.file.fill(observed, (self.grid.n_steps * self.itemsize + start) * self.width)


def open_panel(
    store: StoredVersion,
    grid: PanelGrid,
    channels: Sequence[str],
    scaling: Scaling,
    cache: Cache | str | Path | None = None,
    dtype: str = "float32",
    fill: bool = True,
) -> PanelFile:
    """A panel of values, from a file that is built on first use.

    Parameters
    ----------
    store
        Where rows come from.
    grid
        Which series, and when.
    channels
        Columns of each series.
    scaling
        Of each channel, as for :func:`open_rows`.
    cache
        Folder of the files, with how much it may hold if that is not the usual; None for :func:`cache_folder`.
    dtype
        ``float32``, or ``float64`` for values that are read by :meth:`PanelFile.read` alone.
    fill
        Whether missing values, and steps at which a series has no row, are 0; else they are NaN.

    Raises
    ------
    StoreError
        If the file cannot be written.
    CorruptionError
        If the store is damaged.
    NotFiniteError
        If a value does not fit float32 once scaled.

    Notes
    -----
    Cost: the rows of these series decoded once, and
    written once in time order. Memory: some 200 MB, whatever the size.
    """
    if dtype == "float32":
        require_float32(store, channels, scaling)
    masked = not grid.whole or bool(store.missing(channels).any())
    digest = xxhash.xxh3_128_hexdigest(grid.series.tobytes())
    identity = ["panel", _LAYOUT, fill, store.digest, list(channels), digest, *scaling_key(scaling)]
    identity += [] if dtype == "float32" else [dtype]
    itemsize = np.dtype(dtype).itemsize
    folder = Cache.of(cache)
    entry = new_entry(store, channels, folder, identity, grid.n_steps * grid.n_nodes, masked, itemsize)

    def build(path: Path) -> None:
        _build(store, grid, channels, scaling, masked, path, np.dtype(dtype), fill)

    return open_cached(entry, build, lambda file: PanelFile(grid, len(channels), masked, file, itemsize), folder)


def _build(
    store: StoredVersion,
    grid: PanelGrid,
    channels: Sequence[str],
    scaling: Scaling,
    masked: bool,
    path: Path,
    dtype: np.dtype[Any],
    fill: bool,
) -> None:
    n_channels, n_nodes, n_steps = len(channels), grid.n_nodes, grid.n_steps
    together = max(1, _BUFFER_BYTES // (n_steps * n_channels * (dtype.itemsize + masked)))
    at_once = max(1, _PIECE_BYTES // (n_channels * dtype.itemsize))
    for low in range(0, n_nodes, together):
        high = min(low + together, n_nodes)
        values = np.full((n_steps, high - low, n_channels), 0.0 if fill else np.nan, dtype)
        observed = np.zeros(values.shape, np.bool_) if masked else None
        for begin, end, runs in grid.pieces(low, high, at_once):
            rows = np.empty((end - begin, n_channels), dtype)
            seen = np.empty(rows.shape, np.bool_) if masked else None
            decode_part(store, channels, begin, rows, scaling, seen, fill)
            for run in runs.tolist():
                first, last = max(begin, int(grid.run_start[run])), min(end, int(grid.run_stop[run]))
                step = int(grid.run_step[run]) + first - int(grid.run_start[run])
                node, inside = int(grid.run_node[run]) - low, slice(first - begin, last - begin)
                values[step : step + last - first, node] = rows[inside]
                if observed is not None and seen is not None:
                    observed[step : step + last - first, node] = seen[inside]
        _write(path, 0, values, low, n_nodes)
        if observed is not None:
            _write(path, n_steps * n_nodes * n_channels * dtype.itemsize, observed, low, n_nodes)


def _write(path: Path, offset: int, part: NDArray[Any], low: int, n_nodes: int) -> None:
    """Write the steps of some nodes; a stretch of steps is mapped at a time, so that few pages are held."""
    n_steps, n_mine, n_channels = part.shape
    at_once = max(1, _PIECE_BYTES // (n_nodes * n_channels * part.itemsize))
    for begin in range(0, n_steps, at_once):
        end = min(begin + at_once, n_steps)
        place = offset + begin * n_nodes * n_channels * part.itemsize
        mapped = np.memmap(path, part.dtype, "r+", place, (end - begin, n_nodes, n_channels))
        mapped[:, low : low + n_mine] = part[begin:end]
