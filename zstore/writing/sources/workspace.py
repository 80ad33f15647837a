"""What a source works with: scratch space, notes of a run before, and what runs its tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import xxhash

from zstore.storage.file import File
from zstore.storage.protocol import Storage

Item = TypeVar("Item")
Result = TypeVar("Result")

NOTE = ".note"
"""Ending of notes on scratch space; what stands before it is the name of a piece of work."""


TAKEN = "taken-"
"""What the names of sources that were taken to scratch space begin with; a plan that begins anew leaves them there."""


class Runner(Protocol):
    """Runs a list of independent tasks, see :class:`zstore.writing.scheduler.Scheduler`."""

    def map(
        self,
        phase: str,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        sizes: Sequence[int] | None = None,
        unit: str = "tasks",
    ) -> list[Result]:
        """The results of `function` for all `items`, in their order."""
        ...

    def report(self, phase: str, done: int, total: int, unit: str) -> None:
        """Show how much of a phase is done that is no list of tasks; `total` is 0 as long as nobody knows it."""
        ...


@dataclass(frozen=True)
class Workspace:
    """Where a source keeps what it prepares, and what a run that died has left there.

    Parameters
    ----------
    scratch
        Storage of this run.
    notes
        From name to content: what an earlier run of the same plan has noted.
    """

    scratch: Storage
    notes: Mapping[str, bytes]

    def note(self, name: str, content: bytes) -> None:
        """Note that a piece of work is done."""
        self.scratch.write_stream(name + NOTE, (content,))

    def is_whole(self, key: str, n_bytes: int, digest: str) -> bool:
        """Whether an object that a note tells of is what it was. Reads it."""
        return self.scratch.n_bytes(key) == n_bytes and digest_of(self.scratch, key, n_bytes) == digest


def digest_of(scratch: Storage, key: str, n_bytes: int) -> str:
    """xxh3-128 of an object, as 32 hex digits."""
    hasher = xxhash.xxh3_128()
    for piece in File(scratch, key, n_bytes).pieces():
        hasher.update(piece)
    return hasher.hexdigest()
