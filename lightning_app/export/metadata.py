"""What an exported file says of itself: what its inputs and outputs are, without any of this package to read it."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from lightning_app.data.columns.classes import names_of
from lightning_app.data.window_data import WindowData
from lightning_app.models import TaskModel
from zstore import __version__

BY_LEVEL = ("quantiles", "lower", "upper")
"""Outputs of targets, in source units, that have an axis for levels."""
_ROWS = {"x": "lookback", "x_future": "horizon", "times": "lookback + horizon", "x_pad": "lookback"}
_LAST = {"x": "channel", "x_future": "known channel", "x_static": "attribute"}


def metadata_of(
    model: TaskModel, data: WindowData, inputs: dict[str, Tensor], outputs: dict[str, Any]
) -> dict[str, Any]:
    """Everything, as plain values by name.

    Parameters
    ----------
    model, data
        What is exported.
    inputs, outputs
        Of a batch, by name.
    """
    layout, window, time = data.layout, data.layout.window, data.store.schema.time
    channels = [data.store.channel(name) for name in layout.columns]
    known = data.meaning.words
    return {
        "model": type(model).__name__,
        "task": type(model.task).__name__,
        "writer": f"zstore {__version__}",
        "lookback": window.lookback,
        "horizon": window.horizon,
        "delay": window.delay,
        "target_stride": window.target_stride,
        "pad_before": window.pad_before,
        "step": time.show_freq(),
        "time_unit": time.unit or "",
        "channels": layout.seen,
        "future": layout.future,
        "statics": [meaning.name for meaning in layout.static_meanings],
        "targets": layout.targets,
        "units": {channel.name: channel.units for channel in channels if channel.units},
        "words": {name: list(known[name]) for name in layout.columns if name in known},
        "static_words": {each.name: list(each.words) for each in layout.static_meanings if each.words is not None},
        "classes": {name: names_of(own) for name, own in layout.classes.items()},
        "levels": list(model.task.levels),
        "interval_levels": [] if model.intervals is None else list(model.intervals.levels),
        "nodes": [] if layout.nodes is None else data.store.ids[layout.nodes].tolist(),
        "series": data.store.ids.tolist() if "series" in inputs else [],
        "inputs": {name: _input(name, part, data) for name, part in inputs.items()},
        "outputs": {name: _output(name, part, data) for name, part in outputs.items()},
    }


def _input(name: str, part: Tensor, data: WindowData) -> dict[str, Any]:
    nodes = ["node"] if data.layout.nodes is not None and name in _LAST else []
    if name in data.layout.fields:
        axes = ["batch", "step", *data.shape.field_axes[name]]
    else:
        rows = [_ROWS[name]] if name in _ROWS else ["step"] if name.endswith("_observed") else []
        axes = ["batch", *rows, *nodes, *([_LAST[name]] if name in _LAST else [])]
    return {"dtype": str(part.dtype).removeprefix("torch."), "axes": axes, "shape": [None, *part.shape[1:]]}


def _output(name: str, part: np.ndarray[Any, Any], data: WindowData) -> dict[str, Any]:
    last = {"predictions": ["target"], "probabilities": ["class"]} | {each: ["target", "level"] for each in BY_LEVEL}
    nodes = ["node"] if data.layout.nodes is not None else []
    axes = ["batch", "horizon", *nodes, *last[name]] if name in last else []
    return {"dtype": str(part.dtype), "axes": axes, "shape": [None, *part.shape[1:]]}
