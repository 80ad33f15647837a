r"""Naive2, the benchmark that forecast competitions measure others by: the last value, seasonally adjusted.

Where a series is seasonal, its seasonal indices are those of a classical multiplicative decomposition, with trend
:math:`t` the centred moving average over a season of m rows:

.. math::
    s_j = \frac{\bar s_j}{\frac1m \sum_k \bar s_k}, \quad
    \bar s_j = \operatorname{mean}_{i \equiv j} \frac{y_i}{t_i}, \qquad
    \hat y_{n+h} = \frac{y_n}{s_n} \, s_{n+h}

It is seasonal if it has three seasons or more, and its autocorrelation :math:`r_m` is beyond the 90 % limit
:math:`1.645 \sqrt{(1 + 2 \sum_{k<m} r_k^2) / n}`. Makridakis, Spiliotis & Assimakopoulos 2020, "The M4 Competition:
100,000 time series and 61 forecasting methods".

OWA, the overall weighted average of that competition, is the mean of a method's sMAPE and MASE, each over that of
Naive2.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

_LIMIT = 1.645  # of a standard normal, for 90 % on both sides
_SEASONS = 3


def naive2(history: Float64, season: int, horizon: int) -> Float64:
    """(horizon,) forecasts of what follows; not finite where a seasonal index is not, or that of the last row is 0.

    Parameters
    ----------
    history
        (row,) all known values, none missing.
    season
        Rows of a season; 1 for none.
    horizon
        How many.
    """
    if season < 2 or not is_seasonal(history, season):
        return np.full(horizon, history[-1])
    indices, n = seasonal_indices(history, season), len(history)
    with np.errstate(divide="ignore", invalid="ignore"):
        ahead: Float64 = history[-1] / indices[(n - 1) % season] * indices[(n + np.arange(horizon)) % season]
    return ahead


def is_seasonal(history: Float64, season: int) -> bool:
    """Whether the autocorrelation at a season is beyond its 90 % limit."""
    n = len(history)
    if n < _SEASONS * season:
        return False
    centred = history - history.mean()
    variance = float(centred @ centred)
    if variance == 0:
        return False
    lags = np.array([centred[lag:] @ centred[: n - lag] for lag in range(1, season + 1)]) / variance
    limit = _LIMIT * np.sqrt((1 + 2 * np.sum(lags[:-1] ** 2)) / n)
    return bool(abs(lags[-1]) > limit)


def seasonal_indices(history: Float64, season: int) -> Float64:
    """(season,) of the rows 0 to season - 1 and all that are whole seasons later; their mean is 1.

    Rows that are 0 in a trend of 0 say nothing of them, as in R's `decompose`.
    """
    weights = np.full(season + 1 - season % 2, 1.0 / season)
    if season % 2 == 0:
        weights[[0, -1]] /= 2
    half, trend = season // 2, np.convolve(history, weights, "valid")
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = history[half : half + len(trend)] / trend
        place, says = (half + np.arange(len(trend))) % season, ~np.isnan(ratio)
        means = np.bincount(place[says], ratio[says], season) / np.bincount(place[says], minlength=season)
        return np.asarray(means / means.mean())
