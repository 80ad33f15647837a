"""The order of an epoch whose rows do not fit into memory: windows at random over a pool of pieces.

Rows are cut into *pieces* that are decoded as a whole. Each epoch brings them into the pool in an order of its own; the
number of a piece in that order is its *turn*. An epoch goes in *steps*, each of which shuffles what its pieces give. In
the steps of its middle each of the `active` pieces of the pool gives an equal share of its windows, picked at random;
then the first piece is done, and the next one comes. So that pieces are done one after another, the first step takes a
lot of the first pieces and little of the later ones; the last step takes whatever is left. Each piece is decoded once,
`active` of them are mixed at any time, and where everything lies is arithmetic on (seed, epoch, position).

A window that crosses the border of two pieces belongs to the one whose turn is later. That one has the rows it needs
of the other beside its own.

An epoch with lanes, see :mod:`lightning_app.data.windows.lanes`, has such an order for each of them, over its share of
the windows.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lightning_app.data.windows.order import shuffled
from zstore import WindowIndex

Int64 = NDArray[np.int64]

_PIECES, _STEPS, _WINDOWS = 1, 2, 3  # further keys: permutations of one epoch must not be alike


@dataclass(frozen=True)
class PooledOrder:
    """Which window is at which position of an epoch, and which pieces must be there for it.

    Parameters
    ----------
    index
        The windows.
    cuts
        (piece + 1,) rows between which the pieces lie, each at least as long as a window but for its last row.
    active
        Pieces that are mixed. 1 without shuffling.
    shuffle
        Whether to shuffle; else windows come in their order.
    seed, epoch
        Key of the order.
    jitter
        Rows that a window may start later than its own first row.
    lane, n_lanes
        Which of how many equal shares of the windows this order has.
    """

    index: WindowIndex
    cuts: Int64
    active: int
    shuffle: bool
    seed: int
    epoch: int
    jitter: int = 0
    lane: int = 0
    n_lanes: int = 1

    @cached_property
    def bounds(self) -> tuple[int, int]:
        """The windows ``[first, last)`` that this order has."""
        whole, rest = divmod(len(self.index), self.n_lanes)
        first, last = (whole * lane + min(lane, rest) for lane in (self.lane, self.lane + 1))
        return first, last

    @cached_property
    def _n_windows(self) -> int:
        first, last = self.bounds
        return last - first

    def __len__(self) -> int:
        return self._n_windows

    @cached_property
    def rows(self) -> tuple[int, int]:
        """The rows ``[start, stop)`` that are read of pieces: up to those that other lanes alone need."""
        (first, last), start, stop = self.bounds, int(self.cuts[0]), int(self.cuts[-1])
        if first < last:
            low, high = self.index.locate(np.array([first, last - 1]))[0].tolist()
            start = max(start, low) if self.lane else start
            stop = min(stop, high + self.halo + 1) if self.lane < self.n_lanes - 1 else stop
        return start, stop

    def rows_of(self, piece: int) -> tuple[int, int]:
        """The rows ``[start, stop)`` that are read of a piece."""
        start, stop = self.rows
        return max(int(self.cuts[piece]), start), min(int(self.cuts[piece + 1]), stop)

    def _rank(self, rows: Int64) -> Int64:
        """How many windows of the store start before each of some rows, as far as they are of this order."""
        return np.clip(self.index.rank(rows), *self.bounds)

    @property
    def halo(self) -> int:
        """Rows of a window beyond its first, wherever it starts."""
        return self.index.shape.span - 1 + self.jitter

    @cached_property
    def piece(self) -> Int64:
        """(turn,) which piece comes at each turn: all that have windows."""
        before = self._rank(self.cuts[:-1] - self.halo)  # padded windows start before the first row
        there = np.flatnonzero(self._rank(self.cuts[1:]) > before)
        if not self.shuffle:
            return there
        return there[shuffled(np.arange(len(there)), len(there), self.seed, self._key(_PIECES))]

    @cached_property
    def turn(self) -> Int64:
        """(piece,) when each comes; -1 for those that do not."""
        turns = np.full(len(self.cuts) - 1, -1)
        turns[self.piece] = np.arange(len(self.piece))
        return turns

    @cached_property
    def _owned(self) -> tuple[Int64, Int64]:
        """(turn,) first window of each piece, and how many."""
        piece, turns = self.piece, np.concatenate([[-1], self.turn, [-1]])
        own = turns[piece + 1]
        left, right = turns[piece], turns[piece + 2]
        low = np.where((piece == 0) | ((left >= 0) & (left < own)), self.cuts[piece] - self.halo, self.cuts[piece])
        high = np.where(right > own, self.cuts[piece + 1] - self.halo, self.cuts[piece + 1])
        first = self._rank(low)
        return first, self._rank(high) - first

    @cached_property
    def _last_first(self) -> int:
        """The first turn in the pool in the last step."""
        return max(len(self.piece) - self.active, 0)

    @cached_property
    def steps(self) -> Int64:
        """(step + 1,) first position of each step."""
        step = np.arange(self._last_first + 2)
        sizes = np.zeros(len(step), np.int64)
        for ahead in range(min(self.active, len(self.piece))):
            begin, end = self._share(self._first_turn(step) + ahead, step)
            sizes += end - begin
        return np.concatenate([[0], np.cumsum(sizes)])

    def _first_turn(self, step: Int64) -> Int64:
        """The pieces of a step are those of the turns ``[first, first + active)``."""
        return np.clip(step - 1, 0, self._last_first)

    def _share(self, turn: Int64, step: Int64) -> tuple[Int64, Int64]:
        """Which of its windows, in its own order, the piece of a turn gives to a step."""
        n_windows, active, last = self._owned[1][turn], self.active, self._last_first
        # After step k a piece has given (active - 1 - turn + k) of its `active` shares, and all after the last one.
        given = np.clip(active - 1 - turn + step, 0, active)
        before = np.where(step > 0, np.clip(active - 2 - turn + step, 0, active), 0)
        if not last:  # all pieces fit: there is but one step
            given, before = np.zeros_like(given), np.zeros_like(before)
        return n_windows * before // active, np.where(step > last, n_windows, n_windows * given // active)

    @cached_property
    def _ends(self) -> list[int]:
        return self.steps.tolist()  # type: ignore[no-any-return]

    def step_of(self, position: int) -> int:
        """The step of a position."""
        return bisect_right(self._ends, position) - 1

    def turns_of(self, low: int, high: int) -> tuple[int, int]:
        """First and last turn whose pieces the positions ``[low, high)`` may need."""
        first = last = self.step_of(low)
        if high > self._ends[first + 1]:
            last = self.step_of(high - 1)
        final = self._last_first
        return min(max(first - 1, 0), final), min(max(last - 1, 0), final) + self.active - 1

    def until(self, position: int, n_more: int) -> int:
        """The first position that is more than `n_more` steps behind the step of another."""
        ends = self._ends
        return ends[min(bisect_right(ends, position) + n_more, len(ends) - 1)]

    def at(self, positions: Int64) -> tuple[Int64, Int64]:
        """Windows at some positions.

        Parameters
        ----------
        positions
            (batch,) ascending.

        Returns
        -------
        ``(samples, turns)``, each (batch,): their numbers, and whose windows they are.
        """
        step = np.searchsorted(self.steps, positions, side="right") - 1
        if not len(step):
            return step, step
        # All shares of all steps touched, one after another: where each ends is a position, too.
        steps = np.arange(step[0], step[-1] + 1)
        share_step = np.repeat(steps, self.active)
        share_turn = np.repeat(self._first_turn(steps), self.active) + np.tile(np.arange(self.active), len(steps))
        there = share_turn < len(self.piece)
        share_step, share_turn = share_step[there], share_turn[there]
        begin, end = self._share(share_turn, share_step)
        ends = np.cumsum(end - begin) + self.steps[step[0]]
        if self.shuffle:
            first = self.steps[step]
            positions = first + shuffled(
                positions - first, self.steps[step + 1] - first, self.seed, self._key(_STEPS), step
            )
        share = np.searchsorted(ends, positions, side="right")
        turn = share_turn[share]
        local = positions - ends[share] + end[share]
        first, n_windows = (values[turn] for values in self._owned)
        if self.shuffle:
            local = shuffled(local, n_windows, self.seed, self._key(_WINDOWS), self.piece[turn])
        return first + local, turn

    def _key(self, purpose: int) -> int:
        return (self.epoch << 32) + (self.lane << 8) + purpose


def cut_pieces(starts: Int64, n_rows: int, size: int, span: int) -> Int64:
    """Rows between which pieces lie.

    Parameters
    ----------
    starts
        Rows where a chunk begins, ascending from 0, see :attr:`zstore.Store.chunk_starts`.
    n_rows
        Rows in all.
    size
        Rows of a piece: fewer than one and a half times as many, and at least so many, but for the last piece.
    span
        Rows of a window, which no piece is shorter than.
    """
    cuts = [0]
    while n_rows - cuts[-1] > size:
        least = cuts[-1] + size
        following = int(np.searchsorted(starts, least))
        near = following < len(starts) and 2 * (int(starts[following]) - least) < size
        cuts.append(int(starts[following]) if near else least)
    if n_rows - cuts[-1] < span and len(cuts) > 1:
        cuts.pop()
    return np.array([*cuts, n_rows], np.int64)
