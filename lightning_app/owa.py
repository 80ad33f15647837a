"""OWA of forecasts that were made: their sMAPE and MASE over those of Naive2, for the same targets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from lightning_app.data.scaling.scaler import Scaler
from lightning_app.data.scaling.seasonal_error import seasonal_errors
from lightning_app.data.windows.splits import Split
from lightning_app.naive2 import naive2
from lightning_app.prediction_arrays import observed_variables, target_variables
from zstore import Store, UsageError

Float64 = NDArray[np.float64]


def naive2_errors(
    store: Store, split: Split, predictions: Path, targets: list[str], season: int, members: NDArray[np.bool_] | None
) -> tuple[float, float]:
    """The sMAPE and MASE of Naive2 on what was predicted.

    Parameters
    ----------
    store
        Of the windows.
    split
        Whose training rows scale the MASE.
    predictions
        What `predict` wrote of windows that go on from where test begins.
    targets
        Channels.
    season
        Rows of a season.
    members
        (series,) which series there are; None for all.

    Returns
    -------
    Means over all targets that were observed, those whose scale is 0 or unknown left out of the MASE.

    Raises
    ------
    UsageError
        If a row that Naive2 is made from has no value or is not there, if there is no Naive2, or it makes no error.

    Notes
    -----
    Cost: reads all rows of each series.
    """
    scales = seasonal_errors(store, split, Scaler.identity(targets), season, members)[0]
    symmetric, scaled = [np.zeros(0)], [np.zeros(0)]
    for number, target in enumerate(targets):
        for id_, first, observed in _windows(store, predictions, targets, number):
            seen, position = np.isfinite(observed), store.position(id_)
            if not seen.any():
                continue
            guess = naive2(_history(store, target, position, first), season, len(observed))
            if not np.isfinite(guess).all():
                raise UsageError(
                    f"Naive2 of {id_}, whose {target} has seasonal indices of 0, or none",
                    expected="values above 0, as those of the M4 competition",
                    where=store.path,
                    fix="leave out --owa, or the series by --data.series",
                )
            error, size = np.abs(guess - observed)[seen], (np.abs(guess) + np.abs(observed))[seen]
            symmetric.append(np.divide(200 * error, size, out=np.zeros(len(error)), where=size > 0))
            if scales[position, number] > 0:
                scaled.append(error / scales[position, number])
    errors = [float(each.mean()) if len(each) else 0.0 for each in map(np.concatenate, (symmetric, scaled))]
    if not all(errors):
        raise UsageError("an OWA where Naive2 makes no error", expected="one to divide by", fix="leave out --owa")
    return errors[0], errors[1]


def _windows(store: Store, predictions: Path, targets: list[str], number: int) -> Iterator[tuple[str, int, Float64]]:
    """Id, time of the first target and (horizon,) observed targets of each window and series that was predicted."""
    group: Any = zarr.open_group(str(predictions), mode="r")
    ids, times = group["id"][:], group["time"][:]
    observed: Any = group[observed_variables(target_variables(store, targets))[number]][:].astype(np.float64)
    panel = observed.ndim == 3  # (window, step, series)
    for window, own in enumerate(observed):
        for node, values in enumerate(own.T if panel else [own]):
            yield str(ids[node if panel else window]), int(times[window, 0]), values


def _history(store: Store, target: str, position: int, first: int) -> Float64:
    """(row,) values of a series before a time."""
    start, stop = store.index.row_start[position : position + 2].tolist()
    stop = start + int(np.searchsorted(store.times(start, stop), first))
    values, runs = store.read(target, start, stop).astype(np.float64), store.index.runs
    n_runs = int(np.count_nonzero((runs.series == position) & (runs.start < stop)))
    if not len(values) or np.isnan(values).any() or n_runs > 1:
        lacking = "gaps" if n_runs > 1 else "missing values"
        raise UsageError(
            f"Naive2 of {store.ids[position]}, whose {target} has {lacking} before its forecast",
            expected="a value in each row",
            where=store.path,
            fix="leave out --owa, or the series by --data.series",
        )
    return values
