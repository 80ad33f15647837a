"""How a data module shows itself in a notebook: what is cut from which store, and when which split has targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lightning_app.data.datamodule import WindowDataModule
from lightning_app.data.spans import COLOURS, Spans, some
from lightning_app.data.splits import NAMES, NoWindowError, SplitName
from zstore import Store, WindowIndex, shown_html

_MOST_SERIES, _MOST_NAMES = 24, 12
_WIDTH, _BAR = 520, 7  # of the timeline, in pixels
_CELL = "text-align:right;white-space:nowrap"
_STYLE = (
    "font-family:sans-serif;font-size:13px;line-height:1.4;border-left:3px solid #4878a8;padding:2px 0 2px 12px;"
    "overflow-x:auto"
)


def module_text(data: WindowDataModule) -> str:
    """One line: the store, the shape of a window, channels and splits."""
    windows = ", ".join(f"{name} {0 if index is None else len(index):,}" for name, index in _indices(data).items())
    panel = f" of {data.view.n_nodes:,} series side by side" if data.view.n_nodes else ""
    return (
        f"<WindowDataModule: {data.store.path} version {data.store.version}, windows of {data.window}{panel}, "
        f"{_names(data.inputs)} to {_names(data.targets)}; {windows} windows>"
    )


def module_html(data: WindowDataModule) -> str:
    """What is cut from the store, how many windows that makes, and where targets lie in time.

    Notes
    -----
    Arithmetic on runs: no row is read and no scaler fitted, so windows without any observed target count too;
    ``python -m lightning_app splits`` leaves them out.
    """
    store, indices = data.store, _indices(data)
    spans = {name: Spans.of(data.view.timed, index) for name, index in indices.items()}
    what = [
        ("inputs", _names(data.inputs)),
        ("targets", _names(data.targets)),
        ("known in advance", _names(data.future)),
        ("static attributes", _names(data.statics)),
        ("times", _names(data.columns_of.calendar)),
        ("scaler", f"{data.scaler_kind}, by {data.scale_by}"),
        ("batch", f"{data.batch_size:,} windows"),
        ("residency", data.residency),
    ]
    panel = f", {data.view.n_nodes:,} series side by side" if data.view.n_nodes else ""
    train = indices["train"]
    rows = [["split", "windows", "series", "first target", "last target"]]
    for name, index in indices.items():
        n_series = 0 if index is None else data.view.n_nodes or len(np.unique(index.series))
        first, last = spans[name].show(store.schema.time)
        rows.append([name, f"{0 if index is None else len(index):,}", f"{n_series:,}", first or "-", last or "-"])
    return "\n".join(
        [
            f'<div style="{_STYLE}">',
            f"<div><b>WindowDataModule</b> of <b>{shown_html(store.path)}</b> version {store.version}{panel}</div>",
            "".join(f"<div>{name}: {shown_html(value)}</div>" for name, value in what if value),
            splits_table(rows),
            timeline(store, spans, whole=data.view.n_nodes > 0),
            "<div style='margin-top:6px'>training:</div>" + train._repr_html_() if train is not None else "",
            "</div>",
        ]
    )


def splits_table(rows: Sequence[Sequence[str]]) -> str:
    """A head, and a row for each split, which its name begins."""
    lines = ["".join(f"<th style='{_CELL}'>{shown_html(cell)}</th>" for cell in rows[0])]
    for name, *cells in rows[1:]:
        first = f"<td style='{_CELL};color:{COLOURS[name]};font-weight:bold'>{name}</td>"
        lines.append(first + "".join(f"<td style='{_CELL}'>{shown_html(cell)}</td>" for cell in cells))
    return (
        f"<table style='font-size:inherit;border-spacing:8px 0'>{''.join(f'<tr>{row}</tr>' for row in lines)}</table>"
    )


def timeline(store: Store, spans: Mapping[SplitName, Spans], whole: bool) -> str:
    """SVG: when each series has targets of which split, of many series some; `whole` if a line is of all of them."""
    chosen = some(np.concatenate([spans[name].series for name in NAMES]), _MOST_SERIES)
    if not len(chosen):
        return ""
    axis = store.schema.time
    low, high = int(store.index.time_start.min()), int(store.index.time_stop.max())
    scale, bars = _WIDTH / max(high - low, 1), []
    for name in NAMES:
        span = spans[name]
        for piece in np.flatnonzero(np.isin(span.series, chosen)).tolist():
            x = (int(span.first[piece]) - low) * scale
            width = max((int(span.last[piece]) - int(span.first[piece])) * scale, 1.0)
            y = int(np.searchsorted(chosen, span.series[piece])) * _BAR
            bars.append(f"<rect x='{x:.1f}' y='{y}' width='{width:.1f}' height='{_BAR - 2}' fill='{COLOURS[name]}'/>")
    n_series = len(np.unique(np.concatenate([spans[name].series for name in NAMES])))
    what = f"{len(chosen):,} of {n_series:,} series" if len(chosen) < n_series else "all series" if whole else "series"
    height = len(chosen) * _BAR
    return (
        f"<div style='color:#777;width:{_WIDTH}px;max-width:100%;display:flex;justify-content:space-between'>"
        f"<span>{shown_html(axis.show(low))}</span><span>targets of {what}</span>"
        f"<span>{shown_html(axis.show(high))}</span></div>"
        f"<svg width='{_WIDTH}' height='{height}' viewBox='0 0 {_WIDTH} {height}' style='max-width:100%' "
        f"preserveAspectRatio='none' role='img' aria-label='when which split has targets'>{''.join(bars)}</svg>"
    )


def _indices(data: WindowDataModule) -> dict[SplitName, WindowIndex | None]:
    """The windows of each split, whether their targets were observed or not; None where there are none."""
    found: dict[SplitName, WindowIndex | None] = {}
    for name in NAMES:
        stride = data.window.stride if name == "train" else data.evaluation_stride
        try:
            found[name] = data.index(name, stride, all_windows=True)
        except NoWindowError:
            found[name] = None
    return found


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more
