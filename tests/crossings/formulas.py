"""Scalers, splits by size, errors and scores, each as its formula stands in the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import numpy as np

from .rules import Array


class InvalidError(Exception):
    """The reference says that this cannot be meant; why."""


def fitted(values: Array, kind: str, floor: float = 0.0) -> tuple[float, float]:
    """Offset and scale of some values; scale 1 where they do not vary and there is no floor."""
    if kind == "none":
        return 0.0, 1.0
    offset, width = _offset_and_width(values, kind) if len(values) else (0.0, 0.0)
    width = max(width, floor)
    return offset, (width / 2 if kind in ("minmax_signed", "quantile") else width) or 1.0


def _offset_and_width(values: Array, kind: str) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    if kind == "quantile":
        low, high = map(float, np.quantile(values, [0.01, 0.99]))
    if kind in ("minmax_signed", "quantile"):
        return (low + high) / 2, high - low
    if kind == "robust":
        first, middle, third = np.quantile(values, [0.25, 0.5, 0.75])
        return float(middle), float(third - first)
    if kind == "minmax":
        return low, high - low
    return (float(values.mean()), float(values.std())) if high > low else (low, 0.0)


def shared(n: int, sizes: Sequence[float]) -> list[int]:
    """How many of n things train, val and test have: fractions rounded down, the rest of the whole to val."""
    shares = [Decimal(str(size)) for size in sizes]
    counts = [int(n * share) for share in shares]
    if sum(shares) == 1:
        counts[1 if shares[1] else 0] += n - sum(counts)
    return counts


def refuse_nothing(counts: Array, sizes: Sequence[float]) -> None:
    """Raise where a fraction is nothing in all of some (group, split) counts."""
    if ((np.array(sizes) > 0) & (counts == 0).all(axis=0)).any():
        raise InvalidError("a fraction of nothing")


def errors(truth: Array, guess: Array, slack: Array, exact: bool) -> dict[str, tuple[float, float]]:
    """Each metric of observed pairs, (n,) each, and how far another may be from it; `exact`: whether truth is exact."""
    n = len(truth)
    if not n:
        return dict.fromkeys(("mse", "mae", "rmse", "mape", "smape", "r2"), (np.nan, 0.0))
    residual, both = np.abs(guess - truth), np.abs(guess) + np.abs(truth)
    mse = float((residual**2).mean())
    spread = float(((truth - truth.mean()) ** 2).sum())
    off_mse = float((2 * residual * slack + slack**2).mean())
    off_spread = float((2 * np.abs(truth - truth.mean()) * slack + slack**2).sum())
    nonzero = truth != 0
    relative = residual[nonzero] / np.abs(truth[nonzero])
    with np.errstate(divide="ignore", invalid="ignore"):
        symmetric = np.where(both > 0, 200 * residual / both, 0.0)
        off_symmetric = np.where(both > 4 * slack, 800 * slack / both, 200.0)
        r2 = 1 - mse * n / spread if spread else np.nan
        off_r2 = off_mse * n / spread + mse * n * off_spread / spread**2 if spread > 10 * off_spread else np.inf
        off_relative = ((1 + relative) * slack[nonzero] / np.abs(truth[nonzero])).mean() if nonzero.any() else 0.0
    unsure = not exact and bool((np.abs(truth) <= 4 * slack).any())
    return {
        "mse": (mse, off_mse),
        "mae": (float(residual.mean()), float(slack.mean())),
        "rmse": (mse**0.5, float(slack.max())),
        "mape": (float(relative.mean()) if nonzero.any() else np.nan, np.inf if unsure else float(off_relative)),
        "smape": (float(symmetric.mean()), float(off_symmetric.mean())),
        "r2": (r2, off_r2),
    }


def scores(truth: Array, guess: Array) -> dict[str, float]:
    """NSE, KGE, log-NSE and bias of one series, (n,) each, in source units; NaN or infinite where there is none."""

    def nse(observed: Array, predicted: Array) -> float:
        spread = ((observed - observed.mean()) ** 2).sum() if np.ptp(observed) else 0.0
        return float(1 - ((predicted - observed) ** 2).sum() / spread)

    with np.errstate(divide="ignore", invalid="ignore"):
        varied = np.ptp(truth) > 0 and np.ptp(guess) > 0
        correlation = np.corrcoef(truth, guess)[0, 1] if varied else np.nan
        ratio = guess.mean() / truth.mean()
        alpha = guess.std() / truth.std() if np.ptp(truth) else np.nan
        logs = [np.log(np.maximum(part, 0) + 0.01) for part in (truth, guess)]
        return {
            "nse": nse(truth, guess),
            "kge": float(1 - np.sqrt((correlation - 1) ** 2 + (alpha - 1) ** 2 + (ratio - 1) ** 2)),
            "log_nse": nse(*logs),
            "bias": float(ratio - 1),
        }
