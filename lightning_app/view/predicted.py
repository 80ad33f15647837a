r"""Predictions of a run, by series: forecasts beside what was observed, and scores.

Of a series with forecasts :math:`\hat y_i` and observations :math:`y_i` of all its windows and steps,

.. math::
    \mathrm{RMSE} = \sqrt{\tfrac1n \sum_i (\hat y_i - y_i)^2}, \quad
    \mathrm{MAE} = \tfrac1n \sum_i |\hat y_i - y_i|, \quad
    \mathrm{NSE} = 1 - \frac{\sum_i (\hat y_i - y_i)^2}{\sum_i (y_i - \bar y)^2}
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore import Store, UsageError, view

_COORDINATES = ("id", "time", "step")
_BESIDE = ("", ", observed", ", quantiles", ", lower ends of intervals", ", upper ends of intervals")
"""What is behind the name of a target in the ``long_name`` of its arrays."""
_BLOCK_VALUES = 1 << 22
_MOST_STEPS, _MOST_HORIZON, _MOST_LEVELS = 10_000, 1_000_000, 1000


class Predictions:
    """A store of predictions, opened.

    Parameters
    ----------
    path
        Its folder.
    store
        What they are predictions of.

    Raises
    ------
    UsageError
        If they are of another store, or no predictions.
    """

    def __init__(self, path: Path, store: Store) -> None:
        import zarr

        self._group: Any
        try:
            self._group = zarr.open_group(str(path), mode="r", zarr_format=3)  # filters of format 2 may unpickle
        except Exception as error:  # whatever zarr says of what is no group
            raise UsageError(f"{path} ({error})", expected="predictions that predict wrote") from error
        self.path, self._store, self._clock = path, store, view.Clock.of(store)
        attributes = dict(self._group.attrs)
        if attributes.get("source_uuid") != store.schema.uuid:
            raise UsageError(
                f"{path} has predictions of another store", expected=f"predictions of {store.path}", fix="correct --run"
            )
        arrays = dict(self._group.arrays())
        beside = {name: array for name, array in arrays.items() if name not in _COORDINATES}
        self._named: dict[str, str] = {str(array.attrs.get("long_name", name)): name for name, array in beside.items()}
        observed = {target: self._named.get(f"{target}, observed") for target in sorted(self._named)}
        self.targets: dict[str, str] = {
            target: self._named[target] for target, name in observed.items() if name is not None
        }
        self.is_panel = any(arrays[name].ndim == 3 for name in self.targets.values())
        if (wrong := self._fault(arrays)) is not None:
            fix = "predict again, or correct --run"
            raise UsageError(f"{path} {wrong}", expected="predictions that predict wrote", fix=fix)
        self.n_steps = int(arrays["step"].shape[0])
        self._lock = threading.Lock()
        self._scores: dict[str, dict[str, NDArray[np.float64]]] = {}

    def _fault(self, arrays: dict[str, Any]) -> str | None:
        """What predict would not have written, found before anything is allocated on its word."""
        if not set(_COORDINATES) <= set(arrays):
            return "without ids, times and steps"
        ids, times, steps = (arrays[name] for name in _COORDINATES)
        most = self._store.n_rows + self._store.n_series
        if times.ndim != 2 or ids.ndim != 1 or max(times.shape[0], ids.shape[0]) > most:
            return f"with times {times.shape} and ids {ids.shape} for a store of {self._store.n_rows:,} rows"
        n_windows, n_steps = times.shape
        shape = (*times.shape, ids.shape[0]) if self.is_panel else times.shape
        used = {target: [self._named.get(f"{target}{what}") for what in _BESIDE] for target in self.targets}
        values = [arrays[name] for names in used.values() for name in names if name is not None]
        if steps.shape != (n_steps,) or (not self.is_panel and ids.shape != (n_windows,)):
            return "whose ids, times and steps do not fit together"
        if any(array.shape[: len(shape)] != shape or array.ndim > len(shape) + 1 for array in values):
            return "whose values do not fit their times"
        if any(np.dtype(array.dtype).kind not in "iuf" for array in (times, *values)):
            return "whose times or values are no numbers"
        if any(math.prod(array.shape[len(shape) :]) > _MOST_LEVELS for array in values) or n_steps > _MOST_HORIZON:
            return f"of {n_steps:,} steps, or with more than {_MOST_LEVELS:,} levels"
        cuts = [(array.chunks, array.shape) for array in (ids, times, steps, *values)]
        if any(chunk > max(size, 1) for cut in cuts for chunk, size in zip(*cut, strict=True)):
            return "in chunks that are larger than what they hold"
        return None

    @property
    def n_windows(self) -> int:
        """Windows that were predicted."""
        return int(self._group["time"].shape[0])

    @cached_property
    def ids(self) -> NDArray[Any]:
        """(window,) or, of a panel, (series,) ids."""
        return np.asarray(self._group["id"][:], dtype=object)

    @cached_property
    def _series(self) -> NDArray[np.int64]:
        """Positions of :attr:`ids` in the store; -1 for one that this version has not."""
        names, inverse = np.unique(self.ids.astype(str), return_inverse=True)
        known = {str(id_): position for position, id_ in enumerate(self._store.ids.tolist())} if len(names) else {}
        return np.array([known.get(str(name), -1) for name in names], np.int64)[inverse]

    def scores(self, target: str) -> dict[str, NDArray[np.float64]]:
        """``rmse``, ``mae`` and ``nse`` of each series of the store, (series,), NaN where there is nothing to compare.

        Of a target that is a class ``accuracy``, the share of the targets whose class was predicted. Cost: one pass
        over the target's predictions, in blocks of some 4 M values, once.
        """
        with self._lock:
            if target not in self._scores:
                of_class = "flag_values" in self._group[self._variable(target)].attrs
                self._scores[target] = self._accuracy(target) if of_class else self._errors(target)
            return self._scores[target]

    def _accuracy(self, target: str) -> dict[str, NDArray[np.float64]]:
        n = self._store.n_series
        right, all_ = np.zeros(n), np.zeros(n)
        for series, forecast, observed in self._blocks(target):
            both = np.isfinite(forecast) & np.isfinite(observed) & (series >= 0)
            right += np.bincount(series[both], forecast[both] == observed[both], minlength=n)
            all_ += np.bincount(series[both], minlength=n)
        with np.errstate(invalid="ignore"):
            return {"accuracy": right / all_}

    def _errors(self, target: str) -> dict[str, NDArray[np.float64]]:
        n = self._store.n_series
        sums = {name: np.zeros(n) for name in ("n", "squared", "absolute", "y", "yy")}
        shift = np.zeros(n)  # an observation of each series, so that squares of large numbers do not cancel
        seen_before = np.zeros(n, np.bool_)
        for series, forecast, observed in self._blocks(target):
            both = np.isfinite(forecast) & np.isfinite(observed) & (series >= 0)
            own, y, error = series[both], observed[both], (forecast - observed)[both]
            new, first = np.unique(own, return_index=True)
            fresh = ~seen_before[new]
            shift[new[fresh]], seen_before[new] = y[first[fresh]], True
            y = y - shift[own]
            for name, values in (
                ("n", None),
                ("squared", error**2),
                ("absolute", np.abs(error)),
                ("y", y),
                ("yy", y**2),
            ):
                sums[name] += np.bincount(own, values, minlength=n)
        with np.errstate(invalid="ignore", divide="ignore"):
            spread = sums["yy"] - sums["y"] ** 2 / sums["n"]
            return {
                "rmse": np.sqrt(sums["squared"] / sums["n"]),
                "mae": sums["absolute"] / sums["n"],
                "nse": np.where(spread > 0, 1 - sums["squared"] / spread, np.nan),
            }

    def by_lead(self, id_: str, target: str, step: int, span: tuple[int, int] | None, n_points: int) -> dict[str, Any]:
        """Forecasts of one step ahead, of all windows of a series, beside what was observed.

        Parameters
        ----------
        id_, target
            Of which series and target.
        step
            Number of the target row, from 1.
        span
            Times ``[low, high)``. Default: all.
        n_points
            The most points of a line.
        """
        self._variable(target)
        place = self._step(step)
        windows = self._windows(id_)
        times = self._group["time"].oindex[windows, place] if len(windows) else np.zeros(0, np.int64)
        order = np.argsort(times, kind="stable")
        times, windows = times[order], windows[order]
        drawn, inside = within(times, span)
        times, windows = times[inside], windows[inside]
        lines = []
        for name, kind in self._lines(target):
            values = self._values(name, id_, windows, place)
            lines.append({"id": kind, "kind": kind, **thinned(self._clock, times, values, drawn, n_points)})
        return self._chart(target, lines, drawn)

    def of_window(self, id_: str, target: str, number: int, before: int) -> dict[str, Any]:
        """One forecast of a series, all its steps, with rows that came before it.

        Parameters
        ----------
        id_, target
            Of which series and target.
        number
            Of the window among those of the series, from 0.
        before
            Rows of the store that are drawn before the first target.
        """
        self._variable(target)
        windows = self._windows(id_)
        if not 0 <= number < len(windows):
            raise UsageError(f"window {number:,} of {len(windows):,} of {id_}", expected="one that was predicted")
        if self.n_steps > _MOST_STEPS:
            raise UsageError(f"a forecast of {self.n_steps:,} steps", expected=f"at most {_MOST_STEPS:,}")
        window = windows[number : number + 1]
        times = np.asarray(self._group["time"][int(window[0])], np.int64)
        store, position = self._store, self._store.position(id_)
        first, last = store.index.row_start[position : position + 2].tolist()
        own = store.times(first, last)
        row = int(np.searchsorted(own, times[0]))
        past = slice(max(row - before, 0), row)
        lines = []
        if past.stop > past.start and target in store.channels:
            values = store.read(target, first + past.start, first + past.stop).astype(np.float64)
            lines.append({"id": "before", "kind": "before", **line(self._clock, own[past], values)})
        for name, kind in self._lines(target):
            values = self._values(name, id_, window, slice(None)).ravel()
            lines.append({"id": kind, "kind": kind, **line(self._clock, times, values)})
        low = int(own[past.start]) if past.stop > past.start else int(times.min())
        return self._chart(target, lines, (low, int(times.max()) + 1)) | {"n_windows": len(windows)}

    def _chart(self, target: str, lines: list[dict[str, Any]], span: tuple[int, int]) -> dict[str, Any]:
        units = self._group[self._variable(target)].attrs.get("units")
        return chart(self._store, target, lines, span, units) | {"n_steps": self.n_steps}

    def _variable(self, target: str) -> str:
        if target not in self.targets:
            raise UsageError(f"no predictions of {target!r}", expected=f"one of {', '.join(self.targets) or 'none'}")
        return self.targets[target]

    def _step(self, step: int) -> int:
        if not 1 <= step <= self.n_steps:
            raise UsageError(f"step {step:,}", expected=f"1 to {self.n_steps:,}")
        return step - 1

    def _lines(self, target: str) -> list[tuple[str, str]]:
        """Names of arrays and what they are: observed, forecast, and the widest interval, where there is one."""
        forecast, observed, quantiles, lower, upper = (self._named.get(f"{target}{what}") for what in _BESIDE)
        found = [(observed, "observed"), (forecast, "forecast")]
        if lower is not None and upper is not None:
            found += [(lower, "lower"), (upper, "upper")]
        elif quantiles is not None:
            found += [(f"{quantiles}:0", "lower"), (f"{quantiles}:-1", "upper")]
        return [(str(name), kind) for name, kind in found]

    def _windows(self, id_: str) -> NDArray[np.int64]:
        """Windows of a series, in their order; of a panel all."""
        found = np.flatnonzero(self.ids == id_)
        if not len(found):
            raise UsageError(f"no predictions of {id_!r}", expected="a series that was predicted")
        return np.arange(self._group["time"].shape[0]) if self.is_panel else found

    def _values(self, name: str, id_: str, windows: NDArray[np.int64], steps: Any) -> NDArray[np.float64]:
        """(window,) or (window, step) values of an array, of the widest interval where it has several."""
        name, _, place = name.partition(":")
        array = self._group[name]
        if not len(windows):
            return np.zeros(0)
        low, high = int(windows[0]), int(windows[-1]) + 1
        chosen: tuple[Any, ...] = (slice(low, high), steps)
        if self.is_panel:
            chosen = (*chosen, int(np.flatnonzero(self.ids == id_)[0]))
        if array.ndim > len(chosen):
            chosen = (*chosen, int(place) if place else -1)
        found: NDArray[np.float64] = np.asarray(array[chosen], np.float64)[windows - low]
        return found

    def _blocks(self, target: str) -> Iterator[tuple[NDArray[np.int64], NDArray[Any], NDArray[Any]]]:
        """Flat positions of series, forecasts and observations, in blocks of windows."""
        forecast, observed = self._group[self._variable(target)], self._group[self._named[f"{target}, observed"]]
        of_window = int(np.prod(forecast.shape[1:]))
        size = max(_BLOCK_VALUES // max(of_window, 1), 1)
        for low in range(0, forecast.shape[0], size):
            values = np.asarray(forecast[low : low + size], np.float64)
            own = self._series[None, None, :] if self.is_panel else self._series[low : low + len(values), None]
            series = np.broadcast_to(own, values.shape)
            truth = np.asarray(observed[low : low + size], np.float64)
            yield series.ravel(), values.ravel(), truth.ravel()


def chart(
    store: Store, target: str, lines: list[dict[str, Any]], span: tuple[int, int], units: str | None = None
) -> dict[str, Any]:
    """Lines of a target over the times ``[low, high)`` of a span, as a page draws them."""
    clock, words = view.Clock.of(store), None
    if target in store.channels:
        channel = store.channel(target)
        words, units = list(channel.categories) if channel.kind == "category" else None, units or channel.units
    return {
        "start": clock.second(span[0]),
        "stop": clock.second(max(span[1] - 1, span[0])),
        "charts": [{"name": target, "units": units, "categories": words, "lines": lines}],
    }


def within(times: NDArray[np.int64], span: tuple[int, int] | None) -> tuple[tuple[int, int], NDArray[np.bool_]]:
    """The times ``[low, high)`` that are drawn, of a span or else of all ascending times, and which of these they have.

    ``(0, 1)`` where there are neither.
    """
    low, high = span or ((int(times[0]), int(times[-1]) + 1) if len(times) else (0, 1))
    return (low, high), (times >= low) & (times < high)


def thinned(
    clock: view.Clock, times: NDArray[np.int64], values: NDArray[np.float64], span: tuple[int, int], n_points: int
) -> dict[str, Any]:
    """A line of at most so many points, over the times ``[low, high)`` of a span."""
    if len(times) <= n_points or span[1] <= span[0]:
        return line(clock, times, values)
    thinned = view.Thinned(*span, max(n_points // 2, 1))
    thinned.add(times, values)
    return line(clock, *thinned.points(), whole=False, n_rows=len(times))


def line(
    clock: view.Clock,
    times: NDArray[np.int64],
    values: NDArray[np.float64],
    whole: bool = True,
    n_rows: int | None = None,
) -> dict[str, Any]:
    """A line through (row,) times and values; `whole` where each row is a point."""
    n_rows = len(times) if n_rows is None else n_rows
    return {
        "x": view.listed(clock.seconds(times)),
        "y": view.listed(values),
        "n_rows": n_rows,
        "n_read": n_rows,
        "n_infinite": 0,
        "whole": whole,
    }
