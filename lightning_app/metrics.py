r"""Errors of forecasts, computed online and exactly: sums in float64, added up over batches and processes.

With residuals :math:`r = \hat y - y` over the n observed targets,

.. math::
    \mathrm{MSE} = \frac1n \sum r^2, \quad
    \mathrm{MAE} = \frac1n \sum |r|, \quad
    \mathrm{RMSE} = \sqrt{\mathrm{MSE}}, \quad
    \mathrm{MAPE} = \frac1{n'} \sum \frac{|r|}{|y|}, \quad
    \mathrm{sMAPE} = \frac1n \sum \frac{200 |r|}{|y| + |\hat y|}, \quad
    R^2 = 1 - \frac{\sum r^2}{\sum (y - \bar y)^2}

MAPE and sMAPE are relative to the size of values, and so reported of source units only: scaled values lie around 0.
MAPE is a fraction and leaves out targets that are 0, of which there are n - n'. sMAPE is in percent, from 0 to 200, and
counts 0 where prediction and target are both 0. It and the MASE of
:class:`~lightning_app.scaled_errors.ScaledErrors` are those of the M4 competition (Makridakis, Spiliotis &
Assimakopoulos 2020, "The M4 Competition: 100,000 time series and 61 forecasting methods"). M4 takes the mean over the
targets of a series, then over the series: the same wherever all series have equally many observed targets.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

_SUMS = ("squared", "absolute", "relative", "symmetric")
PERCENTAGES = ("mape", "smape")
"""Errors relative to the size of values, which mean nothing of scaled ones."""

_QUANTILES = {0.5: "median", 0.1: "q10", 0.25: "q25", 0.75: "q75", 0.9: "q90"}


class MaskedErrors(Metric):
    """Errors over all observed targets, and by horizon step and target channel.

    Parameters
    ----------
    horizon, n_targets
        Of what is forecast.

    Notes
    -----
    The result does not depend on how targets are cut into batches or dealt out to processes. Memory: eight numbers for
    each step of each target.
    """

    full_state_update = False
    sums: Tensor
    moments: Tensor

    def __init__(self, horizon: int, n_targets: int) -> None:
        super().__init__()
        shape = (horizon, n_targets)
        self.add_state("sums", torch.zeros(len(_SUMS) + 1, *shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("moments", torch.zeros(3, *shape, dtype=torch.float64), dist_reduce_fx=merge_all)

    def update(self, predicted: Tensor, observed: Tensor, mask: Tensor) -> None:
        """Add a batch; all (batch, horizon, target), `mask` True where the target was observed."""
        truth = torch.where(mask, observed, 0.0).double()
        guess = torch.where(mask, predicted, 0.0).double()
        residual = (guess - truth).abs()
        nonzero = truth != 0
        both = truth.abs() + guess.abs()
        parts = [
            residual.square(),
            residual,
            torch.where(nonzero, residual / truth.abs(), 0.0),
            torch.where(both > 0, 200 * (residual / both), 0.0),
            nonzero.double(),
        ]
        self.sums += torch.stack([part.sum(dim=0) for part in parts])
        self.moments = merge(self.moments, _moments(truth, mask))

    def compute(self) -> dict[str, dict[str, Tensor]]:
        """Each error over everything in `all`, by horizon step in `by_step`, by target channel in `by_target`.

        NaN where nothing was observed.
        """
        return {
            "all": _errors(self.sums.sum(dim=(1, 2)), merge_all(self.moments.flatten(1).T)),
            "by_step": _errors(self.sums.sum(dim=2), merge_all(self.moments.permute(2, 0, 1))),
            "by_target": _errors(self.sums.sum(dim=1), merge_all(self.moments.permute(1, 0, 2))),
        }


def reported(errors: dict[str, dict[str, Tensor]], units: str) -> dict[str, dict[str, Tensor]]:
    """Errors that mean something in ``scaled`` or ``source`` units: percentages of the latter only."""
    if units == "source":
        return errors
    return {
        group: {name: value for name, value in values.items() if name not in PERCENTAGES}
        for group, values in errors.items()
    }


def _moments(values: Tensor, mask: Tensor) -> Tensor:
    """(3, horizon, target) count, mean and M2 of a batch, of values that are 0 where masked.

    Sums are of differences from one of the values, so that M2 is exactly 0 where they are all the same.
    """
    count = mask.sum(dim=0).double()
    pivot = torch.where(count > 0, torch.where(mask, values, -torch.inf).amax(dim=0), 0.0)
    mean = pivot + torch.where(mask, values - pivot, 0.0).sum(dim=0) / count.clamp(min=1)
    deviation = torch.where(mask, values - mean, 0.0)
    return torch.stack([count, mean, deviation.square().sum(dim=0)])


def merge(first: Tensor, second: Tensor) -> Tensor:
    """Moments of the values of both, (3, …) count, mean, M2 (Chan, Golub & LeVeque 1979)."""
    count = first[0] + second[0]
    share = second[0] / count.clamp(min=1)
    delta = second[1] - first[1]
    return torch.stack([count, first[1] + delta * share, first[2] + second[2] + delta.square() * first[0] * share])


def merge_all(parts: Tensor) -> Tensor:
    """Moments of all parts, (part, 3, …)."""
    merged = parts[0]
    for part in parts[1:]:
        merged = merge(merged, part)
    return merged


def _errors(sums: Tensor, moments: Tensor) -> dict[str, Tensor]:
    squared, absolute, relative, symmetric, nonzero = sums
    count, _, m2 = moments
    mse = squared / count
    return {
        "mse": mse,
        "mae": absolute / count,
        "rmse": mse.sqrt(),
        "mape": relative / nonzero,
        "smape": symmetric / count,
        "r2": 1 - squared / m2,
    }


class SeriesScores(Metric):
    r"""How well each series is reproduced, as hydrologists measure it.

    For each series and target, over all its predicted targets, with :math:`s` predicted and :math:`o` observed:

    .. math::
        \mathrm{NSE} &= 1 - \frac{\sum (s - o)^2}{\sum (o - \bar o)^2}
            &&\text{(Nash \& Sutcliffe 1970)} \\
        \mathrm{KGE} &= 1 - \sqrt{(r - 1)^2 + (\sigma_s / \sigma_o - 1)^2 + (\bar s / \bar o - 1)^2}
            &&\text{(Gupta et al. 2009)} \\
        \mathrm{logNSE} &= \mathrm{NSE} \text{ of } \log(\max(s, 0) + \epsilon), \log(\max(o, 0) + \epsilon)
            &&\text{(Krause et al. 2005)} \\
        \mathrm{bias} &= \bar s / \bar o - 1

    where r is Pearson's correlation. All are of values in source units.

    Parameters
    ----------
    n_series, n_targets
        Of the store.
    epsilon
        Added before the logarithm, in source units.
    least
        Targets that a series must have to be counted in :meth:`compute`.

    Notes
    -----
    Online and exact: moments of pairs, merged over batches and processes. Memory: fourteen numbers for each series and
    target. A target that several windows predict counts as often.
    """

    full_state_update = False
    pairs: Tensor
    logs: Tensor

    def __init__(self, n_series: int, n_targets: int, epsilon: float = 0.01, least: int = 2) -> None:
        super().__init__()
        self.epsilon, self.least = epsilon, least
        for name in ("pairs", "logs"):
            zeros = torch.zeros(7, n_series, n_targets, dtype=torch.float64)
            self.add_state(name, zeros, dist_reduce_fx=_merge_all_pairs)

    def update(self, predicted: Tensor, observed: Tensor, mask: Tensor, series: Tensor) -> None:
        """Add a batch: three times (batch, horizon, target) in source units, and (batch,) positions of series."""
        self.pairs = self._added(self.pairs, predicted.double(), observed.double(), mask, series)
        logs = [(values.double().clamp(min=0) + self.epsilon).log() for values in (predicted, observed)]
        self.logs = self._added(self.logs, logs[0], logs[1], mask, series)

    def _added(self, state: Tensor, predicted: Tensor, observed: Tensor, mask: Tensor, series: Tensor) -> Tensor:
        present, place = torch.unique(series, return_inverse=True)
        return state.index_copy(
            1, present, _merge_pairs(state[:, present], _pairs(predicted, observed, mask, place, len(present)))
        )

    def compute(self) -> dict[str, dict[str, Tensor]]:
        """Each score in `by_series`, (series, target), NaN where there is none; and quantiles over them in `all`.

        Those are of finite scores of series that have enough targets: ``nse_median``, ``nse_q10`` and so on.
        """
        scores, found = self._scores(), {}
        for name, values in scores.items():
            mine = values[(self.pairs[0] >= self.least) & values.isfinite()]
            for share, suffix in _QUANTILES.items():
                found[f"{name}_{suffix}"] = mine.quantile(share) if len(mine) else mine.new_tensor(torch.nan)
        return {"all": found, "by_series": scores}

    def _scores(self) -> dict[str, Tensor]:
        count, mean_o, mean_s, m2_o, m2_s, both, squared = self.pairs
        correlation = both / (m2_o * m2_s).sqrt()
        spread, ratio = (m2_s / m2_o).sqrt(), mean_s / mean_o
        kge = 1 - ((correlation - 1).square() + (spread - 1).square() + (ratio - 1).square()).sqrt()
        blank = torch.where(count > 0, 0.0, torch.nan)
        scores = {
            "nse": 1 - squared / m2_o,
            "kge": kge,
            "log_nse": 1 - self.logs[6] / self.logs[3],
            "bias": ratio - 1,
        }
        return {name: values + blank for name, values in scores.items()}


def _pairs(predicted: Tensor, observed: Tensor, mask: Tensor, place: Tensor, n_places: int) -> Tensor:
    """(7, place, target) count, means, M2s, co-moment and squared error of a batch, of o and s.

    Sums are of differences from one of the values, so that an M2 is exactly 0 where they are all the same.
    """
    n_targets = mask.shape[-1]
    flat = place[:, None].expand(mask.shape[:2]).reshape(-1)
    seen = mask.reshape(-1, n_targets)
    truth, guess = (torch.where(mask, values, 0.0).reshape(-1, n_targets) for values in (observed, predicted))

    def added(values: Tensor) -> Tensor:
        return values.new_zeros(n_places, n_targets).index_add_(0, flat, values)

    def mean_of(values: Tensor) -> Tensor:
        pivot = values.new_full((n_places, n_targets), -torch.inf)
        observed = torch.where(seen, values, -torch.inf)
        pivot.scatter_reduce_(0, flat[:, None].expand(-1, n_targets), observed, "amax")
        pivot = torch.where(count > 0, pivot, 0.0)
        return pivot + added(torch.where(seen, values - pivot[flat], 0.0)) / count.clamp(min=1)

    count = added(seen.double())
    mean_o, mean_s = mean_of(truth), mean_of(guess)
    off_o, off_s = (torch.where(seen, v - mean[flat], 0.0) for v, mean in ((truth, mean_o), (guess, mean_s)))
    sums = [added(values) for values in (off_o.square(), off_s.square(), off_o * off_s, (guess - truth).square())]
    return torch.stack([count, mean_o, mean_s, *sums])


def _merge_pairs(first: Tensor, second: Tensor) -> Tensor:
    count = first[0] + second[0]
    share = second[0] / count.clamp(min=1)
    delta_o, delta_s = second[1] - first[1], second[2] - first[2]
    weight = first[0] * share
    return torch.stack(
        [
            count,
            first[1] + delta_o * share,
            first[2] + delta_s * share,
            first[3] + second[3] + delta_o.square() * weight,
            first[4] + second[4] + delta_s.square() * weight,
            first[5] + second[5] + delta_o * delta_s * weight,
            first[6] + second[6],
        ]
    )


def _merge_all_pairs(parts: Tensor) -> Tensor:
    merged = parts[0]
    for part in parts[1:]:
        merged = _merge_pairs(merged, part)
    return merged
