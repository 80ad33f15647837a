"""A version built in a bucket: under a lease in the root document, with scratch space elsewhere where that will do."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from zstore.errors import StoreError, UsageError
from zstore.format.commit import is_committed, is_store, is_unfinished
from zstore.format.layout import MARKER, ROOT, SCRATCH
from zstore.reading.root import committed_versions
from zstore.storage.bucket import Bucket
from zstore.storage.folder import Folder
from zstore.storage.protocol import Storage
from zstore.storage.refusals import conflict
from zstore.writing.lease import leased, look_at_root
from zstore.writing.object_notes import noted_keys
from zstore.writing.quarantine import remove_quarantines
from zstore.writing.site import Mode, Site, behind, no_store, store_exists, stranger
from zstore.writing.sweep import is_finished, needed_keys, remove_others, tidy


@contextmanager
def in_bucket(store: Bucket, mode: Mode, scratch: Storage | None, shared: bool, go_on: bool = False) -> Iterator[Site]:
    """As :func:`zstore.writing.target.building`, in a bucket."""
    if store.url.count("/") < 3:
        raise UsageError(f"STORE {store}", expected="s3://BUCKET/PREFIX", fix="name a prefix for the store")
    content, _ = look_at_root(store) or (b"", "")
    exists = is_committed(content)
    if mode == "append" and not exists:
        raise no_store(store)
    if not exists:
        _check_outside(store)
    if exists and mode == "new":
        raise store_exists(store)
    if not exists and not is_unfinished(content) and store.sizes():
        raise stranger(store) if content or look_at_root(store) is None else conflict(str(store))
    with leased(store) as (held, died), _temporary(held, scratch, shared) as place:
        if exists != is_committed((look_at_root(store) or (b"", ""))[0]):
            raise conflict(str(store))
        kept = noted_keys(place) if go_on else set()
        if not exists:
            remove_others(held, {ROOT, MARKER, *kept}, SCRATCH)
        elif died or not is_finished(held):
            tidy(held, kept)
        site = Site(held, place, *(behind(held) if exists else ()))
        try:
            remove_quarantines(held, site.version)
            yield site
            if mode == "overwrite":
                remove_others(held, needed_keys(held, [site.version]))
                remove_quarantines(held, 1, site.version - 1)
        except BaseException:
            held.check_held()  # what a later writer made is not touched
            committed = is_store(held)  # it may have come to that before it failed, or lost the answer that told so
            if not committed or kept or site.begun:
                remove_others(held, needed_keys(held, committed_versions(held)) if committed else {ROOT, MARKER})
            raise


def _check_outside(store: Bucket) -> None:
    """Refuse a prefix inside that of a store, whose next writer would remove what it does not know."""
    scheme, _, rest = store.url.partition("://")
    bucket, *parts = rest.split("/")
    for n in range(1, len(parts)):
        above = replace(store, url=f"{scheme}://{bucket}/{'/'.join(parts[:n])}")
        with suppress(StoreError):  # who may not read there has none there to write to
            if is_store(above):
                raise UsageError(f"STORE {store}, inside the store {above}", fix="choose a place outside of it")


@contextmanager
def _temporary(held: Storage, scratch: Storage | None, shared: bool) -> Iterator[Storage]:
    """Scratch space for a store in a bucket: as told, else in the bucket where many machines need it, else here."""
    if scratch is None and not shared:
        with tempfile.TemporaryDirectory(prefix="zstore-") as folder:
            yield Folder(Path(folder))
        return
    place = scratch or held.at(SCRATCH)
    place.make()
    try:
        yield place
    finally:
        place.clear()
