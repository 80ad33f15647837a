"""Errors over those that repeating the last season had in training, exact over batches and processes: MASE, RMSSE."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class ScaledErrors(Metric):
    r"""MASE, the mean absolute scaled error: that of the forecast over that of a seasonal naive forecast in training.

    .. math::
        \mathrm{MASE} = \frac1n \sum \frac{|\hat y - y|}{q_s}, \quad
        q_s = \frac{1}{|T_s|} \sum_{t \in T_s} |y_t - y_{t-m}|

    where s is the series of a target, m the season, and :math:`T_s` the training rows of the series that were observed,
    as was the row a season before (Hyndman & Koehler 2006; Makridakis et al. 2020). Below 1, a forecast is better than
    the naive one was in training.

    Parameters
    ----------
    horizon, n_targets
        Of what is forecast.

    Notes
    -----
    Targets whose :math:`q_s` is 0 or unknown are left out. Memory: two numbers for each step
    of each target.
    """

    full_state_update = False
    sums: Tensor
    left_out: Tensor

    def __init__(self, horizon: int, n_targets: int) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(2, horizon, n_targets, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("left_out", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, observed: Tensor, mask: Tensor, scale: Tensor) -> None:
        """Add a batch: three times (batch, horizon, target) in source units, and (batch, target) of :math:`q_s`."""
        scale = scale.double()[:, None]
        counted = mask & (scale > 0)  # nor NaN
        residual = torch.where(counted, predicted.double() - observed.double(), 0.0).abs()
        scaled = torch.where(counted, residual / scale, 0.0)
        self.sums += torch.stack([scaled.sum(dim=0), counted.double().sum(dim=0)])
        self.left_out += (mask & ~counted).sum()

    def compute(self) -> dict[str, dict[str, Tensor]]:
        """The MASE over everything in `all`, by horizon step in `by_step`, by target channel in `by_target`.

        NaN where no target is counted. `all` also has ``mase_left_out``, the number of targets left out.
        """
        grouped = {"all": self.sums.sum(dim=(1, 2)), "by_step": self.sums.sum(dim=2), "by_target": self.sums.sum(dim=1)}
        errors = {name: {"mase": scaled / count} for name, (scaled, count) in grouped.items()}
        errors["all"]["mase_left_out"] = self.left_out.double()
        return errors


class RootScaledErrors(Metric):
    r"""RMSSE, the root mean squared scaled error of each series, and its mean over them.

    .. math::
        \mathrm{RMSSE}_s = \sqrt{\frac{\frac1{n_s} \sum (\hat y - y)^2}{q_s}}, \quad
        q_s = \frac{1}{|T_s|} \sum_{t \in T_s} (y_t - y_{t-m})^2

    with s, m and :math:`T_s` as for :class:`ScaledErrors`. With m = 1 and one window a series it is that of the M5
    competition (M5 Participants' Guide 2020; Makridakis, Spiliotis & Assimakopoulos 2022, "M5 accuracy competition"),
    but that all rows of training count, also those before the first one above 0; M5 then weighs series by their sales.

    Parameters
    ----------
    n_series
        Of the store.
    horizon, n_targets
        Of what is forecast.

    Notes
    -----
    A series and a target whose :math:`q_s` is 0 or unknown is left out. Memory: two numbers for each step of each
    series and target.
    """

    full_state_update = False
    sums: Tensor

    def __init__(self, n_series: int, horizon: int, n_targets: int) -> None:
        super().__init__()
        zeros = torch.zeros(2, n_series, horizon, n_targets, dtype=torch.float64)
        self.add_state("sums", zeros, dist_reduce_fx="sum")

    def update(self, predicted: Tensor, observed: Tensor, mask: Tensor, scale: Tensor, series: Tensor) -> None:
        """Add a batch.

        Parameters
        ----------
        predicted, observed, mask
            (batch, horizon, target) in source units; `mask` True where the target was observed.
        scale
            (batch, target) of :math:`q_s`.
        series
            (batch,) positions of series.
        """
        scale = scale.double()[:, None]
        counted = mask & (scale > 0)  # nor NaN
        squared = torch.where(counted, predicted.double() - observed.double(), 0.0).square()
        parts = torch.where(counted, squared / scale, 0.0), counted.double()
        for kept, part in zip(self.sums, parts, strict=True):
            kept.index_add_(0, series, part)

    def compute(self) -> dict[str, dict[str, Tensor]]:
        """``rmsse``: the mean over series and targets in `all`, over series by step and by target in the others.

        In `by_step` it is of the errors at that step alone. NaN where no target is counted.
        """
        whole = self.sums.sum(dim=2)
        return {
            "all": {"rmsse": _mean_of_roots(whole, (0, 1))},
            "by_step": {"rmsse": _mean_of_roots(self.sums, (0, 2))},
            "by_target": {"rmsse": _mean_of_roots(whole, (0,))},
        }


def _mean_of_roots(sums: Tensor, dims: tuple[int, ...]) -> Tensor:
    """The mean of the roots of mean squares, (2, …) sums and counts, over those that have any."""
    squares, count = sums
    return torch.where(count > 0, squares / count, torch.nan).sqrt().nanmean(dim=dims)
