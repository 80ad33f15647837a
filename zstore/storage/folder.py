"""A folder of a file system as a place of objects: what is committed is flushed, and appears in one step."""

from __future__ import annotations

import errno
import glob
import os
import re
import shutil
import uuid
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.errors import StoreError
from zstore.storage.beneath import check_links, irregular_files, new_file, open_file, remove_tree, walk
from zstore.storage.flush import flush_all
from zstore.storage.portable import read_at
from zstore.storage.protocol import Room
from zstore.storage.refusals import cannot_write, too_large

_LEAST_MAPPED = 1 << 17  # bytes up to which reading is quicker than mapping
_RANDOM_DIGITS = len(uuid.uuid4().hex)
_UNNAMED = re.compile(rf"\..+\.[0-9a-f]{{{_RANDOM_DIGITS}}}")  # of :func:`_beside`


@dataclass(frozen=True)
class Folder:
    """See :class:`zstore.storage.protocol.Storage`.

    Parameters
    ----------
    path
        The folder.
    shared
        Whether processes of other machines write to it as well: files then appear whole and flushed, so that neither
        a task that runs twice nor a machine that fails leaves a torn one.
    depth
        How many of the last parts of `path` lie inside a store, where no link is followed. The parts before are the
        user's own words, and may be links.
    named
        Whether keys are the user's own words too, as those of source files are: then links are followed everywhere.

    Notes
    -----
    Inside a store no link is followed, whether to read, to write or to remove, and only regular files are opened:
    see :mod:`zstore.storage.beneath`.
    """

    path: Path
    shared: bool = False
    depth: int = 0
    named: bool = False

    def __str__(self) -> str:
        return str(self.path)

    @property
    def remote(self) -> bool:
        """Nothing waits for an answer from elsewhere."""
        return False

    @property
    def leased(self) -> bool:
        """A folder is locked."""
        return False

    def read(
        self, key: str, start: int = 0, stop: int | None = None, etag: str | None = None, most: int | None = None
    ) -> bytes:
        """The bytes ``[start, stop)`` of a file."""
        opened = self.open(key, most)
        if etag is None:
            return opened.read(start, stop)
        path = str(self.path / key)
        opened.check(etag, path)
        content = opened.read(start, stop)
        opened.check(etag, path)
        return content

    def state(self, key: str) -> tuple[int, str] | None:
        """Length of a file, and what tells this state of it from every other; None if there is none."""
        try:
            opened = self.open(key)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return os.fstat(opened.descriptor).st_size, opened.etag()

    def open(self, key: str, most: int | None = None) -> OpenFile:
        """A file to read parts of; it lives on, for this reader, when it is removed."""
        opened = OpenFile(open_file(*self._beneath(key)))
        n_bytes = os.fstat(opened.descriptor).st_size
        if most is not None and n_bytes > most:
            raise too_large(n_bytes, most, str(self.path / key))
        return opened

    def fetch(self, key: str, n_bytes: int, use: Callable[[int, Any], None]) -> bool:
        """Read a file of known length, as one part."""
        content = self.open(key).read()
        use(0, content)
        return len(content) == n_bytes

    def reopen(self, key: str, identity: Hashable) -> OpenFile | None:
        """A file, if it is the one that had this identity."""
        opened = self.open(key)
        return opened if opened.identity() == identity else None

    def n_bytes(self, key: str) -> int | None:
        """Length of a file."""
        base, parts = self._beneath(key)
        try:
            check_links(base, parts[:-1])
            return base.joinpath(*parts).lstat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Every file below whose key starts with `prefix`; links and special files too, with their own size."""
        folder = prefix.rpartition("/")[0]
        base, parts = self._beneath(folder)
        check_links(base, parts)
        files, _ = walk(base.joinpath(*parts))
        keys = {f"{folder}/{name}" if folder else name: n_bytes for name, n_bytes in files.items()}
        return {key: n_bytes for key, n_bytes in keys.items() if key.startswith(prefix)}

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
            return self._write(key, pieces)
        temporary = _beside(key)
        n_bytes = self._write(temporary, pieces)
        self._put_in_place({key: temporary})
        return n_bytes

    def _write(self, key: str, pieces: Iterable[bytes | memoryview]) -> int:
        n_bytes, path = 0, self.path / key
        base, parts = self._beneath(key)
        try:
            check_links(base, parts[:-1])
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(new_file(base, parts), "wb", buffering=0) as file:
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
        changed = {key: content for key, content in objects.items() if not self._is(key, content)}
        temporaries = {key: _beside(key) for key in changed}
        for key, content in changed.items():
            self._write(temporaries[key], (content,))
        self._put_in_place(temporaries)

    def _is(self, key: str, content: bytes) -> bool:
        """Whether a file holds this; a link does not, and gives way."""
        try:
            return self.n_bytes(key) == len(content) and self.open(key).read() == content
        except OSError:
            return False

    def _put_in_place(self, temporaries: Mapping[str, str]) -> None:
        """Let whole files, flushed, take the names of their keys."""
        flush_all([self._beneath(temporary) for temporary in temporaries.values()])
        for key, temporary in temporaries.items():
            os.replace(self.path / temporary, self.path / key)
        flush_all([self._beneath(key.rpartition("/")[0]) for key in temporaries])

    def remove(self, keys: Iterable[str]) -> None:
        """Remove files, and folders that are empty."""
        for key in keys:
            base, parts = self._beneath(key)
            check_links(base, parts[:-1])
            base.joinpath(*parts).unlink(missing_ok=True)
        base, parts = self._beneath("")
        check_links(base, parts)
        for folder in sorted(walk(self.path)[1], reverse=True):
            if not any((self.path / folder).iterdir()):
                (self.path / folder).rmdir()

    def commit(self, keys: Iterable[str], root: str, document: bytes) -> None:
        """Flush files and their folders, then replace the root document.

        Readers see the version before or this one, never anything between; after a crash the same holds. In a folder
        that others write to as well, files are removed that a process was writing beside these when it was killed.
        """
        named, folders = list(keys), {""}
        for key in named:
            while (key := key.rpartition("/")[0]) not in folders:
                folders.add(key)
        if self.shared:
            self._remove_unnamed(folders)
        try:
            flush_all([self._beneath(key) for key in (*named, *sorted(folders))])
        except OSError as error:
            raise StoreError(
                f"cannot commit, for an object is not on its disk ({error.strerror})",
                expected="every object of the version, as a regular file",
                where=str(error.filename or self.path),
                fix="zstore verify lists what is wrong; nothing was committed",
            ) from error
        self.replace(root, document)

    def _remove_unnamed(self, folders: Iterable[str]) -> None:
        """Remove files that were to take the name of another one; no task writes any more."""
        for folder in folders:
            base, parts = self._beneath(folder)
            check_links(base, parts)
            with os.scandir(base.joinpath(*parts)) as entries:
                unnamed = [entry.path for entry in entries if _UNNAMED.fullmatch(entry.name)]
            for path in unnamed:
                Path(path).unlink(missing_ok=True)

    def array(self, key: str, dtype: str, start: int, n_values: int) -> NDArray[Any]:
        """(value,) values of a file from byte `start` on; many of them are memory-mapped, and few read."""
        n_bytes = n_values * np.dtype(dtype).itemsize
        if n_bytes > _LEAST_MAPPED:
            return np.memmap(self.path / key, dtype, "r", start, (n_values,))
        content = self.read(key, start, start + n_bytes) if n_values else b""
        if len(content) < n_bytes:
            raise OSError(errno.EIO, f"{len(content)} of {n_bytes} bytes", str(self.path / key))
        return np.frombuffer(content, dtype)

    def room(self) -> Room:
        """The room on its disk. Cost: one question to the file system, some 2 us."""
        path = self.path.absolute()
        usage = shutil.disk_usage(next(folder for folder in (path, *path.parents) if folder.exists()))
        return Room(usage.free, usage.total)

    def strangers(self) -> list[PermissionError]:
        """An error for each link and special file in the folder."""
        return irregular_files(self.path)

    def at(self, name: str) -> Folder:
        """A folder in this one."""
        return replace(self, path=self.path / name, depth=self.depth + len(Path(name).parts))

    def make(self) -> None:
        """Make the folder, if it is not there. Raises `OSError` if it is a link inside a store."""
        base, parts = self._beneath("")
        check_links(base, parts)
        self.path.mkdir(parents=True, exist_ok=True)

    def clear(self) -> None:
        """Remove the folder; if it is a link inside a store, the link alone."""
        base, parts = self._beneath("")
        check_links(base, parts[:-1])
        remove_tree(self.path)

    def beside(self, suffix: str) -> tuple[Folder, str]:
        """A file beside this folder."""
        return Folder(self.path.parent), f"{self.path.name}{suffix}"

    def suffixes(self, start: str) -> list[str]:
        """Suffixes of the regular files beside this folder."""
        paths = self.path.parent.glob(f"{glob.escape(self.path.name + start)}*")
        return [path.name.removeprefix(self.path.name) for path in paths if path.is_file() and not path.is_symlink()]

    def remove_beside(self, suffixes: Iterable[str]) -> None:
        """Remove files beside this folder."""
        for suffix in suffixes:
            self.path.with_name(f"{self.path.name}{suffix}").unlink(missing_ok=True)

    def remove_torn(self, suffix: str) -> None:
        """Remove files that were to take the name of one beside this folder."""
        name = glob.escape(f"{self.path.name}{suffix}")
        for path in self.path.parent.glob(f".{name}.{'[0-9a-f]' * _RANDOM_DIGITS}"):
            path.unlink(missing_ok=True)

    def locate(self, key: str) -> str:
        """The path of a file."""
        return str(self.path / key)

    def _beneath(self, key: str) -> tuple[Path, tuple[str, ...]]:
        """The last folder that the user named, and the parts below it, which nothing but us and the store named.

        Raises
        ------
        PermissionError
            If a key leaves the folder.
        """
        if self.named:
            return self.path / key, ()
        parts = tuple(key.split("/")) if key else ()
        if any(part in ("", ".", "..") or "\0" in part or os.sep in part for part in parts):
            raise PermissionError(errno.EPERM, "its name leaves the folder", str(self.path / key))
        inner = self.path.parts[len(self.path.parts) - self.depth :]
        return self.path.parents[self.depth - 1] if self.depth else self.path, (*inner, *parts)

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


def _beside(key: str) -> str:
    """A key of a file beside another one, that nobody else has."""
    folder, _, name = key.rpartition("/")
    return f"{folder}/.{name}.{uuid.uuid4().hex}" if folder else f".{name}.{uuid.uuid4().hex}"
