"""Source files: found by path, glob or URL, and read as plain UTF-8 bytes."""

from __future__ import annotations

import errno
import glob
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import translate
from pathlib import Path
from typing import Any

import xxhash

from zstore.errors import SourceError, UsageError
from zstore.storage.file import File
from zstore.storage.folder import Folder
from zstore.storage.paths import check_path
from zstore.storage.urls import is_remote, open_storage

logger = logging.getLogger(__name__)

_COPY_BYTES = 1 << 22
_CHECKERS = 16
_EXPECTED = "a file of rows, such as CSV or Parquet"


def expand(
    patterns: Sequence[str | Path], storage_options: Mapping[str, str] | None = None, skip_empty: bool = False
) -> list[File]:
    """Files that the user's paths, globs and URLs name, each once, in the order given.

    Raises
    ------
    SourceError
        If a path does not exist, is a folder or is empty, or a glob matches nothing. With `skip_empty`, empty files
        are left out if there are others.
    UsageError
        If a path has a NUL in it.
    """
    found: dict[str, File] = {}
    for pattern in map(str, patterns):
        check_path(pattern, "path")
        some = _in_bucket(pattern, storage_options or {}) if is_remote(pattern) else _on_disk(pattern)
        if not some:
            raise SourceError(f"no file matches {pattern!r}", expected="at least one", fix="check the pattern")
        found.update({os.path.abspath(str(file)) if not is_remote(str(file)) else str(file): file for file in some})
    empty = [file for file in found.values() if file.n_bytes == 0]
    if empty and (not skip_empty or len(empty) == len(found)):
        way = "leave it out" if skip_empty else "leave it out, or --on-empty-file skip if there are others"
        raise SourceError(f"empty file ({empty[0]})", expected="a header line and rows", fix=way)
    for file in empty:
        logger.warning("%s has not a byte and was left out", file)
    return [file for file in found.values() if file.n_bytes]


def find(path: str | Path, flag: str, storage_options: Mapping[str, str] | None = None) -> File:
    """One file that a flag names, by its path or URL; raises as :func:`expand`."""
    check_path(path, flag)
    if is_remote(path):
        return _object(str(path), storage_options or {})
    return _local(Path(path), flag)


def source_states(
    sources: Sequence[str | Path],
    before: Mapping[str, Mapping[str, Any]] | None = None,
    storage_options: Mapping[str, str] | None = None,
) -> dict[str, dict[str, Any]]:
    """What the files that paths, globs and URLs name are now, so that a later call tells whether any has changed.

    Parameters
    ----------
    sources
        As :func:`zstore.ingest` takes them.
    before
        What an earlier call has returned; files that are in the same state are not read again.
    storage_options
        For object storage, see :func:`zstore.ingest`.

    Returns
    -------
    By absolute path or URL: ``n_bytes``, ``state`` (which changes with every write) and ``digest`` (of the bytes, 32
    hex digits; of an object in a bucket its ETag).

    Raises
    ------
    SourceError
        If there is no such file, or it is changed while it is read.
    """
    states: dict[str, dict[str, Any]] = {}
    for file in expand(sources, storage_options):
        remote = is_remote(str(file))
        name = str(file) if remote else os.path.abspath(str(file))
        states[name] = {"n_bytes": file.n_bytes, "state": str(file.etag)}
        known = (before or {}).get(name, {})
        same = all(known.get(key) == value for key, value in states[name].items()) and "digest" in known
        states[name]["digest"] = str(file.etag) if remote else known["digest"] if same else _digest(file)
    return states


def _digest(file: File) -> str:
    hasher = xxhash.xxh3_128()
    for piece in source_pieces(file, 0, file.n_bytes, _COPY_BYTES):
        hasher.update(piece)
    return hasher.hexdigest()


def _on_disk(pattern: str) -> list[File]:
    matches = sorted(glob.glob(pattern)) if glob.has_magic(pattern) and not Path(pattern).exists() else [pattern]
    return [_local(Path(match)) for match in matches]


def _local(path: Path, flag: str = "the path") -> File:
    if not path.exists():
        raise SourceError(f"no such file ({path})", expected=_EXPECTED, fix=f"check {flag}")
    if not path.is_file():
        raise SourceError(
            f"not a file ({path})",
            expected=_EXPECTED,
            fix=f"name its files, as in '{path}/*.csv'",
        )
    folder = Folder(Path.cwd(), named=True)
    try:
        state = folder.state(str(path))
    except OSError as error:
        raise cannot_read(str(path), error) from error
    if state is None:
        raise SourceError(f"no such file ({path})", expected=_EXPECTED, fix=f"check {flag}")
    return File(folder, str(path), *state)


def _in_bucket(pattern: str, options: Mapping[str, str]) -> list[File]:
    """Objects that a URL names; ``*`` and ``?`` stay within a part between slashes, as in a path."""
    if not glob.has_magic(pattern):
        return [_object(pattern, options)]
    storage, key = _bucket_of(pattern, options)
    parts = [re.compile(translate(part)) for part in key.split("/")]
    prefix = re.split(r"[*?\[]", key, maxsplit=1)[0]
    names = [name for name in sorted(storage.sizes(prefix)) if _fits(name.split("/"), parts)]
    heads = [(name, storage.head(name)) for name in names]
    return [File(storage, name, head[0], head[1]) for name, head in heads if head is not None]


def _object(url: str, options: Mapping[str, str]) -> File:
    """The object of a URL, whatever characters its key has."""
    storage, key = _bucket_of(url, options)
    head = storage.head(key)
    if head is None:
        raise SourceError(f"no such file ({url})", expected=_EXPECTED, fix="check the URL")
    return File(storage, key, head[0], head[1])


def _bucket_of(url: str, options: Mapping[str, str]) -> tuple[Any, str]:
    """The bucket of a URL, and the key, which names something below it."""
    scheme, _, rest = url.partition("://")
    bucket, _, key = rest.partition("/")
    open_storage(url, options)  # refuses keys that no object can have
    if not key.strip("/"):
        raise UsageError(f"URL {url!r}", expected=f"{scheme}://BUCKET/KEY of a file", fix="correct the URL")
    return open_storage(f"{scheme}://{bucket}", options), key.strip("/")


def _fits(names: list[str], parts: list[re.Pattern[str]]) -> bool:
    return len(names) == len(parts) and all(part.match(name) for name, part in zip(names, parts, strict=True))


def read_source(file: File, start: int = 0, stop: int | None = None) -> bytes:
    """The bytes ``[start, stop)`` of a file.

    Raises
    ------
    SourceError
        If they cannot be read, or are fewer than they were.
    """
    try:
        return file.read(start, stop)
    except OSError as error:
        raise cannot_read(str(file), error) from error


def check_unchanged(files: Iterable[File]) -> None:
    """Compare files with what they were when they were found.

    Raises
    ------
    SourceError
        If one was changed, replaced or removed since: its rows may be of two states.
    """
    with ThreadPoolExecutor(_CHECKERS) as pool:  # each waits for its bucket or file server
        list(pool.map(_check, files))


def _check(file: File) -> None:
    try:
        file.check()
    except OSError as error:
        raise cannot_read(str(file), error) from error


def source_pieces(file: File, start: int, stop: int, piece_bytes: int) -> Iterator[bytes]:
    """The bytes ``[start, stop)`` of a file piece by piece; raises as :func:`read_source`."""
    for first in range(start, stop, piece_bytes):
        yield read_source(file, first, min(first + piece_bytes, stop))


def cannot_read(name: str, error: OSError) -> SourceError:
    """A refusal of the storage as the error that the user sees."""
    if error.errno == errno.ESTALE:
        return SourceError(
            f"changed while it was read ({error.strerror})",
            expected="a file that stays as it is until it is read",
            where=name,
            fix="run again once it is complete, or read a copy of it",
        )
    return SourceError(
        f"cannot read ({error.strerror})",
        expected="a file that stays as it is and can be read",
        where=name,
        fix="check the path and its permissions, and run again",
    )
