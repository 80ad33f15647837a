"""The ledger of sources: which files' rows a store has, so that a repeated call takes only what is new."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import xxhash

from zstore.errors import SourceError
from zstore.format.manifest import ObjectRecord, digest
from zstore.storage.file import File
from zstore.storage.protocol import Storage
from zstore.storage.urls import is_remote
from zstore.writing.scheduler import Scheduler
from zstore.writing.sources.files import source_pieces
from zstore.writing.sources.join import grouped
from zstore.writing.sources.options import id_in_path

PIECE_BYTES = 1 << 24
_READ_BYTES = 1 << 20


def read_digests(
    files: Sequence[Any], target: Storage, id_from_path: str | None, runner: Scheduler
) -> list[ObjectRecord]:
    """Name, bytes and digest of each file.

    Parameters
    ----------
    files
        The files.
    target
        The store: names are paths from the folder that it lies in, so that both may move together, and files of one
        name in several folders are told apart. Whole paths or URLs where either is in a bucket.
    id_from_path
        Where ids come from paths, the pattern of them: the same bytes of another id are other rows, so the id is part
        of the digest.
    runner
        Reads pieces of 16 MiB in parallel.

    Notes
    -----
    The digest is xxh3-128 of the digests of the pieces. Cost: reading the files once, some 40 ms for 240 MB in cache.
    For an object of a bucket it is that of the ETag, by which the bucket tells its contents apart: nothing is read.
    """
    local = [number for number, file in enumerate(files) if not _knows_digest(file)]
    pieces = [(n, start) for n in local for start in range(0, files[n].n_bytes, PIECE_BYTES)]
    sizes = [min(files[n].n_bytes - start, PIECE_BYTES) for n, start in pieces]
    together = grouped(sizes, PIECE_BYTES, runner.workers)
    tasks = [[(files[n], start) for n, start in pieces[first:last]] for first, last in together]
    n_bytes = [sum(sizes[first:last]) for first, last in together]
    made = [piece for task in runner.map("digest", _digest_pieces, tasks, n_bytes, "bytes") for piece in task]
    digests = [str(file.etag) if _knows_digest(file) else "" for file in files]
    for (n, _), piece in zip(pieces, made, strict=True):
        digests[n] += piece
    names = _names(files, target)
    return [
        ObjectRecord(name, file.n_bytes, _with_id(digest(of_pieces.encode()), file, id_from_path))
        for name, file, of_pieces in zip(names, files, digests, strict=True)
    ]


def new_sources(
    files: Sequence[Any], records: Sequence[ObjectRecord], ledger: Iterable[ObjectRecord], id_from_path: str | None
) -> list[tuple[Any, ObjectRecord]]:
    """The files whose rows a store does not have yet, with their records.

    A file that was taken is known by the last part of its name, its size and its digest, in whatever folder it lies
    now.

    Parameters
    ----------
    files, records
        What an append is to take, and :func:`read_digests` of it.
    ledger
        What the store has taken.
    id_from_path
        As there.

    Raises
    ------
    SourceError
        If a file has changed since it was taken.
    """
    taken = {record.key: record for record in ledger}
    known = {_wherever(record) for record in taken.values()}
    new: list[tuple[Any, ObjectRecord]] = []
    for file, record in zip(files, records, strict=True):
        before = taken.get(record.key)
        if before is not None and not _is_same(before, record, file, id_from_path):
            raise SourceError(
                f"changed after its rows were taken ({record.n_bytes:,} bytes)",
                expected=f"the {before.n_bytes:,} bytes of digest {before.digest} whose rows the store has",
                where=str(file),
                fix="put new rows into a file of their own; or --force to read it again, with --on-duplicate last if "
                "its rows are to replace those of the store",
            )
        named = taken.get(str(file))  # as ledgers of version 0.1 have it where ids come from paths
        same = named is not None and _is_same(named, record, file, id_from_path)
        if before is None and not same and _wherever(record) not in known:
            new.append((file, record))
    return new


def _is_same(before: ObjectRecord, record: ObjectRecord, file: File, id_from_path: str | None) -> bool:
    """Whether the bytes are those of before; early ledgers have their digest without the id."""
    return record.digest in (before.digest, _with_id(before.digest, file, id_from_path))


def _wherever(record: ObjectRecord) -> tuple[str, int, str]:
    """What tells a file, but for the folder."""
    return PurePosixPath(record.key).name, record.n_bytes, record.digest


def _names(files: Sequence[Any], target: Storage) -> list[str]:
    """What the ledger calls each file."""
    real = cache(Path.resolve)  # of folders, whatever links they lie behind; a link to a file is one of its own name
    above = None if is_remote(str(target)) else real(Path(str(target)).absolute().parent)
    names = []
    for file in files:
        if not isinstance(file, File):
            names.append(file.ledger_name)
        elif is_remote(str(file)):
            names.append(str(file))
        else:
            path = Path(str(file.storage), file.key).absolute()
            path = real(path.parent) / path.name
            if above is None or above.drive != path.drive:  # of Windows, between which no relative path leads
                names.append(path.as_posix())
            else:
                names.append(Path(os.path.relpath(path, above)).as_posix())
    return names


def _with_id(bytes_digest: str, file: File, id_from_path: str | None) -> str:
    if id_from_path is None:
        return bytes_digest
    return digest(f"{bytes_digest} {id_in_path(str(file), id_from_path)}".encode())


def _knows_digest(file: Any) -> bool:
    """Whether its state says what its rows are: an object of a bucket, or a query."""
    return not isinstance(file, File) or is_remote(str(file))


def _digest_pieces(pieces: Sequence[tuple[File, int]]) -> list[str]:
    return [_digest_piece(file, start) for file, start in pieces]


def _digest_piece(file: File, start: int) -> str:
    hasher = xxhash.xxh3_128()
    for piece in source_pieces(file, start, min(start + PIECE_BYTES, file.n_bytes), _READ_BYTES):
        hasher.update(piece)
    return hasher.hexdigest()
