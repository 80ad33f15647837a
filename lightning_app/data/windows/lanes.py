"""Lanes: an epoch dealt into equal shares of its windows, so that ranks decode a part of the store each.

The windows are cut, in the order of their rows, into ranges of equal numbers (by one), the *lanes*. Position ``p`` of
an epoch with ``n`` lanes is position ``p // n`` of lane ``p % n``, which has an order of its own over its pieces. So
every batch has its share of each lane, to one window, whatever its size. Rank ``r`` of ``w`` takes the positions ``p``
with ``p % w == r``. These lie in the lanes ``l`` with ``l % g == r % g``, where ``g`` is the greatest common divisor of
``w`` and ``n``: if ``w`` divides ``n``, those with ``l % w == r``, one part in ``w`` of the store.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import gcd

import numpy as np
from numpy.typing import NDArray

from lightning_app.data.windows.pooled import PooledOrder

Int64 = NDArray[np.int64]

_FAR = 1 << 62  # behind all positions


def lanes_of(rank: int, world: int, n_lanes: int) -> range:
    """The lanes that one of some ranks takes windows of."""
    parts = gcd(world, n_lanes)
    return range(rank % parts, n_lanes, parts)


@dataclass(frozen=True)
class LanedOrder:
    """Which window is at which position of an epoch, and which pieces of which lanes must be there for it.

    Parameters
    ----------
    lanes
        The order of each lane, over the same windows and cuts.
    served
        The lanes whose pieces this process has in its pool.
    """

    lanes: tuple[PooledOrder, ...]
    served: range

    @property
    def halo(self) -> int:
        """Rows of a window beyond its first, wherever it starts."""
        return self.lanes[0].halo

    @property
    def cuts(self) -> Int64:
        """(piece + 1,) rows between which pieces lie."""
        return self.lanes[0].cuts

    def at(self, positions: Int64) -> tuple[Int64, Int64]:
        """Windows at some positions.

        Parameters
        ----------
        positions
            (batch,) ascending.

        Returns
        -------
        ``(samples, entries)``, each (batch,): their numbers, and whose windows they are, see :meth:`slots`.
        """
        n_lanes = len(self.lanes)
        if n_lanes == 1:
            return self.lanes[0].at(positions)
        samples, entries = np.empty_like(positions), np.empty_like(positions)
        places, lane = np.divmod(positions, n_lanes)
        for number, order in enumerate(self.lanes):
            mine = np.flatnonzero(lane == number)
            if len(mine):
                samples[mine], turns = order.at(places[mine])
                entries[mine] = turns * n_lanes + number
        return samples, entries

    def slots(self, entries: Int64, n_slots: int) -> tuple[Int64, Int64]:
        """Where the pieces of some windows are.

        Parameters
        ----------
        entries
            (batch,) as :meth:`at` has them, of lanes that are served.
        n_slots
            Slots of each lane; those of the lanes that are served lie one lane behind another.

        Returns
        -------
        ``(slots, first)``, each (batch,): the slot, and the first row of the piece in it, less :attr:`halo`.
        """
        n_lanes = len(self.lanes)
        turns, lane = np.divmod(entries, n_lanes)
        ring = (lane - self.served.start) // self.served.step
        return ring * n_slots + turns % n_slots, self._first[ring, turns]

    @cached_property
    def _first(self) -> Int64:
        """(ring, turn) the first row of each piece, less the halo."""
        orders = [self.lanes[lane] for lane in self.served]
        first = np.zeros((len(orders), max(len(order.piece) for order in orders)), np.int64)
        for row, order in zip(first, orders, strict=True):
            row[: len(order.piece)] = order.cuts[order.piece] - order.halo
        return first

    def wanted(self, low: int, high: int) -> tuple[list[tuple[int, int, int]], int]:
        """Which pieces the positions ``[low, high)`` need.

        Returns
        -------
        ``(turns, stop)``: of the lanes that are served and have any of these positions, the number among those that
        are served, first and last turn; and up to which position the pieces of the first positions are enough.
        """
        turns, stop = [], _FAR
        for ring, lane in enumerate(self.served):
            order = self.lanes[lane]
            first, last = self._within(low, lane), self._within(high, lane)
            if first < last:
                turns.append((ring, *order.turns_of(first, last)))
                first = order.until(first, 0)
            stop = min(stop, first * len(self.lanes) + lane)
        return turns, stop

    def coming(self, position: int) -> tuple[Int64, Int64]:
        """(piece,) the rows ``[start, stop)`` of the pieces that are read from a position on, lanes in turn."""
        turns, starts, stops = ([np.zeros(0, np.int64)] for _ in range(3))
        for lane in self.served:
            order, place = self.lanes[lane], self._within(position, lane)
            if place < len(order):
                pieces, (start, stop) = order.piece[order.turns_of(place, place + 1)[0] :], order.rows
                turns.append(np.arange(len(pieces)))
                starts.append(np.maximum(order.cuts[pieces], start))
                stops.append(np.minimum(order.cuts[pieces + 1], stop))
        by_turn = np.argsort(np.concatenate(turns), kind="stable")
        return np.concatenate(starts)[by_turn], np.concatenate(stops)[by_turn]

    def until(self, position: int, n_more: int) -> int:
        """The first position that is, in a lane that is served, more than `n_more` steps behind another position."""
        n_lanes, stop = len(self.lanes), _FAR
        for lane in self.served:
            order, place = self.lanes[lane], self._within(position, lane)
            if place < len(order):
                stop = min(stop, order.until(place, n_more) * n_lanes + lane)
        return stop

    def _within(self, position: int, lane: int) -> int:
        """How many positions before one of the epoch are in a lane."""
        return -((lane - position) // len(self.lanes))
