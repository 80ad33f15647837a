"""A bounded pool of decoded rows: threads decode pieces ahead of use, each about once per epoch."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Lock
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from lightning_app.data.rows.streamed import Streamed
from lightning_app.data.windows.plan import OrderPlan, Pieces
from lightning_app.data.windows.pooled import PooledOrder
from zstore import UsageError

_MOST_ACTIVE = 64  # pieces beyond these mix little better and cost more borders
_LEAST_SLOTS, _FEW_SLOTS = 3, 8
_EDGES = 8  # edges may take an eighth of the budget
_THREADS = 2
_SCRATCH_SHARE = 4  # what decoding takes is at most a quarter of the budget


@dataclass(frozen=True)
class PoolPlan:
    """How rows are cut into pieces, and how many of them are in memory.

    Parameters
    ----------
    pieces
        Which pieces there are, and how many of them are mixed: what fixes the order.
    n_slots
        Pieces in memory: those that are mixed, and those that are being decoded or wait for their turn.
    slot_rows
        Rows of a slot: a piece, and on both sides what windows across its borders need.
    row_bytes
        Bytes of a row.
    """

    pieces: Pieces
    n_slots: int
    slot_rows: int
    row_bytes: int

    @property
    def n_bytes(self) -> int:
        """Bytes of the pool, edges that wait for the other side of their border included."""
        return self.n_slots * self.slot_rows * self.row_bytes

    @property
    def cuts(self) -> NDArray[np.int64]:
        """(piece + 1,) rows between which pieces lie."""
        return self.pieces.cuts

    @property
    def n_ahead(self) -> int:
        """Pieces that are being decoded, or wait for their turn; 0 where all rows fit."""
        return self.n_slots - self.pieces.active

    @classmethod
    def fit(
        cls, reader: Streamed, span: int, budget: int, order: OrderPlan | None = None, n_processes: int = 1
    ) -> PoolPlan:
        """The plan for a budget.

        Parameters
        ----------
        reader
            Where rows come from.
        span
            Rows of a window that come from the pool.
        budget
            Bytes of memory for the pool.
        order
            The order that an earlier process began with, to be kept to whatever the budget; None for a new one.
        n_processes
            Pools of this machine, for messages.

        Raises
        ------
        UsageError
            If not even three pieces fit, or not as many as the order mixes.

        Notes
        -----
        Pieces are chunks, or several of them: as many as `budget` allows where that leaves 64 to be mixed, for edges
        (the first and last ``span - 1`` rows of a piece, kept for the windows across a border until its other side
        is there) are the fewer the longer pieces are. Room is kept for all of them; about half wait at a time.
        """
        row_bytes = reader.row_bytes
        cut = order if order is not None else OrderPlan(_piece_rows(reader, span, budget, row_bytes), 1, reader.cut_by)
        pieces = cut.pieces(reader.chunk_starts, reader.n_rows, span, reader.part)
        cuts, halo = pieces.cuts, span - 1
        n_pieces = len(cuts) - 1
        slot_rows = int(np.diff(cuts).max()) + 2 * halo
        edges, scratch = len(cuts) * halo * row_bytes, _THREADS * reader.scratch_bytes(slot_rows)
        around = edges + min(scratch, budget // _SCRATCH_SHARE)
        n_slots = min(max(budget - around, 0) // (slot_rows * row_bytes), n_pieces)
        n_least = min(_LEAST_SLOTS, n_pieces) if order is None else pieces.active
        if n_slots < n_least:
            _refuse(reader, budget, n_least * slot_rows * row_bytes + edges, scratch, n_least, order, n_processes)
        if order is not None:
            return cls(pieces, min(n_slots, pieces.active + _THREADS), slot_rows, row_bytes)
        n_ahead = 0 if n_slots == n_pieces else _THREADS if n_slots > _LEAST_SLOTS else 1
        active = n_slots - n_ahead
        pieces = replace(pieces, plan=replace(cut, active=active), active=active)
        return cls(pieces, n_slots, slot_rows, row_bytes)


def _piece_rows(reader: Streamed, span: int, budget: int, row_bytes: int) -> int:
    """Rows of a piece: a chunk, or several of them."""
    chunk, n_rows = reader.chunk_rows, reader.n_rows
    fitting = min(budget // row_bytes, n_rows) // chunk
    with_few_edges = -(-n_rows * (span - 1) * row_bytes // (chunk * max(budget // _EDGES, 1)))
    wanted = max(fitting // (_MOST_ACTIVE + _THREADS), min(with_few_edges, fitting // _FEW_SLOTS))
    return max(1, wanted, -(-span // chunk)) * chunk


def _refuse(
    reader: Streamed, budget: int, held: int, scratch: int, n_least: int, order: OrderPlan | None, n_processes: int
) -> NoReturn:
    """Say which budget `n_least` pieces need that take `held` bytes, and up to `scratch` to decode them."""
    least = min(held + scratch, -(-held * _SCRATCH_SHARE // (_SCRATCH_SHARE - 1)) + _SCRATCH_SHARE) * n_processes
    processes = f" on {n_processes} processes" if n_processes > 1 else ""
    what = f"{n_least} pieces" + (", which the epochs of this checkpoint mix" if order is not None else "")
    raise UsageError(
        f"memory budget of {_shown(budget * n_processes)} for a stream{processes}",
        expected=f"at least {_shown(least)}, for {what}",
        where=reader.where,
        fix=f"--data.memory_budget {least}b"
        + (
            f", or {reader.instead}"
            if order is not None or reader.channels is None
            else f", fewer --data.channels, or {reader.instead}"
        ),
    )


def _shown(n_bytes: int) -> str:
    """Bytes, and what they come to where that is a tenth of a megabyte or more."""
    return f"{n_bytes / 1e6:,.1f} MB ({n_bytes:,} bytes)" if n_bytes >= 100_000 else f"{n_bytes:,} bytes"


class Pool:
    """Pieces of decoded rows in a fixed number of slots, in the order of an epoch.

    One pool serves all loaders of a process in turn, so that validation needs no second one: who comes back after
    another starts where it was, with the pieces of that step decoded anew.

    Parameters
    ----------
    reader
        Where rows come from.
    plan
        Slots and pieces.

    Attributes
    ----------
    memory
        The rows of the slots.
    n_decoded
        Chunks of one channel, or of the widest field where no channel is in it, that were decoded so far.
    lock
        To be held from :meth:`hold` until what was asked for has been copied.
    """

    def __init__(self, reader: Streamed, plan: PoolPlan) -> None:
        self.reader, self.plan = reader, plan
        self.memory = reader.memory(plan.n_slots * plan.slot_rows)
        self._parts = self.memory.parts()
        self._threads: ThreadPoolExecutor | None = None
        self._closed = False
        self._order: PooledOrder | None = None
        self._coming: dict[int, Future[None]] = {}
        self._edges: dict[int, list[NDArray[np.generic]]] = {}
        self._next = self._settled = 0
        self.n_decoded = 0
        self.lock = Lock()  # held while a batch is copied: threads of two loaders may want different pieces

    def place(self, order: PooledOrder, rows: NDArray[np.int64], turns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where rows of the pieces of some turns are in :attr:`memory` once these pieces are there."""
        first = self.plan.cuts[order.piece[turns]] - order.halo
        return turns % self.plan.n_slots * self.plan.slot_rows + rows - first

    def hold(self, order: PooledOrder, first: int, last: int) -> None:
        """Have the pieces of the turns ``[first, last]`` in their slots.

        Earlier ones give theirs up to those that come. Turns go forward; each epoch of each loader has its `order`.
        """
        if order is not self._order or first > self._settled:
            self._start_at(order, first)
        ends = min(first + self.plan.n_slots, len(order.piece))
        while self._next < ends:
            self._coming[self._next] = self._begin(order, self._next)
            self._next += 1
        while self._settled <= min(last, len(order.piece) - 1):
            self._coming[self._settled].result()
            self._join(order, self._settled)
            del self._coming[self._settled]
            self._settled += 1

    def close(self) -> None:
        """Stop the threads, once the batch that is being made, if one is, has what it needs.

        Whoever still asks, such as a batch begun before a fit failed, decodes on its own thread: no other starts.
        """
        with self.lock:
            self._closed = True
            self._start_at(None, 0)
            if self._threads is not None:
                self._threads.shutdown()
                self._threads = None

    def _start_at(self, order: PooledOrder | None, turn: int) -> None:
        for future in self._coming.values():
            if not future.cancel():
                future.exception()  # waits: nobody else may write to the slots now
        self._coming, self._edges, self._order = {}, {}, order
        self._next = self._settled = turn
        coming = order.piece[turn:] if order is not None else np.zeros(0, np.int64)
        self.reader.expect(self.plan.cuts[coming], self.plan.cuts[coming + 1])

    def _begin(self, order: PooledOrder, turn: int) -> Future[None]:
        """A piece that is being decoded by the threads or, where these were stopped, has been decoded."""
        if self._closed:
            decoded: Future[None] = Future()
            self._decode(order, turn)
            decoded.set_result(None)
            return decoded
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="decode")
        return self._threads.submit(self._decode, order, turn)

    def _slot(self, turn: int) -> int:
        return turn % self.plan.n_slots * self.plan.slot_rows

    def _decode(self, order: PooledOrder, turn: int) -> None:
        piece = int(order.piece[turn])
        start, stop = int(self.plan.cuts[piece]), int(self.plan.cuts[piece + 1])
        first = self._slot(turn) + order.halo
        self.reader.read(start, [part[first : first + stop - start] for part in self._parts])

    def _join(self, order: PooledOrder, turn: int) -> None:
        """Bring together what windows across the borders of a piece need, as soon as both sides are there."""
        piece, halo, slot = int(order.piece[turn]), order.halo, self._slot(turn)
        start, stop = int(self.plan.cuts[piece]), int(self.plan.cuts[piece + 1])
        self.n_decoded += self.reader.n_chunks(start, stop)
        size = stop - start
        if not halo:
            return
        for border, other, inner, outer in (
            (piece, piece - 1, halo, 0),
            (piece + 1, piece + 1, size, halo + size),
        ):
            turn_of_other = int(order.turn[other]) if 0 <= other < len(order.turn) else -1
            if turn_of_other > turn:
                self._edges[border] = [part[slot + inner : slot + inner + halo].copy() for part in self._parts]
            elif turn_of_other >= 0:
                edge = self._edges.pop(border, None) or self._edge(border, before=other < piece, halo=halo)
                for part, kept in zip(self._parts, edge, strict=True):
                    part[slot + outer : slot + outer + len(kept)] = kept

    def _edge(self, border: int, before: bool, halo: int) -> list[NDArray[np.generic]]:
        """The rows before or behind a border, decoded anew: this epoch was begun in its middle."""
        cut = int(self.plan.cuts[border])
        start, stop = (cut - halo, cut) if before else (cut, min(cut + halo, self.reader.n_rows))
        edge = [np.zeros((stop - start, *part.shape[1:]), part.dtype) for part in self._parts]
        self.reader.read(start, edge)
        self.n_decoded += self.reader.n_chunks(start, stop)
        return edge
