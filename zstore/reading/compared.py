"""Stored objects, read and compared with their records."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import xxhash

from zstore.errors import CorruptionError, StoreError
from zstore.format.manifest import ObjectRecord, digest
from zstore.storage.protocol import Opened, Storage

_PIECE_BYTES = 1 << 18

_FIX_REFUSED = (
    "check who may read it, and that credentials have not expired (in the environment, or with --storage-options)"
)
FIX = "restore the store from a copy, or ingest again; zstore verify lists every damaged object"


def compare(storage: Storage, record: ObjectRecord) -> bytes:
    """The bytes of one stored object, compared with its record.

    Raises
    ------
    CorruptionError
        If they differ, or there are none.
    """
    with reading_errors(storage, record):
        content = storage.open(record.key, record.n_bytes).read()
    _check(storage, record, len(content), digest(content))
    return content


def open_compared(storage: Storage, record: ObjectRecord) -> Opened:
    """One stored object, opened, after it was read piece by piece and compared with its record. Raises as `compare`."""
    hasher, n_bytes = xxhash.xxh3_128(), 0
    with reading_errors(storage, record):
        opened = storage.open(record.key, record.n_bytes)
        while piece := opened.read(n_bytes, n_bytes + _PIECE_BYTES):
            hasher.update(piece)
            n_bytes += len(piece)
    _check(storage, record, n_bytes, hasher.hexdigest())
    return opened


@contextmanager
def reading_errors(storage: Storage, record: ObjectRecord) -> Iterator[None]:
    """Say what of an object could not be read, and why. Raises as :func:`compare`, and `StoreError` for the network."""
    where = f"{storage}/{record.key}"
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise CorruptionError(f"object {record.key} is missing ({error.strerror})", where=where, fix=FIX) from error
    except OSError as error:
        if error.errno in (errno.EFBIG, errno.EPERM):  # it is longer than the manifest says, or no regular file
            raise CorruptionError(f"object {record.key}: {error.strerror}", where=where, fix=FIX) from error
        fix = _FIX_REFUSED if storage.remote and isinstance(error, PermissionError) else "try again"
        raise StoreError(f"cannot read object {record.key} ({error.strerror})", where=where, fix=fix) from error


def _check(storage: Storage, record: ObjectRecord, n_bytes: int, found: str) -> None:
    where = f"{storage}/{record.key}"
    if n_bytes != record.n_bytes:
        raise CorruptionError(
            f"object {record.key} has {n_bytes:,} bytes", expected=f"{record.n_bytes:,}", where=where, fix=FIX
        )
    if found != record.digest:
        raise CorruptionError(f"object {record.key} has digest {found}", expected=record.digest, where=where, fix=FIX)
