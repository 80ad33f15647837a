"""The rows of windows whose targets lie ahead: known ones of the store, and behind them those that are to come."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_app.data.ahead.known import KnownValues
from lightning_app.data.ahead.origins import Origins
from lightning_app.data.layout import Layout
from lightning_app.data.options import Gaps
from lightning_app.data.rows.readers import PanelReader, StoreReader, scaled_when
from lightning_app.data.scales import Scales
from lightning_app.data.scaling.rowscaling import RowScaling
from zstore import NotFiniteError, UsageError, WindowShape

Bool = NDArray[np.bool_]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

logger = logging.getLogger(__name__)

_BLOCK = 1 << 16  # rows that are decoded together, though some between are not needed
_NAMED = 3  # in messages


@dataclass(frozen=True)
class AheadRows:
    """Rows of some windows, one window behind the other.

    Parameters
    ----------
    values
        (window, row, column) float32 scaled, 0 where nothing is known; in a panel columns are those of all its series.
    observed
        Of the same shape, whether it is known.
    times
        (window, row) of each row; 0 before the first known one.
    """

    values: Float32
    observed: Bool
    times: Int64


class RowMaker:
    """Puts rows together.

    Parameters
    ----------
    scales
        The layout, and how its rows are scaled.
    origins
        Where known rows end, each with all input rows that a window needs, or padded.
    ahead
        (window, ahead) times of the rows behind the last known one, see :func:`times_ahead`.
    known
        Values known in advance that the store has not; None without such.
    """

    def __init__(self, scales: Scales, origins: Origins, ahead: Int64, known: KnownValues | None) -> None:
        layout = scales.layout
        self._layout, self._origins, self._known, self._shape = layout, origins, known, layout.window
        self._ahead = ahead
        self._scaler = scales.scaler
        self._reader: StoreReader | PanelReader = layout.view.reader(scales.scaler, layout.options.row_cache)
        self._n_nodes = max(layout.view.n_nodes, 1)
        self.n_past = rows_known(self._shape)
        """Rows of a window up to the last known one."""
        self.n_ahead = self._shape.span - self.n_past
        """Rows of a window behind it."""

    def make(self) -> AheadRows:
        """All rows.

        Notes
        -----
        Memory: three times the rows. Cost: decodes the chunks in which known rows lie.
        """
        shape, origins = self._shape, self._origins
        n, span, width = len(origins), shape.span, self._layout.view.width
        values, observed = np.zeros((n, span, width), np.float32), np.zeros((n, span, width), np.bool_)
        times = np.zeros((n, span), np.int64)
        n_there = np.minimum(self.n_past, origins.known - origins.low)
        times[:, self.n_past :] = self._ahead
        for windows in self._together(n_there):
            self._read(windows, n_there, values, observed, times)
        if self._known is not None:
            self._put_known(values, observed, times)
        return AheadRows(values, observed, times)

    def _ids(self, window: int) -> list[str]:
        return _ids(self._layout, self._origins, window)

    def _together(self, n_there: Int64) -> list[Int64]:
        """Windows whose rows are decoded together, for they lie near each other."""
        origins = self._origins
        start, stop = origins.known - n_there, np.minimum(origins.stop, origins.known + self.n_ahead)
        parts, first, wanted = [], 0, 0
        for window in range(len(origins)):
            wanted += int(stop[window] - start[window])
            if stop[window] - start[first] > 4 * wanted + _BLOCK:
                parts.append(np.arange(first, window))
                first, wanted = window, int(stop[window] - start[window])
        return [part for part in (*parts, np.arange(first, len(origins))) if len(part)]

    def _read(self, windows: Int64, n_there: Int64, values: Float32, observed: Bool, times: Int64) -> None:
        """Decode what the store has of some windows: known rows, and those behind them at the times to come."""
        origins, span, n_past = self._origins, self._shape.span, self.n_past
        low = int((origins.known - n_there)[windows].min())
        high = int(np.minimum(origins.stop, origins.known + self.n_ahead)[windows].max())
        if high <= low:
            return
        rows, seen = np.empty((high - low, values.shape[2]), np.float32), np.ones((high - low, values.shape[2]), bool)
        self._reader.read(low, rows, seen if self._reader.masked else None)
        for window in windows.tolist():
            known, there = int(origins.known[window]), int(n_there[window])
            if there:
                own = slice(known - there - low, known - low)
                past = (window, slice(n_past - there, n_past))
                values[past], observed[past] = rows[own], seen[own]
                times[past] = self._layout.view.timed.times(known - there, known)
            stop = min(int(origins.stop[window]), known + self.n_ahead)
            if stop > known:
                behind = self._layout.view.timed.times(known, stop)
                place = n_past + np.searchsorted(times[window, n_past:], behind)
                found = place < span
                found[found] = times[window, place[found]] == behind[found]
                own_rows = np.arange(known, stop)[found] - low
                values[window, place[found]], observed[window, place[found]] = rows[own_rows], seen[own_rows]

    def _put_known(self, values: Float32, observed: Bool, times: Int64) -> None:
        """Take the values of the table, where it has some, instead of those of the store."""
        assert self._known is not None
        channels, n_past = self._known.channels, self.n_past
        columns = np.array([self._layout.columns.index(name) for name in channels], np.int64)
        width = len(self._layout.columns)
        for window in range(len(self._origins)):
            for node, id_ in enumerate(self._ids(window)):
                rows = self._known.rows(id_, times[window, n_past:])
                there = np.flatnonzero(rows >= 0)
                if not len(there) or not len(columns):
                    continue
                given = np.full((len(there), width), np.nan)
                given[:, columns] = self._known.values(rows[there])
                self._refuse_logs(given, id_, times[window, n_past + there])
                series = self._origins.series[window] if self._layout.nodes is None else self._layout.nodes[node]
                scaled, seen = self._scaled(given, int(series)), ~np.isnan(given)
                own = (window, (n_past + there)[:, None], (node * width + np.arange(width))[None])
                values[own], observed[own] = np.where(seen, scaled, values[own]), observed[own] | seen

    def _refuse_logs(self, values: Float64, id_: str, times: Int64) -> None:
        """Raise UsageError where a value of a table, (row, column), has no logarithm: scaled it would seem missing."""
        assert self._known is not None
        wrong = np.argwhere(self._scaler.log & (values <= -1))
        if len(wrong):
            row, column = wrong[0].tolist()
            when = self._layout.store.schema.time.show(int(times[row]))
            raise UsageError(
                f"a logarithm of {self._layout.columns[column]} of {id_} at {when}, which is {values[row, column]:g}",
                expected="values greater than -1, as those that the scaler log1p was fitted on",
                where=self._known.store.path,
                fix="correct --data.future_values",
            )

    def _scaled(self, values: Float64, series: int) -> Float32:
        """(row, column) values in source units as a model reads them, as those of the store are."""
        store, scaler = self._layout.store, self._scaler
        decoded, later = scaled_when(store, scaler, True)
        if later is not None:
            rows = torch.from_numpy(values.astype(np.float32))
            RowScaling.of(scaler, True).scale_rows(rows, torch.full((len(rows),), series))
            return rows.numpy()
        offset, scale = (part[series] if part.ndim == 2 else part for part in (decoded.offset, decoded.scale))
        plain = np.where(decoded.log, np.log1p(np.where(decoded.log, values, 0.0)), values)
        found: Float32 = np.nan_to_num((plain - offset) / scale).astype(np.float32)
        return found


def times_ahead(layout: Layout, origins: Origins, known: KnownValues | None) -> tuple[Origins, Int64]:
    """The times of the rows behind the last known ones, and the windows that have some.

    By the step of the store; where it has none, those of rows that it has, or that are in the table of known values.
    Windows without enough of these are left out, and a line says so.

    Returns
    -------
    Those that are left, and (window, ahead) times.

    Raises
    ------
    UsageError
        If none is left.
    """
    rule, n_ahead = layout.store.time.rule, layout.window.span - rows_known(layout.window)
    if rule.regular:
        return origins, rule.times(np.arange(1, n_ahead + 1), origins.time[:, None])
    found = [_next_times(layout, origins, known, window, n_ahead) for window in range(len(origins))]
    enough = np.array([len(times) == n_ahead for times in found])
    what = f"{n_ahead:,} times behind the last known row, in a store whose times have no step"
    where = layout.store.path
    fix = "--data.future_values with a row for each of them, where cells of channels may be empty"
    if not enough.any():
        first = _ids(layout, origins, 0)[0]
        raise UsageError(f"series {first} with {len(found[0]):,} times to come", expected=what, where=where, fix=fix)
    if not enough.all():
        named = ", ".join(_ids(layout, origins, int(window))[0] for window in np.flatnonzero(~enough)[:_NAMED])
        logger.warning(
            f"{int((~enough).sum()):,} series are not forecast, for they lack {what} ({named}, …). Fix: {fix}"
        )
    return origins.at(enough), np.stack([times for times in found if len(times) == n_ahead])


def _next_times(layout: Layout, origins: Origins, known: KnownValues | None, window: int, n_ahead: int) -> Int64:
    """(ahead,) the next times of one window, at most so many."""
    start, stop = int(origins.known[window]), int(origins.stop[window])
    times = layout.view.timed.times(start, min(stop, start + n_ahead))
    if known is not None:
        after = int(origins.time[window])
        given = [known.times(id_, after) for id_ in _ids(layout, origins, window)]
        times = np.unique(np.concatenate([times, *given]))
    return times[:n_ahead]


def _ids(layout: Layout, origins: Origins, window: int) -> list[str]:
    """The series of a window."""
    positions = origins.series[window : window + 1] if layout.nodes is None else layout.nodes
    return [str(id_) for id_ in layout.store.ids[positions].tolist()]


def rows_known(shape: WindowShape) -> int:
    """Rows of a window up to the last known one: its first target is the next one, or comes `delay` rows later."""
    return min(shape.lookback, shape.target_offset)


def refuse_infinite(scales: Scales, rows: AheadRows, origins: Origins) -> None:
    """Raise NotFiniteError where a value that a model reads is infinite."""
    layout = scales.layout
    read = [layout.columns.index(name) for name in dict.fromkeys([*layout.seen, *layout.future])]
    by_node = rows.values.reshape(*rows.values.shape[:2], -1, len(layout.columns))
    wrong = np.argwhere(~np.isfinite(by_node[..., read]))
    if not len(wrong):
        return
    window, row, node, column = wrong[0].tolist()
    where = _where(scales, origins, rows, window, row, node, read[column])
    raise NotFiniteError(
        f"infinite {where}, which the model reads",
        expected="finite numbers",
        where=layout.store.path,
        fix="correct it in the source, or leave the channel out and fit again",
    )


def _where(scales: Scales, origins: Origins, rows: AheadRows, window: int, row: int, node: int, column: int) -> str:
    """A value as a person names it."""
    layout = scales.layout
    series = origins.series[window] if layout.nodes is None else layout.nodes[node]
    when = layout.store.schema.time.show(int(rows.times[window, row]))
    return f"{layout.columns[column]} of {layout.store.ids[series]} at {when}"


def refuse_gaps(scales: Scales, rows: AheadRows, origins: Origins, gaps: Gaps) -> None:
    """Raise UsageError where a value that a model reads of a row to come is not known; or say how many are filled.

    Parameters
    ----------
    scales
        Which channels a model reads, and whose rows.
    rows, origins
        Of which windows.
    gaps
        ``fill``: the training mean stands for them, as it does for missing inputs.
    """
    layout, shape = scales.layout, scales.layout.window
    n_past = rows_known(shape)
    wanted = np.zeros((shape.span, len(layout.columns)), np.bool_)
    targets = shape.target_offset + shape.target_rows
    for name in layout.future:
        wanted[targets, layout.columns.index(name)] = True
    for name in layout.seen:  # of inputs that are not known yet: targets lie among them, or before the last of them
        wanted[n_past : shape.lookback, layout.columns.index(name)] = True
    lacking = np.tile(wanted, (1, max(layout.view.n_nodes, 1)))[None] & ~rows.observed
    n_lacking = int(lacking.sum())
    if not n_lacking:
        return
    window, row, column = (int(place) for place in np.argwhere(lacking)[0])
    first = _where(scales, origins, rows, window, row, *divmod(column, len(layout.columns)))
    if gaps == "fill":
        logger.info(f"{n_lacking:,} values of rows to come are not known: the training mean stands for {first}, …")
        return
    raise UsageError(
        f"{n_lacking:,} values of rows to come are not known, the first one {first}",
        expected="all that the model reads of them",
        where=layout.store.path,
        fix="--data.future_values FILE, rows in the store with empty targets, or --data.future_gaps fill",
    )
