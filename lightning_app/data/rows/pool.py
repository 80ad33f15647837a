"""A bounded pool of decoded rows: threads decode pieces ahead of use, each about once per epoch."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from lightning_app.data.rows.pool_plan import PoolPlan
from lightning_app.data.rows.ring import Ring
from lightning_app.data.rows.streamed import Streamed
from lightning_app.data.windows.lanes import LanedOrder


class Pool:
    """Pieces of decoded rows in a fixed number of slots for each lane, in the order of an epoch.

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
    lock
        To be held from :meth:`hold` until what was asked for has been copied.
    """

    def __init__(self, reader: Streamed, plan: PoolPlan) -> None:
        self.reader, self.plan = reader, plan
        ring_rows = plan.n_slots * plan.slot_rows
        self.memory = reader.memory(plan.n_rings * ring_rows)
        self._rings = [
            Ring(
                reader,
                [part[ring * ring_rows : (ring + 1) * ring_rows] for part in self.memory.parts()],
                plan.n_slots,
                plan.slot_rows,
                self._begin,
            )
            for ring in range(plan.n_rings)
        ]
        self._threads: ThreadPoolExecutor | None = None
        self._closed = False
        self._order: LanedOrder | None = None
        self._held: tuple[LanedOrder | None, int, int] = None, 0, 0  # positions that are there, each lane in one step
        self._turns: dict[int, tuple[int, int, int]] = {}  # of each ring: its number, first and last turn there
        self.lock = Lock()  # held while a batch is copied: threads of two loaders may want different pieces

    @property
    def n_decoded(self) -> int:
        """Chunks of one channel, or of the widest field where no channel is in it, that were decoded so far."""
        return sum(ring.n_decoded for ring in self._rings)

    def place(self, order: LanedOrder, rows: NDArray[np.int64], entries: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where rows of the pieces of some windows are in :attr:`memory` once these pieces are there.

        Parameters
        ----------
        order
            Of the epoch.
        rows
            (batch,) rows of the store.
        entries
            (batch,) as :meth:`LanedOrder.at` has them.
        """
        slots, first = order.slots(entries, self.plan.n_slots)
        return slots * self.plan.slot_rows + rows - first

    def hold(self, order: LanedOrder, low: int, high: int) -> int:
        """Have the pieces of the positions ``[low, high)`` in their slots, or of as many as fit at once.

        Earlier ones give theirs up to those that come. Positions go forward; each epoch of each loader has its `order`.

        Returns
        -------
        Up to which position they are there.
        """
        held, first, last = self._held
        if held is order and first <= low and high <= last:  # as for most batches: the steps of lanes are long
            return high
        if order is not self._order:
            self._start_anew(order)
            self.reader.expect(*order.coming(low))
        wanted, stop = order.wanted(low, high)
        if any(last - first >= self.plan.n_slots for _, first, last in wanted):
            high = min(high, order.until(low, self.plan.n_ahead))
            wanted, stop = order.wanted(low, high)
        changed = [turns for turns in wanted if self._turns.get(turns[0]) != turns]
        for ring, first, _ in changed:
            self._rings[ring].turn_to(order.lanes[order.served[ring]], first)
        for ring, _, last in changed:
            self._rings[ring].settle(last)
        self._turns.update((turns[0], turns) for turns in changed)
        self._held = (order, low, stop) if high <= stop else (None, 0, 0)
        return high

    def close(self) -> None:
        """Stop the threads, once the batch that is being made, if one is, has what it needs.

        Whoever still asks, such as a batch begun before a fit failed, decodes on its own thread: no other starts.
        """
        with self.lock:
            self._closed = True
            self._start_anew(None)
            self.reader.expect(np.zeros(0, np.int64), np.zeros(0, np.int64))
            if self._threads is not None:
                self._threads.shutdown()
                self._threads = None

    def _start_anew(self, order: LanedOrder | None) -> None:
        self._order, self._held, self._turns = order, (None, 0, 0), {}
        for ring in self._rings:
            ring.start_at(None, 0)

    def _begin(self, decode: Callable[[], None]) -> Future[None]:
        """A piece that is being decoded by the threads or, where these were stopped, has been decoded."""
        if self._closed:
            decoded: Future[None] = Future()
            decode()
            decoded.set_result(None)
            return decoded
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self.plan.n_threads, thread_name_prefix="decode")
        return self._threads.submit(decode)
