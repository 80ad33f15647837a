"""Which objects a version needs, how long each is, and its digest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray

from zstore.format.arrays import strings


@dataclass(frozen=True)
class ObjectRecord:
    """One stored object.

    Parameters
    ----------
    key
        Its key, relative to the store.
    n_bytes
        Its length.
    digest
        xxh3-128 of its bytes, 32 hex digits.
    """

    key: str
    n_bytes: int
    digest: str

    @classmethod
    def of(cls, key: str, content: bytes) -> ObjectRecord:
        """The record of an object with this content."""
        return cls(key, len(content), digest(content))


def digest(content: bytes) -> str:
    """xxh3-128 as 32 hex digits: fast enough to check every read, and long enough never to collide by chance."""
    return xxhash.xxh3_128_hexdigest(content)


def to_arrays(records: list[ObjectRecord]) -> dict[str, NDArray[np.generic]]:
    """The arrays of the manifest group, each (object,), sorted by key."""
    records = sorted(records, key=lambda record: record.key)
    return {
        "key": strings([record.key for record in records]),
        "n_bytes": np.array([record.n_bytes for record in records], np.int64),
        "digest": strings([record.digest for record in records]),
    }


def from_arrays(
    key: NDArray[np.generic], n_bytes: NDArray[np.generic], digests: NDArray[np.generic]
) -> list[ObjectRecord]:
    """Read :func:`to_arrays` back."""
    return [ObjectRecord(str(k), int(n), str(d)) for k, n, d in zip(key, n_bytes, digests, strict=True)]
