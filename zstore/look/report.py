"""A diagnosis as one HTML file that needs nothing else: no scripts, no fonts, no pictures to fetch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.look.store import line_svg, store_html
from zstore.reading.store import Store
from zstore.text import shown_html
from zstore.upkeep.doctor import KINDS, Diagnosis, Finding

_SHOWN = 12  # findings of a kind
_AROUND = 3  # times as many rows are drawn as a finding is about
_LEAST_DRAWN, _MOST_DRAWN = 120, 200_000
_LINE_W, _LINE_H = 560, 54
_MAP_SERIES, _MAP_TIMES, _CELL_W, _CELL_H = 60, 120, 6, 7
_BARS, _BAR_W, _BAR_H = 48, 6, 70
_SAMPLES, _SAMPLE_ROWS = 64, 4096
_MOST_CHANNELS = 40
_BLUE, _RED = "#4878a8", "#b04848"

_STYLE = """
body{font-family:sans-serif;font-size:14px;line-height:1.45;color:#222;max-width:60em;margin:2em auto;padding:0 1em}
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em;border-bottom:1px solid #ccc}
table{border-collapse:collapse}td,th{padding:2px 10px 2px 0;text-align:left;vertical-align:top}
td.n{text-align:right}svg{max-width:100%;height:auto}.quiet{color:#777}figure{margin:0 0 1em}figcaption{color:#555}
.side{display:flex;flex-wrap:wrap;gap:12px 28px}
@media print{body{margin:0;max-width:none}figure,tr{break-inside:avoid}h2{break-after:avoid}}
"""


def to_html(diagnosis: Diagnosis) -> str:
    """The report: what was found, where values are missing, how they are distributed, where series lie.

    Cost: reads the rows around the findings that are drawn, some 260,000 rows of each channel for its distribution, and
    60 series for the map of what is missing.
    """
    store = diagnosis.store
    name = shown_html(store.path.rstrip("/").rpartition("/")[2])
    return "\n".join(
        [
            "<!doctype html>",
            f'<html lang="en"><head><meta charset="utf-8"><title>{name}: data report</title>',
            '<meta name="viewport" content="width=device-width">',
            f"<style>{_STYLE}</style></head><body>",
            f"<h1>{name}: data report</h1>",
            store_html(store),
            "<h2>What was found</h2>",
            _summary(diagnosis),
            *(_of_kind(store, kind, diagnosis) for kind in diagnosis.counts),
            "<h2>Where values are missing</h2>",
            _missing_map(store),
            "<h2>How values are distributed</h2>",
            _histograms(store),
            _places(store, diagnosis),
            "</body></html>\n",
        ]
    )


def _summary(diagnosis: Diagnosis) -> str:
    if not diagnosis.counts:
        return f"<p>Nothing. Looked for: {'; '.join(KINDS.values())}.</p>"
    rows = "".join(
        f"<tr><td class='n'>{count:,}</td><td><a href='#{kind}'>{kind.replace('_', ' ')}</a></td>"
        f"<td>{KINDS[kind]}</td></tr>"
        for kind, count in diagnosis.counts.items()
    )
    others = ", ".join(kind.replace("_", " ") for kind in KINDS if kind not in diagnosis.counts)
    return f"<table>{rows}</table><p class='quiet'>Looked for, and not found: {others or 'nothing'}.</p>"


def _of_kind(store: Store, kind: str, diagnosis: Diagnosis) -> str:
    mine = [finding for finding in diagnosis.findings if finding.kind == kind]
    lines = [f"<h2 id='{kind}'>{kind.replace('_', ' ')} <span class='quiet'>{KINDS[kind]}</span></h2>"]
    lines += [_figure(store, finding) for finding in mine[:_SHOWN]]
    if len(mine) > _SHOWN:
        lines.append(f"<p class='quiet'>and {len(mine) - _SHOWN:,} more, by zstore doctor --json</p>")
    return "\n".join(lines)


def _figure(store: Store, finding: Finding) -> str:
    caption = f"<figcaption><b>{shown_html(finding.where(store))}</b> {shown_html(finding.sentence)}</figcaption>"
    drawn = ""
    if finding.series and finding.channel and finding.stop > finding.start:
        first, last = _rows_of(store, finding.series)
        more = max(_AROUND * (finding.stop - finding.start), _LEAST_DRAWN) // 2
        low = max(first, finding.start - more, finding.start - _MOST_DRAWN)
        high = min(last, finding.stop + more, finding.start + _MOST_DRAWN)
        values = np.asarray(store.read(finding.channel, low, high), np.float64)
        marked = finding.start - low, min(finding.stop, high) - low
        drawn = line_svg(values, _LINE_W, _LINE_H, f"{finding.channel} of {finding.series}", marked)
    return f"<figure>{caption}{drawn}</figure>"


def _rows_of(store: Store, id_: str) -> tuple[int, int]:
    position = store.position(id_)
    first, last = store.index.row_start[position : position + 2].tolist()
    return first, last


def _missing_map(store: Store) -> str:
    """A row for each series, over time; the darker, the more of all channels is there."""
    if not store.n_rows:
        return "<p class='quiet'>no rows</p>"
    index = store.index
    low, high = int(index.time_start.min()), int(index.time_stop.max()) + 1
    chosen = np.unique(np.linspace(0, store.n_series - 1, min(store.n_series, _MAP_SERIES)).astype(np.int64))
    n_times = min(_MAP_TIMES, high - low)
    names = store.channels[:_MOST_CHANNELS]
    cells, whole = [], max(1.0, store.n_rows / store.n_series / n_times) * len(names)
    for line, position in enumerate(chosen.tolist()):
        first, last = index.row_start[position : position + 2].tolist()
        bins = ((store.times(first, last) - low) * n_times // (high - low)).astype(np.int64)
        there = np.zeros(n_times)
        for name in names:
            there += np.bincount(bins[~np.isnan(store.read(name, first, last))], minlength=n_times)
        expected = np.bincount(bins, minlength=n_times).max() * len(names) or whole
        shade = np.round(np.minimum(there / expected, 1), 1)
        edges = np.flatnonzero(np.append(True, shade[1:] != shade[:-1]))
        for begin, end in zip(edges.tolist(), [*edges[1:].tolist(), n_times], strict=True):
            if shade[begin]:
                cells.append(
                    f"<rect x='{begin * _CELL_W}' y='{line * _CELL_H}' width='{(end - begin) * _CELL_W}' "
                    f"height='{_CELL_H - 1}' fill='{_BLUE}' fill-opacity='{shade[begin]:g}'/>"
                )
    show, of = store.schema.time.show, f"{len(chosen):,} of {store.n_series:,} series"
    width, height = n_times * _CELL_W, len(chosen) * _CELL_H
    return (
        f"<figure><svg width='{width}' height='{height}' viewBox='0 0 {width} {height}' role='img' "
        f"aria-label='values over time'><rect width='{width}' height='{height}' fill='#f4f0ea'/>{''.join(cells)}</svg>"
        f"<figcaption>{shown_html(show(low))} to {shown_html(show(high - 1))}, {of}, a line each; "
        "the darker, the more of "
        f"{len(names):,} channels is observed</figcaption></figure>"
    )


def _histograms(store: Store) -> str:
    parts = []
    for channel in store.schema.channels[:_MOST_CHANNELS]:
        if channel.kind == "category":
            continue
        values = _sample(store, channel.name)
        if not len(values):
            continue
        low, high = np.quantile(values, [0.001, 0.999])
        inner = values[(values >= low) & (values <= high)]
        counts, _ = np.histogram(inner, _BARS if high > low else 1)
        scale = (_BAR_H - 2) / max(int(counts.max()), 1)
        bars = "".join(
            f"<rect x='{n * _BAR_W}' y='{_BAR_H - count * scale:.1f}' width='{_BAR_W - 1}' "
            f"height='{count * scale:.1f}' fill='{_BLUE}'/>"
            for n, count in enumerate(counts.tolist())
        )
        name, unit = shown_html(channel.name), f" {shown_html(channel.units)}" if channel.units else ""
        parts.append(
            f"<figure><figcaption><b>{name}</b>{unit}</figcaption><svg width='{_BARS * _BAR_W}' height='{_BAR_H}' "
            f"viewBox='0 0 {_BARS * _BAR_W} {_BAR_H}' "
            f"role='img' aria-label='distribution of {shown_html(channel.name)}'>{bars}</svg>"
            f"<figcaption>99.8 % from {low:g} to {high:g}, median {np.median(values):g}</figcaption></figure>"
        )
    return f"<div class='side'>{''.join(parts)}</div>" if parts else "<p class='quiet'>no numbers</p>"


def _sample(store: Store, channel: str) -> NDArray[Any]:
    """Observed values of stretches of rows that are evenly spread."""
    if not store.n_rows:
        return np.zeros(0)
    starts = np.unique(np.linspace(0, max(store.n_rows - _SAMPLE_ROWS, 0), _SAMPLES).astype(np.int64)).tolist()
    parts = [store.read(channel, start, min(start + _SAMPLE_ROWS, store.n_rows)) for start in starts]
    values = np.concatenate(parts).astype(np.float64)
    found: NDArray[Any] = values[np.isfinite(values)]
    return found


def _places(store: Store, diagnosis: Diagnosis) -> str:
    """Series on the map, if static attributes of the usual names hold their places; red where something was found."""
    places = store.places
    if places is None:
        return ""
    latitude, longitude = places.T
    known = np.isfinite(latitude) & np.isfinite(longitude)
    if not known.any():
        return ""
    ill = {finding.series for finding in diagnosis.findings}
    west, east = float(longitude[known].min()), float(longitude[known].max())
    south, north = float(latitude[known].min()), float(latitude[known].max())
    narrow = np.cos(np.deg2rad((south + north) / 2))
    scale = min(680 / max((east - west) * narrow, 1e-9), 420 / max(north - south, 1e-9), 1e6)
    width, height = (east - west) * narrow * scale + 12, (north - south) * scale + 12
    dots = "".join(
        f"<circle cx='{(longitude[n] - west) * narrow * scale + 6:.1f}' "
        f"cy='{(north - latitude[n]) * scale + 6:.1f}' r='3' fill='{_RED if str(store.ids[n]) in ill else _BLUE}'>"
        f"<title>{shown_html(str(store.ids[n]))}</title></circle>"
        for n in np.flatnonzero(known).tolist()
    )
    return (
        f"<h2>Where series lie</h2><figure><svg width='{width:.0f}' height='{height:.0f}' "
        f"viewBox='0 0 {width:.0f} {height:.0f}' role='img' aria-label='map of the series'>{dots}</svg>"
        f"<figcaption>{int(known.sum()):,} series; red: something was found</figcaption></figure>"
    )
