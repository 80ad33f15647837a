"""A prefix of a bucket as a place of objects: conditional writes, and a look back where an answer was lost.

An object is written only if it is still what the writer has read (:meth:`Bucket.put`), or, for a new one, if nothing is
there. That is all a lease needs: see :class:`zstore.writing.lease.LeasedBucket`, which alone commits.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
import obstore
from numpy.typing import NDArray
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotFoundError,
    PreconditionError,
    UnknownConfigurationKeyError,
)

from zstore.errors import UsageError
from zstore.storage.fetched import Fetched, Ranged
from zstore.storage.inflight import OWN_OPTIONS, InFlight, requests_of
from zstore.storage.parts import RemoteObject
from zstore.storage.refusals import cannot_write, conflict, too_large
from zstore.storage.remote import (
    ATTEMPTS,
    REFUSED,
    Connection,
    can_be_key,
    connect,
    parse_url,
    reached,
    reason,
    send,
    wait,
)

_URL = re.compile(r"(s3|gs|az)://([^/]+)/*(.*?)/*")
_KNOWN = {
    "s3": "options of obstore's S3Config, such as region, endpoint or access_key_id",
    "gs": "options of obstore's GCSConfig, such as service_account or base_url",
    "az": "options of obstore's AzureConfig, such as account_name, account_key or endpoint",
}
_WRITERS = 8
_BATCH = 1000


@dataclass(frozen=True)
class Bucket:
    """See :class:`zstore.storage.protocol.Storage`.

    Parameters
    ----------
    url
        ``s3://BUCKET/PREFIX``, ``gs://BUCKET/PREFIX`` or ``az://CONTAINER/PREFIX``.
    options
        What obstore's ``S3Config`` (``GCSConfig``, ``AzureConfig``) and ``ClientConfig`` take, such as ``region``,
        ``endpoint``, ``access_key_id`` or ``timeout``. Beside them ``in_flight``, the bytes of answers that are waited
        for at any time (``64MiB``), and ``hedge``, whether a late answer is asked for a second time (``true``). Never
        shown: they may hold secrets.

    Notes
    -----
    What is longer than 4 MiB is read in parts, several at once. A request that fails for reasons that may pass is sent
    at most 3 x 3 times, each within 30 seconds: where nothing ever answers, a writer gives up after some ten minutes,
    and at once where the connection is refused.
    """

    url: str
    options: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, url: str, options: Mapping[str, str]) -> Bucket:
        """A prefix by its URL.

        Raises
        ------
        UsageError
            If the URL or an option cannot be meant.
        """
        match = _URL.fullmatch(url)
        if match is None or (match[3] and not can_be_key(match[3])):
            known = "s3://BUCKET/PREFIX" if url.startswith("s3:") else "gs://BUCKET/PREFIX or az://CONTAINER/PREFIX"
            raise UsageError(f"URL {url!r}", expected=known, fix="correct the URL")
        bucket = cls(f"{match[1]}://{match[2]}/{match[3]}".rstrip("/"), tuple(sorted(options.items())))
        try:
            bucket._requests, bucket._store  # noqa: B018  # says what is wrong with the options
        except UnknownConfigurationKeyError as error:
            raise UsageError(
                f"storage option ({reason(error)})", expected=_KNOWN[match[1]], fix="correct --storage-options"
            ) from error
        except BaseError as error:
            raise UsageError(f"storage options for {url} ({reason(error)})", fix="correct --storage-options") from error
        return bucket

    def __str__(self) -> str:
        return self.url

    @property
    def remote(self) -> bool:
        """Each request waits for an answer."""
        return True

    @property
    def leased(self) -> bool:
        """A bucket has no locks, but writes that depend on what is there."""
        return True

    def read(
        self, key: str, start: int = 0, stop: int | None = None, etag: str | None = None, most: int | None = None
    ) -> bytes:
        """The bytes ``[start, stop)`` of an object."""
        return self._get(key, start, stop, etag, most)[0]

    def _get(
        self, key: str, start: int, stop: int | None, etag: str | None, most: int | None
    ) -> tuple[bytes, str | None]:
        """Some bytes of an object, and its ETag."""
        try:
            content, size, found = self._requests.run(self._object(key).read(start, stop, etag, most))
        except PreconditionError:
            raise OSError(errno.ESTALE, "the object was replaced meanwhile", f"{self}/{key}") from None
        if most is not None and size > most:
            raise too_large(size, most, f"{self}/{key}")
        return content, found

    def fetch(self, key: str, n_bytes: int, use: Callable[[int, Any], None]) -> bool:
        """Read an object of known length in parts, several at once."""
        try:
            return self._requests.run(self._object(key).read(most=n_bytes, use=use))[1] == n_bytes
        except PreconditionError:
            raise OSError(errno.ESTALE, "the object was replaced meanwhile", f"{self}/{key}") from None

    def open(self, key: str, most: int | None = None) -> Fetched:
        """An object, fetched as a whole."""
        return Fetched(*self._get(key, 0, None, None, most))

    def reopen(self, key: str, identity: Hashable) -> Ranged:
        """An object that was compared before, of which parts are fetched as they are asked for."""
        return Ranged(self, key, str(identity))

    def head(self, key: str) -> tuple[int, str, float] | None:
        """Length, ETag and seconds since it was last written of an object; None if there is none."""
        try:
            with reached(self.url):
                found = send(f"{self}/{key}", lambda: obstore.head(self._store, self._path(key)))
        except FileNotFoundError:
            return None
        age = datetime.now(UTC) - found["last_modified"]
        return found["size"], str(found["e_tag"]), age.total_seconds()

    def state(self, key: str) -> tuple[int, str] | None:
        """Length and ETag of an object; None if there is none."""
        found = self.head(key)
        return None if found is None else found[:2]

    def n_bytes(self, key: str) -> int | None:
        """Length of an object."""
        found = self.head(key)
        return None if found is None else found[0]

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Every object whose key starts with `prefix`."""
        folder, base = prefix.rpartition("/")[0], len(self._path(""))

        def listed() -> dict[str, int]:
            pages = obstore.list(self._store, self._path(folder).rstrip("/") or None)
            return {entry["path"][base:]: entry["size"] for page in pages for entry in page}

        with reached(self.url):
            return {key: size for key, size in send(f"{self}/{prefix}", listed).items() if key.startswith(prefix)}

    def write(self, key: str, content: bytes) -> None:
        """Write a new object. Raises `ConflictError` if something else is there."""
        self.put(key, content, None)

    def write_all(self, objects: Mapping[str, bytes]) -> None:
        """Write new objects, several at once."""
        with ThreadPoolExecutor(_WRITERS) as pool:
            list(pool.map(self.write, objects.keys(), objects.values()))

    def write_stream(self, key: str, pieces: Iterable[bytes | memoryview]) -> int:
        """Write an object piece by piece, in parts."""
        n_bytes = 0

        def counted() -> Iterable[bytes]:
            nonlocal n_bytes
            for piece in pieces:
                n_bytes += len(piece)
                yield bytes(piece)

        try:
            obstore.put(self._store, self._path(key), counted())
        except BaseError as error:
            raise cannot_write(f"{self}/{key}", n_bytes, OSError(errno.EIO, reason(error))) from error
        return n_bytes

    def replace(self, key: str, content: bytes) -> None:
        """Put one object in the place of another."""
        try:
            send(f"{self}/{key}", lambda: obstore.put(self._store, self._path(key), content, use_multipart=False))
        except OSError as error:
            raise cannot_write(f"{self}/{key}", len(content), error) from error

    def replace_all(self, objects: Mapping[str, bytes]) -> None:
        """Put objects in the place of others, several at once."""
        with ThreadPoolExecutor(_WRITERS) as pool:
            list(pool.map(self.replace, objects.keys(), objects.values()))

    def remove(self, keys: Iterable[str]) -> None:
        """Remove objects, a thousand with each request; those that do not exist are passed over."""
        paths = [self._path(key) for key in keys]
        for first in range(0, len(paths), _BATCH):
            some = paths[first : first + _BATCH]
            with reached(self.url):
                try:
                    send(f"{self}/", partial(obstore.delete, self._store, some))
                except FileNotFoundError:  # of GCS and Azure, which tell of those
                    with ThreadPoolExecutor(_WRITERS) as pool:
                        list(pool.map(self._remove_one, some))

    def _remove_one(self, path: str) -> None:
        with suppress(FileNotFoundError):
            send(f"{self}/", partial(obstore.delete, self._store, path))

    def commit(self, keys: Iterable[str], root: str, document: bytes) -> None:
        """Raise `ConflictError`: nobody commits without the lease."""
        raise conflict(self.url)

    def array(self, key: str, dtype: str, start: int, n_values: int) -> NDArray[Any]:
        """(value,) values of an object from byte `start` on."""
        n_bytes = n_values * np.dtype(dtype).itemsize
        content = self.read(key, start, start + n_bytes) if n_values else b""
        if len(content) < n_bytes:
            raise OSError(errno.EIO, f"{len(content)} of {n_bytes} bytes", f"{self}/{key}")
        return np.frombuffer(content, dtype)

    def room(self) -> None:
        """A bucket has no end."""
        return

    def strangers(self) -> list[PermissionError]:
        """A bucket has no links."""
        return []

    def at(self, name: str) -> Bucket:
        """A prefix below this one, which nobody holds."""
        return Bucket(f"{self.url}/{name}", self.options)

    def make(self) -> None:
        """A prefix need not be made."""

    def clear(self) -> None:
        """Remove every object."""
        self.remove(self.sizes())

    def beside(self, suffix: str) -> tuple[Bucket, str]:
        """An object beside this prefix."""
        folder, _, name = self.url.rpartition("/")
        return Bucket(folder, self.options), f"{name}{suffix}"

    def suffixes(self, start: str) -> None:
        """They are not listed."""
        return

    def remove_beside(self, suffixes: Iterable[str]) -> None:
        """Remove objects beside this prefix."""
        place, _ = self.beside("")
        place.remove([self.beside(suffix)[1] for suffix in suffixes])

    def remove_torn(self, suffix: str) -> None:
        """Nothing: an object is there whole, or not at all."""

    def locate(self, key: str) -> str:
        """The URL of an object."""
        return f"{self}/{key}"

    def zarr(self) -> Any:
        """The prefix as zarr-python sees it."""
        from zarr.storage import ObjectStore

        return ObjectStore(connect(os.getpid(), *parse_url(self.url), self._services), read_only=True)

    @property
    def _store(self) -> Connection:
        scheme, bucket, _ = parse_url(self.url)
        return connect(os.getpid(), scheme, bucket, "", self._services)

    @property
    def _services(self) -> tuple[tuple[str, str], ...]:
        """The options that are obstore's."""
        return tuple(option for option in self.options if option[0] not in OWN_OPTIONS)

    @property
    def _requests(self) -> InFlight:
        return requests_of(os.getpid(), self.options)

    def _object(self, key: str) -> RemoteObject:
        return RemoteObject(self._store, self._path(key), f"{self}/{key}", self._requests)

    def _path(self, key: str) -> str:
        prefix = parse_url(self.url)[2]
        return f"{prefix}/{key}" if prefix else key

    def look(self, key: str, most: int | None = None) -> tuple[bytes, str] | None:
        """An object as a whole, and its ETag; None if there is none. Raises as :meth:`read`, for `most`."""

        def look() -> tuple[bytes, str]:
            found = obstore.get(self._store, self._path(key))
            if most is not None and found.meta["size"] > most:
                raise too_large(found.meta["size"], most, f"{self}/{key}")
            return bytes(found.bytes()), str(found.meta["e_tag"])

        try:
            with reached(self.url):
                return send(f"{self}/{key}", look)
        except FileNotFoundError:
            return None

    def put(self, key: str, content: bytes, etag: str | None) -> None:
        """Write an object if its ETag is still this one, or, for None, if there is none.

        When an answer is lost, or the client has sent the request twice, what is there tells whether it was this
        writer's content that arrived.

        Raises
        ------
        ConflictError
            If something else is there.
        """
        failed: Exception | None = None
        for attempt in range(ATTEMPTS):
            try:
                obstore.put(self._store, self._path(key), content, mode=self._mode(key, etag), use_multipart=False)
                return
            except REFUSED as error:
                raise cannot_write(f"{self}/{key}", len(content), OSError(errno.EACCES, reason(error))) from error
            except (AlreadyExistsError, PreconditionError, NotFoundError, FileNotFoundError) as error:
                failed = error
            except BaseError as error:
                failed = error
                wait(attempt)
            there = self.state(key)
            if there is not None and there[0] == len(content):  # anything longer is not fetched
                same = self.look(key, len(content))
                if same is not None and same[0] == content:
                    return
            if (None if there is None else there[1]) != etag:
                raise conflict(self.url) from failed
        raise cannot_write(f"{self}/{key}", len(content), OSError(errno.EIO, reason(failed))) from failed

    def _mode(self, key: str, etag: str | None) -> Any:
        """What has obstore write an object only where it has this ETag or, for None, where there is none."""
        if etag is None:
            return "create"
        if not self.url.startswith("gs:"):
            return {"e_tag": etag}
        found = obstore.head(self._store, self._path(key))  # GCS compares numbers of versions in place of ETags
        if found["e_tag"] != etag:
            raise PreconditionError("the object was replaced meanwhile")
        return {"e_tag": etag, "version": found["version"]}
