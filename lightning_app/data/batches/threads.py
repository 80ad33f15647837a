"""Which threads make the batches of a loader: by how large they are, where they go, and what runs beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from lightning_app.batch import Batch
from lightning_app.data.batches.behind import copied_behind
from lightning_app.data.batches.beside import Several, made_beside
from lightning_app.data.batches.making import made, made_ahead
from lightning_app.data.batches.source import WindowSource

_BEHIND = 1 << 20, 1 << 24  # bytes of the fields of a batch that are copied behind
_AT_ONCE = 2  # batches that are made at once beside a model, where rows are decoded already
_LARGE_BYTES = 1 << 18  # of a batch: handing smaller ones from thread to thread takes longer than making them
_DEVICE_BYTES = 1 << 24  # of batches for another device that are made together, for as many launches as one takes
_DEVICE_BATCHES = 32  # of them, at most


@dataclass(frozen=True)
class BatchThreads:
    """What decides which threads make batches.

    Parameters
    ----------
    source
        Where rows come from.
    n_windows
        Windows of a batch on this process.
    span
        Rows of a window.
    pooled
        Whether rows come and go in a pool, so that batches are made in their order.
    measured
        Whether batches have targets as they are stored, which are read on the calling thread.
    beside_model
        Whether a model on the CPU is busy with each batch.
    prefetch
        Groups of batches made ahead on a thread.
    """

    source: WindowSource
    n_windows: int
    span: int
    pooled: bool
    measured: bool
    beside_model: bool
    prefetch: int

    def batches(self, tasks: Iterator[Callable[..., Batch]], several: Iterator[Several]) -> Iterator[Batch]:
        """The batches that tasks make, in their order.

        Parameters
        ----------
        tasks
            Each makes one batch.
        several
            The same batches, :attr:`n_together` by one task; one of both is iterated.
        """
        n_threads = torch.get_num_threads()
        if self.prefetch or self.source.target.type != "cpu":
            return made_beside(several, self.prefetch, self.source.target)
        if self.beside_model:
            n_at_once = n_threads if self.source.decodes else min(_AT_ONCE, n_threads)
            return made_ahead(tasks, n_threads, 1 if self.pooled else n_at_once)
        if self._shared_out and self.behind and n_threads > 1:
            return copied_behind(tasks, n_threads)
        if self._shared_out and n_threads > 1:
            return made(tasks, n_threads, 1 if self.pooled else None)  # of a pool in their order
        return (task() for task in tasks)

    @property
    def n_together(self) -> int:
        """Batches that one task makes for another device: so many launches as one takes."""
        if self.pooled or self.source.target.type == "cpu":
            return 1
        return min(max(_DEVICE_BYTES // max(self._n_bytes, 1), 1), _DEVICE_BATCHES)

    @property
    def behind(self) -> bool:
        """Whether threads copy fields behind the one that makes the rest: of batches neither small nor large."""
        n_bytes = self.n_windows * self.source.field_bytes
        return not self.pooled and self.source.copies_fields and _BEHIND[0] <= n_bytes <= _BEHIND[1]

    @property
    def _shared_out(self) -> bool:
        """Whether other threads may do the work: of large batches, for the CPU."""
        return not self.measured and self._n_bytes >= _LARGE_BYTES

    @property
    def _n_bytes(self) -> int:
        """Of the rows of a batch on this process."""
        source = self.source
        return self.n_windows * (self.span * source.rows.values[:1].nbytes + source.field_bytes)
