"""Windows ahead of a data module: behind the last known rows, or from where test begins; made once, and batched."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_app.data.ahead.forecast import Ahead, forecast_windows
from lightning_app.data.batches.loader import WindowLoader
from lightning_app.data.lasting import lasting
from lightning_app.data.loaders import Loaders
from lightning_app.data.process import Process
from lightning_app.data.scales import Scales
from lightning_app.data.supply import RowSupply
from lightning_app.data.windows.borders import time_borders
from lightning_app.data.windows.leaks import refuse_trained_at
from lightning_app.data.windows.plan import OrderPlan
from lightning_app.data.windows.splits import NAMES


@dataclass(frozen=True)
class WindowsAhead:
    """Windows whose targets lie ahead of what is known, each made when it is first asked for.

    Parameters
    ----------
    scales
        Those that a model reads rows with.
    process
        Which share of a batch is made here, and for which device.
    """

    scales: Scales
    process: Process

    @cached_property
    def future(self) -> Ahead:
        """Those whose targets are not known yet, as asked for by `predict_from` and the options beside it.

        Raises
        ------
        UsageError
            If no series can be forecast, or a value or time that a model reads is not known.
        """
        return self._made(self.scales.layout.options.predict_from)

    @cached_property
    def test(self) -> Ahead:
        """With `one_forecast`: those that go on from where test begins. Raises as :attr:`future`."""
        layout = self.scales.layout
        since = time_borders(layout.store, layout.options.split)[NAMES.index("test")][0]
        return self._made(np.broadcast_to(since, (layout.store.n_series,)))

    def _made(self, since: str | NDArray[np.int64] | None) -> Ahead:
        asked = self.scales.layout.options
        with lasting():
            found = forecast_windows(self.scales, None, since, asked.future_values, asked.future_gaps)
            return found.to(self.process.device)

    def refuse_trained(self, trained: dict[str, Any]) -> None:
        """Raise UsageError where a model was trained on a target of :attr:`test`; `trained` is what it says of that."""
        layout, times = self.scales.layout, self.test.target_times()
        series = self.test.index.series if layout.nodes is None else layout.nodes
        refuse_trained_at(layout.store, series, times.min(axis=1), times.max(axis=1), "test", trained)

    def loader(self, ahead: Ahead, measured: bool = False, repeats: bool = False) -> WindowLoader:
        """Windows in order, wherever rows of the store live; with targets as stored where these are measured."""
        loaders = Loaders(
            self.scales, RowSupply(ahead.source, None), self.process, OrderPlan(), self.scales.layout.options.batch_size
        )
        return loaders.in_order(ahead.index, ahead if measured else None, repeats)
