"""Where the rows of windows are, and batches made of them: one gather, scaled while in cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from lightning_app.batch import Batch
from lightning_app.data.batches.behind import Copies
from lightning_app.data.batches.buffers import Buffers
from lightning_app.data.batches.fields import FieldRows
from lightning_app.data.batches.located import Located, PositionTimes, StoreRows
from lightning_app.data.batches.padding import Pads, Reach, fill_zeros, gather_within
from lightning_app.data.batches.phases import Phases
from lightning_app.data.batches.rowtimes import RowTimes
from lightning_app.data.columns.roles import Columns, Words
from lightning_app.data.columns.vectors import last_rows
from lightning_app.data.rows.residency import Rows
from lightning_app.data.scaling.clip import Clip
from lightning_app.data.scaling.rowscaling import RowScaling
from zstore import WindowShape, observed_key

_SLICE_BYTES = 1 << 22  # of windows that a thread copies, and scales while they are in cache
_NUMPY = {torch.float32: np.dtype(np.float32), torch.bool: np.dtype(np.bool_)}


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
    clip, clip_future, clip_vectors
        Bounds of the columns of `x`, of `x_future` and, by name, of vectors; None where none is clipped; on `target`.
    streamed
        Whether `rows` are those of a pool.
    phases
        Where the time goes.
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
    clip_vectors: Mapping[str, Clip | None] = field(default_factory=dict)
    streamed: bool = False
    phases: Phases = field(default_factory=Phases)
    all_seen: Tensor = field(default_factory=lambda: torch.ones(1, 1, 1, dtype=torch.bool))

    @property
    def device(self) -> torch.device:
        """Where rows are gathered."""
        return self.rows.values.device

    @property
    def field_bytes(self) -> int:
        """Bytes of the fields of a window."""
        return sum(rows.n_bytes for rows in self.fields.values())

    @property
    def decodes(self) -> bool:
        """Whether rows of some field are decoded for each batch."""
        return not all(rows.values.decoded for rows in self.fields.values())

    @property
    def copies_fields(self) -> bool:
        """Whether what a batch has of fields is copied from memory to memory of the CPU, and nothing else is done."""
        on_cpu = self.target.type == self.device.type == "cpu"
        return on_cpu and not self.decodes and all(rows.values.device.type == "cpu" for rows in self.fields.values())

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
        own = {name: None if each is None else each.to(device) for name, each in self.clip_vectors.items()}
        moved = replace(self, rows=rows, statics=statics, nodes=nodes, all_seen=seen, clip=clip, clip_future=ahead)
        return replace(moved, clip_vectors=own, target=device)

    def batch(self, shape: WindowShape, windows: Located, later: Copies | None = None) -> Batch:
        """Some windows.

        Parameters
        ----------
        shape, windows
            Which windows.
        later
            Gets what fills the fields of a batch on the CPU; None to fill them here and now.

        Notes
        -----
        One gather where inputs and targets are near each other; `x` and `y` are parts of what it has copied. What it
        has copied is scaled and filled in place, some megabytes at a time, while they are in cache.
        """
        columns = self.columns
        reach = Reach.both(shape, windows.bounds, self.device)
        inputs, targets = reach
        past, ahead = self._past_and_ahead(shape, windows, inputs, targets)
        y = _pick(ahead, columns.targets)
        if self.masked and self.rows.observed is not None:
            first = windows.start + shape.target_offset
            mask = _pick(self._gather(self.rows.observed, first, shape.horizon, targets), columns.targets)
        else:
            mask = self.all_seen.expand(y.shape)
        vectors = {name: self._vector(name, past) for name in columns.vectors}
        x, future = _pick(past, columns.inputs), _pick(ahead, columns.future)
        if self.clip is not None:  # in place, but for rows that are inputs and targets at once
            x = self.clip.apply(x, x if shape.delay >= 0 else torch.empty_like(x))
        if self.clip_future is not None:
            future = self.clip_future.apply(future, torch.empty_like(future))
        if columns.observed and self.rows.observed is not None:
            seen = self._gather(self.rows.observed, windows.start, shape.lookback, inputs)
            x = self._beside(x, _pick(seen, columns.observed).float())
        elif columns.observed:  # nothing is missing here; it was where the model was trained
            x = self._beside(x, x.new_ones(*x.shape[:-1], len(columns.observed)))
        if columns.words:
            x = self._with_words(x, past, columns.words, windows.start, inputs)
        if columns.future_words:
            first = windows.start + shape.target_offset
            future = self._with_words(future, ahead, columns.future_words, first, targets)
        there = self._with_times(windows, shape, targets)
        batch: Batch = {
            "x": x,
            "y": y,
            "mask": mask,
            "x_static": self._statics_of(there.series),
            "x_future": future,
            "series": there.series if self.nodes is None else self.nodes.expand(len(y), -1),
            "time": there.time,
        }
        batch.update(vectors)  # type: ignore[typeddict-item]
        pads = None if windows.bounds is None else Pads.of(shape, windows.bounds)
        if pads is not None:
            self._pad(batch, pads.to(self.target))
        if columns.calendar:
            self._add_calendar(batch, shape, windows.start + shape.target_offset, reach)
        if windows.rows is not None:
            self._add_fields(batch, windows.rows, windows.corners, pads, later)
        return batch

    def _add_fields(
        self,
        batch: Batch,
        windows: StoreRows,
        corners: Mapping[str, Tensor],
        pads: Pads | None,
        later: Copies | None,
    ) -> None:
        """Rows of fields, and which of them have a value where some row of the store has none."""
        for name, rows in self.fields.items():
            taken = rows.gather(windows, self.buffers, self.target, pads, corners.get(name), later, self.phases)
            batch[name] = taken  # type: ignore[literal-required]
            observed = rows.seen(windows.first, self.target, pads)
            if observed is not None:
                batch[observed_key(name)] = observed  # type: ignore[literal-required]

    def _vector(self, name: str, past: Tensor) -> Tensor:
        """(batch, step, channel) a copy of what is asked for of a vector, clipped as inputs are."""
        own, clip = self.columns.vectors[name], self.clip_vectors.get(name)
        rows = _pick(last_rows(past, own.steps, own.stride), own.columns)
        out = torch.empty_like(rows, memory_format=torch.contiguous_format)
        return out.copy_(rows) if clip is None else clip.apply(rows, out)

    def _with_times(self, windows: Located, shape: WindowShape, targets: Reach | None) -> Located:
        """The same on `target`, with the time of the first target where it is not known from the index."""
        if self.times is not None:
            first = windows.start + shape.target_offset
            windows = replace(windows, time=self.times.along(first, range(1), targets)[:, 0])
        return windows if self.target == self.device else windows.to(self.target)

    def _past_and_ahead(
        self, shape: WindowShape, windows: Located, inputs: Reach | None, targets: Reach | None
    ) -> tuple[Tensor, Tensor]:
        """All columns of the input rows and of the target rows, scaled and filled."""
        if shape.read_together:
            together = self._scaled(windows, windows.start, shape.span, inputs)
            ahead = together.narrow(1, shape.target_offset, shape.target_span)
            if shape.target_stride > 1:
                ahead = ahead[:, :: shape.target_stride]
            return together.narrow(1, 0, shape.lookback), ahead
        past = self._scaled(windows, windows.start, shape.lookback, inputs)
        return past, self._scaled(windows, windows.start + shape.target_offset, shape.horizon, targets)

    def _pad(self, batch: Batch, pads: Pads) -> None:
        """Say which rows are padded, count no target among them, and make zeros of those that are to be."""
        fill_zeros(batch["x"], pads.zero_inputs)
        for name, own in self.columns.vectors.items():
            zeros = None if pads.zero_inputs is None else last_rows(pads.zero_inputs, own.steps, own.stride)
            fill_zeros(batch[name], zeros)  # type: ignore[literal-required]
        fill_zeros(batch["y"], pads.zero_targets)
        fill_zeros(batch["x_future"], pads.zero_targets)
        if self.masked and self.rows.observed is not None:
            fill_zeros(batch["mask"], pads.targets)
        else:  # that is a view of one value
            real = ~pads.targets
            batch["mask"] = real.view(*real.shape, *(1 for _ in batch["y"].shape[2:])).expand(batch["y"].shape)
        batch["x_pad"], batch["y_pad"] = pads.inputs, pads.targets

    def _with_words(
        self, values: Tensor, rows: Tensor, words: tuple[Words, ...], starts: Tensor, reach: Reach | None
    ) -> Tensor:
        """Channels, and behind them a column for each word of some categories: 1 where it stands, 0 elsewhere.

        A missing word is 0 in all of them.
        """
        observed = self.rows.observed
        seen = None if observed is None else self._gather(observed, starts, rows.shape[1], reach)
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

    def _add_calendar(
        self, batch: Batch, shape: WindowShape, first: Tensor, reach: tuple[Reach | None, Reach | None]
    ) -> None:
        past, ahead = RowTimes.both(self.columns, shape, batch["time"], first, reach, self.times)
        if self.columns.encoding == "index":
            batch["x_time"], batch["y_time"] = past.index(), ahead.index()
            return
        batch["x"] = self._beside(batch["x"], *past.cycles())
        batch["x_future"] = self._beside(batch["x_future"], *ahead.cycles())

    def _beside(self, *parts: Tensor) -> Tensor:
        """Channels beside each other, on the last axis."""
        if self.target.type != "cpu":
            return torch.cat(parts, dim=-1)
        shape = (*parts[0].shape[:-1], sum(part.shape[-1] for part in parts))
        return torch.cat(parts, dim=-1, out=self.buffers.take(shape, _NUMPY[torch.float32]))

    def _scaled(self, windows: Located, starts: Tensor, length: int, reach: Reach | None) -> Tensor:
        """Windows of values as :meth:`_gather` has them, scaled and filled."""
        values, scaling = self.rows.values, self.rows.scaling
        if scaling is None:
            return self._gather(values, starts, length, reach)
        if self.target.type == "cpu":
            return self._by_node(self._scaled_in_cache(scaling, windows, starts, length, reach))
        copied = self._windows(values, starts, length, reach)
        scaling.scale_windows(copied, windows.series.to(self.target, non_blocking=True))
        return self._by_node(copied)

    def _scaled_in_cache(
        self, scaling: RowScaling, windows: Located, starts: Tensor, length: int, reach: Reach | None
    ) -> Tensor:
        """Some megabytes at a time, so that windows are scaled while they are in cache."""
        values, (n_windows,) = self.rows.values, starts.shape
        size = length * values.shape[1]
        copied = self.buffers.take((n_windows, size), _NUMPY[values.dtype])
        n_at_once = max(1, _SLICE_BYTES * torch.get_num_threads() // (size * values.itemsize))
        if n_windows <= n_at_once:
            whole = gather(values, starts, length, copied, reach)
            scaling.scale_windows(whole, windows.series)
            return whole
        for part in (slice(low, low + n_at_once) for low in range(0, n_windows, n_at_once)):
            own = None if reach is None else reach.at(part)
            scaling.scale_windows(gather(values, starts[part], length, copied[part], own), windows.series[part])
        return copied.view(n_windows, length, values.shape[1])

    def _by_node(self, windows: Tensor) -> Tensor:
        return windows if self.nodes is None else windows.view(*windows.shape[:2], len(self.nodes), -1)

    def _gather(self, rows: Tensor, starts: Tensor, length: int, reach: Reach | None) -> Tensor:
        """(batch, length, channel), or (batch, length, node, channel)."""
        return self._by_node(self._windows(rows, starts, length, reach))

    def _windows(self, rows: Tensor, starts: Tensor, length: int, reach: Reach | None) -> Tensor:
        shape = (len(starts), length * rows.shape[1])
        if self.target.type == "cpu":
            return gather(rows, starts, length, self.buffers.take(shape, _NUMPY[rows.dtype]), reach)
        if self.target == self.device:
            return gather(rows, starts, length, None, reach)
        pinned = torch.empty(shape, dtype=rows.dtype, pin_memory=self.target.type == "cuda")
        return self.phases.moved(gather(rows, starts, length, pinned, reach), self.target)


def _pick(rows: Tensor, columns: Sequence[int]) -> Tensor:
    """Some columns; a view where they lie beside each other."""
    if isinstance(columns, range):
        whole = columns == range(rows.shape[-1])
        return rows if whole else rows.narrow(-1, columns.start, len(columns))
    return rows.index_select(-1, torch.tensor(columns).to(rows.device, non_blocking=True))


def gather(rows: Tensor, starts: Tensor, length: int, out: Tensor | None = None, reach: Reach | None = None) -> Tensor:
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
    reach
        Where windows are padded, or rows further apart; None for rows beside each other, all of which are there.

    Returns
    -------
    (batch, length, channel).

    Raises
    ------
    IndexError
        If a window would leave `rows`, and has no `reach`.

    Notes
    -----
    One memcpy per window; no Python loop.
    """
    if reach is not None:
        return gather_within(rows, starts, length, reach, out)
    n_rows, n_channels = rows.shape
    if length > n_rows:
        raise IndexError(f"windows of {length} rows leave the {n_rows} rows")
    view = rows.as_strided((n_rows - length + 1, length * n_channels), (n_channels, 1))
    return torch.index_select(view, 0, starts, out=out).view(starts.shape[0], length, n_channels)
