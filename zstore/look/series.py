"""How a series shows itself: each channel as a line, in a notebook or as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from zstore.look.fields import spread_rows, thumbnails
from zstore.look.style import BLUE, LABEL, QUIET
from zstore.look.svg import line
from zstore.look.template import Html, card, fill, table
from zstore.reading.series import Series
from zstore.text import shown

_MOST_CHANNELS, _MOST_STATICS, _MOST_FIELDS = 40, 12, 12
_ROWS = 5  # of a field
_LINE_W, _LINE_H = 540, 26


def series_html(series: Series) -> Html:
    """A series: its rows, its static attributes, each channel or vector as a line, and some rows of its fields.

    Cost: reads its rows, of fields five of them, or one where they come from a bucket.
    """
    known = [(name, value) for name, value in series.statics.items() if value is not None][:_MOST_STATICS]
    statics = [
        fill("$comma$name $value", comma=", " if number else None, name=name, value=_short(value))
        for number, (name, value) in enumerate(known)
    ]
    store = series.store
    lines: list[tuple[object, object]] = [
        (name, channel_line(series, name, _LINE_W)) for name in list(store.named_channels)[:_MOST_CHANNELS]
    ]
    first, stop = store.index.row_start[series.position : series.position + 2].tolist()
    rows = spread_rows(first, stop, 1 if store.storage.remote else _ROWS)
    fields = [field for field in store.schema.fields if field.name not in store.volume_grids][:_MOST_FIELDS]
    lines += [(field.name, thumbnails(store, field, rows)) for field in fields]
    return card(
        fill(
            "<div><b>$id</b> <span style='color:$quiet'>$about</span></div>",
            id=series.id,
            quiet=QUIET,
            about=repr(series)[1:-1],
        ),
        fill("<div style='color:$label'>$statics</div>", label=LABEL, statics=statics) if statics else None,
        table(lines, "ll"),
    )


def channel_line(series: Series, channel: str, width: int) -> Html:
    """A channel of a series as a line of so many pixels; of a vector, from its lowest channel to its highest."""
    values = [series.read(name) for name in series.store.named_channels.get(channel, (channel,))]
    return line(np.stack(values, axis=1).astype(np.float64), width, _LINE_H, channel)


def plot_series(
    series: Series, channels: Sequence[str] | str | None, start: str | int | None, stop: str | int | None
) -> Any:
    """See :meth:`zstore.reading.series.Series.plot`."""
    import matplotlib.pyplot as plt

    store = series.store
    names = store.chosen_channels(channels) if channels else store.numbers
    figure, grid = plt.subplots(
        len(names), 1, sharex=True, squeeze=False, figsize=(9, 0.6 + 1.5 * len(names)), layout="constrained"
    )
    times = series.times(start, stop)
    for axes, name in zip(grid[:, 0], names, strict=True):
        units = store.channel(name).units
        axes.plot(times, series.read(name, start, stop), linewidth=0.9, color=BLUE)
        label = f"{shown(name)}\n{shown(units)}" if units else shown(name)
        axes.set_ylabel(label, fontsize=9, parse_math=False)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0)
    figure.suptitle(shown(series.id), x=0.01, ha="left", fontsize=10, parse_math=False)
    return grid[:, 0]


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
