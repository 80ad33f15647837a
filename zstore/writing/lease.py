"""One writer at a time in a bucket: a lease, for as long as the writer's mark is in the root document.

A writer puts its mark into the root document with a request that S3 accepts only if the root is still what the writer
has read, and commits with another such request. A writer that was taken for dead and comes back finds its mark gone, so
whatever it still writes is never part of a version.
"""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from zstore.errors import ConflictError, StoreError
from zstore.format.commit import UNFINISHED, is_committed, marked, owner_of, unmarked
from zstore.format.layout import MARKER, ROOT
from zstore.format.parsing import most_root_bytes
from zstore.storage.bucket import Bucket
from zstore.storage.refusals import conflict

logger = logging.getLogger(__name__)

_LEASE_S, _BEAT_S = 60.0, 1.0


@dataclass(frozen=True)
class LeasedBucket(Bucket):
    """A prefix of a bucket whose store one writer holds: it may replace what is there, and commit.

    Parameters
    ----------
    owner
        The mark of that writer, 32 hex digits.
    """

    owner: str = ""

    def write(self, key: str, content: bytes) -> None:
        """Write a new object. What a dead writer left there is replaced as long as this one holds the store."""
        try:
            self.put(key, content, None)
        except ConflictError:
            there = self.state(key)  # its content is not asked for: it may be of any length
            self.check_held()  # after that look: what was there then is of no later writer
            self.put(key, content, None if there is None else there[1])

    def commit(self, keys: Iterable[str], root: str, document: bytes) -> None:
        """Replace the root document, if this writer's mark is still in it. S3 keeps what it has acknowledged."""
        etag = self.check_held()
        self.put(root, marked(document, self.owner), etag)

    def claim(self, found: tuple[bytes, str] | None) -> None:
        """Put this writer's mark into the root document as it was found.

        Raises
        ------
        ConflictError
            If another writer was quicker.
        """
        content, etag = found or (UNFINISHED, None)
        self.put(ROOT, marked(content, self.owner), etag)

    def release(self, heartbeat: str) -> None:
        """Take this writer's mark out of the root document; remove the document if nothing was ever committed."""
        content, etag = look_at_root(self) or (b"", "")
        if owner_of(content) != self.owner:
            return
        self.remove([heartbeat])
        if is_committed(content):
            self.put(ROOT, unmarked(content), etag)
        else:
            self.remove([ROOT])

    def check_held(self) -> str:
        """The ETag of the root document that has this writer's mark.

        Raises
        ------
        ConflictError
            If it has another one.
        """
        content, etag = look_at_root(self) or (b"", "")
        if not self.owner or owner_of(content) != self.owner:
            raise conflict(self.url)
        return etag


def look_at_root(bucket: Bucket) -> tuple[bytes, str] | None:
    """The root document, marks included, and its ETag; None if there is none."""
    return bucket.look(ROOT, most_root_bytes())


@contextmanager
def leased(bucket: Bucket) -> Iterator[tuple[LeasedBucket, bool]]:
    """Hold the lease of a store in a bucket: the mark in its root document, and a sign of life now and then.

    Yields
    ------
    The bucket with this writer's mark, and whether a writer died that had the lease before.

    Raises
    ------
    ConflictError
        If another writer holds it, whose last sign of life is less than a minute (``ZSTORE_LEASE_S`` seconds) old.

    Notes
    -----
    A clock that is wrong can take a living writer for dead, or a dead one for living. It costs that writer its commit,
    or a wait; never a row, for a commit needs the mark.
    """
    lease_s = float(os.environ.get("ZSTORE_LEASE_S") or _LEASE_S)
    held = LeasedBucket(bucket.url, bucket.options, uuid.uuid4().hex)
    found = look_at_root(bucket)
    before = owner_of(found[0]) if found else ""
    if before:
        ages = [head[2] for head in (bucket.head(ROOT), bucket.head(MARKER)) if head]
        if min(ages, default=lease_s) < lease_s:
            raise conflict(bucket.url)
    held.claim(found)
    try:
        with _Heartbeat(held, MARKER, max(lease_s / 4, _BEAT_S)):
            yield held, bool(before)
    finally:
        try:
            held.release(MARKER)
        except StoreError as error:
            logger.warning("%s stays marked as written to for %.0f s: %s", bucket.url, lease_s, error)


class _Heartbeat:
    """Writes an object again and again, so that others see that its writer lives.

    Parameters
    ----------
    bucket, key
        Where.
    every_s
        Seconds between two signs of life.
    """

    def __init__(self, bucket: LeasedBucket, key: str, every_s: float) -> None:
        self._stop = threading.Event()
        self._bucket, self._key, self._every_s = bucket, key, every_s
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> None:
        self._bucket.replace(self._key, self._bucket.owner.encode())
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._stop.wait(self._every_s):
            try:
                self._bucket.check_held()
                self._bucket.replace(self._key, self._bucket.owner.encode())
            except ConflictError as error:  # taken for dead; the commit will be refused
                logger.warning("%s", error)
                return
            except StoreError as error:  # the next one may get through
                logger.info("no sign of life: %s", error)
