"""Decoded rows of a layout, open where they live: on the device, on the host, or in a stream."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from lightning_app.data.batches.fields import FieldOptions, FieldRows, refuse_fields
from lightning_app.data.batches.located import PositionTimes
from lightning_app.data.batches.source import WindowSource
from lightning_app.data.lasting import lasting
from lightning_app.data.layout import Layout
from lightning_app.data.process import Process
from lightning_app.data.rows.fields import DecodedField, FieldValues
from lightning_app.data.rows.pool import Pool, PoolPlan
from lightning_app.data.rows.residency import Placement, Rows, choose, choose_field
from lightning_app.data.scales import Scales
from lightning_app.data.scaling.clip import Clip
from lightning_app.data.scaling.statics import encode_statics
from lightning_app.data.selection import Holes
from lightning_app.data.windows.plan import OrderPlan
from zstore import find_holes, open_field

_BLOCK = 1 << 22  # values that are looked at together


def place(layout: Layout, process: Process) -> Placement:
    """Where the rows of a layout, and those of its fields, are to live; says so, and why, in the log."""
    options, view = layout.options, layout.view
    placement = choose(
        options.residency,
        view.n_rows,
        layout.row_bytes,
        process.device,
        options.memory_budget,
        options.cache,
        process.n_local,
    )
    if placement.place == "stream":
        refuse_fields(layout.fields, "beside channels that do not fit into memory", "host", "--data.residency host")
    taken, places = {placement.place: view.n_rows * layout.row_bytes}, {}
    for name in layout.fields:
        wanted = options.fields.get(name, FieldOptions()).residency
        n_bytes = view.n_rows * layout.store.field(name).row_bytes
        place = choose_field(name, wanted, n_bytes, process.device, options.memory_budget, taken)
        places[name], taken[place] = place, taken.get(place, 0) + n_bytes
    return replace(placement, fields=places)


@dataclass(frozen=True)
class RowSupply:
    """Rows that are open.

    Parameters
    ----------
    source
        The rows, and batches of them.
    pool
        Where they come and go, if they are streamed; else None.
    """

    source: WindowSource
    pool: Pool | None

    @classmethod
    def open(
        cls, scales: Scales, placement: Placement, process: Process, recorded: OrderPlan | None = None
    ) -> RowSupply:
        """Open the rows of a layout, decoding them first where that was never done.

        Parameters
        ----------
        scales
            The layout, and how its rows are scaled.
        placement
            Where they are to live.
        process
            Which device they are for.
        recorded
            The order of the checkpoint that a fit goes on from, which a stream must keep to; None for a new one.
        """
        with lasting():
            pool = _pool(scales, placement, process, recorded) if placement.place == "stream" else None
            source = _mapped(scales) if pool is None else _pooled(scales, pool)
            if placement.place == "device":
                source = source.to(process.device)
            elif process.device.type != "cpu":
                source = source.delivered_to(process.device)
            source = replace(source, fields=_fields(scales.layout, placement, process))
        return cls(source, pool)

    @property
    def plan(self) -> OrderPlan:
        """Which windows these rows allow to be near each other in an epoch."""
        return OrderPlan() if self.pool is None else self.pool.plan.pieces.plan

    def close(self) -> None:
        """Stop the threads. Files are closed with the last tensor that lies in them."""
        if self.pool is not None:
            self.pool.close()


def streamed_holes(scales: Scales) -> Holes:
    """Stretches of rows without any observed target, decoded for this."""
    layout = scales.layout
    columns, cache = list(layout.roles.targets), layout.options.row_cache
    return find_holes(layout.view.observed(columns, scales.scaler, cache))


def open_holes(layout: Layout, source: WindowSource) -> Holes:
    """Stretches of rows without any observed target, of rows that are all in memory."""
    observed, columns, view = source.rows.observed, list(layout.roles.targets), layout.view
    if observed is None:
        return no_holes()
    by_node = observed.view(view.n_rows, max(view.n_nodes, 1), -1)
    size = max(1, _BLOCK // view.width)
    parts = (by_node[low : low + size, :, columns] for low in range(0, view.n_rows, size))
    return find_holes(part.flatten(1).any(dim=1).cpu().numpy() for part in parts)


def no_holes() -> Holes:
    """None at all."""
    return np.zeros(0, np.int64), np.zeros(0, np.int64)


def _pool(scales: Scales, placement: Placement, process: Process, recorded: OrderPlan | None) -> Pool:
    layout = scales.layout
    reader = layout.view.reader(scales.scaler, layout.options.row_cache)
    order = recorded if recorded is not None and recorded.streamed else None
    span = layout.reach
    return Pool(reader, PoolPlan.fit(reader, span, placement.limit, order, process.n_local))


def _pooled(scales: Scales, pool: Pool) -> WindowSource:
    return _source(scales, pool.rows, None if pool.times is None else PositionTimes(pool.times))


def _mapped(scales: Scales) -> WindowSource:
    layout, view = scales.layout, scales.layout.view
    rows = view.open(scales.scaler, layout.options.row_cache)
    irregular = not layout.store.time.rule.regular
    times = PositionTimes(torch.from_numpy(view.timed.times(0, view.n_rows))) if irregular else None
    return _source(scales, rows, times)


def _source(scales: Scales, rows: Rows, times: PositionTimes | None) -> WindowSource:
    layout, view = scales.layout, scales.layout.view
    return WindowSource(
        rows,
        layout.roles,
        encode_statics(layout.store, layout.static_meanings, layout.rule),
        layout.may_miss(layout.targets),
        None if view.nodes is None else torch.from_numpy(view.nodes),
        times,
        clip=Clip.of(scales.scaler, layout.roles.inputs),
        clip_future=Clip.of(scales.scaler, layout.roles.future),
    )


def _fields(layout: Layout, placement: Placement, process: Process) -> dict[str, FieldRows]:
    """By name, the rows of each field where they are to live."""
    lookback, found = layout.window.lookback, {}
    for name, use in layout.fields.items():
        found[name] = FieldRows.of(name, use, _values(layout, name, placement, process), lookback)
    return found


def _values(layout: Layout, name: str, placement: Placement, process: Process) -> FieldValues:
    values = DecodedField(torch.from_numpy(open_field(layout.store, name, layout.options.row_cache)))
    return values.to(process.device) if placement.fields[name] == "device" else values
