"""The slots of a lane: pieces come into them in the order of an epoch, and each takes the slot of one that is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

from lightning_app.data.rows.streamed import Streamed
from lightning_app.data.windows.pooled import PooledOrder

Begins = Callable[[Callable[[], None]], "Future[None]"]


class Ring:
    """Slots that the pieces of a lane take in turn.

    Parameters
    ----------
    reader
        Where rows come from.
    parts
        (slot row, …) arrays of the slots, as :meth:`Streamed.read` fills them.
    n_slots, slot_rows
        Slots, and rows of each.
    begin
        Does something on a thread.

    Attributes
    ----------
    n_decoded
        Chunks of one channel, or of the widest field where no channel is in it, that were decoded so far.
    """

    def __init__(
        self, reader: Streamed, parts: Sequence[NDArray[np.generic]], n_slots: int, slot_rows: int, begin: Begins
    ) -> None:
        self._reader, self._parts, self._n_slots, self._slot_rows = reader, parts, n_slots, slot_rows
        self._begin = begin
        self._order: PooledOrder | None = None
        self._coming: dict[int, Future[None]] = {}
        self._edges: dict[int, list[NDArray[np.generic]]] = {}
        self._next = self._settled = 0
        self.n_decoded = 0

    def start_at(self, order: PooledOrder | None, turn: int) -> None:
        """Let go of what is there, once nobody writes to it any longer, and go on from a turn of an order."""
        for future in self._coming.values():
            if not future.cancel():
                future.exception()  # waits: nobody else may write to the slots now
        self._coming, self._edges, self._order = {}, {}, order
        self._next = self._settled = turn

    def turn_to(self, order: PooledOrder, first: int) -> None:
        """Give the slots of turns before the first one up to those that come, and begin to decode these."""
        if order is not self._order or first > self._settled:
            self.start_at(order, first)
        ends = min(first + self._n_slots, len(order.piece))
        while self._next < ends:
            turn = self._next
            self._coming[turn] = self._begin(lambda turn=turn: self._decode(order, turn))  # type: ignore[misc]
            self._next += 1

    def settle(self, last: int) -> None:
        """Wait for the pieces up to a turn."""
        order = self._order
        assert order is not None
        while self._settled <= min(last, len(order.piece) - 1):
            self._coming[self._settled].result()
            self._join(order, self._settled)
            del self._coming[self._settled]
            self._settled += 1

    def _slot(self, turn: int) -> int:
        return turn % self._n_slots * self._slot_rows

    def _decode(self, order: PooledOrder, turn: int) -> None:
        piece = int(order.piece[turn])
        start, stop = order.rows_of(piece)
        first = self._slot(turn) + order.halo + start - int(order.cuts[piece])
        self._reader.read(start, [part[first : first + stop - start] for part in self._parts])

    def _join(self, order: PooledOrder, turn: int) -> None:
        """Bring together what windows across the borders of a piece need, as soon as both sides are there."""
        piece, halo, slot = int(order.piece[turn]), order.halo, self._slot(turn)
        self.n_decoded += self._reader.n_chunks(*order.rows_of(piece))
        size = int(order.cuts[piece + 1] - order.cuts[piece])
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
                edge = self._edges.pop(border, None) or self._edge(order, border, before=other < piece)
                for part, kept in zip(self._parts, edge, strict=True):
                    part[slot + outer : slot + outer + len(kept)] = kept

    def _edge(self, order: PooledOrder, border: int, before: bool) -> list[NDArray[np.generic]]:
        """The rows before or behind a border, decoded anew: this epoch was begun in its middle."""
        cut, halo = int(order.cuts[border]), order.halo
        start, stop = (cut - halo, cut) if before else (cut, min(cut + halo, self._reader.n_rows))
        edge = [np.zeros((stop - start, *part.shape[1:]), part.dtype) for part in self._parts]
        self._reader.read(start, edge)
        self.n_decoded += self._reader.n_chunks(start, stop)
        return edge
