"""Files below a folder by names that others wrote: none leads out of it, and none is anything but a regular file.

A link is followed where it ends below the folder, as those of data that are kept by digest do: its end is opened then,
without following any link on the way there.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from zstore.format.payloads.error import PayloadError, check_size
from zstore.storage.beneath import open_file

_BESIDE_BYTES = 1 << 20  # that a file may be longer than the value in it: headers, checksums
_STREAM_BYTES = 1 << 18


@dataclass(frozen=True)
class OpenFile:
    """A regular file that is open.

    Parameters
    ----------
    name
        As the column has it.
    stream
        At its beginning.
    n_bytes
        Its length when it was opened.
    """

    name: str
    stream: BinaryIO
    n_bytes: int

    def read(self, start: int, n_bytes: int) -> bytes:
        """Some bytes; fewer where the file ends. No more memory is taken than the file has bytes."""
        self.stream.seek(start)
        return self.stream.read(max(0, min(n_bytes, self.n_bytes - start)))

    def whole(self, limit_bytes: int) -> bytes:
        """All bytes.

        Raises
        ------
        PayloadError
            If they are more than a payload may have, or fewer than they were a moment ago.
        """
        check_size(f"a file of {self.n_bytes:,} bytes", self.n_bytes - _BESIDE_BYTES, limit_bytes)
        content = self.read(0, self.n_bytes)
        if len(content) != self.n_bytes:
            raise PayloadError(
                f"a file that lost {self.n_bytes - len(content):,} bytes while it was read", "a whole file"
            )
        return content


@contextmanager
def opened(root: str, name: str) -> Iterator[OpenFile]:
    """A file below a folder.

    Parameters
    ----------
    root
        The folder, as the user named it; may be a link.
    name
        Path from there, with ``/`` between parts.

    Raises
    ------
    PayloadError
        If there is none, it lies elsewhere, is no regular file, or cannot be opened.
    """
    base, parts = _real(root, name)
    try:
        descriptor = open_file(base, parts)
    except PermissionError as error:
        raise PayloadError(
            f"a file that cannot be opened ({error.strerror})", "a regular file that can be read"
        ) from error
    except (OSError, ValueError) as error:
        raise _unreadable(error) from error
    with io.BufferedReader(io.FileIO(descriptor, "rb"), _STREAM_BYTES) as stream:
        try:
            yield OpenFile(name, stream, os.fstat(descriptor).st_size)
        except OSError as error:
            raise PayloadError(f"a file that cannot be read ({error.strerror or error})", "a readable file") from error


def state_of(root: str, name: str) -> str:
    """Bytes of a file, and when it was changed, in nanoseconds since 1970, unread; raises as :func:`opened`."""
    base, parts = _real(root, name)
    try:
        state = base.joinpath(*parts).stat()
    except OSError as error:
        raise _unreadable(error) from error
    return f"{state.st_size}@{state.st_mtime_ns}"


def is_folder(root: str, name: str) -> bool:
    """Whether a name means a folder; raises as :func:`opened`."""
    base, parts = _real(root, name)
    return base.joinpath(*parts).is_dir()


def files_in(root: str, name: str, limit: int) -> list[str]:
    """Names of the files in a folder, by their bytes, without hidden ones.

    Parameters
    ----------
    root, name
        As for :func:`opened`.
    limit
        The most entries that it may have.

    Raises
    ------
    PayloadError
        If it has more, or a folder among them.
    """
    base, parts = _real(root, name)
    names = []
    try:
        with os.scandir(base.joinpath(*parts)) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    raise PayloadError(f"a folder with another folder in it ({entry.name})", "the files of one series")
                names.append(entry.name)
                if len(names) > limit:
                    raise PayloadError(f"a folder of more than {limit:,} files", "the files of one series")
    except OSError as error:
        raise _unreadable(error) from error
    return sorted(names, key=os.fsencode)


def _real(root: str, name: str) -> tuple[Path, tuple[str, ...]]:
    """The folder and the parts of a path below it, with no link in them."""
    expected = f"the path of a file below {root}"
    odd = "\0" in name or name.startswith("/") or os.path.isabs(name) or bool(os.path.splitdrive(name)[0])
    if not name.strip() or odd or ".." in name.replace(os.sep, "/").split("/"):
        raise PayloadError(f"the path {name!r}", expected)
    try:
        base = Path(os.path.realpath(root, strict=True))
        path = Path(os.path.realpath(base / name, strict=True))
    except (OSError, ValueError) as error:
        raise _unreadable(error) from error
    if path != base and base not in path.parents:
        raise PayloadError(f"the path {name!r}, a link that leads elsewhere", expected)
    return base, path.relative_to(base).parts


def _unreadable(error: OSError | ValueError) -> PayloadError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return PayloadError("a file that is not there", "one at this path below --file-root")
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return PayloadError(f"a file that cannot be opened ({reason})", "a file that can be read")
