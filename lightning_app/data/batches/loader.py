"""Batches: a slice of the epoch's order, one gather out of decoded rows, a dict of tensors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_app.batch import Batch
from lightning_app.data.batches.behind import Copies
from lightning_app.data.batches.beside import Several, taken_apart
from lightning_app.data.batches.located import Located, StoreRows
from lightning_app.data.batches.padding import Bounds
from lightning_app.data.batches.phases import Phases
from lightning_app.data.batches.source import WindowSource
from lightning_app.data.batches.threads import BatchThreads
from lightning_app.data.rows.observed import ReadsTargets
from lightning_app.data.rows.pool import Pool
from lightning_app.data.windows.crops import Crops
from lightning_app.data.windows.jitter import Jitter
from lightning_app.data.windows.lanes import LanedOrder, lanes_of
from lightning_app.data.windows.order import shuffled
from lightning_app.data.windows.plan import EpochOrder, Pieces
from lightning_app.data.windows.pooled import PooledOrder
from lightning_app.data.windows.shares import Shares, check_shared
from zstore import UsageError, WindowIndex

logger = logging.getLogger(__name__)

Samples = NDArray[np.int64]

_AHEAD = 1 << 13  # windows that are located at once
_LANES_AHEAD = 4  # times as many where there are as many lanes, for each lane is located by itself


class WindowLoader:
    """Iterates batches of one split; Lightning takes it for a DataLoader.

    Every *global* batch is a function of (seed, epoch, its number) alone; rank r of w takes a slice of it or, where
    pieces are mixed in lanes, every w-th window, which are those of its lanes. So what is trained on does not depend
    on w. There are no worker processes: rows are decoded already.

    Parameters
    ----------
    source
        Where rows come from.
    index
        Which windows there are.
    batch_size
        Windows of a global batch.
    shuffle
        Whether to shuffle, anew in each epoch. Without it windows come in order, each exactly once, and
        the last batch may be smaller or, to give every rank something, larger.
    seed
        Of the order.
    rank, world
        Which process this is, of how many.
    epoch
        Asked for the number of the epoch where one begins or goes on; without it epochs count up from 0.
    same_order
        Whether each epoch has the order of epoch 0.
    n_taken
        Asked for how many batches of an epoch are taken; without it all are. An epoch that was cut there has ended.
    pool
        Where the rows of `source` come and go, if they are not all in memory.
    pieces
        Pieces that are mixed. Default: those of `pool`; without one all windows are mixed. A loader without a pool
        keeps to the order of one that has it.
    describe
        Says what fixes the order; asked once, when a state is taken or loaded. Without it states of other orders are
        not told apart.
    prefetch
        Batches, or groups of them, made ahead on a thread: where they are copied to a GPU, and else for a test.
    targets
        Reads what batches have in `y_source`; None for batches without it.
    jitter
        Moves each window, anew in each epoch; None to leave them where they are.
    crops
        Draws which part of the rows of fields each window has, anew in each epoch; None for that in the middle.
    beside_model
        Whether a model on the CPU is busy with each batch, so that threads make the next ones meanwhile.
    apart
        Whether the windows of each rank, without shuffling, are to lie beside each other, so that it decodes those
        rows alone. Then what a batch has of all ranks depends on how many there are.
    repeats
        Whether a rank that has no window of its own, where there are fewer than ranks, reads another one's again.

    Attributes
    ----------
    phases
        Where the time goes.

    Raises
    ------
    UsageError
        If the windows cannot be shared out evenly, or some rank would have none and does not repeat another's.
    """

    def __init__(
        self,
        source: WindowSource,
        index: WindowIndex,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        epoch: Callable[[], int] | None = None,
        pool: Pool | None = None,
        prefetch: int = 0,
        targets: ReadsTargets | None = None,
        pieces: Pieces | None = None,
        describe: Callable[[int], EpochOrder] | None = None,
        same_order: bool = False,
        n_taken: Callable[[], float] | None = None,
        jitter: Jitter | None = None,
        crops: Crops | None = None,
        beside_model: bool = False,
        apart: bool = False,
        repeats: bool = False,
    ) -> None:
        check_shared(len(index), batch_size, world, repeats)
        self.phases, self._beside_model = Phases(), beside_model
        self.source, self.index, self.shuffle, self.seed = replace(source, phases=self.phases), index, shuffle, seed
        self.rank, self.world = rank, world
        self.batch_size = min(batch_size, len(index))
        self._epoch, self._consumed, self._resuming = -1, 0, False
        self._next_epoch, self._pool, self._prefetch = epoch, pool, prefetch
        self._pieces = pool.plan.pieces if pieces is None and pool is not None else pieces
        self._describe, self._same_order, self._n_taken = describe, same_order, n_taken
        self._order: LanedOrder | None = None
        self._targets, self._jitter, self._crops = targets, jitter, crops
        self._apart = apart and not shuffle
        self._n_lanes = 1 if self._pieces is None or not shuffle else self._pieces.plan.lanes

    @cached_property
    def order(self) -> EpochOrder | None:
        """What fixes the order of an epoch; None where nothing says so."""
        return None if self._describe is None else self._describe(self.batch_size)

    def __len__(self) -> int:
        return self.shares.n_batches

    def n_windows(self, n_batches: int) -> int:
        """Windows of the first global batches, of all processes."""
        return len(self.index) if n_batches >= len(self) and not self.shuffle else n_batches * self.batch_size

    def __iter__(self) -> Iterator[Batch]:
        # A generator: this runs when the first batch is asked for, when Lightning knows its epoch. An epoch that it
        # goes on with has the batches that are left, maybe none: windows must not come twice.
        if self._next_epoch is None:
            goes_on, epoch = self._resuming and self._consumed < len(self), self._epoch + 1
        else:
            epoch = self._next_epoch()
            goes_on = self._resuming and epoch == self._epoch
        if not goes_on:
            self._epoch, self._consumed = epoch, 0
        self._resuming = False
        self._order = self._pooled()
        first, threads = self._consumed, self.threads
        batches = threads.batches(self._tasks(first), self._several(first, threads.n_together))
        while self._consumed < len(self):
            self._consumed += 1
            yield self.phases.waiting_for(batches)  # held by nobody here, so that its memory can take the next one

    @property
    def lanes(self) -> list[tuple[int, int]]:
        """The windows ``[first, last)`` of each lane; position p of an epoch is in lane p modulo their number."""
        order = self._pooled()
        return [(0, len(self.index))] if order is None else [lane.bounds for lane in order.lanes]

    @property
    def overlap(self) -> float:
        """What lanes decode in an epoch, over what one lane would; those on a border decode some chunks both."""
        order, pool = self._pooled(), self._pool
        if order is None or pool is None:
            return 1.0
        count, cuts = pool.reader.n_chunks, order.cuts.tolist()
        read = sum(count(*lane.rows_of(piece)) for lane in order.lanes for piece in lane.piece.tolist())
        pieces = np.unique(np.concatenate([lane.piece for lane in order.lanes])).tolist()
        return read / max(sum(count(cuts[piece], cuts[piece + 1]) for piece in pieces), 1)

    def start_epoch(self, epoch: int) -> None:
        """Take the order of an epoch, without iterating it."""
        self._epoch, self._consumed = epoch, 0
        self._order = self._pooled()

    def window(self, position: int) -> Batch:
        """One window, a batch of its own, at a position of the current epoch; beside those that are iterated."""
        positions = np.arange(position, position + 1)
        return self._make(positions, self._locate(positions), self._order)

    def samples(self, number: int) -> Samples:
        """Sample numbers of this rank's part of one global batch of the current epoch."""
        return self.samples_at(self.shares.positions(number))

    def samples_at(self, positions: Samples) -> Samples:
        """Sample numbers at some positions of the current epoch, ascending."""
        return self._at(positions)[0]

    def _pooled(self) -> LanedOrder | None:
        """The order of the epoch where pieces are mixed."""
        if self._pieces is None:
            return None
        active, n_lanes = (self._pieces.active if self.shuffle else 1), self._n_lanes
        windows, jitter = self._pieces.windows(self.index), 0 if self._jitter is None else self._jitter.n_rows
        of = partial(PooledOrder, windows, self._pieces.cuts, active, self.shuffle, self.seed, self._key, jitter)
        lanes = tuple(of(lane, n_lanes) for lane in range(n_lanes))
        return LanedOrder(lanes, lanes_of(self.rank, self.world, n_lanes))

    @property
    def _key(self) -> int:
        """The epoch whose order this one has."""
        return 0 if self._same_order else self._epoch

    def _at(self, positions: Samples) -> tuple[Samples, Samples | None]:
        """Samples at some positions of the epoch and, of pieces, which of them they are in."""
        if self._order is not None:
            return self._order.at(positions)
        return shuffled(positions, len(self.index), self.seed, self._key) if self.shuffle else positions, None

    @property
    def shares(self) -> Shares:
        """How the positions of an epoch are shared out between batches and ranks."""
        n_windows, dealt = len(self.index), self._n_lanes > 1
        return Shares(n_windows, self.batch_size, self.rank, self.world, self.shuffle, dealt, self._apart)

    @property
    def threads(self) -> BatchThreads:
        """Which threads make the batches."""
        n_windows, pooled, measured = self.batch_size // self.world, self._pool is not None, self._targets is not None
        span, beside = self.index.shape.span, self._beside_model
        return BatchThreads(self.source, n_windows, span, pooled, measured, beside, self._prefetch)

    def _tasks(self, first: int) -> Iterator[Callable[..., Batch]]:
        """What makes the batches from one on."""
        for (positions,), windows in self._located(first, 1):
            yield partial(self._make, positions, windows, self._order)

    def _several(self, first: int, n: int) -> Iterator[Several]:
        """What makes the batches from one on, n of them together."""
        for positions, windows in self._located(first, n):
            yield partial(self._made_together, positions, windows, self._order)

    def _made_together(self, positions: list[Samples], windows: Located, order: LanedOrder | None) -> list[Batch]:
        return taken_apart(self._make(np.concatenate(positions), windows, order), [len(own) for own in positions])

    def _located(self, first: int, n: int) -> Iterator[tuple[list[Samples], Located]]:
        """The positions of each of n batches after each other, and where the windows of all of them lie.

        Windows are located for many batches at once, at little more than one's cost.
        """
        ahead = max(_AHEAD * min(self._n_lanes, _LANES_AHEAD) // self.batch_size, 1)
        ahead, shares = -(-ahead // n) * n, self.shares
        for begin in range(first, len(self), ahead):
            positions = [shares.positions(number) for number in range(begin, min(begin + ahead, len(self)))]
            groups = [positions[low : low + n] for low in range(0, len(positions), n)]
            located = self._locate(np.concatenate(positions))
            yield from zip(groups, located.split([sum(map(len, group)) for group in groups]), strict=True)

    def _make(
        self, positions: Samples, windows: Located, order: LanedOrder | None, later: Copies | None = None
    ) -> Batch:
        """The windows at some positions, with targets as they are stored where these are asked for."""
        with self.phases.timed("gather"):
            batch = self._batch(positions, windows, order, later)
            if self._targets is not None:
                batch["y_source"] = self._observed(self._targets, positions)
        return batch

    def _observed(self, targets: ReadsTargets, positions: Samples) -> Tensor:
        """The bits of the targets of the windows at some positions, on the device of the batch."""
        index, samples = self.index, self.samples_at(positions)
        first = index.locate(samples)[0] + index.shape.target_offset
        bounds = index.bounds_of(samples) if index.shape.padded else None
        return torch.from_numpy(targets.at(first, bounds).view(np.int64)).to(self.source.target, non_blocking=True)

    def _locate(self, positions: Samples) -> Located:
        """Where the windows at some positions lie in the rows of the source."""
        index, samples, entries = self._moved(positions)
        row, series, time = index.locate(samples)
        pooled = row
        if self._pool is not None and self._order is not None and entries is not None:
            pooled = self._pool.place(self._order, row, entries)
        bounds = Bounds.of(index.bounds_of(samples), row) if index.shape.padded else None
        corners = {} if self._crops is None else self._crops.drawn(positions, self.seed, self._key)
        start, of = pooled if self.source.streamed else row, torch.from_numpy
        rows = StoreRows(of(row), of(pooled - row)) if self.source.fields else None
        located = Located(
            of(start), of(series), of(time), rows, bounds, {name: of(own) for name, own in corners.items()}
        )
        return located if self.source.device.type == "cpu" else located.to(self.source.device)

    def _moved(self, positions: Samples) -> tuple[WindowIndex, Samples, Samples | None]:
        """The windows at some positions as :meth:`_at` has them, moved where there is jitter, and their index."""
        samples, entries = self._at(positions)
        if self._jitter is None:
            return self.index, samples, entries
        return self._jitter.index, self._jitter.moved(self.index, samples, positions, self.seed, self._key), entries

    def _batch(self, positions: Samples, windows: Located, order: LanedOrder | None, later: Copies | None) -> Batch:
        """The windows at some positions; in parts, if their pieces do not fit into the pool at once."""
        shape = self.index.shape
        if self._pool is None or order is None:
            return self.source.batch(shape, windows, later)
        pool, parts, low, stop = self._pool, [], int(positions[0]), int(positions[-1]) + 1
        while low < stop:
            with pool.lock:
                with self.phases.timed("decode"):
                    high = pool.hold(order, low, stop)
                if high - low == stop - int(positions[0]):
                    return self.source.batch(shape, windows)
                first, last = np.searchsorted(positions, (low, high)).tolist()
                if first < last:  # else what lies between the windows of this rank
                    parts.append(self.source.batch(shape, windows.part(first, last)))
            low = high
        if len(parts) == 1:
            return parts[0]
        return cast(Batch, {key: torch.cat([part[key] for part in parts]) for key in parts[0]})  # type: ignore[literal-required]

    def state_dict(self) -> dict[str, Any]:
        """Where the epoch stands, counted in batches handed out, and its order; Lightning keeps it in checkpoints."""
        n_batches = len(self) if self._n_taken is None else int(min(self._n_taken(), len(self)))
        state: dict[str, Any] = {"epoch": self._epoch, "consumed": self._consumed, "n_batches": n_batches}
        return state if self.order is None else {**state, "order": self.order.to_json()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where :meth:`state_dict` was taken.

        Raises
        ------
        UsageError
            If that was in the middle of an epoch, whose other batches would be different ones now. At its end other
            windows are a line of the log: the next epoch has those of the store.
        """
        recorded = state.get("order")
        epoch, consumed, n_batches = state["epoch"], state["consumed"], state.get("n_batches", len(self))
        if not all(type(count) is int and count >= 0 for count in (epoch, consumed, n_batches)):
            raise UsageError(
                f"checkpoint that stands at batch {consumed!r} of {n_batches!r} in epoch {epoch!r}",
                expected="whole numbers",
                fix="another --ckpt_path, or fit again",
            )
        if self.order is not None and 0 < consumed < n_batches:
            self.order.refuse_other(recorded, epoch)
        others = isinstance(recorded, dict) and self.order is not None and recorded.get("windows") != self.order.windows
        if others and consumed >= n_batches:
            logger.info(f"epoch {epoch} ended on other windows than those of now, {len(self.index):,}")
            consumed = len(self)
        self._epoch, self._consumed, self._resuming = epoch, consumed, True
