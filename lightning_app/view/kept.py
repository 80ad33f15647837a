"""Forecasts that a run has kept, by series and origin: beside what has come since, and how good they were."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lightning_app.evaluation import evaluate, truth_of
from lightning_app.kept import Forecasts, read_forecasts
from lightning_app.kept_scores import LOWER, QUANTILE, UPPER
from lightning_app.view.predicted import chart, line, thinned, within
from zstore import NotFoundError, Store, UsageError, view

_MOST_VALUES, _MOST_OF_FILE = 2_000_000, 10_000_000
_WORST = 50


class KeptForecasts:
    """The forecasts in a folder, as they are now.

    Parameters
    ----------
    folder
        Such as ``runs/x/forecasts``.
    store
        What they are forecasts of.

    Raises
    ------
    StoreError
        If a file is damaged.
    UsageError
        If the store has no channel of numbers that was forecast.

    Notes
    -----
    Memory: some 150 bytes a value, of the files that were written last, up to 2 M values. What came since is read of
    the store once.
    """

    def __init__(self, folder: Path, store: Store) -> None:
        paths = kept_files(folder)
        chosen = _newest(paths)
        self.n_left_out = len(paths) - len(chosen)
        self._store, self._clock = store, view.Clock.of(store)
        self._all: Forecasts = read_forecasts(folder, store, chosen)
        self._evaluation = evaluate(store, self._all)
        self._truth = truth_of(store, self._all)
        self._order = np.argsort(self._all.ids.astype(str), kind="stable")
        self._ids = self._all.ids[self._order].astype(str)

    def about(self) -> dict[str, Any]:
        """How many there are, of what, and how many have been scored."""
        found, all_ = self._evaluation, self._all
        return {
            "n_forecasts": found.n_forecasts,
            "n_scored": found.n_scored,
            "n_partly": found.n_partly,
            "n_waiting": found.n_waiting,
            "n_left_out": self.n_left_out,
            "targets": sorted(set(all_.targets.tolist())),
            "ids": self._ids[:1].tolist(),
            "n_steps": int(all_.step.max()) if len(all_) else 0,
        }

    def forecast(self, id_: str, target: str, origin: int, before: int) -> dict[str, Any]:
        """One forecast of a series, all its steps, with rows up to its origin, and what came.

        Parameters
        ----------
        id_, target
            Of which series and target.
        origin
            Its number among the origins of the series, from 0; the last of them where there are fewer.
        before
            Rows of the store that are drawn up to the origin.
        """
        rows = self._rows(id_, target)
        origins = np.unique(self._all.origin[rows])
        origin = min(origin, len(origins) - 1)
        time = int(origins[origin])
        rows = rows[self._all.origin[rows] == time]
        rows = rows[np.argsort(self._all.step[rows], kind="stable")]
        lines, low = [], time
        past = self._before(id_, target, time, before)
        if past is not None:
            low = int(past[0][0])
            lines.append({"id": "before", "kind": "before", **line(self._clock, *past)})
        times = self._all.time[rows]
        lines += [{"id": kind, "kind": kind, **line(self._clock, times, own)} for kind, own in self._lines(rows)]
        about = {"n_origins": len(origins), "number": origin, "origin": self._clock.second(time)}
        return chart(self._store, target, lines, (low, int(times.max()) + 1)) | about

    def by_lead(self, id_: str, target: str, step: int, span: tuple[int, int] | None, n_points: int) -> dict[str, Any]:
        """Forecasts so many steps ahead from all origins of a series, with what came.

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
        rows = self._rows(id_, target)
        origins = len(np.unique(self._all.origin[rows]))
        rows = rows[self._all.step[rows] == step]
        rows = rows[np.argsort(self._all.time[rows], kind="stable")]
        times = self._all.time[rows]
        drawn, inside = within(times, span)
        times, rows = times[inside], rows[inside]
        lines = [
            {"id": kind, "kind": kind, **thinned(self._clock, times, own, drawn, n_points)}
            for kind, own in self._lines(rows)
        ]
        return chart(self._store, target, lines, drawn) | {"n_origins": origins}

    def scores(self, target: str) -> dict[str, Any]:
        """What `evaluate` says of a target, and the scores of its worst series, as far as their truth is in.

        Returns
        -------
        ``all`` and ``by_step`` as :class:`lightning_app.evaluation.Evaluation` has them, and ``series``, the worst
        first: ``id``, ``n`` values, ``rmse`` and ``mae``.
        """
        found = self._evaluation.targets.get(target)
        if found is None:
            raise UsageError(f"no forecasts of {target!r}", expected=f"one of {', '.join(self._evaluation.targets)}")
        known = (self._all.targets == target) & np.isfinite(self._truth)
        ids, number = np.unique(self._all.ids[known].astype(str), return_inverse=True)
        error = (self._all.forecast - self._truth)[known]
        n = np.bincount(number, minlength=len(ids))
        rmse = np.sqrt(np.bincount(number, error**2, minlength=len(ids)) / np.maximum(n, 1))
        mae = np.bincount(number, np.abs(error), minlength=len(ids)) / np.maximum(n, 1)
        worst = np.argsort(-rmse, kind="stable")[:_WORST]
        columns = zip(ids[worst].tolist(), n[worst].tolist(), rmse[worst].tolist(), mae[worst].tolist(), strict=True)
        series = [dict(zip(("id", "n", "rmse", "mae"), each, strict=True)) for each in columns]
        return {"all": found["all"], "by_step": found["by_step"], "series": series, "n_series": len(ids)}

    def _rows(self, id_: str, target: str) -> NDArray[np.int64]:
        """Values of a series and target."""
        begin, end = np.searchsorted(self._ids, id_, "left"), np.searchsorted(self._ids, id_, "right")
        rows = self._order[begin:end]
        found: NDArray[np.int64] = rows[self._all.targets[rows] == target]
        if not len(found):
            what = f"no forecasts of {target!r} of {id_!r}"
            raise UsageError(what, expected="a series and a target that were forecast")
        return found

    def _lines(self, rows: NDArray[np.int64]) -> list[tuple[str, NDArray[np.float64]]]:
        """What came, what was forecast, and the widest interval where there is one."""
        found = [("observed", self._truth[rows]), ("forecast", self._all.forecast[rows])]
        beside = self._all.beside
        ends = [name for name in beside if name.startswith((LOWER, UPPER))]
        quantiles = sorted((name for name in beside if name.startswith(QUANTILE)), key=lambda name: float(name[1:]))
        if ends:
            widest = max((name[len(LOWER) :] for name in ends), key=float)
            names = [f"{LOWER}{widest}", f"{UPPER}{widest}"]
        else:
            names = [quantiles[0], quantiles[-1]] if quantiles else []
        return found + [(kind, beside[name][rows]) for kind, name in zip((LOWER, UPPER), names, strict=False)]

    def _before(self, id_: str, target: str, origin: int, n_rows: int) -> Any:
        """Times and values of the store up to an origin; None where it has none."""
        store = self._store
        try:
            position = store.position(id_)
        except NotFoundError:  # a series that this version has not
            return None
        first, last = store.index.row_start[position : position + 2].tolist()
        times = store.times(first, last)
        end = int(np.searchsorted(times, origin, "right"))
        begin = max(end - n_rows, 0)
        if end == begin:
            return None
        return times[begin:end], store.read(target, first + begin, first + end).astype(np.float64)


def kept_files(folder: Path) -> list[Path]:
    """The files of forecasts in a folder."""
    return sorted(path for path in folder.glob("*.parquet") if not path.name.startswith("."))


def _newest(paths: Sequence[Path]) -> list[Path]:
    """Those that were written last, as many as have 2 M values; at least one."""
    chosen: list[Path] = []
    n_values = 0
    for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        with suppress(pa.ArrowException, OSError):  # what is wrong with it is told by whoever reads it
            n_values += pq.read_metadata(path).num_rows
        if n_values > (_MOST_VALUES if chosen else _MOST_OF_FILE):
            if chosen:
                break
            expected = f"at most {_MOST_OF_FILE:,} in a file"
            raise UsageError(
                f"{n_values:,} forecasts in {path}", expected=expected, fix="python -m lightning_app evaluate"
            )
        chosen.append(path)
    return chosen
