"""What a storage refuses, as errors: the place is full or closed, an object is too long, another writer is at work."""

from __future__ import annotations

import errno

from zstore.errors import ConflictError, StoreError


def cannot_write(where: str, n_bytes: int, error: OSError) -> StoreError:
    """A refusal of the storage, with the object and what was to go there."""
    return StoreError(
        f"cannot write {n_bytes:,} bytes ({error.strerror})",
        where=where,
        fix="free some space or check the permissions, then run again; what was committed is whole",
    )


def too_large(n_bytes: int, most: int, where: str) -> OSError:
    """A file or object that is longer than it can be."""
    return OSError(errno.EFBIG, f"{n_bytes:,} bytes, where at most {most:,} are expected", where)


def conflict(where: str) -> ConflictError:
    """Another writer is at work."""
    return ConflictError(
        f"another process is writing to {where}",
        expected="one writer at a time",
        fix="wait for it to finish, then run again; nothing of either is lost",
    )
