"""Some windows of a store twice: as the source has them, for exported models, and as batches of the data module."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_app.batch import Batch
from lightning_app.data.rows.observed import ObservedTargets
from lightning_app.data.selection import require_readable, windows_of
from lightning_app.data.window_data import WindowData
from lightning_app.data.windows.splits import NoWindowError, SplitName
from lightning_app.export.source_model import static_values
from zstore import WindowBounds, WindowIndex

Int64 = NDArray[np.int64]
_SPLITS: tuple[SplitName, ...] = ("test", "val", "train")
_FIELD_BYTES = 1 << 26


@dataclass(frozen=True)
class RealWindows:
    """Windows that lie evenly in a split.

    Parameters
    ----------
    data
        Whose windows they are.
    index
        Each window a piece of its own.
    split
        Where they are from: the test split, or that of validation or training where it has none.
    """

    data: WindowData
    index: WindowIndex
    split: str

    @classmethod
    def of(cls, data: WindowData, most: int) -> RealWindows:
        """At most so many windows; fewer where their fields are large.

        Raises
        ------
        UsageError
            If no split has a window that a model can read.
        """
        for name in _SPLITS:
            try:
                whole = windows_of(data.layout, name, 1)
                break
            except NoWindowError:
                if name == _SPLITS[-1]:
                    raise
        n_bytes = sum(int(np.prod(sizes)) * 4 for sizes in data.shape.fields.values())
        n = max(min(most, len(whole), _FIELD_BYTES // max(n_bytes, 1)), 1)
        samples = np.linspace(0, len(whole) - 1, n).astype(np.int64)
        first, series, time = whole.locate(samples)
        rule = whole.rule
        begin = rule.times(np.full(len(first), -whole.shape.target_offset), time) if rule.regular else time
        ends = np.arange(1, len(first) + 1)
        index = WindowIndex(whole.shape, first, series, begin, ends, rule, whole.bounds_of(samples))
        require_readable(data.layout, index, name)
        return cls(data, index, name)

    def __len__(self) -> int:
        return len(self.index)

    def batches(self) -> Iterator[tuple[dict[str, Tensor], Batch]]:
        """Inputs of an exported model by name, and the same windows as a batch, both on the CPU; in their order."""
        whole, done = self._inputs(), 0
        for batch in self.data.loaders.in_order(self.index):
            moved: Any = {name: part.cpu().clone() for name, part in batch.items()}  # type: ignore[attr-defined]
            n = len(moved["series"])
            own = {name: part[done : done + n] for name, part in whole.items()}
            own |= {name: moved[name] for name in moved if name.removesuffix("_observed") in self.data.shape.fields}
            yield own, moved
            done += n

    def _inputs(self) -> dict[str, Tensor]:
        """By name, all but fields: as the source has them."""
        data, index, shape = self.data, self.index, self.index.shape
        layout, samples = data.layout, np.arange(len(index))
        first, series, _ = index.locate(samples)
        bounds = index.bounds_of(samples)
        reached = replace(bounds, target_start=bounds.input_start)
        past, ahead = np.arange(shape.lookback), shape.target_offset + shape.target_rows
        found: dict[str, Any] = {}
        if layout.seen:
            found["x"] = self._values(layout.seen, past).at(first, reached)
        if layout.future:
            steps = shape.target_rows
            found["x_future"] = self._values(layout.future, steps).at(first + shape.target_offset, bounds)
        if layout.static_meanings:
            found["x_static"] = static_values(data)[series if layout.nodes is None else self._nodes]
        if layout.roles.calendar:
            found["times"] = self._times(first, np.concatenate([past, ahead]), bounds)
        if layout.nodes is None:
            found["series"] = series
        if shape.pad_before != "none" or shape.pad_after != "none":
            found["x_pad"] = (first[:, None] + past) < bounds.input_start[:, None]
        return {name: torch.from_numpy(np.ascontiguousarray(part)) for name, part in found.items()}

    @property
    def _nodes(self) -> Int64:
        """(window, node) series of the panel."""
        nodes = self.data.layout.nodes
        assert nodes is not None
        return np.tile(nodes, (len(self), 1))

    def _values(self, channels: list[str], steps: Int64) -> ObservedTargets:
        """Values in source units, codes as the model has them."""
        layout = self.data.layout
        return layout.view.observed_targets(self.data.scaler.of(channels), steps, layout.options.row_cache)

    def _times(self, first: Int64, steps: Int64, bounds: WindowBounds) -> Int64:
        """(window, row) times; of padded rows they go on by the step, or are those of the nearest row."""
        rule, timed = self.index.rule, self.data.layout.view.timed
        if rule.regular:
            return rule.times(steps[None, :], self.index.time[:, None])
        rows = np.clip(first[:, None] + steps, bounds.input_start[:, None], bounds.stop[:, None] - 1)
        times = [timed.times(int(own.min()), int(own.max()) + 1)[own - own.min()] for own in rows]
        return np.stack(times)
