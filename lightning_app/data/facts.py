"""What models, commands and pictures ask of the data beside batches."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_app.batch import BatchShape
from lightning_app.data.batches.source import WindowSource
from lightning_app.data.columns.meaning import Meaning
from lightning_app.data.columns.roles import Columns
from lightning_app.data.layout import Layout
from lightning_app.data.rows.pool import Pool
from lightning_app.data.rows.views import View
from lightning_app.data.scales import Scales
from lightning_app.data.scaling.scaler import Scaler
from lightning_app.data.supply import RowSupply
from zstore import Store


class DataFacts:
    """Short names of what a store, its layout, its scales and its rows say."""

    _supply: RowSupply | None

    @property
    @abstractmethod
    def store(self) -> Store:
        """The store."""

    @property
    @abstractmethod
    def layout(self) -> Layout:
        """What the columns of batches are on this store."""

    @property
    @abstractmethod
    def scales(self) -> Scales:
        """What is fitted on the training rows."""

    @property
    @abstractmethod
    def supply(self) -> RowSupply:
        """The decoded rows, open."""

    @property
    def shape(self) -> BatchShape:
        """What models are built from."""
        return self.layout.shape

    @property
    def inputs(self) -> list[str]:
        """Input channels."""
        return self.layout.inputs

    @property
    def targets(self) -> list[str]:
        """Target channels."""
        return self.layout.targets

    @property
    def future(self) -> list[str]:
        """Channels known in advance."""
        return self.layout.future

    @property
    def statics(self) -> list[str]:
        """Static attributes."""
        return self.layout.statics

    @property
    def columns(self) -> list[str]:
        """Channels that rows have, each once."""
        return self.layout.columns

    @property
    def columns_of(self) -> Columns:
        """Which columns of the rows are what."""
        return self.layout.roles

    @property
    def view(self) -> View:
        """Rows by series, or all series of a panel side by side."""
        return self.layout.view

    @property
    def row_bytes(self) -> int:
        """Bytes of a decoded row; of a step in a panel."""
        return self.layout.row_bytes

    @property
    def n_series(self) -> int:
        """Series of the store, which `series` of a batch counts."""
        return self.store.n_series

    @property
    def where(self) -> str:
        """The store, for messages."""
        return self.store.path

    @property
    def infinite_channels(self) -> list[str]:
        """Channels in use that have infinite values somewhere in the store."""
        return [name for name in self.columns if self.store.n_infinite_series(name)]

    @property
    def node_positions(self) -> Tensor:
        """(node, 2) float64 latitude and longitude of the series of the panel.

        Raises
        ------
        UsageError
            If there is no panel, it names no static attributes for them, or one is missing.
        """
        return torch.from_numpy(self.layout.node_positions)

    @property
    def scaler(self) -> Scaler:
        """The scaler of all columns, fitted on the training rows or taken from a checkpoint."""
        return self.scales.scaler

    @property
    def meaning(self) -> Meaning:
        """What the columns of batches mean: as a checkpoint has it, or as this store and split do."""
        return self.scales.meaning

    @property
    def target_std(self) -> Tensor:
        """(series, target) float32 standard deviation of the scaled training targets."""
        return torch.from_numpy(self.scales.target_std)

    @property
    def target_spread(self) -> NDArray[np.float64]:
        """(series, target) standard deviation of the scaled training targets, NaN where it is not known or is 0."""
        return self.scales.target_spread

    @property
    def target_offsets(self) -> NDArray[np.float64]:
        """(series, target) how far 0 of the source (of its logarithm: 1 too) is from the scaled 0, in scaled units."""
        scaler = self.scales.targets
        offsets = (np.abs(scaler.offset) + scaler.log) / scaler.scale
        return np.broadcast_to(offsets, (self.n_series, len(scaler.channels)))

    @property
    def source_std(self) -> Tensor:
        """(series, target) float64 standard deviation of each series' training targets in source units."""
        return torch.from_numpy(self.scales.source_std)

    def seasonal_errors(self, season: int) -> tuple[Tensor, Tensor]:
        """(series, target) float64 mean absolute and mean squared difference of training targets `season` rows apart.

        In source units, NaN if there are none; the scales of MASE and RMSSE. Cost: the first call for a season decodes
        the targets of the training rows.
        """
        absolute, squared = self.scales.seasonal_errors(season)
        return torch.from_numpy(absolute), torch.from_numpy(squared)

    def to_source(self, scaled: Tensor, series: Tensor, floored: bool = False) -> Tensor:
        """Scaled targets, (batch, horizon, target), of some series, (batch,), in source units, float64.

        Forecasts are `floored`: no less than `target_floor`.
        """
        return self.scales.unscaler.to_source(scaled, series, floored)

    def last_inputs(self, names: Sequence[str | None], x: Tensor, series: Tensor) -> Tensor:
        """(batch, target) what some inputs were at the last input row, as targets are scaled; 0 where None is named.

        Parameters
        ----------
        names
            For each target, an input channel, or None.
        x, series
            (batch, lookback, channel) and (batch,) of a batch.

        Raises
        ------
        UsageError
            If one is no input, may be missing, or is clipped or scaled as a logarithm.
        """
        return self.scales.last_inputs(tuple(names)).of(x, series)

    @property
    def source(self) -> WindowSource:
        """The decoded rows, and batches of them; opened on first use."""
        return self.supply.source

    @property
    def pool(self) -> Pool | None:
        """Where rows come and go while they are streamed; None where all are in memory, or none is open."""
        return None if self._supply is None else self._supply.pool
