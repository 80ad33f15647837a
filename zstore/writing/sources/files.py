"""Source files: found by path, glob or URL, and read as plain UTF-8 bytes."""

from __future__ import annotations

import codecs
import errno
import glob
import gzip
import os
import re
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import translate
from pathlib import Path
from typing import Any

import pyarrow as pa
import xxhash

from zstore.errors import SourceError, UsageError
from zstore.format.folder import Folder
from zstore.format.storage import File, Storage
from zstore.format.urls import is_remote, open_storage

_COPY_BYTES = 1 << 22
_CHECKERS = 16
_RESERVE_BYTES, _RESERVE_SHARE = 1 << 28, 50  # of a disk: 256 MiB, or a fiftieth where that is less
COMPRESSED = (".gz", ".zst", ".zstd")


def expand(patterns: Sequence[str | Path], storage_options: Mapping[str, str] | None = None) -> list[File]:
    """Files that the user's paths, globs and URLs name, each once, in the order given.

    Raises
    ------
    SourceError
        If a path does not exist, is a folder or is empty, or a glob matches nothing.
    """
    found: dict[str, File] = {}
    for pattern in map(str, patterns):
        some = _in_bucket(pattern, storage_options or {}) if is_remote(pattern) else _on_disk(pattern)
        if not some:
            raise SourceError(f"no file matches {pattern!r}", expected="at least one", fix="check the pattern")
        found.update({os.path.abspath(str(file)) if not is_remote(str(file)) else str(file): file for file in some})
    for file in found.values():
        if file.n_bytes == 0:
            raise SourceError(f"empty file ({file})", expected="a header line and rows", fix="leave it out")
    return list(found.values())


def find(path: str | Path, flag: str, storage_options: Mapping[str, str] | None = None) -> File:
    """One file that a flag names, by its path or URL; raises as :func:`expand`."""
    if is_remote(path):
        return _in_bucket(str(path), storage_options or {})[0]
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
        raise SourceError(f"no such file ({path})", expected="a CSV file", fix=f"check {flag}")
    if not path.is_file():
        raise SourceError(f"not a file ({path})", expected="a CSV file", fix=f"name its files: '{path}/*.csv'")
    folder = Folder(Path.cwd(), named=True)
    try:
        state = folder.state(str(path))
    except OSError as error:
        raise cannot_read(str(path), error) from error
    if state is None:
        raise SourceError(f"no such file ({path})", expected="a CSV file", fix=f"check {flag}")
    return File(folder, str(path), *state)


def _in_bucket(pattern: str, options: Mapping[str, str]) -> list[File]:
    """Objects that a URL names; ``*`` and ``?`` stay within a part between slashes, as in a path."""
    bucket, _, key = pattern.removeprefix("s3://").partition("/")
    storage: Any = open_storage(f"s3://{bucket}", options)
    if not glob.has_magic(key):
        head = storage.head(key)
        if head is None:
            raise SourceError(f"no such file ({pattern})", expected="a CSV file", fix="check the URL")
        return [File(storage, key, head[0], head[1])]
    parts = [re.compile(translate(part)) for part in key.split("/")]
    prefix = re.split(r"[*?\[]", key, maxsplit=1)[0]
    names = [name for name in sorted(storage.sizes(prefix)) if _fits(name.split("/"), parts)]
    heads = [(name, storage.head(name)) for name in names]
    return [File(storage, name, head[0], head[1]) for name, head in heads if head is not None]


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


def is_plain(file: File, encoding: str) -> bool:
    """Whether a file can be read as it is."""
    return file.path.suffix not in COMPRESSED and is_plain_text(encoding)


def plain_utf8(file: File, scratch: Storage, key: str, encoding: str) -> File:
    """The file as plain UTF-8: itself if it is, else a copy on scratch space, inflated and transcoded as a stream.

    Raises
    ------
    SourceError
        If the file is cut short, damaged, not of this encoding, or larger than the scratch space has room for.
    """
    if is_plain(file, encoding):
        return file
    pieces = _pieces(file) if is_plain_text(encoding) else _transcoded(file, encoding)
    return File(scratch, key, scratch.write_stream(key, _with_room(pieces, file, scratch)))


def _with_room(pieces: Iterable[bytes], file: File, scratch: Storage) -> Iterator[bytes]:
    """The pieces, as long as the disk they are written to keeps a reserve of free space.

    A small file can inflate to a thousand times its size, and a disk that is full harms everybody who writes to it.

    Raises
    ------
    SourceError
        If the next piece would leave less than the reserve.
    """
    if not isinstance(scratch, Folder):
        yield from pieces
        return
    n_bytes = 0
    for piece in pieces:
        disk = shutil.disk_usage(scratch.path)
        reserve = min(_RESERVE_BYTES, disk.total // _RESERVE_SHARE)
        if disk.free - len(piece) < reserve:
            raise SourceError(
                f"{file} needs more scratch space than there is: {n_bytes:,} bytes of it are inflated from "
                f"{file.n_bytes:,}, and {disk.free:,} are free",
                expected=f"{reserve:,} bytes that stay free",
                where=str(scratch),
                fix="free some space, or name another disk with --scratch",
            )
        n_bytes += len(piece)
        yield piece


def is_plain_text(encoding: str) -> bool:
    """Whether an encoding is UTF-8.

    Raises
    ------
    UsageError
        If there is no such encoding.
    """
    try:
        b"-".decode(encoding)  # codecs of bytes, such as hex, can be looked up, but decode to no text
    except UnicodeError:  # half a character is none
        pass
    except LookupError:
        raise UsageError(
            f"encoding {encoding!r}",
            expected="one that Python knows, such as latin-1 or utf-16",
            fix="change --encoding",
        ) from None
    return codecs.lookup(encoding).name == "utf-8"


def _transcoded(file: File, encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    try:
        for piece in _pieces(file):
            yield decoder.decode(piece).encode()
        yield decoder.decode(b"", final=True).encode()
    except UnicodeError as error:
        what = f"bytes ({error})"
        if isinstance(error, UnicodeDecodeError):
            what = f"bytes {error.object[error.start : error.start + 4]!r}"
        raise SourceError(
            f"{what} are not {encoding}",
            expected=f"text in {encoding}",
            where=str(file),
            fix="name the right encoding with --encoding",
        ) from error


def _pieces(file: File) -> Iterator[bytes]:
    try:
        with _opened(file) as stream:
            while piece := stream.read(_COPY_BYTES):
                yield piece
    except (EOFError, gzip.BadGzipFile, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the storage, not of the stream in it
            raise cannot_read(str(file), error) from error
        raise SourceError(
            f"damaged file ({file}): {error}", expected=f"a whole {file.path.suffix} stream", fix="fetch the file again"
        ) from error


def _opened(file: File) -> Any:
    if file.path.suffix == ".gz":
        return gzip.open(file.open(), "rb")
    if file.path.suffix in (".zst", ".zstd"):
        return pa.CompressedInputStream(pa.PythonFile(file.open(), "r"), "zstd")
    return file.open()
