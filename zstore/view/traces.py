"""Series over time: as many points as there are pixels, read in blocks, so that memory does not grow with a series."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.errors import UsageError
from zstore.format.schema import Field
from zstore.reading.ranges import row_ranges
from zstore.reading.store import Store
from zstore.view.numbers import MOST_TIME, Clock, listed
from zstore.view.thin import Thinned, with_gaps

MOST_SERIES = 12
"""Series in one picture."""
MOST_CHANNELS = 64
"""Channels below each other."""
MOST_LINES = 288
"""Lines in all: channels of series."""
MOST_POINTS = 4000
"""Points of one line."""
_BLOCK_ROWS = 1 << 20
_MOST_VALUES = 1 << 28
"""Values that one picture reads, but a block of each line; of more, evenly spread blocks are read."""
_MOST_BESIDE = 10
"""How often the time from the first to the last row is shown before and behind it."""
MOST_WORDS = 200
"""Words of a channel that are sent whole; of more, those that are drawn."""


def traces(
    store: Store,
    ids: Sequence[str],
    channels: Sequence[str],
    start: float | None,
    stop: float | None,
    n_points: int,
) -> dict[str, Any]:
    """Channels of some series over a stretch of time.

    Parameters
    ----------
    store
        Where they are.
    ids
        At most :data:`MOST_SERIES` of them.
    channels
        Names of channels, at most :data:`MOST_CHANNELS`, and of all series together :data:`MOST_LINES`.
    start, stop
        Seconds of the :class:`~zstore.view.numbers.Clock` of the store, or steps. Default: all that the series have.
    n_points
        The most points of a line, from 16 to :data:`MOST_POINTS`.

    Returns
    -------
    ``start`` and ``stop``, and ``charts``: one for each channel, with its ``name``, ``units``, ``categories`` or None,
    and ``lines``: ``id``, ``x`` in seconds, ``y`` with None for gaps, ``n_rows`` that lie there, and whether these are
    ``whole``: every row is a point. Of many words ``categories`` are those that are drawn, by code.

    Raises
    ------
    UsageError
        If too much is asked for.
    NotFoundError
        If the store has no such series or channel.
    """
    if len(ids) > MOST_SERIES or len(channels) > MOST_CHANNELS or len(ids) * len(channels) > MOST_LINES:
        raise UsageError(
            f"{len(ids):,} series with {len(channels):,} channels",
            expected=f"at most {MOST_SERIES} series, {MOST_CHANNELS} channels and {MOST_LINES} lines in one picture",
        )
    positions = np.array([store.position(id_) for id_ in ids], np.int64)
    fields = [store.channel(name) for name in channels]
    index, clock = store.index, Clock.of(store)
    filled = positions[index.row_size[positions] > 0]
    if len(filled):
        first, last = int(index.time_start[filled].min()), int(index.time_stop[filled].max())
    else:
        first, last = 0, 0
    low = first if start is None else clock.stored(start, up=False)
    high = last + 1 if stop is None else clock.stored(stop, up=True) + 1
    if high <= low:
        raise UsageError(f"a stretch from {start} to {stop}", expected="an end behind its beginning")
    low, high = _near(low, high, first, last)
    order = np.argsort(positions)
    ranges = row_ranges(store, positions[order], low, high)
    begins, ends = np.empty_like(positions), np.empty_like(positions)
    begins[order], ends[order] = ranges.start, ranges.stop
    lines: dict[str, list[dict[str, Any]]] = {field.name: [] for field in fields}
    n_read = max(_MOST_VALUES // (len(ids) * len(channels)), _BLOCK_ROWS)
    for id_, position, begin, end in zip(ids, positions.tolist(), begins.tolist(), ends.tolist(), strict=True):
        own = store.index.row_start[position : position + 2].tolist()
        for name, line in _lines(store, clock, fields, (begin, end), own, (low, high), n_points, n_read):
            lines[name].append({"id": id_, **line})
    return {
        "start": clock.second(low),
        "stop": clock.second(high - 1),
        "first": clock.second(first),
        "last": clock.second(last),
        "charts": [
            {
                "name": field.name,
                "units": field.units,
                "categories": _words(field, lines[field.name]) if field.kind == "category" else None,
                "lines": lines[field.name],
            }
            for field in fields
        ],
    }


def _near(low: int, high: int, first: int, last: int) -> tuple[int, int]:
    """The times ``[low, high)`` cut to what lies around those from `first` to `last`: axes of a page end somewhere."""
    beside = _MOST_BESIDE * (last - first + 1)
    least, most = max(first - beside, -MOST_TIME), min(last + beside, MOST_TIME)
    low = min(max(low, least), most - 1)
    return low, max(min(high, most), low + 1)


def _words(field: Field, lines: Sequence[dict[str, Any]]) -> list[str] | dict[int, str]:
    if len(field.categories) <= MOST_WORDS:
        return list(field.categories)
    codes = {int(value) for line in lines for value in line["y"] if value is not None}
    return {code: field.categories[code] for code in sorted(codes)}


def _lines(
    store: Store,
    clock: Clock,
    fields: Sequence[Field],
    rows: tuple[int, int],
    own: Sequence[int],
    span: tuple[int, int],
    n_points: int,
    most_rows: int,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Of each channel the points of the `rows` of one series, whose `own` are all, and of one on either side."""
    begin, end = rows
    n_rows = end - begin
    low, high = max(begin - 1, own[0]), min(end + 1, own[1])
    times = store.times(low, high) if high - low <= n_points else None
    follows = None if times is None else _follow(store, times)
    if times is not None and follows is not None and high - low + int((~follows).sum()) <= n_points:
        for field in fields:
            values = store.read(field.name, low, high)
            n_infinite = int(np.isinf(values[begin - low : end - low]).sum())
            x, y = with_gaps(times, values, follows)
            yield field.name, _line(clock, x, y, n_rows, n_infinite, whole=True, n_read=n_rows)
        return
    blocks = _blocks(begin, end, most_rows)
    thinned = {field.name: Thinned(*span, n_points // 2) for field in fields}
    for low, high in blocks:
        times = store.times(low, high)
        for field in fields:
            thinned[field.name].add(times, store.read(field.name, low, high))
    n_read = sum(high - low for low, high in blocks)
    for name, each in thinned.items():
        yield name, _line(clock, *each.points(), n_rows, each.n_infinite, whole=False, n_read=n_read)


def _blocks(begin: int, end: int, most_rows: int) -> list[tuple[int, int]]:
    """Blocks of rows that are read: all, or of very many some, evenly spread."""
    starts = np.arange(begin, end, _BLOCK_ROWS)
    most = most_rows // _BLOCK_ROWS
    if len(starts) > most:
        starts = starts[np.linspace(0, len(starts) - 1, most).astype(np.int64)]
    return [(int(low), min(int(low) + _BLOCK_ROWS, end)) for low in starts]


def _follow(store: Store, times: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(row - 1,) whether each row follows the one before; where no rule says when, it does."""
    if not store.time.rule.regular or len(times) < 2:
        return np.ones(max(len(times) - 1, 0), np.bool_)
    return store.time.rule.follows(times[:-1], times[1:])


def _line(
    clock: Clock,
    times: NDArray[np.int64],
    values: NDArray[np.floating],
    n_rows: int,
    n_infinite: int,
    *,
    whole: bool,
    n_read: int,
) -> dict[str, Any]:
    return {
        "x": listed(clock.seconds(times)),
        "y": listed(values),
        "n_rows": n_rows,
        "n_read": n_read,
        "n_infinite": n_infinite,
        "whole": whole,
    }
