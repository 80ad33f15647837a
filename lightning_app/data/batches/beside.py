"""Batches for a GPU: several are made at once, and copied on a stream of their own while the GPU computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import chain
from typing import cast

import torch

from lightning_app.batch import Batch
from lightning_app.data.batches.prefetch import prefetched

Several = Callable[[], list[Batch]]


def taken_apart(batch: Batch, sizes: list[int]) -> list[Batch]:
    """Batches of so many windows each, views of the memory of one that has the windows of all."""
    if len(sizes) == 1:
        return [batch]
    parts = [torch.split_with_sizes(values, sizes) for values in cast(dict[str, torch.Tensor], batch).values()]
    return [cast(Batch, dict(zip(batch, own, strict=True))) for own in zip(*parts, strict=True)]


def made_beside(tasks: Iterator[Several], depth: int, device: torch.device) -> Iterator[Batch]:
    """Batches for a device, in their order.

    Parameters
    ----------
    tasks
        Each makes several batches. Iterated and called on a thread of their own, or on the calling one if `depth` is 0.
    depth
        Tasks whose batches may be ready; 0 for no thread.
    device
        That batches are for.

    Raises
    ------
    Exception
        What a task raises, in the place of its first batch.

    Notes
    -----
    On a thread, what a GPU does for batches is on a stream of its own: copies go beside the kernels of a step, where in
    the stream of the step they would go between them. The stream of whoever takes a batch waits until it is complete;
    nobody else does.
    """
    if not depth or device.type != "cuda":
        yield from chain.from_iterable(prefetched((task() for task in tasks), depth))
        return
    stream = _stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))  # what batches are made of is there by then
    for batches, done in prefetched(_on_stream(tasks, stream), depth):
        taking = torch.cuda.current_stream(device)
        taking.wait_event(done)
        for values in chain.from_iterable(cast(dict[str, torch.Tensor], batch).values() for batch in batches[:1]):
            values.record_stream(taking)  # nobody writes to that memory while it is read; all batches share it
        yield from batches


def _on_stream(tasks: Iterator[Several], stream: torch.cuda.Stream) -> Iterator[tuple[list[Batch], torch.cuda.Event]]:
    """Batches, and what is recorded behind them on a stream."""
    while True:
        with torch.cuda.stream(stream):  # on its device, which a new thread takes to be the first one
            task = next(tasks, None)
            if task is None:
                return
            batches, done = task(), stream.record_event()
        yield batches, done


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One for all loaders of a process: memory that a stream has had is used again by that stream alone."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
