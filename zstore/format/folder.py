"""A folder of a file system as a place of objects: what is committed is flushed, and appears in one step."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zstore.errors import StoreError
from zstore.format.flush import flush_all
from zstore.format.layout import ROOT
from zstore.format.portable import OPEN_TO_READ, read_at


@dataclass(frozen=True)
class Folder:
    """See :class:`zstore.format.storage.Storage`.

    Parameters
    ----------
    path
        The folder.
    shared
        Whether processes of other machines write to it as well: files then appear whole and flushed, so that neither
        a task that runs twice nor a machine that fails leaves a torn one.
    """

    path: Path
    shared: bool = False

    def __str__(self) -> str:
        return str(self.path)

    def read(self, key: str, start: int = 0, stop: int | None = None, etag: str | None = None) -> bytes:
        """The bytes ``[start, stop)`` of a file."""
        if start == 0 and stop is None and etag is None:
            return (self.path / key).read_bytes()
        opened = self.open(key)
        if etag is None:
            return opened.read(start, stop)
        opened.check(etag, f"{self.path}/{key}")
        content = opened.read(start, stop)
        opened.check(etag, f"{self.path}/{key}")
        return content

    def state(self, key: str) -> tuple[int, str] | None:
        """Length of a file, and what tells this state of it from every other; None if there is none."""
        try:
            opened = self.open(key)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return os.fstat(opened.descriptor).st_size, opened.etag()

    def open(self, key: str) -> OpenFile:
        """A file to read parts of; it lives on, for this reader, when it is removed."""
        return OpenFile(os.open(self.path / key, OPEN_TO_READ))

    def reopen(self, key: str, identity: Hashable) -> OpenFile | None:
        """A file, if it is the one that had this identity."""
        opened = self.open(key)
        return opened if opened.identity() == identity else None

    def n_bytes(self, key: str) -> int | None:
        """Length of a file."""
        try:
            return (self.path / key).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Every file below whose key starts with `prefix`."""
        sizes: dict[str, int] = {}
        for folder, _, names in os.walk(self.path / prefix.rpartition("/")[0]):
            below = Path(folder).relative_to(self.path).as_posix()
            keys = {name if below == "." else f"{below}/{name}": Path(folder, name) for name in names}
            sizes |= {key: p.stat().st_size for key, p in keys.items() if key.startswith(prefix) and p.is_file()}
        return sizes

    def write(self, key: str, content: bytes) -> None:
        """Write a file."""
        self.write_stream(key, (content,))

    def write_all(self, objects: Mapping[str, bytes]) -> None:
        """Write files."""
        for key, content in objects.items():
            self.write(key, content)

    def write_stream(self, key: str, pieces: Iterable[bytes | memoryview]) -> int:
        """Write a file piece by piece."""
        if not self.shared:
            return self._write(self.path / key, pieces)
        temporary = self._beside(key)
        n_bytes = self._write(temporary, pieces)
        self._put_in_place({key: temporary})
        return n_bytes

    def _write(self, path: Path, pieces: Iterable[bytes | memoryview]) -> int:
        n_bytes = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb", buffering=0) as file:
                for piece in pieces:
                    n_bytes += len(piece)
                    left = memoryview(piece)
                    while len(left):
                        left = left[file.write(left) :]
        except OSError as error:
            raise cannot_write(str(path), n_bytes, error) from error
        return n_bytes

    def replace(self, key: str, content: bytes) -> None:
        """Put one file in the place of another; nothing is done where it is there already."""
        self.replace_all({key: content})

    def replace_all(self, objects: Mapping[str, bytes]) -> None:
        """Put files in the place of others; nothing is done about those that are there already."""
        changed = {key: content for key, content in objects.items() if not self._holds(key, content)}
        temporaries = {key: self._beside(key) for key in changed}
        for key, content in changed.items():
            self._write(temporaries[key], (content,))
        self._put_in_place(temporaries)

    def _holds(self, key: str, content: bytes) -> bool:
        """Whether a file has these bytes."""
        return self.n_bytes(key) == len(content) and (self.path / key).read_bytes() == content

    def _beside(self, key: str) -> Path:
        path = self.path / key
        return path.with_name(f".{path.name}.{uuid.uuid4().hex}")

    def _put_in_place(self, temporaries: Mapping[str, Path]) -> None:
        """Let whole files, flushed, take the names of their keys."""
        flush_all(temporaries.values())
        for key, temporary in temporaries.items():
            os.replace(temporary, self.path / key)
        flush_all({temporary.parent for temporary in temporaries.values()})

    def remove(self, keys: Iterable[str]) -> None:
        """Remove files, and folders that are empty."""
        for key in keys:
            (self.path / key).unlink(missing_ok=True)
        emptied: set[str] = set()
        for folder, folders, names in os.walk(self.path, topdown=False):
            inside = [f"{folder}/{name}" for name in folders]
            if not names and emptied.issuperset(inside) and Path(folder) != self.path:
                os.rmdir(folder)
                emptied.add(folder)

    def commit(self, keys: Iterable[str], document: bytes) -> None:
        """Flush files and their folders, then replace the root document.

        Readers see the version before or this one, never anything between; after a crash the same holds.
        """
        named, folders = list(keys), {""}
        for key in named:
            while (key := key.rpartition("/")[0]) not in folders:
                folders.add(key)
        flush_all([self.path / key for key in (*named, *sorted(folders))])
        self.replace(ROOT, document)

    def at(self, name: str) -> Folder:
        """A folder in this one."""
        return Folder(self.path / name, self.shared)

    def clear(self) -> None:
        """Remove the folder."""
        if self.path.exists():
            shutil.rmtree(self.path)

    def beside(self, suffix: str) -> tuple[Folder, str]:
        """A file beside this folder."""
        return Folder(Path()), str(self.path.with_name(f"{self.path.name}{suffix}"))

    def zarr(self) -> Any:
        """The folder as zarr-python sees it."""
        from zarr.storage import LocalStore  # a sixth of a second, which an ingest can do without

        return LocalStore(self.path, read_only=True)


@dataclass(frozen=True)
class OpenFile:
    """An open file, closed when nobody holds it any more."""

    descriptor: int

    def read(self, start: int = 0, stop: int | None = None) -> bytes:
        """The bytes ``[start, stop)``."""
        pieces = []
        stop = os.fstat(self.descriptor).st_size if stop is None else stop
        while start < stop and (piece := read_at(self.descriptor, stop - start, start)):
            pieces.append(piece)
            start += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def identity(self) -> Hashable:
        """What tells this file from another that takes its place."""
        found = os.fstat(self.descriptor)
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def etag(self) -> str:
        """What tells this state of the file from every other: which file it is, its size, and when it was changed.

        The time of change of the inode tells of an edit whose time of modification was set back.
        """
        found = os.fstat(self.descriptor)
        return f"{found.st_ino}-{found.st_size}-{found.st_mtime_ns}-{found.st_ctime_ns}"

    def check(self, etag: str, where: str) -> None:
        """Raise an `OSError` (ESTALE) if the file is in another state."""
        if self.etag() != etag:
            raise OSError(errno.ESTALE, "the file was changed while it was read", where)

    def __del__(self) -> None:
        os.close(self.descriptor)


def cannot_write(where: str, n_bytes: int, error: OSError) -> StoreError:
    """A refusal of the storage, with the object and what was to go there."""
    return StoreError(
        f"cannot write {n_bytes:,} bytes ({error.strerror})",
        where=where,
        fix="free some space or check the permissions, then run again; what was committed is whole",
    )
