"""What is published: files, archives, and the data sets that they make up."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit


@dataclass(frozen=True)
class RemoteFile:
    """One file.

    Parameters
    ----------
    url
        Where it is published.
    sha256
        64 hex digits.
    n_bytes
        Its size.
    folder
        Where it goes, below the folder of all: names joined by ``/``, or empty.
    """

    url: str
    sha256: str
    n_bytes: int
    folder: str = ""

    @property
    def name(self) -> str:
        """The last part of its address."""
        return urlsplit(self.url).path.rpartition("/")[2]

    @property
    def path(self) -> str:
        """Where it goes, below the folder of all."""
        return f"{self.folder}/{self.name}" if self.folder else self.name

    def is_at(self, path: Path) -> bool:
        """Whether a path is this file, byte for byte. Reads it whole."""
        return path.is_file() and sha256_of(path) == self.sha256


@dataclass(frozen=True)
class RemoteTree:
    """A folder of files that is published as one zip archive.

    Parameters
    ----------
    url
        Where the archive is published.
    path
        Of the folder, in the archive and below the folder of all: names joined by ``/``.
    sha256
        Of the folder's content, see `sha256_of_tree`: the archive itself may be packed anew.
    n_bytes
        Of all files together.
    n_files
        How many there are.
    """

    url: str
    path: str
    sha256: str
    n_bytes: int
    n_files: int

    @property
    def name(self) -> str:
        """The last part of the archive's address."""
        return urlsplit(self.url).path.rpartition("/")[2]

    def is_at(self, path: Path) -> bool:
        """Whether a path is this folder, byte for byte. Reads it whole."""
        return path.is_dir() and sha256_of_tree(path) == self.sha256


@dataclass(frozen=True)
class PublicDataset:
    """A data set that anybody may download.

    Parameters
    ----------
    about
        What it is.
    licence, source
        Of its authors; whom to cite.
    files
        What is downloaded.
    ingest
        What to type next, with ``{folder}`` for where the files are.
    prepare
        Writes what ``zstore ingest`` reads, where that is not what is published, and returns its paths. Called with
        the folder once all files are there; leaves what it wrote before as it is. None if nothing has to be written.
    """

    about: str
    licence: str
    source: str
    files: tuple[RemoteFile | RemoteTree, ...]
    ingest: str
    prepare: Callable[[Path], list[Path]] | None = None


def sha256_of(path: Path) -> str:
    """The digest of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_tree(folder: Path) -> str:
    """The digest of a folder: of the lines that ``sha256sum`` prints for its files, in the order of their paths."""
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    lines = "".join(f"{sha256_of(folder / path)}  {path}\n" for path in paths)
    return hashlib.sha256(lines.encode()).hexdigest()
