"""Decoded rows of a layout, open where they live: on the device, on the host, or in a stream."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from lightning_app.data.batches.fields import FieldOptions, FieldRows
from lightning_app.data.batches.located import PositionTimes
from lightning_app.data.batches.source import WindowSource
from lightning_app.data.lasting import lasting
from lightning_app.data.layout import Layout
from lightning_app.data.process import Process
from lightning_app.data.rows.field_rooms import FieldRooms
from lightning_app.data.rows.fields import DecodedField, EncodedField, FieldPlace, FieldValues
from lightning_app.data.rows.pool import Pool
from lightning_app.data.rows.pool_plan import PoolPlan, Ranks
from lightning_app.data.rows.residency import Placement, Rows, choose
from lightning_app.data.rows.streamed import Streamed
from lightning_app.data.scales import Scales
from lightning_app.data.scaling.clip import Clip
from lightning_app.data.scaling.statics import encode_statics
from lightning_app.data.selection import Holes
from lightning_app.data.windows.plan import OrderPlan, WindowPart
from zstore import UsageError, find_holes, local_field, observed_key, open_field

logger = logging.getLogger(__name__)

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
    if not layout.fields:
        return placement
    rooms = rooms_of(layout, placement, process)
    places = {}
    for name, reader in sorted(layout.readers.items(), key=lambda item: item[1].decoded_bytes):
        places[name] = rooms.choose(name, options.fields.get(name, FieldOptions()).residency, reader)
    return replace(placement, fields={name: places[name] for name in layout.fields}, pool=rooms.pool_bytes)


def rooms_of(layout: Layout, placement: Placement, process: Process) -> FieldRooms:
    """The memory that channels leave to fields."""
    options, n_bytes = layout.options, layout.view.n_rows * layout.row_bytes
    return FieldRooms(placement, n_bytes, process.device, options.memory_budget, options.cache, process.n_local)


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
            pool = _pool(scales, placement, process, recorded)
            source = _mapped(scales) if pool is None or pool.memory.rows is None else _pooled(scales, pool)
            if placement.place == "device":
                source = source.to(process.device)
            elif process.device.type != "cpu":
                source = source.delivered_to(process.device)
            source = replace(source, fields=_fields(scales.layout, placement, process, pool))
        return cls(source, pool)

    @property
    def plan(self) -> OrderPlan:
        """Which windows these rows allow to be near each other in an epoch."""
        return OrderPlan() if self.pool is None else self.pool.plan.pieces.plan

    def close(self) -> None:
        """Stop the threads. Files are closed with the last tensor that lies in them."""
        if self.pool is not None:
            self.pool.close()
        for rows in self.source.fields.values():
            rows.values.close()


def streamed_holes(scales: Scales, whole: bool) -> Holes:
    """Stretches of rows without any observed target or, if `whole`, with a missing one, decoded for this."""
    layout = scales.layout
    columns, cache = list(layout.roles.targets), layout.options.row_cache
    return find_holes(layout.view.observed(columns, scales.scaler, cache, whole))


def open_holes(layout: Layout, source: WindowSource, whole: bool) -> Holes:
    """Stretches of rows without any observed target or, if `whole`, with a missing one, of rows all in memory."""
    observed, columns, view = source.rows.observed, list(layout.roles.targets), layout.view
    if observed is None:
        return no_holes()
    by_node = observed.view(view.n_rows, max(view.n_nodes, 1), -1)
    size = max(1, _BLOCK // view.width)
    parts = (by_node[low : low + size, :, columns].flatten(1) for low in range(0, view.n_rows, size))
    return find_holes((part.all(dim=1) if whole else part.any(dim=1)).cpu().numpy() for part in parts)


def no_holes() -> Holes:
    """None at all."""
    return np.zeros(0, np.int64), np.zeros(0, np.int64)


def streamed(scales: Scales, channels: bool, fields: Sequence[str]) -> Streamed:
    """What reads the channels of a layout, some of its fields, or both, piece by piece.

    Raises
    ------
    UsageError
        If there is no such field.
    """
    layout, options = scales.layout, scales.layout.options
    for name in fields:
        if name not in layout.readers:
            raise UsageError(
                f"checkpoint whose epochs mix pieces of field {name!r}",
                expected=f"one of {', '.join(layout.readers) or 'none'}",
                fix="fit again",
            )
    readers = {name: layout.readers[name].with_cache(options.row_cache) for name in fields}
    if channels:
        return Streamed(layout.view.reader(scales.scaler, options.row_cache), readers)
    offsets = [layout.fields[name].steps.offsets(name, layout.window.lookback) for name in fields]
    first, last = min(int(each[0]) for each in offsets), max(int(each[-1]) for each in offsets)
    return Streamed(None, readers, WindowPart(first, last - first + 1))


def _pool(scales: Scales, placement: Placement, process: Process, recorded: OrderPlan | None) -> Pool | None:
    """Where channels and fields that are streamed come and go; None where none is."""
    channels, fields = placement.place == "stream", placement.streamed_fields
    if not channels and not fields:
        return None
    reader = streamed(scales, channels, fields)
    order = recorded if recorded is not None and recorded.streamed else None
    if order is not None and order.fields != reader.cut_by:
        raise UsageError(
            f"checkpoint whose epochs mix pieces of {_mixed(order.fields)}, to go on with those of "
            f"{_mixed(reader.cut_by)}",
            expected="the same pieces, or rows that are all in memory",
            where=scales.layout.store.path,
            fix=f"the residencies that it was fitted with, or {reader.instead}",
        )
    limit = placement.limit if not fields else placement.pool
    n_rows, ranks = n_pooled(scales.layout, reader), Ranks(process.world, process.n_local)
    plan = PoolPlan.fit(reader, n_rows, limit, order, ranks, scales.layout.options.lanes)
    if process.rank == 0:
        _tell(plan, ranks)
    return Pool(reader, plan)


def _tell(plan: PoolPlan, ranks: Ranks) -> None:
    """Say in the log what is mixed and who decodes what."""
    lanes, n_pieces = plan.pieces.plan.lanes, len(plan.cuts) - 1
    parts, mixed = lanes // plan.n_rings, lanes * plan.pieces.active
    logger.info(
        f"stream of {n_pieces:,} pieces, {min(mixed, n_pieces):,} of them mixed"
        + (f" in {lanes} lanes" if lanes > 1 else "")
        + f": a pool of {plan.n_bytes / 1e6:,.1f} MB"
        + (f" in each of {ranks.n_local} processes" if ranks.n_local > 1 else "")
    )
    if ranks.world > parts:
        share = "all of the store" if parts == 1 else f"1/{parts} of the store"
        logger.info(
            f"each of {ranks.world} processes decodes {share}: a fit that begins with --data.lanes {ranks.world}, or a "
            f"multiple of it, decodes 1/{ranks.world} in each"
        )


def n_pooled(layout: Layout, reader: Streamed) -> int:
    """Rows of a window that come from a pool and, behind them, those that jitter may move it by."""
    return layout.reach if reader.part is None else reader.part.n_rows + layout.options.jitter


def _mixed(fields: Sequence[str]) -> str:
    return f"fields {', '.join(fields)}" if fields else "channels"


def _pooled(scales: Scales, pool: Pool) -> WindowSource:
    rows, times = pool.memory.rows, pool.memory.times
    assert rows is not None
    return replace(source_of(scales, rows, None if times is None else PositionTimes(times)), streamed=True)


def _mapped(scales: Scales) -> WindowSource:
    layout, view = scales.layout, scales.layout.view
    rows = view.open(scales.scaler, layout.options.row_cache)
    irregular = not layout.store.time.rule.regular
    times = PositionTimes(torch.from_numpy(view.timed.times(0, view.n_rows))) if irregular else None
    return source_of(scales, rows, times)


def source_of(scales: Scales, rows: Rows, times: PositionTimes | None) -> WindowSource:
    """Batches of some rows, without fields; `times` of each where they are irregular."""
    layout, view = scales.layout, scales.layout.view
    return WindowSource(
        rows,
        layout.roles,
        encode_statics(layout.store, layout.static_meanings, layout.rule),
        layout.may_miss(layout.targets),
        None if view.nodes is None else torch.from_numpy(view.nodes),
        times,
        clip=Clip.of(scales.scaler, layout.roles.inputs),
        clip_vectors={name: Clip.of(scales.scaler, own.columns) for name, own in layout.roles.vectors.items()},
        clip_future=Clip.of(scales.scaler, layout.roles.future),
    )


def _fields(layout: Layout, placement: Placement, process: Process, pool: Pool | None) -> dict[str, FieldRows]:
    """By name, the rows of each field where they are to live."""
    fields = {}
    for name, use in layout.fields.items():
        reader, values = layout.readers[name], _values(layout, name, placement.fields[name], process, pool)
        fields[name] = FieldRows.of(reader, use, values, layout.window.lookback)
        if reader.observed is not None:
            n_lacking = reader.n_rows - int(reader.observed.sum())
            logger.info(
                "field %r has no value in %s of %s rows: batches have zeros there, and %s, which is False",
                name,
                f"{n_lacking:,}",
                f"{reader.n_rows:,}",
                observed_key(name),
            )
    return fields


def _values(layout: Layout, name: str, place: FieldPlace, process: Process, pool: Pool | None) -> FieldValues:
    if place == "stream" and pool is not None:
        return DecodedField(pool.memory.fields[name], pooled=True)
    if place == "encoded":
        return EncodedField(local_field(layout.readers[name], layout.options.row_cache))
    values = DecodedField(torch.from_numpy(open_field(layout.store, name, layout.options.row_cache)))
    return values.to(process.device) if place == "device" else values
