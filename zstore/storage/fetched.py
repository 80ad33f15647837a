"""Objects of a bucket that are open: fetched as a whole, or in parts as they are asked for."""

from __future__ import annotations

from dataclasses import dataclass, field

from zstore.storage.protocol import Storage


@dataclass(frozen=True)
class Fetched:
    """The bytes of an object."""

    content: bytes = field(repr=False)
    etag: str | None

    def read(self, start: int = 0, stop: int | None = None) -> bytes:
        """The bytes ``[start, stop)``."""
        return self.content if start == 0 and stop is None else self.content[start:stop]

    def identity(self) -> str | None:
        """Its ETag."""
        return self.etag


@dataclass(frozen=True)
class Ranged:
    """An object by its ETag: parts of it, as long as it is there."""

    bucket: Storage
    key: str
    etag: str

    def read(self, start: int = 0, stop: int | None = None) -> bytes:
        """The bytes ``[start, stop)``, refused if another took its place."""
        return self.bucket.read(self.key, start, stop, self.etag)

    def identity(self) -> str:
        """Its ETag."""
        return self.etag
