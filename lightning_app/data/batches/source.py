"""Where the rows of windows are, and batches made of them: one gather, scaled while in cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from lightning_app.batch import Batch
from lightning_app.data.batches.buffers import Buffers
from lightning_app.data.batches.fields import FieldRows
from lightning_app.data.columns.calendar import cycles_along, time_cycles, time_index
from lightning_app.data.columns.roles import Columns, Words
from lightning_app.data.rows.residency import Rows
from lightning_app.data.scaling.clip import Clip
from lightning_app.data.scaling.rowscaling import RowScaling
from zstore import WindowShape

_SLICE_BYTES = 1 << 22  # of windows that a thread copies, and scales while they are in cache
_NUMPY = {torch.float32: np.dtype(np.float32), torch.bool: np.dtype(np.bool_)}


@dataclass(frozen=True)
class Located:
    """Where some windows lie, each (batch,) int64.

    Parameters
    ----------
    start
        Position of the first row in the rows of the source: a row of the store only where all of them are in memory.
    series
        Position of the series in the store's ids.
    time
        Time of the first target; 0 where times are irregular.
    row
        The first row in the store; always on the CPU.
    """

    start: Tensor
    series: Tensor
    time: Tensor
    row: Tensor

    def to(self, device: torch.device) -> Located:
        """In the memory of a device, but for `row`."""
        start, series, time = (each.to(device, non_blocking=True) for each in (self.start, self.series, self.time))
        return Located(start, series, time, self.row)

    def split(self, sizes: list[int]) -> Iterator[Located]:
        """Parts of these."""
        return map(Located, *(torch.split_with_sizes(each, sizes) for each in self._values))

    def part(self, first: int, last: int) -> Located:
        """The windows ``[first, last)`` of these."""
        return Located(*(each[first:last] for each in self._values))

    @property
    def _values(self) -> tuple[Tensor, ...]:
        return self.start, self.series, self.time, self.row


@dataclass(frozen=True)
class PositionTimes:
    """Times of irregular rows, by position in the rows of a source; in a pool these are other rows all the time.

    Parameters
    ----------
    values
        (position,) int64.
    """

    values: Tensor

    def at(self, positions: Tensor) -> Tensor:
        """Times at some positions, which must be in the source when it is asked: never rows of the store."""
        return self.values[positions]

    def to(self, device: torch.device) -> PositionTimes:
        """The same in the memory of a device."""
        return PositionTimes(self.values.to(device))


@dataclass(frozen=True)
class WindowSource:
    """Decoded rows, and batches of them.

    Parameters
    ----------
    rows
        (row, channel): those of the store, or those of a pool. In a panel (step, node * channel).
    columns
        Which of them are what.
    statics
        (series, attribute) float32.
    nodes
        (node,) int64 which series a panel has; None for windows of single series.
    masked
        Whether any target is missing anywhere.
    times
        Times of `rows`, by position in them, where they are irregular; else None.
    target
        Device that batches are for.
    buffers
        Memory for batches on the CPU.
    fields
        By name, rows of fields, each where it lives.
    clip, clip_future
        Bounds of the columns of `x` and of `x_future`; None where none is clipped; on `target`.
    all_seen
        (1, 1, 1) the mask where nothing is missing, to be expanded; on `target`.
    """

    rows: Rows
    columns: Columns
    statics: Tensor
    masked: bool
    nodes: Tensor | None = None
    times: PositionTimes | None = None
    target: torch.device = field(default_factory=lambda: torch.device("cpu"))
    buffers: Buffers = field(default_factory=Buffers)
    fields: Mapping[str, FieldRows] = field(default_factory=dict)
    clip: Clip | None = None
    clip_future: Clip | None = None
    all_seen: Tensor = field(default_factory=lambda: torch.ones(1, 1, 1, dtype=torch.bool))

    @property
    def device(self) -> torch.device:
        """Where rows are gathered."""
        return self.rows.values.device

    @property
    def field_bytes(self) -> int:
        """Bytes of the fields of a window."""
        return sum(rows.n_bytes for rows in self.fields.values())

    def to(self, device: torch.device) -> WindowSource:
        """The same with rows copied to a device, so that they are gathered there."""
        times = None if self.times is None else self.times.to(device)
        rows = self.rows.to(device)
        return replace(replace(self, rows=rows).delivered_to(device), times=times)

    def delivered_to(self, device: torch.device) -> WindowSource:
        """The same with batches that are copied to a device: gathered into pinned memory, and copied from there."""
        nodes = None if self.nodes is None else self.nodes.to(device)
        rows, statics, seen = self.rows.delivered_to(device), self.statics.to(device), self.all_seen.to(device)
        clip, ahead = (None if each is None else each.to(device) for each in (self.clip, self.clip_future))
        moved = replace(self, rows=rows, statics=statics, nodes=nodes, all_seen=seen, clip=clip, clip_future=ahead)
        return replace(moved, target=device)

    def batch(self, shape: WindowShape, windows: Located) -> Batch:
        """Some windows.

        Notes
        -----
        One gather where inputs and targets are near each other; `x` and `y` are parts of what it has copied. What it
        has copied is scaled and filled in place, some megabytes at a time, while they are in cache.
        """
        columns, first = self.columns, windows.start + shape.target_offset
        if shape.delay <= shape.lookback + shape.horizon:
            together = self._scaled(windows, windows.start, shape.span)
            past = together.narrow(1, 0, shape.lookback)
            ahead = together.narrow(1, shape.target_offset, shape.horizon)
        else:
            past = self._scaled(windows, windows.start, shape.lookback)
            ahead = self._scaled(windows, first, shape.horizon)
        y = _pick(ahead, columns.targets)
        if self.masked and self.rows.observed is not None:
            mask = _pick(self._gather(self.rows.observed, first, shape.horizon), columns.targets)
        else:
            mask = self.all_seen.expand(y.shape)
        x, future = _pick(past, columns.inputs), _pick(ahead, columns.future)
        if self.clip is not None:  # in place, but for rows that are inputs and targets at once
            x = self.clip.apply(x, x if shape.delay >= 0 else torch.empty_like(x))
        if self.clip_future is not None:
            future = self.clip_future.apply(future, torch.empty_like(future))
        if columns.observed and self.rows.observed is not None:
            seen = self._gather(self.rows.observed, windows.start, shape.lookback)
            x = self._beside(x, _pick(seen, columns.observed).float())
        elif columns.observed:  # nothing is missing here; it was where the model was trained
            x = self._beside(x, x.new_ones(*x.shape[:-1], len(columns.observed)))
        x = self._with_words(x, past, columns.words, windows.start)
        future = self._with_words(future, ahead, columns.future_words, first)
        time = windows.time if self.times is None else self.times.at(first)
        there = Located(windows.start, windows.series, time, windows.row)
        there = there if self.target == self.device else there.to(self.target)
        batch: Batch = {
            "x": x,
            "y": y,
            "mask": mask,
            "x_static": self._statics_of(there.series),
            "x_future": future,
            "series": there.series if self.nodes is None else self.nodes.expand(len(y), -1),
            "time": there.time,
        }
        if columns.calendar:
            self._add_calendar(batch, shape, windows)
        for name, rows in self.fields.items():
            batch[name] = rows.gather(windows.row, self.buffers, self.target)  # type: ignore[literal-required]
        return batch

    def _with_words(self, values: Tensor, rows: Tensor, words: tuple[Words, ...], starts: Tensor) -> Tensor:
        """Channels, and behind them a column for each word of some categories: 1 where it stands, 0 elsewhere.

        A missing word is 0 in all of them.
        """
        if not words:
            return values
        observed = self.rows.observed
        seen = None if observed is None else self._gather(observed, starts, rows.shape[1])
        parts = [values]
        for each in words:
            stands = rows[..., each.column, None] == torch.arange(each.n_words, device=rows.device)
            if seen is not None:
                stands &= seen[..., each.column, None]
            parts.append(stands.float())
        return self._beside(*parts)

    def _statics_of(self, series: Tensor) -> Tensor:
        """(batch, attribute), or (batch, node, attribute)."""
        if self.nodes is not None:
            return self.statics[self.nodes].expand(len(series), -1, -1)
        return self.statics[series] if self.statics.shape[1] else self.statics.new_empty(len(series), 0)

    def _add_calendar(self, batch: Batch, shape: WindowShape, windows: Located) -> None:
        columns, first = self.columns, shape.target_offset
        spans = {"x": range(-first, shape.lookback - first), "y": range(shape.horizon)}
        if columns.encoding == "index":
            for name, steps in spans.items():
                times = self._times(batch["time"], windows.start + first, steps)
                found = [time_index(times, feature, columns.unit, columns.step) for feature in columns.calendar]
                batch[f"{name}_time"] = torch.stack(found, dim=-1)  # type: ignore[literal-required]
            return
        past, ahead = (self._cycles(batch["time"], windows.start + first, steps) for steps in spans.values())
        batch["x"] = self._beside(batch["x"], *past)
        batch["x_future"] = self._beside(batch["x_future"], *ahead)

    def _cycles(self, time: Tensor, first: Tensor, steps: range) -> list[Tensor]:
        """(batch, step, 2) of each time feature."""
        columns = self.columns
        if columns.step:
            return [cycles_along(time, steps, columns.step, feature, columns.unit) for feature in columns.calendar]
        times = self._times(time, first, steps)
        return [time_cycles(times, feature, columns.unit) for feature in columns.calendar]

    def _times(self, time: Tensor, first: Tensor, steps: range) -> Tensor:
        """(batch, step) times of rows, counted from the first target, whose row is `first` and whose time is `time`."""
        places = torch.tensor(steps)
        if self.times is not None:
            return self.times.at(first[:, None] + places.to(self.device)).to(self.target)
        if self.columns.step:
            return time[:, None] + places.to(time.device) * self.columns.step
        times = self.columns.rule.times(places.numpy(), time.cpu().numpy()[:, None])
        return torch.from_numpy(times).to(time.device)

    def _beside(self, *parts: Tensor) -> Tensor:
        """Channels beside each other, on the last axis."""
        if self.target.type != "cpu":
            return torch.cat(parts, dim=-1)
        shape = (*parts[0].shape[:-1], sum(part.shape[-1] for part in parts))
        return torch.cat(parts, dim=-1, out=self.buffers.take(shape, _NUMPY[torch.float32]))

    def _scaled(self, windows: Located, starts: Tensor, length: int) -> Tensor:
        """Windows of values as :meth:`_gather` has them, scaled and filled."""
        values, scaling = self.rows.values, self.rows.scaling
        if scaling is None:
            return self._gather(values, starts, length)
        if self.target.type != "cpu":
            copied = self._windows(values, starts, length)
            scaling.scale_windows(copied, windows.series.to(self.target, non_blocking=True))
        else:
            copied = self._scaled_in_cache(scaling, windows, starts, length)
        return self._by_node(copied)

    def _scaled_in_cache(self, scaling: RowScaling, windows: Located, starts: Tensor, length: int) -> Tensor:
        """Some megabytes at a time, so that windows are scaled while they are in cache."""
        values, n_windows = self.rows.values, len(starts)
        size = length * values.shape[1]
        copied = self.buffers.take((n_windows, size), _NUMPY[values.dtype])
        n_at_once = max(1, _SLICE_BYTES * torch.get_num_threads() // (size * values.itemsize))
        if n_windows <= n_at_once:
            scaling.scale_windows(gather(values, starts, length, copied), windows.series)
        else:
            for part in (slice(low, low + n_at_once) for low in range(0, n_windows, n_at_once)):
                scaling.scale_windows(gather(values, starts[part], length, copied[part]), windows.series[part])
        return copied.view(n_windows, length, values.shape[1])

    def _by_node(self, windows: Tensor) -> Tensor:
        return windows if self.nodes is None else windows.view(*windows.shape[:2], len(self.nodes), -1)

    def _gather(self, rows: Tensor, starts: Tensor, length: int) -> Tensor:
        """(batch, length, channel), or (batch, length, node, channel)."""
        return self._by_node(self._windows(rows, starts, length))

    def _windows(self, rows: Tensor, starts: Tensor, length: int) -> Tensor:
        shape = (len(starts), length * rows.shape[1])
        if self.target.type == "cpu":
            return gather(rows, starts, length, self.buffers.take(shape, _NUMPY[rows.dtype]))
        if self.target == self.device:
            return gather(rows, starts, length)
        pinned = torch.empty(shape, dtype=rows.dtype, pin_memory=self.target.type == "cuda")
        return gather(rows, starts, length, pinned).to(self.target, non_blocking=True)


def _pick(rows: Tensor, columns: Sequence[int]) -> Tensor:
    """Some columns; a view where they lie beside each other."""
    if isinstance(columns, range):
        whole = columns == range(rows.shape[-1])
        return rows if whole else rows.narrow(-1, columns.start, len(columns))
    return rows[..., columns]


def gather(rows: Tensor, starts: Tensor, length: int, out: Tensor | None = None) -> Tensor:
    """Copy windows out of decoded rows in one vectorised read.

    Parameters
    ----------
    rows
        (row, channel), contiguous.
    starts
        (batch,) int64, first row of each window; any order, repeats allowed.
    length
        Rows per window.
    out
        (batch, length * channel) where to copy to; None for fresh memory.

    Returns
    -------
    (batch, length, channel).

    Raises
    ------
    IndexError
        If a window would leave `rows`.

    Notes
    -----
    One memcpy per window; no Python loop.
    """
    n_rows, n_channels = rows.shape
    if length > n_rows:
        raise IndexError(f"windows of {length} rows leave the {n_rows} rows")
    view = rows.as_strided((n_rows - length + 1, length * n_channels), (n_channels, 1))
    return torch.index_select(view, 0, starts, out=out).view(len(starts), length, n_channels)
