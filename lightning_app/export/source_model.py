"""A model around a model: named inputs in source units make a batch, and its predictions are all that comes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from lightning_app.batch import Batch
from lightning_app.data.columns.calendar import time_cycles, time_index
from lightning_app.data.columns.roles import Words
from lightning_app.data.columns.vectors import last_rows
from lightning_app.data.window_data import WindowData
from lightning_app.export.scaling import Bounds, ColumnScaling, SourceUnits
from lightning_app.models import TaskModel


class SourceModel(nn.Module):
    """Takes a window as the source has it, and gives forecasts in its units.

    Parameters
    ----------
    model
        With its weights; it has predicted a batch of `data` before, for some models make tables then.
    data
        That the model reads.

    Notes
    -----
    `forward` takes and gives tensors by name. Inputs are ``x``, (batch, lookback, channel) float64 in source units, NaN
    where missing; and, where they are of use, ``x_future``, ``x_static``, ``times``, ``series``, ``x_pad`` and fields.
    A window that no model can read, for it has an infinite value or a series without a scaler, gives NaN.
    """

    nodes: Tensor
    known: Tensor

    def __init__(self, model: TaskModel, data: WindowData) -> None:
        super().__init__()
        layout, scaler = data.layout, data.scaler
        self.model, self.units = model, SourceUnits(data)
        self.past = ColumnScaling(data, layout.seen) if layout.seen else nn.Identity()
        self.clip_past = Bounds(scaler, [layout.columns[column] for column in layout.roles.inputs])
        if layout.future:
            self.ahead = ColumnScaling(data, layout.future)
            plain = [layout.columns[column] for column in layout.roles.future]
            self.clip_ahead = Bounds(scaler, plain)
        self.vectors = nn.ModuleDict({name: Bounds(scaler, use.channels) for name, use in layout.vectors.items()})
        self.statics = StaticColumns(data)
        self._roles, self._layout, self._shape = layout.roles, layout, layout.shape
        self._nodes = (layout.shape.n_nodes,) if layout.nodes is not None else ()
        self.guards = True
        self._pads_zeros = layout.window.pad_before == "zero"
        if layout.nodes is not None:
            self.register_buffer("nodes", torch.from_numpy(np.array(layout.nodes)))
        self.register_buffer("known", torch.from_numpy(_with_scaler(data)))

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Predictions by name, see :func:`by_level`."""
        batch, wrong = self._batch(inputs)
        found: Any = self.model.predict_step(batch, 0)
        parts = by_level(self.model, found)
        return {name: torch.where(_beside(wrong, part), torch.nan, part) for name, part in parts.items()}

    def _batch(self, inputs: dict[str, Tensor]) -> tuple[Batch, Tensor]:
        """A batch, and (batch,) whether no model can read its windows."""
        layout, roles, shape = self._layout, self._roles, self._shape
        n = next(iter(inputs.values())).shape[0]
        x = _given(inputs, "x", (n, shape.lookback, *self._nodes, len(layout.seen)), torch.float64)
        series = _given(inputs, "series", (n,), torch.int64)
        wrong = torch.zeros(n, dtype=torch.bool)
        if self.guards:
            strange = (series < 0) | (series >= self.known.shape[0])
            series = torch.where(strange, 0, series)
            wrong = strange | ~self.known[series]
        if layout.seen:
            scaled, seen, unreadable = _filled(self.past(x, series), x)
        else:  # an ONNX runtime cannot reshape nothing
            scaled, seen, unreadable = x.float(), torch.isfinite(x), torch.zeros(n, dtype=torch.bool)
        values = [self.clip_past(_picked(scaled, roles.inputs))]
        if roles.observed:
            values.append(_picked(seen, roles.observed).float())
        values += [_words(x, layout.seen.index(layout.columns[words.column]), words) for words in roles.words]
        horizon = (n, shape.horizon, *self._nodes)
        future = torch.zeros(*horizon, 0)
        if layout.future:
            raw = _given(inputs, "x_future", (*horizon, len(layout.future)), torch.float64)
            future, unreadable_future = self._future(raw, series)
            unreadable = unreadable | unreadable_future
        statics = _given(inputs, "x_static", (n, *self._nodes, self.statics.n_attributes), torch.float64)
        batch: dict[str, Tensor] = {
            "y": torch.zeros(*horizon, shape.n_targets),
            "mask": torch.zeros(*horizon, shape.n_targets, dtype=torch.bool),
            "x_static": self.statics(statics),
            "series": series if layout.nodes is None else self.nodes.expand(n, -1),
            "time": torch.zeros(n, dtype=torch.int64),
        }
        for name, use in layout.vectors.items():
            own = [layout.seen.index(channel) for channel in use.channels]
            batch[name] = self.vectors[name](last_rows(_picked(scaled, own), use.steps, use.stride))
        ahead, times = [future], _given(inputs, "times", (n, shape.lookback + shape.horizon), torch.int64)
        if roles.calendar and roles.encoding == "index":
            both = [time_index(times, each, roles.unit, roles.step) for each in roles.calendar]
            batch["x_time"], batch["y_time"] = _cut(torch.stack(both, dim=-1), shape.lookback)
        for feature in roles.calendar if roles.encoding == "cyclic" else ():
            past_cycles, ahead_cycles = _cut(time_cycles(times, feature, roles.unit), shape.lookback)
            values.append(past_cycles)
            ahead.append(ahead_cycles)
        batch["x"], batch["x_future"] = torch.cat(values, dim=-1), torch.cat(ahead, dim=-1)
        if layout.window.pad_before != "none" or layout.window.pad_after != "none":
            self._pad(batch, _given(inputs, "x_pad", (n, shape.lookback), torch.bool))
        batch.update({name: part for name, part in inputs.items() if name.removesuffix("_observed") in layout.fields})
        return cast(Batch, batch), (wrong | unreadable) if self.guards else wrong

    def _future(self, raw: Tensor, series: Tensor) -> tuple[Tensor, Tensor]:
        """Channels known in advance, and (batch,) whether one is infinite."""
        layout, roles = self._layout, self._roles
        scaled, _, unreadable = _filled(self.ahead(raw, series), raw)
        plain = [layout.future.index(layout.columns[column]) for column in roles.future]
        parts = [self.clip_ahead(_picked(scaled, plain))]
        for words in roles.future_words:
            parts.append(_words(raw, layout.future.index(layout.columns[words.column]), words))
        return torch.cat(parts, dim=-1), unreadable

    def _pad(self, batch: dict[str, Tensor], padded: Tensor) -> None:
        """Say which input rows are padded, (batch, lookback), and make zeros of those that are to be."""
        batch["x_pad"] = padded
        batch["y_pad"] = torch.zeros(padded.shape[0], self._shape.horizon, dtype=torch.bool)
        if self._pads_zeros:
            batch["x"] = torch.where(_beside(padded, batch["x"]), 0.0, batch["x"])
            for name, use in self._layout.vectors.items():
                zero = last_rows(padded, use.steps, use.stride)
                batch[name] = torch.where(_beside(zero, batch[name]), 0.0, batch[name])


def by_level(model: TaskModel, found: Any) -> dict[str, Tensor]:
    """What :meth:`TaskModel.predict_step` gives, by name: quantiles and ends of intervals with an axis for levels."""
    parts: dict[str, Tensor] = found if isinstance(found, dict) else {"predictions": found}
    n_levels = {"quantiles": len(model.task.levels)}
    if model.intervals is not None:
        n_levels |= dict.fromkeys(("lower", "upper"), len(model.intervals.levels))
    return {
        name: part.reshape(*part.shape[:-1], -1, n_levels[name]) if name in n_levels else part
        for name, part in parts.items()
    }


class StaticColumns(nn.Module):
    """Static attributes as a model knows them: numbers standardised, a column for each word.

    Parameters
    ----------
    data
        Whose attributes they are.
    """

    def __init__(self, data: WindowData) -> None:
        super().__init__()
        self.n_attributes = len(data.layout.static_meanings)
        self._meanings, self._rule = data.layout.static_meanings, data.layout.rule

    def forward(self, raw: Tensor) -> Tensor:
        """(…, attribute) float64 numbers and codes, NaN where missing, to (…, column) float32."""
        parts = [torch.zeros(*raw.shape[:-1], 0)]
        for place, meaning in enumerate(self._meanings):
            own = raw[..., place : place + 1]
            if meaning.words is None:
                scaled = (own - meaning.mean) / meaning.std
                parts.append(torch.where(scaled.isnan(), 0.0, scaled).float())
            else:
                parts.append((own == torch.arange(meaning.n_columns(self._rule))).float())
        return torch.cat(parts, dim=-1)


def static_values(data: WindowData) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(series, attribute) float64 what exported models read of the static attributes of a store.

    Words are codes: their places among those of the model, or as many as it has for another one; NaN where missing.
    """
    columns = []
    for meaning in data.layout.static_meanings:
        static = data.store.static(meaning.name)
        if meaning.words is None or static.categories is None:
            columns.append(static.values.astype(np.float64))
            continue
        places = {word: float(place) for place, word in enumerate(meaning.words)}
        codes = np.array([*(places.get(word, len(places)) for word in static.categories), np.nan])
        columns.append(codes[static.values])  # -1 is missing
    return np.stack(columns, axis=1) if columns else np.zeros((data.n_series, 0))


def _with_scaler(data: WindowData) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """(series,) whether a series of the store has a scaler; and one more, of all others, where the model has that."""
    recorded, ids = data.meaning, data.store.ids
    if not data.scaler.scaling.per_series or recorded.series is None:
        return np.ones(len(ids), np.bool_)
    if recorded.other_series is not None:
        return np.ones(len(ids) + 1, np.bool_)
    return np.isin(ids, np.array(recorded.series))


def _filled(scaled: Tensor, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scaled values with 0 for missing ones, which were observed, and (batch,) whether any is not finite."""
    seen = ~raw.isnan()
    unreadable = (seen & ~scaled.isfinite()).flatten(1).any(dim=1)
    return torch.where(seen, scaled, 0.0), seen, unreadable


def _given(inputs: dict[str, Tensor], name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """An input; zeros where the model has no use for it."""
    return inputs[name] if name in inputs else torch.zeros(shape, dtype=dtype)


def _picked(values: Tensor, columns: Sequence[int]) -> Tensor:
    """Some columns, on the last axis."""
    first, n = columns[0] if columns else 0, len(columns)
    beside = list(columns) == list(range(first, first + n))
    return values.narrow(-1, first, n) if beside else values[..., list(columns)]


def _words(raw: Tensor, column: int, words: Words) -> Tensor:
    """(…, word) float32: 1 where a code stands; a missing one is 0 everywhere."""
    return (raw[..., column : column + 1] == torch.arange(words.n_words)).float()


def _cut(both: Tensor, lookback: int) -> Sequence[Tensor]:
    """(batch, row, …) as its input rows and its target rows."""
    return both[:, :lookback], both[:, lookback:]


def _beside(flags: Tensor, values: Tensor) -> Tensor:
    """Flags of the first axes of some values, so that they broadcast."""
    return flags.reshape(*flags.shape, *(1 for _ in values.shape[flags.ndim :]))
