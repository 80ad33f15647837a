"""How the rows of a stream are cut into pieces and lanes, and how many of them are in memory, for a budget."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from lightning_app.data.rows.streamed import Streamed
from lightning_app.data.windows.plan import OrderPlan, Pieces
from zstore import UsageError

THREADS = 2  # that decode

_MOST_ACTIVE = 64  # pieces beyond these mix little better and cost more borders
_LEAST_SLOTS, _FEW_SLOTS = 3, 8
_EDGES = 8  # edges may take an eighth of the budget
_SCRATCH_SHARE = 4  # what decoding takes is at most a quarter of the budget
_LANES = (8, 4, 2)  # tried in turn, where nobody says how many
_LANE_CHUNKS = 32  # of a lane: fewer, and of all chunks more than 3 % lie on two lanes
_LANE_SLOTS = 3  # of a lane: one waits for its turn, and two are mixed
_LANES_MIX = 0.75  # of the pieces that one lane would mix


@dataclass(frozen=True)
class Ranks:
    """The processes that stream one store.

    Parameters
    ----------
    world
        All of them.
    n_local
        Those of this machine, which share the budget.
    """

    world: int = 1
    n_local: int = 1

    def lanes_each(self, n_lanes: int) -> int:
        """Lanes that each of them has in its pool."""
        return n_lanes // gcd(self.world, n_lanes)

    def copies(self, n_lanes: int) -> int:
        """Lanes that the budget of a machine is divided among: all, if each has one rank, wherever that is."""
        return max(n_lanes, self.n_local * self.lanes_each(n_lanes))


@dataclass(frozen=True)
class PoolPlan:
    """How rows are cut into pieces, and how many of them are in memory.

    Parameters
    ----------
    pieces
        Which pieces there are, and how many of them are mixed: what fixes the order.
    n_slots
        Pieces of a lane in memory: those that are mixed, and those that are being decoded or wait for their turn.
    slot_rows
        Rows of a slot: a piece, and on both sides what windows across its borders need.
    row_bytes
        Bytes of a row.
    n_rings
        Lanes that this process has.
    """

    pieces: Pieces
    n_slots: int
    slot_rows: int
    row_bytes: int
    n_rings: int = 1

    @property
    def n_bytes(self) -> int:
        """Bytes of the slots of this process; edges that wait for the other side of their border come on top."""
        return self.n_rings * self.n_slots * self.slot_rows * self.row_bytes

    @property
    def cuts(self) -> NDArray[np.int64]:
        """(piece + 1,) rows between which pieces lie."""
        return self.pieces.cuts

    @property
    def n_ahead(self) -> int:
        """Pieces of a lane that are being decoded, or wait for their turn; 0 where all rows fit."""
        return self.n_slots - self.pieces.active

    @property
    def n_threads(self) -> int:
        """Threads that decode: of one lane alone, one has nothing to do where there are others."""
        return THREADS if self.pieces.plan.lanes == 1 else min(THREADS, self.n_rings)

    @classmethod
    def fit(
        cls,
        reader: Streamed,
        span: int,
        budget: int,
        order: OrderPlan | None = None,
        ranks: Ranks = Ranks(),  # frozen
        lanes: int | None = None,
    ) -> PoolPlan:
        """The plan for a budget.

        Parameters
        ----------
        reader
            Where rows come from.
        span
            Rows of a window that come from the pool.
        budget
            Bytes of memory for the pool of this process: that of the machine, divided by `ranks.n_local`.
        order
            The order that an earlier process began with, to be kept to whatever the budget; None for a new one.
        ranks
            Who shares the work, and the budget.
        lanes
            Lanes of a new order. Default: eight, or fewer where they would cost too much.

        Raises
        ------
        UsageError
            If not even three pieces, or two of each lane, fit, or not as many as the order mixes.

        Notes
        -----
        Pieces are chunks, or several of them: as many as `budget` allows where that leaves 64 to be mixed, for edges
        (the first and last ``span - 1`` rows of a piece, kept for the windows across a border until its other side
        is there) are the fewer the longer pieces are. Room is kept for all of them; about half wait at a time.
        The plan of a lane does not depend on `ranks` where their number divides that of the lanes.
        """
        if order is None and lanes is None:
            lanes = _lanes(reader, span, budget * ranks.n_local)
        return cls._for(reader, span, budget, order, ranks, order.lanes if order is not None else lanes or 1)

    @classmethod
    def _for(
        cls, reader: Streamed, span: int, budget: int, order: OrderPlan | None, ranks: Ranks, n_lanes: int
    ) -> PoolPlan:
        row_bytes, share = reader.row_bytes, budget * ranks.n_local // ranks.copies(n_lanes)
        n_rings, n_waiting = ranks.lanes_each(n_lanes), THREADS if n_lanes == 1 else 1
        rows = _piece_rows(reader, span, share, row_bytes, n_lanes) if order is None else 0
        cut = order if order is not None else OrderPlan(rows, 1, reader.cut_by, n_lanes)
        pieces = cut.pieces(reader.chunk_starts, reader.n_rows, span, reader.part)
        halo, n_pieces = span - 1, len(pieces.cuts) - 1
        slot_rows = int(np.diff(pieces.cuts).max()) + 2 * halo
        edges = (len(pieces.cuts) + 2 * n_lanes - 2) * halo * row_bytes // n_lanes
        scratch = (THREADS if n_lanes == 1 else 1) * reader.scratch_bytes(slot_rows)
        around = edges + min(scratch, share // _SCRATCH_SHARE)
        most = n_pieces if n_lanes == 1 else min(n_pieces, -(-n_pieces // n_lanes) + 2 + n_waiting)
        n_slots = min(max(share - around, 0) // (slot_rows * row_bytes), most)
        n_least = pieces.active if order is not None else min(_LEAST_SLOTS if n_lanes == 1 else 2, n_pieces)
        if n_slots < n_least:
            held = n_least * slot_rows * row_bytes + edges
            _refuse(reader, budget, held, scratch, n_least, order, ranks, n_lanes)
        if order is not None:
            return cls(pieces, min(n_slots, pieces.active + n_waiting), slot_rows, row_bytes, n_rings)
        n_ahead = 0 if n_slots == n_pieces else n_waiting if n_slots > _LEAST_SLOTS else 1
        active = n_slots - n_ahead
        pieces = replace(pieces, plan=replace(cut, active=active), active=active)
        return cls(pieces, n_slots, slot_rows, row_bytes, n_rings)


def _lanes(reader: Streamed, span: int, budget: int) -> int:
    """Lanes of a new order for the budget of a machine: what they cost must be little, on however many ranks."""
    least = 0.0
    for n_lanes in (1, *_LANES):
        try:
            plan = PoolPlan._for(reader, span, budget, None, Ranks(), n_lanes)
        except UsageError:
            continue
        n_mixed = n_lanes * plan.pieces.active
        if n_lanes == 1:
            least = _LANES_MIX * min(n_mixed, _MOST_ACTIVE)
        elif reader.n_chunks_stored >= n_lanes * _LANE_CHUNKS and n_mixed >= least and plan.n_slots >= _LANE_SLOTS:
            return n_lanes
    return 1


def _piece_rows(reader: Streamed, span: int, share: int, row_bytes: int, n_lanes: int) -> int:
    """Rows of a piece, a chunk or several of them, where each lane has a share of the memory."""
    chunk, n_rows, budget = reader.chunk_rows, reader.n_rows, share * n_lanes
    fitting = min(budget // row_bytes, n_rows) // chunk
    with_few_edges = -(-n_rows * (span - 1) * row_bytes // (chunk * max(budget // _EDGES, 1)))
    around = THREADS
    if n_lanes > 1:  # in each a piece waits, and another one is being decoded
        around = n_lanes + n_lanes * min(reader.scratch_bytes(chunk), chunk * row_bytes) // (chunk * row_bytes)
    wanted = max(fitting // (_MOST_ACTIVE + around), min(with_few_edges, fitting // (_FEW_SLOTS * n_lanes)))
    return max(1, wanted, -(-span // chunk)) * chunk


def _refuse(
    reader: Streamed,
    budget: int,
    held: int,
    scratch: int,
    n_least: int,
    order: OrderPlan | None,
    ranks: Ranks,
    n_lanes: int,
) -> NoReturn:
    """Say which budget `n_least` pieces of a lane need that take `held` bytes, and up to `scratch` to decode them."""
    copies = ranks.copies(n_lanes)
    lane = min(held + scratch, -(-held * _SCRATCH_SHARE // (_SCRATCH_SHARE - 1)) + _SCRATCH_SHARE)
    least = -(-lane * copies // ranks.n_local) * ranks.n_local
    processes = f" on {ranks.n_local} processes" if ranks.n_local > 1 else ""
    what = f"{n_least} pieces" + (f" of each of {n_lanes} lanes" if n_lanes > 1 else "")
    if order is not None:
        what += ", which the epochs of this checkpoint mix"
    remedy = f"--data.memory_budget {least}b"
    if order is None:
        remedy += ", fewer --data.lanes" if n_lanes > 1 else ""
        remedy += ", fewer --data.channels" if reader.channels is not None else ""
    raise UsageError(
        f"memory budget of {_shown(budget * ranks.n_local)} for a stream{processes}",
        expected=f"at least {_shown(least)}, for {what}",
        where=reader.where,
        fix=f"{remedy}, or {reader.instead}",
    )


def _shown(n_bytes: int) -> str:
    """Bytes, and what they come to where that is a tenth of a megabyte or more."""
    return f"{n_bytes / 1e6:,.1f} MB ({n_bytes:,} bytes)" if n_bytes >= 100_000 else f"{n_bytes:,} bytes"
