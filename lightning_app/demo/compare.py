"""The demo's last step: a forecast beside persistence, climatology and the truth, in numbers and in a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from lightning_app.demo.catchments import Catchments
from lightning_app.look.style import CLIMATOLOGY, FORECAST, OBSERVED, PERSISTENCE, dress, legend
from lightning_app.prediction_arrays import target_variables
from zstore import Store

DAY_S = 86_400


@dataclass(frozen=True)
class Comparison:
    """Forecasts of the same target days, and what was observed.

    Parameters
    ----------
    forecasts
        Name to (window, step) predicted flow, mm/day.
    observed
        (window, step) measured flow, NaN where missing.
    ids
        (window,) catchment.
    days
        (window, step) days since 1970-01-01.
    """

    forecasts: dict[str, NDArray[Any]]
    observed: NDArray[Any]
    ids: NDArray[Any]
    days: NDArray[np.int64]

    def errors(self) -> dict[str, tuple[float, float, float]]:
        """Name to (MSE, MAE, NSE) over all observed target days.

        NSE is ``1 - MSE / variance of the observed`` (Nash & Sutcliffe 1970).
        """
        seen = ~np.isnan(self.observed)
        truth = self.observed[seen].astype(np.float64)
        found = {}
        for name, forecast in self.forecasts.items():
            residual = forecast[seen] - truth
            mse = float(np.mean(residual**2))
            found[name] = (mse, float(np.mean(np.abs(residual))), 1 - mse / float(np.var(truth)))
        return found


def compare(store: Store, predictions: Path, target: str, train_stop_day: int, true: Catchments | None) -> Comparison:
    """Put predictions beside persistence and a day-of-year climatology of the training days.

    Parameters
    ----------
    store
        The store predicted from.
    predictions
        What `predict` wrote.
    target
        The channel predicted.
    train_stop_day
        Day since 1970-01-01 after the last training day.
    true
        The simulation, to show what a perfect model would score against the noisy gauge.
    """
    group: Any = zarr.open_group(str(predictions), mode="r")
    ids, times = np.asarray(group["id"][:]), np.asarray(group["time"][:])
    model = np.asarray(group[target_variables(store, [target])[0]][:])
    days = times // DAY_S
    found = {name: np.full(days.shape, np.nan) for name in ("persistence", "climatology", "observed", "perfect model")}
    for id_ in np.unique(ids):
        mine = np.flatnonzero(ids == id_)
        series = store.series(str(id_))
        dates, flow = series.times().astype("M8[D]"), series.read(target)
        # One place per day from the first to the last, so that gaps in the rows do not shift anything.
        first = int(dates[0].astype(int))
        daily = np.full(int(dates[-1].astype(int)) - first + 1, np.nan)
        daily[dates.astype(int) - first] = flow
        known = _filled_forward(daily)
        wanted = days[mine]
        found["observed"][mine] = daily[wanted - first]
        found["persistence"][mine] = known[wanted[:, :1] - 1 - first]
        found["climatology"][mine] = _climatology(daily[: train_stop_day - first], first)[_day_of_year(wanted)]
        if true is not None:
            offset = int(true.dates[0].astype(int))
            found["perfect model"][mine] = true.true_flow[true.ids.index(str(id_))][wanted - offset]
    observed = found.pop("observed")
    if true is None:
        found.pop("perfect model")
    return Comparison({"LSTM": model, **found}, observed, ids, days)


def draw(comparison: Comparison, path: Path, step: int = 3, n_days: int = 240) -> Path:
    """Draw the forecast of one catchment, `step` days ahead, over the days it varies most."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    observed = comparison.observed
    ids, n_windows = np.unique(comparison.ids, return_counts=True)
    whole = ids[n_windows == n_windows.max()]  # those without a gap
    liveliest = max(whole, key=lambda id_: float(np.nanstd(observed[comparison.ids == id_])))
    mine = np.flatnonzero(comparison.ids == liveliest)
    start = int(np.argmax(np.convolve(np.nan_to_num(observed[mine, step - 1]), np.ones(n_days), "valid")))
    mine = mine[start : start + n_days]
    dates = comparison.days[mine, step - 1].astype("M8[D]")
    figure, axes = plt.subplots(figsize=(11, 4.2), layout="constrained")
    axes.plot(dates, observed[mine, step - 1], color=OBSERVED, linewidth=1.6, label="observed")
    for name, colour, width in (
        ("climatology", CLIMATOLOGY, 1.0),
        ("persistence", PERSISTENCE, 1.0),
        ("LSTM", FORECAST, 1.8),
    ):
        axes.plot(dates, comparison.forecasts[name][mine, step - 1], color=colour, linewidth=width, label=name)
    dress(axes, f"Catchment {liveliest}: flow forecast {step} days ahead, on test days", y="flow (mm/day)")
    axes.set_ylim(bottom=0)
    axes.margins(x=0)
    legend(axes, ncols=4, loc="upper right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path


def _filled_forward(values: NDArray[Any]) -> NDArray[Any]:
    """The last observed value at each place."""
    seen = ~np.isnan(values)
    last = np.maximum.accumulate(np.where(seen, np.arange(len(values)), 0))
    return values[last]


def _day_of_year(days: NDArray[np.int64]) -> NDArray[np.int64]:
    dates = days.astype("M8[D]")
    since_new_year: NDArray[np.int64] = (dates - dates.astype("M8[Y]")).astype(np.int64)
    return since_new_year


def _climatology(daily: NDArray[Any], first: int) -> NDArray[Any]:
    """(366,) mean of each day of the year; a day never observed has the mean of all."""
    place = _day_of_year(np.arange(first, first + len(daily)))
    seen = ~np.isnan(daily)
    total = np.bincount(place[seen], daily[seen], minlength=366)
    count = np.bincount(place[seen], minlength=366)
    return np.where(count > 0, total / np.maximum(count, 1), np.nanmean(daily))
