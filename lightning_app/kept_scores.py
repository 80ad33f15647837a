r"""How good forecasts were: errors, and how sure they said to be, by lead time and by week.

With the error :math:`e = \hat y - y` of a value, and quantiles :math:`q_k` at K levels :math:`p_k`,

.. math::
    \mathrm{MAE} = \overline{|e|}, \quad \mathrm{RMSE} = \sqrt{\overline{e^2}}, \quad \mathrm{bias} = \bar e, \quad
    \mathrm{pinball} = \overline{\tfrac1K \textstyle\sum_k \max(p_k (y - q_k), (p_k - 1)(y - q_k))}, \quad
    \mathrm{CRPS} \approx 2\,\mathrm{pinball}

as in :mod:`lightning_app.quantile_errors`. The coverage of an interval is the share of values within, both ends
included, and its width the mean of upper less lower end. Each is a mean over the values that have it: others may have
been forecast by weights without quantiles or intervals.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_app.quantile_errors import central_pairs

Float64 = NDArray[np.float64]

LOWER, UPPER, QUANTILE = "lower", "upper", "q"
"""What columns of ends and quantiles begin with, such as ``lower80`` and ``q0.1``."""


def measures(error: Float64, truth: Float64, beside: Mapping[str, Float64]) -> dict[str, Float64]:
    """By name of a score, what each value adds to its mean, NaN where it has none.

    Parameters
    ----------
    error
        (value,) forecast less truth.
    truth
        (value,).
    beside
        By column, such as ``q0.1`` or ``lower80``, (value,) numbers in the units of the truth, NaN where there is none.
    """
    found = {"mae": np.abs(error), "rmse": error**2, "bias": error}
    levels = sorted(float(name[len(QUANTILE) :]) for name in beside if name.startswith(QUANTILE))
    if levels:
        quantiles = np.stack([beside[f"{QUANTILE}{level:g}"] for level in levels], axis=-1)
        above = truth[:, None] - quantiles
        losses = np.maximum(np.array(levels) * above, (np.array(levels) - 1) * above)
        n_levels = (~np.isnan(losses)).sum(axis=-1)
        with np.errstate(invalid="ignore"):
            found["pinball"] = np.nansum(losses, axis=-1) / n_levels
        found["crps"] = 2 * found["pinball"]
        for name, (low, high) in central_pairs(levels).items():
            found |= _interval(f"_{name}", truth, quantiles[:, low], quantiles[:, high])
    shares = sorted((name[len(LOWER) :] for name in beside if name.startswith(LOWER)), key=float)
    for share in shares:
        ends = (beside[f"{end}{share}"] for end in (LOWER, UPPER))
        found |= {f"interval_{name}": value for name, value in _interval(f"_{share}", truth, *ends).items()}
    return found


def _interval(name: str, truth: Float64, low: Float64, high: Float64) -> dict[str, Float64]:
    """Whether an interval holds the truth, and how wide it is."""
    width = high - low
    inside = np.where(np.isnan(width), np.nan, (low <= truth) & (truth <= high))
    return {f"coverage{name}": inside, f"width{name}": width}


def scored(each: Mapping[str, Float64], which: NDArray[np.bool_] | None = None) -> dict[str, Any]:
    """The scores of some values: `n` of them and the mean of each, None where no value has it.

    Where some have quantiles or intervals, `n_quantiles` and `n_intervals` say how many.
    """
    chosen = {name: values if which is None else values[which] for name, values in each.items()}
    found: dict[str, Any] = {"n": len(chosen["mae"])}
    for name, values in chosen.items():
        seen = values[~np.isnan(values)]
        found[name] = float(np.mean(seen)) if len(seen) else None
    if found["rmse"] is not None:
        found["rmse"] = float(np.sqrt(found["rmse"]))
    for kind, begin in (("n_quantiles", "pinball"), ("n_intervals", "interval_coverage")):
        parts = [~np.isnan(values) for name, values in chosen.items() if name.startswith(begin)]
        if parts:
            found[kind] = int(np.any(parts, axis=0).sum())
    return found
