"""A place to build a version on, which no other writer has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from zstore.format.manifest import digest
from zstore.format.outside import check_outside
from zstore.storage.folder import Folder
from zstore.storage.protocol import Storage
from zstore.writing.in_folder import in_folder
from zstore.writing.site import Mode, Site


@contextmanager
def building(
    store: Storage, mode: Mode, scratch: Storage | None = None, shared: bool = False, go_on: bool = False
) -> Iterator[Site]:
    """A place to build a version on, which no other writer has.

    What a dead writer left is removed first, its scratch space excepted; what this one leaves, if it fails, afterwards.

    Parameters
    ----------
    store
        Where the store is or is to be.
    mode
        Whether there must be none (``new``), it is replaced (``overwrite``), or there must be one (``append``).
    scratch
        Where to keep what is needed meanwhile; None for a folder in the store, or, for a bucket, a temporary one.
    shared
        Whether other machines write as well.
    go_on
        Whether objects stay that notes on scratch space tell of, see :func:`zstore.writing.resume.begin`.

    Raises
    ------
    StoreError
        If there is something else, or cannot be anything.
    UsageError
        If the store or its scratch space would lie inside a store.
    ConflictError
        If another process writes to the store.
    """
    if mode != "append" and not store.remote:
        check_outside(str(store), "STORE")
    if scratch is not None and not scratch.remote:
        check_outside(str(scratch), "--scratch", beside=[str(store)])
    place = None if scratch is None else scratch.at(f"zstore-{digest(str(store).encode())}")
    if store.leased:
        from zstore.storage.bucket import Bucket  # needs obstore
        from zstore.writing.in_bucket import in_bucket

        made = in_bucket(cast(Bucket, store), mode, place, shared, go_on)
    else:
        made = in_folder(cast(Folder, store), mode, place, shared, go_on)
    with made as site:
        yield site
