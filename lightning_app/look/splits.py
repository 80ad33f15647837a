"""The splits of a data module: a table of them, and when series have targets of which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lightning_app.data.windows.spans import Spans
from lightning_app.data.windows.splits import NAMES, SplitName
from lightning_app.look.style import SPLITS
from zstore import Store, look

_MOST_SERIES = 24


def splits_table(rows: Sequence[Sequence[str]]) -> look.Html:
    """A table from a head and a row for each split, which its name begins."""
    body = [[look.Cell(name, f"color:{SPLITS[name]};font-weight:bold"), *cells] for name, *cells in rows[1:]]
    return look.table(body, "r" * len(rows[0]), rows[0])


def splits_timeline(store: Store, spans: Mapping[SplitName, Spans], whole: bool) -> look.Html | None:
    """When each series has targets of which split; of many series some, evenly chosen.

    Parameters
    ----------
    store
        Whose rows the targets are.
    spans
        By split, where its targets lie.
    whole
        Whether a line is of all series side by side.
    """
    chosen, n_series = sampled_series(spans, _MOST_SERIES)
    if not len(chosen):
        return None
    bars = []
    for name in NAMES:
        span = spans[name]
        for number in np.flatnonzero(np.isin(span.series, chosen)).tolist():
            line = int(np.searchsorted(chosen, span.series[number]))
            bars.append(look.svg.Bar(line, int(span.first[number]), int(span.last[number]), SPLITS[name]))
    low, high = int(store.index.time_start.min()), int(store.index.time_stop.max())
    what = f"{len(chosen):,} of {n_series:,} series" if len(chosen) < n_series else "all series" if whole else "series"
    captions = store.time.show(low), f"targets of {what}", store.time.show(high)
    return look.svg.timeline(bars, len(chosen), (low, high), captions, "when which split has targets")


def sampled_series(spans: Mapping[SplitName, Spans], most: int) -> tuple[NDArray[np.int64], int]:
    """Positions of series that have targets, evenly chosen and at most so many, and how many series have any."""
    series = np.unique(np.concatenate([spans[name].series for name in NAMES]))
    return series[look.svg.sample_evenly(len(series), most)], len(series)
