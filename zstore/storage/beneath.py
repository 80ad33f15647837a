"""Files beneath a folder, without following a link on the way: what a store from elsewhere names stays inside it.

The folder itself is the user's own word, and may be a link. Below it, a link is refused, whether it stands for a file
or for a folder on the way, and so is everything that is no regular file: a FIFO would wait for ever, and a device never
ends. Where the system can open files relative to a folder (``dir_fd``), each part of a path is opened in the one
before, so nothing can be put in its place meanwhile; elsewhere each part is looked at before the file is opened.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from zstore.storage.portable import FLUSHES_FOLDERS, OPEN_TO_FLUSH, flush_descriptor

_STEPWISE = os.open in os.supports_dir_fd and hasattr(os, "O_NOFOLLOW") and hasattr(os, "O_DIRECTORY")
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_DIRECTORY = getattr(os, "O_DIRECTORY", 0)
# O_NONBLOCK: opening a FIFO does not wait for its other end; for a regular file it means nothing.
_ALWAYS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def open_file(base: Path, parts: Sequence[str]) -> int:
    """Open a regular file below a folder, to be read.

    Parameters
    ----------
    base
        The folder, as the user named it; or a file, where there are no parts.
    parts
        The parts of the path below it.

    Returns
    -------
    A descriptor, which the caller closes.

    Raises
    ------
    PermissionError
        If a part is a link, or the file is no regular one.
    OSError
        As :func:`os.open` does.
    """
    descriptor = _open_below(base, parts, os.O_RDONLY)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise irregular(base.joinpath(*parts))
    return descriptor


def new_file(base: Path, parts: Sequence[str]) -> int:
    """Make a file below a folder, to be written; what is at its path, be it a file, a link or a FIFO, gives way.

    So nothing is ever written into a file that has another name elsewhere. Raises as :func:`open_file`.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        return _open_below(base, parts, flags)
    except FileExistsError:
        check_links(base, parts[:-1])
        base.joinpath(*parts).unlink(missing_ok=True)
        return _open_below(base, parts, flags)


def flush(base: Path, parts: Sequence[str]) -> None:
    """Flush a file or a folder below a folder to its disk. Raises as :func:`open_file`."""
    if not FLUSHES_FOLDERS and base.joinpath(*parts).is_dir():
        return
    descriptor = _open_below(base, parts, OPEN_TO_FLUSH)
    try:
        mode = os.fstat(descriptor).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise irregular(base.joinpath(*parts))
        flush_descriptor(descriptor)
    finally:
        os.close(descriptor)


def check_links(base: Path, parts: Sequence[str]) -> None:
    """Refuse a path that has a link below its folder; parts that are not there are no links.

    Raises
    ------
    PermissionError
        Naming the link.
    """
    for n in range(1, len(parts) + 1):
        path = base.joinpath(*parts[:n])
        if path.is_symlink():
            raise irregular(path)


def walk(folder: Path) -> tuple[dict[str, int], list[str]]:
    """What lies below a folder, links and special files included; nothing is followed.

    Returns
    -------
    Files by their path from the folder, with ``/`` between parts, and their sizes; and the paths of folders.
    """
    files: dict[str, int] = {}
    folders: list[str] = []
    waiting = [""]
    while waiting:
        inner = waiting.pop()
        try:
            with os.scandir(folder / inner) as entries:
                for entry in entries:
                    name = f"{inner}/{entry.name}" if inner else entry.name
                    try:
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(name)
                            waiting.append(name)
                        else:
                            files[name] = entry.stat(follow_symlinks=False).st_size
                    except FileNotFoundError:
                        continue  # another process removed it meanwhile
        except (FileNotFoundError, NotADirectoryError):
            continue
    return files, folders


def remove_tree(path: Path) -> None:
    """Remove a folder and what it holds; of a link, the link alone, and nothing that it points to."""
    if path.is_symlink() or path.is_file():
        path.unlink(missing_ok=True)
        return
    files, folders = walk(path)
    for name in files:
        (path / name).unlink(missing_ok=True)
    for name in sorted(folders, reverse=True):
        (path / name).rmdir()
    if path.exists():
        path.rmdir()


def irregular_files(folder: Path) -> list[PermissionError]:
    """An error for each link and special file below a folder, by path."""
    paths = (folder / name for name in sorted(walk(folder)[0]))
    return [irregular(path) for path in paths if not stat.S_ISREG(path.lstat().st_mode)]


def irregular(path: Path) -> PermissionError:
    """The error for a link, or for what is no regular file."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        mode = 0
    kinds = {
        stat.S_ISLNK: "a link",
        stat.S_ISFIFO: "a FIFO",
        stat.S_ISCHR: "a device",
        stat.S_ISBLK: "a device",
        stat.S_ISSOCK: "a socket",
        stat.S_ISDIR: "a folder",
    }
    kind = next((name for test, name in kinds.items() if test(mode)), "no regular file")
    return PermissionError(errno.EPERM, f"{path.name} is {kind}, and only regular files are opened", str(path))


def _open_below(base: Path, parts: Sequence[str], flags: int) -> int:
    path = base.joinpath(*parts)
    if not _STEPWISE:
        check_links(base, parts)
        return os.open(path, flags | _ALWAYS, 0o666)
    folder = None
    try:
        for part in parts[:-1]:
            inner = _open_part(part if folder is not None else base / part, flags=_DIRECTORY, folder=folder, path=path)
            if folder is not None:
                os.close(folder)
            folder = inner
        if not parts:
            return os.open(base, flags | _ALWAYS)
        return _open_part(parts[-1] if folder is not None else base / parts[-1], flags, folder, path)
    finally:
        if folder is not None:
            os.close(folder)


def _open_part(part: str | Path, flags: int, folder: int | None, path: Path) -> int:
    """Open one part of a path in the folder before it."""
    try:
        return os.open(part, flags | _ALWAYS | _NOFOLLOW, 0o666, dir_fd=folder)
    except OSError as error:
        error.filename = str(path)
        mode = _mode(part, folder)
        if error.errno == errno.EEXIST or not (stat.S_ISLNK(mode) or error.errno == errno.ENXIO):  # of a socket
            raise
        name = part.name if isinstance(part, Path) else part
        kind = "a link" if stat.S_ISLNK(mode) else "no regular file"
        raise PermissionError(errno.EPERM, f"{name} is {kind}, and only regular files are opened", str(path)) from error


def _mode(part: str | Path, folder: int | None) -> int:
    try:
        return os.stat(part, dir_fd=folder, follow_symlinks=False).st_mode
    except OSError:
        return 0
