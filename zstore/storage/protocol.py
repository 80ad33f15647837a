"""What a place of objects can do. Everything else in zstore knows keys and bytes only."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol


class Opened(Protocol):
    """One object, opened."""

    def read(self, start: int = 0, stop: int | None = None) -> bytes:
        """The bytes ``[start, stop)``; to the end for None."""
        ...

    def identity(self) -> Hashable:
        """Something equal only where another opening found the very same object; None where nothing can tell."""
        ...


class Room(NamedTuple):
    """Bytes of a disk."""

    free: int
    total: int


class Storage(Protocol):
    """Objects by key, and what the place can do. It can be pickled, for the workers of a cluster."""

    @property
    def remote(self) -> bool:
        """Whether each request waits for an answer from elsewhere, so that few, large, simultaneous ones are best."""
        ...

    @property
    def leased(self) -> bool:
        """Whether its writer holds a lease in the root document; else the place can be locked."""
        ...

    def read(
        self, key: str, start: int = 0, stop: int | None = None, etag: str | None = None, most: int | None = None
    ) -> bytes:
        """The bytes ``[start, stop)`` of an object.

        Parameters
        ----------
        key
            Its key.
        start, stop
            Which bytes; None for all to the end.
        etag
            The state that the object must be in, before and after it is read; None for any.
        most
            The length that the object may have, which is looked at before anything is read; None for any.

        Raises
        ------
        FileNotFoundError
            If there is none.
        OSError
            If it cannot be read; with ESTALE if it is in another state than `etag`, with EFBIG if it is longer than
            `most`, with EPERM if it is a link, or no regular file.
        """
        ...

    def open(self, key: str, most: int | None = None) -> Opened:
        """An object to read parts of, which stays what it is now whatever is done to its key.

        Raises as :meth:`read`, which also says what `most` is.
        """
        ...

    def reopen(self, key: str, identity: Hashable) -> Opened | None:
        """An object that was opened before, without reading it as a whole again; None if it is not the same any more.

        Raises
        ------
        OSError
            If it is not there.
        """
        ...

    def fetch(self, key: str, n_bytes: int, use: Callable[[int, Any], None]) -> bool:
        """Read an object of known length in parts, several at once.

        Parameters
        ----------
        key
            Its key.
        n_bytes
            Its length.
        use
            Called with the offset and the bytes of each part, in any order, on other threads.

        Returns
        -------
        Whether it has that length. If not, `use` may have had some of it.

        Raises
        ------
        OSError
            As :meth:`read`, and with ESTALE if it was replaced meanwhile.
        """
        ...

    def n_bytes(self, key: str) -> int | None:
        """Length of an object; None if there is none."""
        ...

    def state(self, key: str) -> tuple[int, str] | None:
        """Length of an object, and what tells this state of it from every other (`etag`); None if there is none."""
        ...

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Every object whose key starts with `prefix`, and its length."""
        ...

    def write(self, key: str, content: bytes) -> None:
        """Write an object that nobody reads yet; not durable before :meth:`commit` has flushed it.

        Raises
        ------
        StoreError
            Naming place and bytes, when the storage refuses.
        """
        ...

    def write_all(self, objects: Mapping[str, bytes]) -> None:
        """Write several objects. Raises as :meth:`write`."""
        ...

    def write_stream(self, key: str, pieces: Iterable[bytes | memoryview]) -> int:
        """Write an object piece by piece, and return its length. Raises as :meth:`write`."""
        ...

    def replace(self, key: str, content: bytes) -> None:
        """Put one object in the place of another, atomically and durably. Raises as :meth:`write`."""
        ...

    def replace_all(self, objects: Mapping[str, bytes]) -> None:
        """Put objects in the place of others, each as :meth:`replace` does; all are durable when this returns."""
        ...

    def remove(self, keys: Iterable[str]) -> None:
        """Remove objects, and folders that are empty."""
        ...

    def commit(self, keys: Iterable[str], root: str, document: bytes) -> None:
        """Make objects durable, then let `document` take the place of the object `root`, in one step.

        Raises
        ------
        ConflictError
            If another writer holds the store.
        StoreError
            As :meth:`write`.
        """
        ...

    def array(self, key: str, dtype: str, start: int, n_values: int) -> Any:
        """(value,) values of an object from byte `start` on, few of which are looked at: mapped where that is cheaper.

        Raises as :meth:`read`.
        """
        ...

    def room(self) -> Room | None:
        """The room on its disk; None where there is no end to it."""
        ...

    def strangers(self) -> list[PermissionError]:
        """An error for each link and special file in it, which no writer makes; none where there are no such things."""
        ...

    def at(self, name: str) -> Storage:
        """A place inside this one."""
        ...

    def make(self) -> None:
        """Make the place, where places have to be made. Raises `OSError` if it cannot be."""
        ...

    def clear(self) -> None:
        """Remove everything there, and the place."""
        ...

    def beside(self, suffix: str) -> tuple[Storage, str]:
        """Storage and key of an object beside this place, of the same name but for `suffix`."""
        ...

    def suffixes(self, start: str) -> list[str] | None:
        """Suffixes, as :meth:`beside` takes them, that begin with `start` and that objects beside this place have.

        None where they are not listed: the user may have named the only prefix of a bucket that may be listed.
        """
        ...

    def remove_beside(self, suffixes: Iterable[str]) -> None:
        """Remove objects beside this place; those that do not exist are passed over."""
        ...

    def remove_torn(self, suffix: str) -> None:
        """Remove what a writer that died has left of an object beside this place, which had not its name yet."""
        ...

    def locate(self, key: str) -> str:
        """Where an object is, as the user names places."""
        ...

    def zarr(self) -> Any:
        """The same place as a read-only store of zarr-python."""
        ...
