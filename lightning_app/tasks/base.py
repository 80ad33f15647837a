"""What all tasks share: how wide outputs are, a loss, metrics of a stage, and predictions."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Protocol, cast

from torch import Tensor, device, nn
from torchmetrics import Metric

from lightning_app.batch import Batch, BatchShape, DataOfModels
from zstore import NotFiniteError, UsageError

STAGES = ("val", "test")
Report = dict[str, dict[str, Tensor]]
"""Metrics by group, such as `all` or `by_step`, and by name."""
Role = Literal["location", "spread", "shape"]
"""What an output says of a target. A location moves with the target and its unit, the softplus of a spread scales with
the unit, and a shape stays."""


class Host(Protocol):
    """What a task asks of the model that it belongs to."""

    @property
    def data(self) -> DataOfModels:
        """The data module."""

    @property
    def device(self) -> device:
        """Where weights are."""

    @property
    def trainer(self) -> Any:
        """Lightning's."""

    @property
    def global_step(self) -> int:
        """Steps of the optimizer so far."""

    def share(self, n: Tensor) -> Tensor | float:
        """By what the mean over n targets of a batch counts where several processes train: n over their mean n."""

    def not_finite(self, what: str) -> NotFiniteError:
        """The error of a loss or metric that is not finite."""


class Task(nn.Module):
    """What a model is for. A model gives `n_outputs` numbers for each target row; all that follows is of its task.

    Attributes
    ----------
    monitor, mode
        The metric that early stopping and the best checkpoint go by, and whether less of it is better.
    shown, listed
        Names of metrics, in their order, that the line at the end of a test has, and those of its page.
    also
        Names of further metrics that both have.
    measures_source
        Whether metrics are of source units, so that batches of an evaluation need `y_source`.
    units
        Units of metrics: ``scaled`` or ``source``.
    levels
        Of the quantiles that are predicted; empty without any.
    of_outputs
        Arguments that say what outputs are, though not their number: a checkpoint with others is refused.
    roles
        What each output of one target is; empty where outputs are not numbers of targets one by one.

    Notes
    -----
    A task has no weights. It is made before the data are known; :meth:`suit` is called once when a model is built.
    """

    monitor: ClassVar[str] = "val/loss"
    mode: ClassVar[Literal["min", "max"]] = "min"
    shown: ClassVar[tuple[str, ...]] = ()
    listed: ClassVar[tuple[str, ...]] = ()
    also: tuple[str, ...] = ()
    measures_source: bool = False
    units: Literal["scaled", "source"] = "scaled"
    levels: Sequence[float] = ()
    of_outputs: Sequence[str] = ()
    roles: Sequence[Role] = ()
    shape: BatchShape

    def __init__(self) -> None:
        super().__init__()
        self.metrics = nn.ModuleDict()

    def suit(self, shape: BatchShape) -> None:
        """Make room for what is measured of batches of a shape.

        Raises
        ------
        UsageError
            If batches of that shape have not what the task is about.
        """
        self.shape = shape

    @property
    def n_outputs(self) -> int:
        """Numbers that a model gives for each target row."""
        raise NotImplementedError

    def arguments(self) -> dict[str, Any]:
        """What it was made with, by name: attributes are called as arguments are."""
        named = list(inspect.signature(type(self).__init__).parameters)[1:]
        return {name: getattr(self, name) for name in named}

    @property
    def unit(self) -> str:
        """Of metrics, for reports, such as ``scaled units``; empty where they have none."""
        return ""

    def begin(self, host: Host) -> None:
        """Measure anew: a stage begins, and what there is may be of inference mode."""
        for metric in self.metrics.values():
            cast(Metric, metric).reset()

    def loss_of(self, outputs: Tensor, windows: Batch, host: Host) -> Tensor:
        """What training minimises.

        Processes that train together average their gradients, whatever their parts of a batch hold. So a mean over
        the targets of a part is multiplied by ``host.share`` of their number: then the mean over processes is that of
        the whole batch.

        Parameters
        ----------
        outputs
            (batch, horizon, output).
        windows
            Of single series.
        host
            The model.

        Returns
        -------
        () float32 or float64.
        """
        raise NotImplementedError

    def update(self, stage: str, outputs: Tensor, windows: Batch, host: Host) -> None:
        """Add the outputs of a batch, as for :meth:`loss`, to the metrics of a stage, ``val`` or ``test``."""
        raise NotImplementedError

    def measured(self, stage: str, host: Host) -> Report:
        """The metrics of a stage, which are then reset: those over everything in `all`, and any other groups.

        Raises
        ------
        NotFiniteError
            If what training goes by is not finite.
        """
        raise NotImplementedError

    def mean_of(self, outputs: Tensor) -> Tensor:
        """(batch, horizon, output) what the outputs of several models say together, (model, batch, horizon, output)."""
        return outputs.mean(dim=0)

    def predictions(self, outputs: Tensor, windows: Batch, host: Host) -> Tensor:
        """(batch, horizon, target) float64 in source units: numbers, or classes as the store has them."""
        raise NotImplementedError

    def quantiles(self, outputs: Tensor, windows: Batch, host: Host) -> Tensor | None:
        """(batch, horizon, target, level) float64 quantiles in source units at `levels`; None without any."""
        return None

    def require_ends(self, levels: Sequence[float]) -> None:
        """Raise UsageError unless forecasts have ends that intervals of some levels can be made of."""
        raise UsageError(
            f"intervals of a {type(self).__name__}", expected="a forecast of numbers", fix="drop --intervals.levels"
        )

    def ends(self, outputs: Tensor, levels: Sequence[float]) -> tuple[Tensor, Tensor]:
        """Lower and upper end of what a forecast says by itself, scaled float32, for central intervals of some levels.

        Twice (batch, horizon, target, level), or one for all levels, (batch, horizon, target, 1): of a forecast that is
        one number, both ends are that number.
        """
        raise NotImplementedError

    def probabilities(self, outputs: Tensor) -> Tensor | None:
        """(batch, horizon, class) of each class of each target that is one, in their order; None where none is."""
        return None
