"""The order of an epoch whose rows do not fit into memory: windows at random over a pool of pieces.

Rows are cut into *pieces* that are decoded as a whole. Each epoch brings them into the pool in an order of its own; the
piece that comes at a *turn* stays for the steps ``turn - active + 1 .. turn``, and gives an equal share of its
windows, picked at random, to each of them. A *step* shuffles what its pieces give. So `active` pieces are mixed at any
time, each is decoded once, and where everything lies is arithmetic on (seed, epoch, position), as in :mod:`order`.

A window that crosses the border of two pieces belongs to the one whose turn is later. That one has the rows it needs
of the other beside its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lightning_app.data.order import shuffled
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
    """

    index: WindowIndex
    cuts: Int64
    active: int
    shuffle: bool
    seed: int
    epoch: int

    @property
    def halo(self) -> int:
        """Rows of a window beyond its first."""
        return self.index.shape.span - 1

    @cached_property
    def piece(self) -> Int64:
        """(turn,) which piece comes at each turn: all that have windows."""
        before = self.index.rank(np.maximum(self.cuts[:-1] - self.halo, 0))
        there = np.flatnonzero(self.index.rank(self.cuts[1:]) > before)
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
        low = np.where((left >= 0) & (left < own), self.cuts[piece] - self.halo, self.cuts[piece])
        high = np.where(right > own, self.cuts[piece + 1] - self.halo, self.cuts[piece + 1])
        first = self.index.rank(low)
        return first, self.index.rank(high) - first

    @cached_property
    def steps(self) -> Int64:
        """(step + 1,) first position of each step."""
        n_turns = len(self.piece)
        sizes = np.zeros(n_turns, np.int64)
        for ahead in range(min(self.active, n_turns)):
            turns = np.arange(ahead, n_turns)
            begin, end = self._share(turns, turns - ahead)
            sizes[: n_turns - ahead] += end - begin
        return np.concatenate([[0], np.cumsum(sizes)])

    def _share(self, turn: Int64, step: Int64) -> tuple[Int64, Int64]:
        """Which of its windows, in its own order, the piece of a turn gives to a step."""
        n_windows, joined = self._owned[1][turn], np.maximum(turn - self.active + 1, 0)
        n_steps, number = turn - joined + 1, step - joined
        return n_windows * number // n_steps, n_windows * (number + 1) // n_steps

    def step_of(self, position: int) -> int:
        """The step of a position; its windows are of the pieces of the turns ``[step, step + active)``."""
        return int(np.searchsorted(self.steps, position, side="right")) - 1

    def spans(self, low: int, high: int, n_more: int) -> Iterator[tuple[int, int]]:
        """The positions ``[low, high)`` in parts of at most ``n_more + 1`` steps."""
        while low < high:
            end = min(self.step_of(low) + n_more + 1, len(self.steps) - 1)
            stop = min(high, int(self.steps[end]))
            yield low, stop
            low = stop

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
        share_turn = share_step + np.tile(np.arange(self.active), len(steps))
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
        return (self.epoch << 32) + purpose


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
