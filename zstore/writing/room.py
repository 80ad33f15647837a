"""Whether there is room for what is written on scratch space, looked at before it is written."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator

from zstore.errors import StoreError
from zstore.storage.protocol import Storage

_SPARED = 1 << 25
"""Bytes that stay free, so that a disk is never filled to the last of them; less on a small disk."""


def check_room(scratch: Storage, n_bytes: int, key: str = "") -> None:
    """Refuse to fill a disk. Cost: one question to the file system, some 2 us; none of a bucket.

    Parameters
    ----------
    scratch
        Where bytes are to go.
    n_bytes
        How many.
    key
        Under what name, for the message.

    Raises
    ------
    StoreError
        If they are more than there is room for.
    """
    disk = scratch.room()
    if disk is None:
        return
    spared = min(_SPARED, disk.total // 100)
    if n_bytes + spared > disk.free:
        raise StoreError(
            f"cannot write {n_bytes:,} bytes ({os.strerror(errno.ENOSPC)})",
            expected=f"room for them and {spared:,} more bytes; {disk.free:,} are free",
            where=f"{scratch}/{key}" if key else str(scratch),
            fix="free some space, or name a folder on another disk with --scratch; what was committed is whole",
        )


def with_room(scratch: Storage, key: str, pieces: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """Pieces of an object whose length is not known, each when there is room for it."""
    for piece in pieces:
        check_room(scratch, len(piece), key)
        yield piece
