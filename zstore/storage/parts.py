"""One object of a bucket, read in parts: several requests at once where it is long, and each is the same object."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import obstore

from zstore.storage.inflight import PART_BYTES, InFlight
from zstore.storage.remote import Connection

Use = Callable[[int, Any], None]
"""Called with the offset and the bytes of each part, in any order, on other threads."""


@dataclass(frozen=True)
class RemoteObject:
    """An object of a bucket.

    Parameters
    ----------
    store, path
        Where it is.
    where
        The same for messages.
    requests
        What sends requests.
    """

    store: Connection
    path: str
    where: str
    requests: InFlight

    async def read(
        self,
        start: int = 0,
        stop: int | None = None,
        etag: str | None = None,
        most: int | None = None,
        use: Use | None = None,
    ) -> tuple[bytes, int, str | None]:
        """Some bytes, the length of the object, and its ETag.

        Parameters
        ----------
        start, stop
            Which bytes; None for all to the end.
        etag
            What its ETag must be; None for any.
        most
            The length that it may have. Nothing is read of one that is longer.
        use
            What is done with each part; no bytes are returned then.

        Raises
        ------
        PreconditionError
            If it has another ETag, or another object took its place meanwhile.
        FileNotFoundError, PermissionError, OSError
            As :func:`zstore.storage.remote.send`.
        """
        end = most if stop is None else stop
        if end is None or end - start <= PART_BYTES:
            return await self._part(start, stop, PART_BYTES if end is None else end - start, etag, most, use)
        first = start + PART_BYTES
        try:
            content, size, found = await self._part(start, first, PART_BYTES, etag, most, use)
        except OSError as error:
            if error.errno != errno.EIO or start:
                raise
            return await self._part(0, None, PART_BYTES, etag, most, use)  # an empty object has no range
        if most is not None and size > most:
            return b"", size, found
        end = max(min(end, size), first)
        tasks = [
            asyncio.ensure_future(self._part(low, high, high - low, found, None, use))
            for low, high in pairwise([*range(first, end, PART_BYTES), end])
        ]
        try:
            others = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        return b"".join([content, *(other[0] for other in others)]), size, found

    async def _part(
        self, start: int, stop: int | None, n_bytes: int, etag: str | None, most: int | None, use: Use | None
    ) -> tuple[bytes, int, str | None]:
        """As :meth:`read`, with one request for about `n_bytes`."""
        options: dict[str, Any] = {"if_match": etag} if etag else {}
        if start or stop is not None:
            options["range"] = (start, stop) if stop is not None else {"offset": start}

        async def request() -> tuple[Any, int, str | None]:
            found = await obstore.get_async(self.store, self.path, options=options)  # type: ignore[arg-type]
            size = found.meta["size"]
            long = most is not None and size > most  # nothing of it was fetched yet
            return b"" if long else await found.bytes_async(), size, found.meta["e_tag"]

        def used(answer: tuple[Any, int, str | None]) -> None:
            if use is not None:
                use(start, memoryview(answer[0]))

        content, size, found = await self.requests.ask(self.where, n_bytes, request, None if use is None else used)
        return b"" if use is not None else bytes(content), size, found
