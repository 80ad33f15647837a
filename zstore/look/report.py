"""A diagnosis as one HTML file that needs nothing else: no scripts, no fonts, no pictures to fetch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from zstore.look.fields import fields_table, spread_rows, thumbnails
from zstore.look.presence import observed_share, sampled
from zstore.look.store import store_html
from zstore.look.style import AMBER, BLUE, GROUND, PAPER, RED
from zstore.look.svg import dot, line, picture, rect, sample_evenly
from zstore.look.template import Html, fill, page, table
from zstore.reading.store import Store
from zstore.text import counted
from zstore.upkeep.findings import KINDS, Diagnosis, Finding

_MOST_FINDINGS = 12  # of a kind
_AROUND = 3  # times as many rows are drawn as a finding is about
_LEAST_DRAWN, _MOST_DRAWN = 120, 200_000
_LINE_W, _LINE_H = 560, 54
_MAP_SERIES, _MAP_TIMES, _CELL_W, _CELL_H = 60, 120, 6, 7
_BARS, _BAR_W, _BAR_H = 48, 6, 70
_MOST_CHANNELS = 40
_FIELD_ROWS = 6
_GEO_W, _GEO_H, _MARGIN = 680, 420, 6
_COLOURS = {"high": RED, "medium": AMBER, "low": BLUE}


def to_html(diagnosis: Diagnosis) -> Html:
    """The report: what was found, where values are missing, how they are distributed, where series lie.

    Cost: reads the rows around the findings that are drawn, of fields at most four of them, some 260,000 rows of each
    channel for its distribution, and 60 series for the map of what is missing.
    """
    store = diagnosis.store
    return page(
        f"{store.path.rstrip('/').rpartition('/')[2]}: data report",
        store_html(store),
        Html("<h2>What was found</h2>"),
        _summary(diagnosis),
        [_of_kind(store, kind, diagnosis) for kind in diagnosis.severities],
        Html("<h2>Where values are missing</h2>"),
        _missing_map(store),
        Html("<h2>How values are distributed</h2>"),
        _histograms(store),
        _fields(store),
        _geography(store, diagnosis),
    )


def _summary(diagnosis: Diagnosis) -> Html:
    if not diagnosis.counts:
        return fill(
            "<p>Nothing. Looked for: $kinds.</p>", kinds=Html("; ".join(KINDS[kind] for kind in diagnosis.kinds))
        )
    rows = [
        [
            fill("<span style='color:$colour'>●</span> $word", colour=_COLOURS[severity], word=severity),
            f"{diagnosis.counts[kind]:,}",
            fill("<a href='#$kind'>$name</a>", kind=kind, name=_name(kind)),
            KINDS[kind],
        ]
        for kind, severity in diagnosis.severities.items()
    ]
    others = ", ".join(_name(kind) for kind in diagnosis.not_found)
    return fill(
        "$table<p class='quiet'>Looked for, and not found: $others.</p>",
        table=table(rows, "lrll"),
        others=others or "nothing",
    )


def _of_kind(store: Store, kind: str, diagnosis: Diagnosis) -> Html:
    findings = [finding for finding in diagnosis.findings if finding.kind == kind]
    more = len(findings) - _MOST_FINDINGS
    return fill(
        "<h2 id='$kind'>$name <span class='quiet'>$about</span></h2>\n$figures$more\n",
        kind=kind,
        name=_name(kind),
        about=KINDS[kind],
        figures=[_finding(store, finding) for finding in findings[:_MOST_FINDINGS]],
        more=fill("<p class='quiet'>and $n more, by zstore doctor --json</p>", n=f"{more:,}") if more > 0 else None,
    )


def _finding(store: Store, finding: Finding) -> Html:
    """What was found, and the rows around it."""
    drawn: object = None
    if finding.channel in store.fields:
        drawn = _of_field(store, finding)
    elif finding.series and finding.channel and finding.stop > finding.start:
        first, last = _rows_of(store, finding.series)
        more = max(_AROUND * (finding.stop - finding.start), _LEAST_DRAWN) // 2
        low = max(first, finding.start - more, finding.start - _MOST_DRAWN)
        high = min(last, finding.stop + more, finding.start + _MOST_DRAWN)
        names = store.named_channels.get(finding.channel, (finding.channel,))
        values = np.stack([store.read(name, low, high) for name in names], axis=1).astype(np.float64)
        marked = finding.start - low, min(finding.stop, high) - low
        drawn = _with_axes(store, finding.channel, values, (low, high), marked)
    return fill(
        "<figure><figcaption><b>$where</b> $what</figcaption>$drawn</figure>\n",
        where=finding.where(store),
        what=finding.sentence,
        drawn=drawn,
    )


def _with_axes(
    store: Store, channel: str, values: NDArray[np.float64], rows: tuple[int, int], marked: tuple[int, int]
) -> Html:
    """Rows ``[low, high)`` as a line, above their first and last time; beside it the lowest and the highest value."""
    drawn = line(values, _LINE_W, _LINE_H, channel, marked)
    seen = values[np.isfinite(values)]
    if not len(seen):
        return drawn
    units = store.channel(store.named_channels.get(channel, (channel,))[0]).units
    times = [store.time.show(int(store.times(at, at + 1)[0])) for at in (rows[0], rows[1] - 1)]
    return fill(
        "<div class='plot'>$drawn<div class='ends'><span>$high $units</span><span>$low</span></div></div>"
        "<div class='axis'><span>$first</span><span>$last</span></div>",
        drawn=drawn,
        high=f"{seen.max():.6g}",
        low=f"{seen.min():.6g}",
        units=units,
        first=times[0],
        last=times[1],
    )


def _of_field(store: Store, finding: Finding) -> Html:
    """The row before what was found, where the series has one, and the first, the middle and the last row of it."""
    rows = spread_rows(finding.start, finding.stop)
    if finding.start and finding.start not in store.index.row_start:
        rows.insert(0, finding.start - 1)
    return thumbnails(store, store.field(finding.channel), rows, named=not finding.series)


def _name(kind: str) -> str:
    return kind.replace("_", " ")


def _rows_of(store: Store, id_: str) -> tuple[int, int]:
    position = store.position(id_)
    first, last = store.index.row_start[position : position + 2].tolist()
    return first, last


def _missing_map(store: Store) -> Html:
    """A row for each series, over time; the darker, the more of all channels is there."""
    if not store.n_rows:
        return Html("<p class='quiet'>no rows</p>")
    low, high = int(store.index.time_start.min()), int(store.index.time_stop.max()) + 1
    chosen, n_times = sample_evenly(store.n_series, _MAP_SERIES), min(_MAP_TIMES, high - low)
    cells = []
    for number, position in enumerate(chosen.tolist()):
        shade = observed_share(store, position, (low, high), n_times, store.channels[:_MOST_CHANNELS])
        edges = np.flatnonzero(np.append(True, shade[1:] != shade[:-1])).tolist()
        cells += [
            rect(begin * _CELL_W, number * _CELL_H, (end - begin) * _CELL_W, _CELL_H - 1, BLUE, shade[begin])
            for begin, end in zip(edges, [*edges[1:], n_times], strict=True)
            if shade[begin]
        ]
    show, width, height = store.time.show, n_times * _CELL_W, len(chosen) * _CELL_H
    return fill(
        "<figure>$drawn<figcaption>$first to $last, $some of $all series, a line each; the darker, the more of "
        "$channels is observed</figcaption></figure>",
        drawn=picture(width, height, "values over time", rect(0, 0, width, height, PAPER), cells),
        first=show(low),
        last=show(high - 1),
        some=f"{len(chosen):,}",
        all=f"{store.n_series:,}",
        channels=counted(len(store.channels[:_MOST_CHANNELS]), "channel"),
    )


def _histograms(store: Store) -> Html:
    drawn = [
        _histogram(store, name, own, store.channel(own[0]).units)
        for name, own in list(store.named_channels.items())[:_MOST_CHANNELS]
        if store.channel(own[0]).kind == "number"
    ]
    if not any(drawn):
        return Html("<p class='quiet'>no numbers</p>")
    return fill("<div class='side'>$drawn</div>", drawn=drawn)


def _histogram(store: Store, name: str, channels: Sequence[str], units: str | None) -> Html | None:
    """The distribution of a channel or vector, but for a thousandth at each end; None where nothing was observed."""
    values = np.concatenate([sampled(store, channel) for channel in channels])
    if not len(values):
        return None
    halves = values / 2  # whose range is within float64
    low, median, high = np.quantile(halves, [0.001, 0.5, 0.999])
    inner, width = halves[(halves >= low) & (halves <= high)] - low, high - low
    counts, _ = np.histogram(inner / width, _BARS, (0, 1)) if width > 0 else ([len(inner)], None)
    scale = (_BAR_H - 2) / max(*counts, 1)
    bars = [
        rect(number * _BAR_W, _BAR_H - count * scale, _BAR_W - 1, count * scale, BLUE)
        for number, count in enumerate(map(int, counts))
    ]
    ground = rect(0, _BAR_H - 1, _BARS * _BAR_W, 1, GROUND)
    return fill(
        "<figure><figcaption><b>$name</b> $units</figcaption>$drawn"
        "<div class='axis' style='max-width:${width}px'><span>$low</span><span>$high</span></div>"
        "<figcaption>99.8 % of the values; median $median</figcaption></figure>",
        name=name,
        units=units,
        width=_BARS * _BAR_W,
        drawn=picture(_BARS * _BAR_W, _BAR_H, f"distribution of {name}", ground, bars),
        low=f"{2 * low:g}",
        high=f"{2 * high:g}",
        median=f"{2 * median:g}",
    )


def _fields(store: Store) -> Html | None:
    """Rows of each field that are evenly spread over the store."""
    if not store.fields or not store.n_rows:
        return None
    return fill(
        "<h2>What fields hold</h2>$drawn",
        drawn=fields_table(store, spread_rows(0, store.n_rows, _FIELD_ROWS), named=True),
    )


def _geography(store: Store, diagnosis: Diagnosis) -> Html | None:
    """Series on the map, if static attributes of the usual names hold coordinates; red where something was found."""
    coordinates = store.coordinates
    if coordinates is None:
        return None
    known = np.flatnonzero(np.isfinite(coordinates).all(axis=1))
    if not len(known):
        return None
    latitude, longitude = coordinates[known].T
    narrow = np.cos(np.deg2rad((latitude.min() + latitude.max()) / 2))
    x, y = (longitude - longitude.min()) * narrow, latitude.max() - latitude
    scale = min(_GEO_W / max(x.max(), 1e-9), _GEO_H / max(y.max(), 1e-9), 1e6)
    worst: dict[str, str] = {}
    for kind, severity in diagnosis.severities.items():  # the most severe ones first
        for finding in diagnosis.findings:
            if finding.kind == kind:
                worst.setdefault(finding.series, severity)
    dots = [
        dot(
            across * scale + _MARGIN,
            down * scale + _MARGIN,
            _COLOURS[worst[id_]] if id_ in worst else GROUND,
            f"{id_}: {worst.get(id_, 'nothing found')}",
        )
        for id_, across, down in zip((str(store.ids[at]) for at in known.tolist()), x.tolist(), y.tolist(), strict=True)
    ]
    width, height = (float(side.max()) * scale + 2 * _MARGIN for side in (x, y))
    return fill(
        "<h2>Where series lie</h2><figure>$drawn<figcaption>$n series, coloured by the most severe finding; grey: none"
        "</figcaption></figure>",
        drawn=picture(width, height, "map of the series", dots),
        n=f"{len(known):,}",
    )
