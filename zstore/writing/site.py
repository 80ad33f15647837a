"""Where a version is built: the place, what it needs meanwhile, and what may be in the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from zstore.errors import StoreError
from zstore.reading.root import root_document
from zstore.storage.protocol import Storage

Mode = Literal["new", "overwrite", "append"]


@dataclass(frozen=True)
class Site:
    """A place to build a version on.

    Parameters
    ----------
    root
        Where its objects go.
    scratch
        Where what is needed meanwhile goes.
    version
        Its number.
    first_shard
        The lowest shard from which on all are free.
    begun
        What has begun that writes objects of the version: as long as it is nothing, whoever fails has none to remove,
        and need not list all that there are.
    """

    root: Storage
    scratch: Storage
    version: int = 1
    first_shard: int = 0
    begun: list[str] = field(default_factory=list)


def behind(store: Storage) -> tuple[int, int]:
    """Number of the next version, and the first shard that no version has objects of or behind."""
    root = root_document(store)
    return root.version + 1, int(root.document["next_shard"])


def no_store(store: Storage) -> StoreError:
    """The error of an append to what does not exist."""
    return StoreError(f"no store to append to ({store})", fix="leave out --append to make it")


def store_exists(store: Storage) -> StoreError:
    """The error of a store that may not be replaced."""
    return StoreError(
        f"there is a store already ({store})",
        expected="a path where nothing is",
        fix="--append to add to it, --overwrite to replace it, or name another STORE",
    )


def stranger(store: Storage) -> StoreError:
    """The error of something that zstore did not make."""
    return StoreError(
        f"something that is no store is in the way ({store})",
        expected="a path where nothing is",
        fix="name another STORE; zstore removes only what it made",
    )
