"""Bring a published file or archive to a path: whole, or not at all."""

from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from zstore.errors import SourceError
from zstore.progress import Report
from zstore.published.files import RemoteFile, RemoteTree

_TIMEOUT_S = 30


class Brought:
    """A progress bar as pooch wants one: bytes of one file, among those of all. It ends a download that is too long.

    Parameters
    ----------
    progress
        Called with bytes done and in all, or None.
    name
        Of the data set.
    before, n_bytes, all_bytes
        Bytes of the files before this one, of this one, and of all.
    """

    def __init__(self, progress: Report | None, name: str, before: int, n_bytes: int, all_bytes: int) -> None:
        self._progress, self._name, self._before, self._all = progress, name, before, all_bytes
        self._n_bytes, self._done = n_bytes, 0
        self.total = 0

    def update(self, n_bytes: int) -> None:
        """So many more."""
        self._done += n_bytes
        if self._done > 2 * self._n_bytes + 2**20:
            raise _TooLongError
        if self._progress is not None:
            self._progress(self._name, min(self._before + self._done, self._all), self._all, "bytes")

    def reset(self) -> None:
        """From the beginning."""
        self._done = 0

    def close(self) -> None:
        """Nothing more will come."""


class _TooLongError(Exception):
    """More comes than was published."""


def bring(file: RemoteFile | RemoteTree, folder: Path, mirror: str | None, brought: Brought) -> None:
    """Put a file or a tree where it belongs in a folder, from a mirror or from where it is published.

    Parameters
    ----------
    file
        What to bring. Nothing may be at its place yet.
    folder
        Of all files.
    mirror
        Folder, or the address of one, that has the files at the same paths, and a tree as a folder or as its
        archive; or None.
    brought
        Told how many bytes have come.

    Raises
    ------
    SourceError
        If it cannot be had, or is not what was published. Nothing is left of it.
    """
    path = folder / file.path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    _remove(part)
    try:
        where = _bring_to(part, file, mirror, brought)
        if not file.is_at(part):
            raise SourceError(
                f"{file.path} is not what was published, or is damaged",
                expected=f"sha256 {file.sha256}",
                where=where,
                fix="try again, or --mirror",
            )
        part.rename(path)
    finally:
        _remove(part)


def _bring_to(part: Path, file: RemoteFile | RemoteTree, mirror: str | None, brought: Brought) -> str:
    """Bring what is not looked at yet; return where it came from."""
    if mirror is not None and urlsplit(mirror).scheme not in ("http", "https"):
        return _copy(part, file, Path(mirror))
    if isinstance(file, RemoteFile):
        url = file.url if mirror is None else f"{mirror.rstrip('/')}/{file.path}"
        return _download(url, part, file, brought)
    archive = part.with_name(f"{part.name}.zip")
    try:
        where = _download(file.url if mirror is None else f"{mirror.rstrip('/')}/{file.name}", archive, file, brought)
        _unpack(archive, part, file, where)
    finally:
        _remove(archive)
    return where


def _copy(part: Path, file: RemoteFile | RemoteTree, mirror: Path) -> str:
    source, archive = mirror / file.path, mirror / file.name
    if isinstance(file, RemoteTree) and source.is_dir():
        shutil.copytree(source, part)
        return str(source)
    if isinstance(file, RemoteTree) and archive.is_file():
        _unpack(archive, part, file, str(archive))
        return str(archive)
    if isinstance(file, RemoteTree) or not source.is_file():
        wanted = file.name if isinstance(file, RemoteTree) else file.path
        raise SourceError(f"no {wanted} in the mirror {mirror}", expected="that file", fix=f"download {file.url} there")
    shutil.copyfile(source, part)
    return str(source)


def _download(url: str, target: Path, file: RemoteFile | RemoteTree, brought: Brought) -> str:
    """Download to a path; return the address as it may be shown."""
    import pooch  # with requests a fifth of a second
    import requests

    pooch.get_logger().setLevel("WARNING")
    download = pooch.HTTPDownloader(progressbar=brought, timeout=_TIMEOUT_S)
    try:
        pooch.retrieve(url, None, fname=target.name, path=target.parent, downloader=download)
    except requests.exceptions.RequestException as error:
        raise SourceError(
            f"cannot download {file.name} ({_reason(error)})",
            expected="an answer",
            where=_without_password(url),
            fix=f"download {file.url} elsewhere and name its folder: --mirror FOLDER",
        ) from error
    except _TooLongError as error:
        raise SourceError(
            f"{file.name} is longer than what was published",
            expected=f"{file.n_bytes:,} bytes",
            where=_without_password(url),
            fix="--mirror",
        ) from error
    return _without_password(url)


def _unpack(archive: Path, part: Path, file: RemoteTree, where: str) -> None:
    """Take the files below a tree's path out of a zip archive: no name leaves it, no size exceeds what is expected."""
    try:
        with zipfile.ZipFile(archive) as packed:
            members = [entry for entry in packed.infolist() if not entry.is_dir() and _within(entry, file)]
            if len(members) != file.n_files or sum(entry.file_size for entry in members) != file.n_bytes:
                raise SourceError(
                    f"{file.name} has {len(members):,} files in {file.path}, with "
                    f"{sum(entry.file_size for entry in members):,} bytes",
                    expected=f"{file.n_files:,} files, {file.n_bytes:,} bytes",
                    where=where,
                    fix="try again, or --mirror",
                )
            for entry in members:
                target = part / PurePosixPath(entry.filename).relative_to(file.path)
                target.parent.mkdir(parents=True, exist_ok=True)
                with packed.open(entry) as source, target.open("wb") as out:
                    shutil.copyfileobj(source, out)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError) as error:
        raise SourceError(
            f"{file.name} cannot be unpacked ({error})", expected="a zip archive", where=where, fix="--mirror"
        ) from error


def _within(entry: zipfile.ZipInfo, file: RemoteTree) -> bool:
    name = PurePosixPath(entry.filename)
    return name.is_relative_to(file.path) and ".." not in name.parts


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def _reason(error: Exception) -> str:
    """The innermost cause, which names it in a few words."""
    while error.__context__ is not None and isinstance(error.__context__, Exception):
        error = error.__context__
    return _without_password(str(error)) or type(error).__name__


def _without_password(text: str) -> str:
    """A text in which no URL names a user and a password."""
    return re.sub(r"://[^/\s@]*@", "://", text)
