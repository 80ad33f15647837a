r"""Metrics of classes: how often each was taken for each, and curves over all thresholds.

Of the confusion matrix, whose entry :math:`n_{cp}` counts targets of class c that were predicted as p,

.. math::
    \mathrm{accuracy} = \frac{\sum_c n_{cc}}{\sum n}, \quad
    P_c = \frac{n_{cc}}{\sum_k n_{kc}}, \quad
    R_c = \frac{n_{cc}}{\sum_k n_{ck}}, \quad
    F_{1,c} = \frac{2 P_c R_c}{P_c + R_c}

Macro means are over the classes that were observed or predicted. AUROC and average precision are those of each class
against all others, with macro means over the classes that were observed, and not all were; of two classes, those of
the second one.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import binary_auroc, binary_average_precision, binary_roc
from torchmetrics.utilities import dim_zero_cat

from lightning_app.tasks.base import Report

_MOST_POINTS = 4096


class Confusion(Metric):
    """How often each class was predicted as each, and the summed loss of all targets; exact over batches and ranks.

    Parameters
    ----------
    n_classes
        Classes of the target.
    """

    full_state_update = False
    counts: Tensor
    losses: Tensor

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(n_classes, n_classes, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("losses", torch.zeros(2, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, observed: Tensor, losses: Tensor, weights: Tensor) -> None:
        """Add targets: (target,) int64 classes, twice, and (target,) their weighted losses and weights."""
        n_classes = len(self.counts)
        pairs = torch.bincount(observed * n_classes + predicted, minlength=n_classes**2)
        self.counts += pairs.view(n_classes, n_classes)
        self.losses += torch.stack([losses.double().sum(), weights.double().sum()])

    def compute(self) -> Report:
        """`all`, `by_class` and `confusion`, the counts; NaN where nothing was observed."""
        counts = self.counts.double()
        hits, observed, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
        f1 = 2 * hits / (observed + predicted)
        return {
            "all": {
                "loss": self.losses[0] / self.losses[1],
                "accuracy": hits.sum() / counts.sum(),
                "f1": f1.nanmean(),
                "balanced_accuracy": (hits / observed).nanmean(),
            },
            "by_class": {"precision": hits / predicted, "recall": hits / observed, "f1": f1, "n": observed},
            "confusion": {"counts": self.counts.clone()},
        }


class Curves(Metric):
    """AUROC and average precision; exact over batches and ranks, since all probabilities are kept.

    Parameters
    ----------
    n_classes
        Classes of the target.

    Notes
    -----
    Memory: four bytes for each class of each target, and eight for its class.

    Attributes
    ----------
    points
        By class, once computed: (2, point) false and true positive rates at thresholds from high to low, on the CPU; at
        most 4,096 of them.
    """

    full_state_update = False
    probabilities: list[Tensor]
    classes: list[Tensor]

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.points: dict[int, Tensor] = {}
        self.add_state("probabilities", [], dist_reduce_fx="cat")
        self.add_state("classes", [], dist_reduce_fx="cat")
        self._begin()

    def reset(self) -> None:
        """Forget all targets."""
        super().reset()
        self._begin()

    def _begin(self) -> None:
        """Have something to gather on a process that sees no target, too: all must take part."""
        self.probabilities.append(torch.zeros(0, self.n_classes, device=self.device))
        self.classes.append(torch.zeros(0, dtype=torch.int64, device=self.device))

    def update(self, probabilities: Tensor, observed: Tensor) -> None:
        """Add targets: (target, class) float32 and (target,) int64."""
        self.probabilities.append(probabilities)
        self.classes.append(observed)

    def compute(self) -> dict[str, Tensor]:
        """``auroc`` and ``average_precision``; NaN where not two classes were observed."""
        probabilities, classes = dim_zero_cat(self.probabilities), dim_zero_cat(self.classes)
        found: dict[str, list[Tensor]] = {"auroc": [], "average_precision": []}
        self.points = {}
        for number in [1] if self.n_classes == 2 else range(self.n_classes):
            is_it = classes == number
            if bool(is_it.any()) and not bool(is_it.all()):
                found["auroc"].append(binary_auroc(probabilities[:, number], is_it.long()))
                self.points[number] = _thinned(torch.stack(binary_roc(probabilities[:, number], is_it.long())[:2]))
                found["average_precision"].append(binary_average_precision(probabilities[:, number], is_it.long()))
        nan = torch.tensor(torch.nan)
        return {name: torch.stack(each).mean() if each else nan for name, each in found.items()}


def _thinned(points: Tensor) -> Tensor:
    """(2, point) on the CPU, of which no more than can be seen are left."""
    kept = torch.linspace(0, points.shape[1] - 1, min(points.shape[1], _MOST_POINTS)).round().long()
    return points.cpu()[:, kept]
