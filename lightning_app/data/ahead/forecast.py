"""What has not happened yet: one window a series, or one of the panel, whose targets lie behind the last known row."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_app.data.ahead.known import KnownValues
from lightning_app.data.ahead.origins import Origins, find_origins, named_series
from lightning_app.data.ahead.rows import RowMaker, refuse_gaps, refuse_infinite, rows_known, times_ahead
from lightning_app.data.batches.located import PositionTimes
from lightning_app.data.batches.source import WindowSource
from lightning_app.data.options import Gaps
from lightning_app.data.rows.observed import ObservedTargets
from lightning_app.data.rows.residency import Rows
from lightning_app.data.scales import Scales
from lightning_app.data.selection import refuse_unseen
from lightning_app.data.supply import source_of
from zstore import PanelGrid, Store, UsageError, WindowBounds, WindowIndex

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ahead:
    """Windows whose targets are not known, or were not at some time.

    Parameters
    ----------
    source, index
        Rows of these windows alone, and where in them each lies.
    row_times
        (row,) of each of these rows.
    observed
        (row, …, target) what the store has of the targets in source units, NaN where nothing: rows behind an origin
        in the past.
    """

    source: WindowSource
    index: WindowIndex
    row_times: Int64
    observed: Float64

    def to(self, device: torch.device) -> Ahead:
        """The same with rows in the memory of a device."""
        return self if device.type == "cpu" else replace(self, source=self.source.to(device))

    def target_times(self) -> Int64:
        """(window, horizon) times of the targets."""
        shape = self.index.shape
        first = self.index.locate(np.arange(len(self.index)))[0]
        found: Int64 = self.row_times[first[:, None] + shape.target_offset + shape.target_rows]
        return found

    def times(self, start: int, stop: int) -> Int64:
        """Times of the rows ``[start, stop)``."""
        return self.row_times[start:stop]

    def at(self, first: Int64, bounds: WindowBounds | None = None) -> Float64:
        """(batch, horizon, …, target) of windows, by the first target row of each, (batch,)."""
        found: Float64 = self.observed[first[:, None] + self.index.shape.target_rows]
        return found


@dataclass(frozen=True)
class Predicted:
    """What is known of windows that are predicted.

    Parameters
    ----------
    timed
        Has the times of their rows.
    truth
        Has the values of their targets, as far as they were observed.
    """

    timed: Store | PanelGrid | Ahead
    truth: ObservedTargets | Ahead


def forecast_windows(
    scales: Scales,
    series: Int64 | None = None,
    since: str | Int64 | None = None,
    future_values: str | None = None,
    gaps: Gaps = "refuse",
) -> Ahead:
    """The windows of a forecast, and their rows.

    Parameters
    ----------
    scales
        Those of a checkpoint, once a data module has taken it.
    series
        Positions of the series to forecast; None for all. A panel always has all of its own.
    since
        The first time that is not known any more, or (series,) that of each; None: what the store does not know, see
        :func:`find_origins`. With one for each, series that have no row from there on are left out, with a warning:
        nothing can come of them.
    future_values
        Files of rows, or a store, with values of channels that are known in advance, or None.
    gaps
        What becomes of those that lack: ``refuse``, or ``fill`` by the training mean.

    Raises
    ------
    UsageError
        If no series can be forecast, or a value or time that a model reads is not known.
    """
    layout = scales.layout
    if layout.fields:
        raise UsageError(
            f"a forecast by a model that reads fields ({', '.join(layout.fields)})",
            expected="one that reads channels",
            where=layout.store.path,
            fix="predict a split, or let a policy act by rollout",
        )
    origins = _long_enough(scales, find_origins(scales, series, since))
    if since is not None and not isinstance(since, str):
        origins = _going_on(scales, origins)
    if layout.recorded is not None:
        series = origins.series if layout.nodes is None else layout.nodes
        refuse_unseen(layout, layout.recorded, series, _spans(scales, origins))
    known = None if future_values is None else KnownValues.open(future_values, layout)
    origins, ahead = times_ahead(layout, origins, known)
    maker = RowMaker(scales, origins, ahead, known)
    rows = maker.make()
    refuse_infinite(scales, rows, origins)
    refuse_gaps(scales, rows, origins, gaps)
    _tell(scales, origins, since)
    _tell_blind(scales, rows.observed[:, : maker.n_past], origins)
    if layout.nodes is not None or isinstance(since, str):
        _tell_late(scales, rows.observed[:, maker.n_past - 1], origins)
    shape, rule, n = replace(layout.window, stride=1), layout.store.time.rule, len(origins)
    first = np.arange(n) * shape.span
    n_there = np.minimum(maker.n_past, origins.known - origins.low)
    bounds = WindowBounds(first + maker.n_past - n_there, first + shape.target_offset, first + shape.span)
    begin = rule.times(np.full(n, 1 - maker.n_past), origins.time) if rule.regular else np.zeros(n, np.int64)
    times = rows.times.ravel()
    index = WindowIndex(shape, first, origins.series, begin, np.arange(1, n + 1), rule, bounds)
    width = rows.values.shape[2]
    values = Rows(torch.from_numpy(rows.values).view(-1, width), torch.from_numpy(rows.observed).view(-1, width))
    given = None if rule.regular else PositionTimes(torch.from_numpy(times))
    source = replace(source_of(scales, values, given), masked=True)
    return Ahead(source, index, times, _observed(scales, rows.times, rows.observed, origins, maker.n_past))


def _spans(scales: Scales, origins: Origins) -> tuple[Int64, Int64]:
    """(window,) rows ``[start, stop)`` of the store that are read."""
    n_past, span = rows_known(scales.layout.window), scales.layout.window.span
    return np.maximum(origins.low, origins.known - n_past), np.minimum(origins.stop, origins.known + span - n_past)


def _observed(scales: Scales, times: Int64, seen: NDArray[np.bool_], origins: Origins, n_past: int) -> Float64:
    """(row, …, target) what the store has of targets behind the known rows, as it is stored."""
    layout, scaler = scales.layout, scales.scaler.of(scales.layout.targets)
    n_nodes = max(layout.view.n_nodes, 1)
    columns = [layout.columns.index(name) for name in layout.targets]
    known = seen.reshape(*seen.shape[:2], n_nodes, -1)[..., columns]
    found = np.full(known.shape, np.nan)
    if known[:, n_past:].any():
        truth = layout.view.observed_targets(scaler, np.zeros(1, np.int64), layout.options.row_cache)
        for window in np.flatnonzero(known[:, n_past:].any(axis=(1, 2, 3))).tolist():
            start, stop = int(origins.known[window]), int(origins.stop[window])
            stop = min(stop, start + times.shape[1] - n_past)
            behind = layout.view.timed.times(start, stop)
            place = n_past + np.searchsorted(times[window, n_past:], behind)
            there = place < times.shape[1]
            there[there] = times[window, place[there]] == behind[there]
            if there.any():
                values = truth.at(np.arange(start, stop)[there])[:, 0]
                found[window, place[there]] = values.reshape(len(values), n_nodes, -1)
    flat = found.reshape(-1, n_nodes, len(columns))
    return flat if layout.nodes is not None else flat[:, 0]


def _long_enough(scales: Scales, origins: Origins) -> Origins:
    """Those of series that have all input rows of a window, or whose windows may be padded; says which are left out."""
    layout, shape = scales.layout, scales.layout.window
    n_past = rows_known(shape)
    whole = origins.known - origins.low >= n_past
    if shape.pad_before != "none" or whole.all():
        return origins
    what = f"{n_past:,} rows without a gap up to the last known one"
    if not whole.any():
        longest = int((origins.known - origins.low).max())
        raise UsageError(
            f"no series has {what}",
            expected=f"a lookback of at most {longest:,}, the rows of the longest",
            where=layout.store.path,
            fix="a model with a smaller --data.lookback, or one fitted with --data.pad_before repeat",
        )
    named = named_series(layout, origins.series[~whole])
    fix = "zstore ingest --fill-gaps, which makes rows of gaps, or a smaller --data.lookback"
    logger.warning(
        f"{int((~whole).sum()):,} series are not forecast, for they have fewer than {what}: {named}. Fix: {fix}"
    )
    return origins.at(whole)


def _going_on(scales: Scales, origins: Origins) -> Origins:
    """Those of series that have rows behind their last known one; says which are left out."""
    layout, goes_on = scales.layout, origins.stop > origins.known
    if goes_on.all():
        return origins
    named = named_series(layout, origins.series[~goes_on])
    if not goes_on.any():
        raise UsageError(
            f"no series has a row to forecast ({named} end before)",
            expected="one where test begins, or behind it",
            where=layout.store.path,
            fix="an earlier test in --data.split",
        )
    logger.warning(f"{int((~goes_on).sum()):,} series end before test begins, and are not forecast: {named}")
    return origins.at(goes_on)


def _tell(scales: Scales, origins: Origins, since: str | Int64 | None) -> None:
    """Say from when on forecasts are, and which series end earlier than others, or have a gap before their test."""
    layout = scales.layout
    show, rule = layout.store.schema.time.show, layout.store.time.rule
    latest = int(origins.time.max())
    earlier, what_is = origins.time < latest, f"end earlier, from {show(int(origins.time.min()))} on,"
    if since is not None and not isinstance(since, str):
        what_is = "have a gap where test begins,"
        earlier = rule.times(1, origins.time) < since[origins.series] if rule.regular else np.zeros(len(origins), bool)
    what = "the panel" if layout.nodes is not None else f"{len(origins):,} series"
    logger.info(f"forecasting {what} from rows up to {show(latest)}")
    if earlier.any():
        named = named_series(layout, origins.series[earlier])
        logger.warning(f"{int(earlier.sum()):,} series {what_is} and are forecast from their own last rows: {named}")


def _tell_blind(scales: Scales, seen: NDArray[np.bool_], origins: Origins) -> None:
    """Say which series have no value of a target that is an input; `seen` is of (window, known row, column)."""
    layout = scales.layout
    own = [layout.columns.index(name) for name in layout.targets if name in layout.seen]
    if not own or not seen.size:  # all rows that are read lie ahead where `delay` is negative and `lookback` 1
        return
    blind = ~seen.reshape(*seen.shape[:2], -1, len(layout.columns))[..., own].any(axis=(1, 3)).ravel()
    if blind.any():
        named = named_series(layout, (origins.series if layout.nodes is None else layout.nodes)[blind])
        what = "have no value of a target in the rows that the model reads, and are forecast without any"
        logger.warning(f"{int(blind.sum()):,} series {what}: {named}")


def _tell_late(scales: Scales, seen: NDArray[np.bool_], origins: Origins) -> None:
    """Say which series have nothing in the last row before their forecast; `seen` says of (window, column) what is."""
    layout = scales.layout
    series = origins.series if layout.nodes is None else layout.nodes
    unknown = [column for column, name in enumerate(layout.columns) if name not in layout.future]
    late = ~seen.reshape(len(series), -1)[:, unknown].any(axis=1)
    if unknown and late.any():
        when, named = layout.store.schema.time.show(int(origins.time.max())), named_series(layout, series[late])
        logger.warning(f"{int(late.sum()):,} series have no value at {when}, and are forecast without it: {named}")
