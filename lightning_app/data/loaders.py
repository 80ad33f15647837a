"""The loaders of a process, over rows that are open."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lightning_app.data.batches.loader import WindowLoader
from lightning_app.data.process import Process
from lightning_app.data.rows.observed import ReadsTargets
from lightning_app.data.scales import Scales
from lightning_app.data.supply import RowSupply, n_pooled, streamed
from lightning_app.data.windows.crops import Crops
from lightning_app.data.windows.jitter import Jitter
from lightning_app.data.windows.plan import EpochOrder, OrderPlan, Pieces, digest
from zstore import WindowIndex

_PREFETCH = 2
_ROWS = 1 << 14  # of a batch of single rows


@dataclass(frozen=True)
class Loaders:
    """Loaders of windows, in order or mixed.

    Parameters
    ----------
    scales
        The layout, and how its rows are scaled.
    supply
        Its rows.
    process
        Which share of a batch is made here, and for which device.
    plan
        Which windows an epoch mixes: as a checkpoint has it, or as the rows allow.
    batch_size
        Windows of a global batch: what was asked for, or what Lightning's batch size finder tries.
    """

    scales: Scales
    supply: RowSupply
    process: Process
    plan: OrderPlan
    batch_size: int

    def in_order(
        self, index: WindowIndex, measured: bool | ReadsTargets | None = False, repeats: bool = False
    ) -> WindowLoader:
        """Each window once, in order; with targets as they are stored where errors are measured in source units.

        Parameters
        ----------
        index
            The windows.
        measured
            Whether errors are; or what reads the targets then, where these are none of the store's rows.
        repeats
            Whether processes beyond the windows read the window of another one, for forecasts, which nobody counts.
        """
        layout, options, process = self.scales.layout, self.scales.layout.options, self.process
        targets = measured or None
        if targets is True:
            targets = layout.view.observed_targets(self.scales.targets, layout.window.target_rows, options.row_cache)
        return WindowLoader(
            self.supply.source,
            index,
            self.batch_size,
            seed=options.seed,
            rank=process.rank,
            world=process.world,
            epoch=process.epoch,
            pool=self.supply.pool,
            prefetch=self._prefetch,
            targets=targets,
            same_order=process.same_order,
            apart=self.supply.pool is not None and process.evaluates_all,
            repeats=repeats,
        )

    def mixed(self, index: WindowIndex, jitter: Jitter | None = None) -> WindowLoader:
        """Windows shuffled, and moved and cropped where that is asked for, anew in each epoch."""
        layout, process, pieces = self.scales.layout, self.process, self._pieces
        options, store = layout.options, layout.store
        plan = OrderPlan() if pieces is None else pieces.plan
        source = self.supply.source
        if options.whole_targets:  # of which none is missing in these windows: no mask is to be gathered
            source = replace(source, masked=False)

        def describe(batch_size: int) -> EpochOrder:
            windows = digest(index, store, layout.nodes, pieces)
            if jitter is not None:
                windows += f" {jitter.n_rows} {digest(jitter.index, store, layout.nodes, pieces)}"
            return EpochOrder(windows, len(index), batch_size, options.seed, plan, store.version, str(store.path))

        return WindowLoader(
            source,
            index,
            self.batch_size,
            shuffle=True,
            seed=options.seed,
            rank=process.rank,
            world=process.world,
            epoch=process.epoch,
            pool=self.supply.pool,
            prefetch=self._prefetch,
            pieces=pieces,
            describe=describe,
            same_order=process.same_order,
            n_taken=process.n_batches,
            jitter=jitter,
            crops=Crops({name: use.room for name, use in layout.fields.items() if use.room}),
            beside_model=process.trains,
        )

    def of_rows(self, index: WindowIndex) -> WindowLoader:
        """Windows of one row in order, many at once, without fields; all of them on every process."""
        size = max(1, _ROWS // max(self.scales.layout.view.n_nodes, 1))
        source, pool = replace(self.supply.source, fields={}), self.supply.pool
        return WindowLoader(source, index, size, pool=pool if source.streamed else None)

    @property
    def _prefetch(self) -> int:
        """Batches made ahead: where they are copied to another device."""
        source = self.supply.source
        devices = [source.device, *(rows.values.device for rows in source.fields.values())]
        return _PREFETCH if any(device != source.target for device in devices) else 0

    @property
    def _pieces(self) -> Pieces | None:
        """The pieces that training windows are mixed over; None where all windows are mixed."""
        if self.supply.pool is not None:
            return self.supply.pool.plan.pieces
        if not self.plan.streamed:
            return None
        fields, layout = self.plan.fields, self.scales.layout
        reader = streamed(self.scales, not fields, fields)
        return self.plan.pieces(reader.chunk_starts, reader.n_rows, n_pooled(layout, reader), reader.part)
