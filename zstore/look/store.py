"""How a store shows itself in a notebook: its channels, when series have rows, and where rows lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.look.fields import fields_table, spread_rows
from zstore.look.series import channel_line
from zstore.look.style import BLUE, GROUND, LABEL, QUIET
from zstore.look.svg import BAR, WIDTH, Bar, path, picture, rect, sample_evenly, timeline
from zstore.look.template import Cell, Html, card, fill, listed, table
from zstore.reading.store import Store

_MOST_CHANNELS, _MOST_SERIES, _MOST_STATICS = 40, 24, 12
_LINE_W = 180


def store_html(store: Store) -> Html:
    """A store: its size and time range, its channels and fields with a glance at the first series, and where rows are.

    Cost: reads the index, the moments, and the rows of one series, of fields three of them.
    """
    show, index = store.time.show, store.index
    span = f", {show(int(index.time_start.min()))} to {show(int(index.time_stop.max()))}" if store.n_rows else ""
    statics = listed([static.name for static in store.statics], _MOST_STATICS)
    return card(
        fill(
            "<div><b>$name</b> version $version <span style='color:$quiet'>$path</span></div>",
            name=PurePosixPath(store.path).name,
            version=store.version,
            quiet=QUIET,
            path=store.path,
        ),
        fill(
            "<div>$rows rows of $series series$span</div>",
            rows=f"{store.n_rows:,}",
            series=f"{store.n_series:,}",
            span=span,
        ),
        _channels(store),
        _fields(store),
        fill("<div style='color:$label'>static attributes: $names</div>", label=LABEL, names=statics)
        if statics
        else None,
        _presence(store),
        _layout(store),
    )


def _channels(store: Store) -> Html | None:
    """A table: a channel a row, and a vector a row."""
    if not store.channels:
        return None
    total, position_of = store.moments.total(), {name: n for n, name in enumerate(store.channels)}
    first = store.series(str(store.ids[0])) if store.n_series else None
    rows: list[Sequence[object]] = []
    for name, own in list(store.named_channels.items())[:_MOST_CHANNELS]:
        channel, all_ = store.channel(own[0]), total.at(np.array([position_of[each] for each in own])).total()
        missing = int(all_.n_missing) / max(store.n_rows * len(own), 1)
        cells = [_number(float(each)) for each in (all_.mean, all_.std, all_.low, all_.high)]
        if channel.kind == "category":  # codes have no mean
            cells = ["", "", "", f"{len(channel.categories):,} words"]
        about = f"{len(own):,} channels" if len(own) > 1 else channel.units
        unit = fill(" <span style='color:$quiet'>$unit</span>", quiet=QUIET, unit=about)
        shown_name = fill("$name$unit", name=name, unit=unit if about else None)
        share = f"{missing:.1%}" if missing else "none"
        rows.append([shown_name, share, *cells, None if first is None else channel_line(first, name, _LINE_W)])
    more = len(store.named_channels) - len(rows)
    rows += [[Cell(f"and {more:,} more", columns=7)]] if more else []
    head = ["channel", "missing", "mean", "std", "min", "max", first.id if first is not None else None]
    return table(rows, "lrrrrrl", head)


def _fields(store: Store) -> Html | None:
    """A table: a field a row, with three rows of the first series; one where they come from a bucket."""
    if not store.schema.fields:
        return None
    size = int(store.index.row_size[0]) if store.n_series else 0
    return fields_table(store, spread_rows(0, size, 1 if store.storage.remote else 3))


def _number(value: float) -> str:
    """Four digits, but large numbers to the unit; a dash where nothing was observed."""
    if not np.isfinite(value):
        return "-"
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"


def _presence(store: Store) -> Html | None:
    """When series have rows: a bar for each run; of many series some, evenly chosen."""
    index, rule = store.index, store.time.rule
    if not store.n_rows or rule.kind == "irregular":
        return None
    chosen, runs = sample_evenly(store.n_series, _MOST_SERIES), index.runs
    # To the row that would come next; where no rule says when, a series is one run.
    reach = rule.times(runs.stop - runs.start, runs.time) if rule.regular else index.time_stop[runs.series]
    bars = [
        Bar(number, int(runs.time[run]), int(reach[run]))
        for number, position in enumerate(chosen.tolist())
        for run in _runs_of(runs.series, position)
    ]
    low, high, show = int(index.time_start.min()), int(reach.max()), store.time.show
    what = f"{len(chosen):,} of {store.n_series:,} series" if len(chosen) < store.n_series else "series"
    captions = show(low), f"rows of {what}", show(int(index.time_stop.max()))
    return timeline(bars, len(chosen), (low, high), captions, "when series have rows")


def _layout(store: Store) -> Html | None:
    """Where rows lie in the arrays: stretches that belong to series, on a ground of shards; the rest is out of use."""
    schema, n_places = store.schema, store.schema.n_places
    if not n_places:
        return None
    _, places, sizes = store.index.pieces
    scale, n_shards = WIDTH / n_places, -(-n_places // schema.shard_rows)
    order = np.argsort(places, kind="stable")[:: max(1, len(places) // WIDTH)]  # more cannot be told apart
    bars = [
        rect(place * scale, 0, max(size * scale, 0.5), BAR, BLUE)
        for place, size in zip(places[order].tolist(), sizes[order].tolist(), strict=True)
    ]
    borders = range(0, n_shards, max(1, n_shards // WIDTH * 4))
    ticks = "".join(f"M{shard * schema.shard_rows * scale:.1f},0V{BAR + 3}" for shard in borders)
    ground = rect(0, 0, WIDTH, BAR, GROUND)
    unused = 1 - schema.n_rows / n_places
    text = (
        f"{n_places:,} places in {n_shards:,} shard{'s' if n_shards > 1 else ''}, rows in {len(places):,} "
        f"stretch{'es' if len(places) > 1 else ''}" + (f", {unused:.1%} out of use (zstore compact)" if unused else "")
    )
    return fill(
        "<div style='color:$quiet;margin-top:4px'>$text</div>$drawn",
        quiet=QUIET,
        text=text,
        drawn=picture(WIDTH, BAR + 3, "where rows lie in the arrays", ground, bars, path(ticks, QUIET), stretched=True),
    )


def _runs_of(series: NDArray[Any], position: int) -> range:
    """Runs of a series, which lie beside each other; at most as many as can be told apart."""
    low, high = np.searchsorted(series, [position, position + 1]).tolist()
    return range(low, min(high, low + WIDTH))
