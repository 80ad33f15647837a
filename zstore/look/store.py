"""How stores, series and windows show themselves in a notebook: HTML with inline SVG, no scripts, nothing fetched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.reading.series import Series
from zstore.reading.store import Store
from zstore.reading.windows import WindowIndex, WindowShape
from zstore.text import shown_html

_MOST_CHANNELS, _MOST_SERIES, _MOST_STATICS = 40, 24, 12
_POINTS = 160  # of a sparkline
_LINE_W, _LINE_H = 180, 26
_MAP_W, _BAR_H = 520, 7
_BLUE, _RED, _GREY = "#4878a8", "#b04848", "#dddddd"
_STYLE = (
    "font-family:sans-serif;font-size:13px;line-height:1.4;border-left:3px solid #4878a8;padding:2px 0 2px 12px;"
    "overflow-x:auto"
)


def store_html(store: Store) -> str:
    """A store: its size and time range, its channels with a glance at the first series, and where series have rows.

    Cost: reads the index, the moments, and the rows of one series.
    """
    schema, index = store.schema, store.index
    span = ""
    if store.n_rows:
        first, last = schema.time.show(int(index.time_start.min())), schema.time.show(int(index.time_stop.max()))
        span = f", {shown_html(first)} to {shown_html(last)}"
    name = shown_html(PurePosixPath(store.path).name)
    lines = [
        f'<div style="{_STYLE}">',
        f"<div><b>{name}</b> version {store.version} <span style='color:#777'>{shown_html(store.path)}</span></div>",
        f"<div>{store.n_rows:,} rows of {store.n_series:,} series{span}</div>",
        _channels(store),
    ]
    if store.statics:
        names = [shown_html(static.name) for static in store.statics[:_MOST_STATICS]]
        more = f" and {len(store.statics) - len(names):,} more" if len(store.statics) > len(names) else ""
        lines.append(f"<div style='color:#555'>static attributes: {', '.join(names)}{more}</div>")
    return "\n".join([*lines, _presence(store), _layout(store), "</div>"])


def series_html(series: Series) -> str:
    """A series: its rows, its static attributes, and each channel as a line. Cost: reads its rows."""
    store = series.store
    known = [(name, value) for name, value in series.statics.items() if value is not None][:_MOST_STATICS]
    statics = ", ".join(
        f"{shown_html(name)} {shown_html(f'{value:g}' if isinstance(value, float) else value)}" for name, value in known
    )
    rows = [
        f"<tr><td style='text-align:left'>{shown_html(name)}</td><td>{_sparkline(series, name, 3 * _LINE_W)}</td></tr>"
        for name in store.channels[:_MOST_CHANNELS]
    ]
    return "\n".join(
        [
            f'<div style="{_STYLE}">',
            f"<div><b>{shown_html(series.id)}</b> "
            f"<span style='color:#777'>{shown_html(repr(series)[1:-1])}</span></div>",
            f"<div style='color:#555'>{statics}</div>" if statics else "",
            f"<table style='font-size:inherit'>{''.join(rows)}</table></div>",
        ]
    )


def windows_html(index: WindowIndex) -> str:
    """Windows: how many there are, of how many series, and one of them as a picture. Cost: arithmetic on pieces."""
    shape, n_pieces = index.shape, len(index.ends)
    lines = [
        f'<div style="{_STYLE}">',
        f"<div><b>{len(index):,} windows</b> of {shown_html(str(shape))}</div>",
    ]
    if n_pieces:
        sizes = np.bincount(index.series, weights=np.diff(index.ends, prepend=0))
        sizes = sizes[sizes > 0].astype(np.int64)
        span = f"{sizes.min():,}" + (f" to {sizes.max():,}" if sizes.min() < sizes.max() else "")
        lines.append(
            f"<div>{span} of each of {len(sizes):,} series, in {n_pieces:,} stretches without a gap; "
            f"they read {index.n_rows():,} rows</div>"
        )
    return "\n".join([*lines, _window(shape), "</div>"])


def _window(shape: WindowShape) -> str:
    """One window to scale: its inputs above, its targets below."""
    scale = _MAP_W / shape.span
    height, offset = 2 * _BAR_H + 2, shape.target_offset
    bars = [(0, shape.lookback, 0, _BLUE), (offset, offset + shape.horizon, _BAR_H + 2, _RED)]
    rects = "".join(
        f"<rect x='{start * scale:.1f}' y='{y}' width='{max((stop - start) * scale, 1):.1f}' height='{_BAR_H}' "
        f"fill='{colour}'/>"
        for start, stop, y, colour in bars
    )
    return (
        f"<svg width='{_MAP_W}' height='{height}' viewBox='0 0 {_MAP_W} {height}' style='max-width:100%' "
        f"preserveAspectRatio='none' role='img' aria-label='one window'>"
        f"<path d='M0,{height}V0H{_MAP_W}V{height}' fill='none' stroke='{_GREY}'/>{rects}</svg>"
        f"<div><span style='color:{_BLUE}'>{shape.lookback:,} input rows</span>, "
        f"<span style='color:{_RED}'>{shape.horizon:,} target rows</span></div>"
    )


def _channels(store: Store) -> str:
    """A table: a channel a row."""
    total, chosen = store.moments.total(), store.schema.channels[:_MOST_CHANNELS]
    first = store.series(str(store.ids[0])) if store.n_series else None
    heads = ["channel", "missing", "mean", "std", "min", "max", shown_html(first.id) if first is not None else ""]
    sides = ["left", *["right"] * 5, "left"]
    rows = ["".join(f"<th style='text-align:{side}'>{head}</th>" for side, head in zip(sides, heads, strict=True))]
    for position, channel in enumerate(chosen):
        missing = int(total.n_missing[position])
        share = f"{missing / max(store.n_rows, 1):.1%}" if missing else "none"
        unit = f" <span style='color:#777'>{shown_html(channel.units)}</span>" if channel.units else ""
        numbers = (total.mean, total.std, total.low, total.high)
        cells = [_number(float(value[position])) for value in numbers]
        if channel.kind == "category":  # codes have no mean
            cells = ["", "", "", f"{len(channel.categories):,} words"]
        line = _sparkline(first, channel.name, _LINE_W) if first is not None else ""
        right = "".join(f"<td style='text-align:right'>{cell}</td>" for cell in [share, *cells])
        rows.append(f"<td style='text-align:left'>{shown_html(channel.name)}{unit}</td>{right}<td>{line}</td>")
    more = len(store.schema.channels) - len(chosen)
    rows += [f"<td colspan='7' style='text-align:left'>and {more:,} more</td>"] if more else []
    return f"<table style='font-size:inherit;border-spacing:8px 0'>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def _number(value: float) -> str:
    """Four digits, but large numbers to the unit; a dash where nothing was observed."""
    if not np.isfinite(value):
        return "-"
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"


def _sparkline(series: Series, channel: str, width: int) -> str:
    return line_svg(np.asarray(series.read(channel), np.float64), width, _LINE_H, channel)


def line_svg(values: NDArray[Any], width: int, height: int, label: str, marked: tuple[int, int] = (0, 0)) -> str:
    """Values as a line over their places: of each stretch of places the lowest and the highest.

    Parameters
    ----------
    values
        (row,) NaN where missing.
    width, height
        In pixels.
    label
        What a screen reader says.
    marked
        Places ``[start, stop)`` that lie on a coloured ground.
    """
    low, high = _ranges(values, _POINTS * width // _LINE_W)
    seen = np.isfinite(low)
    if not seen.any():
        return "<span style='color:#777'>nothing observed</span>"
    bottom, top = float(low[seen].min()), float(high[seen].max())
    scale = (height - 4) / (top - bottom) if top > bottom else 0.0
    x = (np.arange(len(low)) + 0.5) * width / len(low)
    bars = "".join(
        f"M{at:.1f},{height - 2 - (a - bottom) * scale:.1f}V{height - 2.8 - (b - bottom) * scale:.1f}"
        for at, a, b in zip(x[seen], low[seen], high[seen], strict=True)
    )
    stroke, step = max(width / len(low), 1), width / max(len(values), 1)
    ground = (
        f"<rect x='{marked[0] * step:.1f}' y='0' width='{max((marked[1] - marked[0]) * step, 2):.1f}' "
        f"height='{height}' fill='#f3d6c4'/>"
        if marked[1] > marked[0]
        else ""
    )
    return (
        f"<svg width='{width}' height='{height}' viewBox='0 0 {width} {height}' style='max-width:100%' role='img' "
        f"aria-label='{shown_html(label)}'>"
        f"{ground}<path d='{bars}' stroke='{_BLUE}' stroke-width='{stroke:.1f}' fill='none'/></svg>"
    )


def _ranges(values: NDArray[Any], n_parts: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """(part,) lowest and highest value of stretches of like length; NaN where nothing was observed."""
    starts = np.unique(np.linspace(0, len(values), min(n_parts, len(values)) + 1).astype(np.int64)[:-1])
    if not len(values):
        return np.zeros(0), np.zeros(0)
    return np.fmin.reduceat(values, starts), np.fmax.reduceat(values, starts)


def _presence(store: Store) -> str:
    """When series have rows: a bar for each run; of many series some, evenly chosen."""
    index, rule = store.index, store.time.rule
    if not store.n_rows or rule.kind == "irregular":
        return ""
    chosen = np.unique(np.linspace(0, store.n_series - 1, min(store.n_series, _MOST_SERIES)).astype(np.int64))
    runs, low = index.runs, int(index.time_start.min())
    if rule.regular:
        length = runs.stop - runs.start
        reach = rule.times(length, runs.time)  # of the row that would come next
    else:
        reach = index.time_stop[runs.series]  # a series is one run
    scale = _MAP_W / max(int(reach.max()) - low, 1)
    bars = []
    for line, position in enumerate(chosen.tolist()):
        for run in _runs_of(runs.series, position):
            begin = (int(runs.time[run]) - low) * scale
            width = max(int(reach[run] - runs.time[run]) * scale, 0.5)
            bars.append(
                f"<rect x='{begin:.1f}' y='{line * _BAR_H}' width='{width:.1f}' height='{_BAR_H - 2}' fill='{_BLUE}'/>"
            )
    what = f"{len(chosen):,} of {store.n_series:,} series" if len(chosen) < store.n_series else "series"
    height = len(chosen) * _BAR_H
    ends = [shown_html(store.schema.time.show(int(time))) for time in (low, index.time_stop.max())]
    return (
        f"<div style='color:#777;width:{_MAP_W}px;max-width:100%;display:flex;justify-content:space-between'>"
        f"<span>{ends[0]}</span><span>rows of {what}</span><span>{ends[1]}</span></div>"
        f"<svg width='{_MAP_W}' height='{height}' viewBox='0 0 {_MAP_W} {height}' style='max-width:100%' "
        f"preserveAspectRatio='none' role='img' aria-label='when series have rows'>{''.join(bars)}</svg>"
    )


def _layout(store: Store) -> str:
    """Where rows lie in the arrays: stretches that belong to series, on a ground of shards; the rest is out of use."""
    schema, n_places = store.schema, store.schema.n_places
    if not n_places:
        return ""
    _, places, sizes = store.index.pieces
    scale, n_shards = _MAP_W / n_places, -(-n_places // schema.shard_rows)
    order = np.argsort(places, kind="stable")[:: max(1, len(places) // _MAP_W)]  # more cannot be told apart
    bars = "".join(
        f"<rect x='{place * scale:.1f}' y='0' width='{max(size * scale, 0.5):.1f}' height='{_BAR_H}' fill='{_BLUE}'/>"
        for place, size in zip(places[order].tolist(), sizes[order].tolist(), strict=True)
    )
    borders = range(0, n_shards, max(1, n_shards // _MAP_W * 4))
    ticks = "".join(f"M{shard * schema.shard_rows * scale:.1f},0V{_BAR_H + 3}" for shard in borders)
    unused = 1 - schema.n_rows / n_places
    text = (
        f"{n_places:,} places in {n_shards:,} shard{'s' if n_shards > 1 else ''}, rows in {len(places):,} "
        f"stretch{'es' if len(places) > 1 else ''}" + (f", {unused:.1%} out of use (zstore compact)" if unused else "")
    )
    height = _BAR_H + 3
    return (
        f"<div style='color:#777;margin-top:4px'>{text}</div>"
        f"<svg width='{_MAP_W}' height='{height}' viewBox='0 0 {_MAP_W} {height}' style='max-width:100%' "
        f"preserveAspectRatio='none' role='img' aria-label='where rows lie in the arrays'>"
        f"<rect width='{_MAP_W}' height='{_BAR_H}' fill='{_GREY}'/>{bars}<path d='{ticks}' stroke='#777'/></svg>"
    )


def _runs_of(series: NDArray[np.int64], position: int) -> Sequence[int]:
    """Runs of a series, which lie beside each other; at most as many as can be told apart."""
    low, high = np.searchsorted(series, [position, position + 1]).tolist()
    return range(low, min(high, low + _MAP_W))
