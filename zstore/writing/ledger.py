"""The ledger of sources: which files' rows a store has, so that a repeated call takes only what is new."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import Any

from zstore.errors import SourceError
from zstore.format.manifest import ObjectRecord, digest
from zstore.storage.file import File
from zstore.storage.protocol import Storage
from zstore.storage.urls import is_remote
from zstore.writing.scheduler import Scheduler
from zstore.writing.source_notes import SourceNotes
from zstore.writing.sources.digests import (
    EARLIER_PIECE_BYTES,
    PIECE_BYTES,
    PieceDigest,
    digest_piece,
    knows_digest,
)
from zstore.writing.sources.join import grouped
from zstore.writing.sources.options import id_in_path

_TASK_BYTES = 1 << 24


def read_states(files: Sequence[Any], target: Storage) -> list[list[Any]]:
    """Name, bytes and state of each file: what a run that goes on with another's work compares.

    The state changes with every write, and with every copy. Nothing is read.
    """
    names = _names(files, target)
    return [[name, file.n_bytes, str(file.etag)] for name, file in zip(names, files, strict=True)]


def read_digests(
    files: Sequence[Any],
    target: Storage,
    id_from_path: str | None,
    runner: Scheduler,
    known: Iterable[PieceDigest] = (),
    piece_bytes: int | None = None,
    noted: SourceNotes | None = None,
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
        Reads pieces in parallel.
    known
        Digests of pieces that were read already.
    piece_bytes
        Bytes of a piece, if not 1 MiB: earlier releases had 16 MiB.
    noted
        Digests of files that are as they were then, which are not read; None to read all.

    Notes
    -----
    The digest is xxh3-128 of the digests of the pieces. Cost: reading what is not known, some 40 ms for 240 MB in
    cache. For an object of a bucket it is that of the ETag, by which the bucket tells its contents apart: nothing is
    read.
    """
    piece_bytes = piece_bytes or PIECE_BYTES
    made = {(piece.file, piece.start): piece.digest for piece in known}
    whole = {} if noted is None else {str(file): found for file in files if (found := noted.digest_of(file))}
    local = [file for file in files if not knows_digest(file) and str(file) not in whole]
    pieces = [(file, start) for file in local for start in range(0, file.n_bytes, piece_bytes)]
    pieces = [(file, start) for file, start in pieces if (str(file), start) not in made]
    sizes = [min(file.n_bytes - start, piece_bytes) for file, start in pieces]
    together = grouped(sizes, _TASK_BYTES, runner.workers)
    tasks = [pieces[first:last] for first, last in together]
    n_bytes = [sum(sizes[first:last]) for first, last in together]
    read = partial(_digest_pieces, n_bytes=piece_bytes)
    for task in runner.map("digest", read, tasks, n_bytes, "bytes") if tasks else []:
        made.update({(piece.file, piece.start): piece.digest for piece in task})

    def digest_of(file: Any) -> str:
        return whole.get(str(file)) or _with_id(_digest_of(file, made, piece_bytes), file, id_from_path)

    named = zip(_names(files, target), files, strict=True)
    return [ObjectRecord(name, file.n_bytes, digest_of(file)) for name, file in named]


def _digest_of(file: Any, pieces: Mapping[tuple[str, int], str], piece_bytes: int) -> str:
    """The digest of the digests of its pieces, or of its state where that is one."""
    if knows_digest(file):
        return digest(str(file.etag).encode())
    return digest("".join(pieces[str(file), start] for start in range(0, file.n_bytes, piece_bytes)).encode())


def new_sources(
    files: Sequence[Any],
    target: Storage,
    ledger: Iterable[ObjectRecord],
    id_from_path: str | None,
    runner: Scheduler,
    grown: bool = False,
) -> list[Any]:
    """The files whose rows a store does not have yet.

    A file that was taken is known by the last part of its name, its size and its digest, in whatever folder it lies
    now. Only those are read that have name and size of one that was taken, and are not in the state that a note of this
    machine has.

    Parameters
    ----------
    files
        What an append is to take.
    target, id_from_path, runner
        As for :func:`read_digests`.
    ledger
        What the store has taken.
    grown
        Whether files that have changed are read again, since rows that the store has are told from others.

    Raises
    ------
    SourceError
        If a file has changed since it was taken, unless it may have grown.
    """
    taken, began_ns = {record.key: record for record in ledger}, time.time_ns()
    known = {_wherever(record) for record in taken.values()}
    alike = {some[:2] for some in known}
    named = list(zip(_names(files, target), files, strict=True))

    def is_taken(file: Any, record: ObjectRecord) -> bool:
        before = taken.get(record.key)
        if before is not None:
            return _is_same(before, record, file, id_from_path)
        early = taken.get(str(file))  # as ledgers of version 0.1 have it where ids come from paths
        return _wherever(record) in known or (early is not None and _is_same(early, record, file, id_from_path))

    def taken_among(some: Sequence[Any], piece_bytes: int | None = None) -> set[str]:
        noted = SourceNotes.of(target, id_from_path) if piece_bytes is None else None
        records = read_digests(some, target, id_from_path, runner, piece_bytes=piece_bytes, noted=noted)
        if noted is not None:
            noted.with_files(some, records, began_ns).write()
        return {record.key for file, record in zip(some, records, strict=True) if is_taken(file, record)}

    maybe = [(name, f) for name, f in named if knows_digest(f) or (PurePosixPath(name).name, f.n_bytes) in alike]
    same = taken_among([file for _, file in maybe])
    long = [f for name, f in maybe if name not in same and not knows_digest(f) and f.n_bytes > PIECE_BYTES]
    same |= taken_among(long, EARLIER_PIECE_BYTES)
    new = [file for name, file in named if name not in same]
    changed = [(file, taken[name]) for name, file in named if name in taken and name not in same]
    if changed and not grown:
        file, before = changed[0]
        raise SourceError(
            f"changed after its rows were taken ({file.n_bytes:,} bytes)",
            expected=f"the {before.n_bytes:,} bytes of digest {before.digest} whose rows the store has",
            where=str(file),
            fix="put new rows into a file of their own; or --force to read it again, with --on-duplicate last if "
            "its rows are to replace those of the store",
        )
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


def _digest_pieces(pieces: Sequence[tuple[File, int]], n_bytes: int) -> list[PieceDigest]:
    return [digest_piece(file, start, n_bytes) for file, start in pieces]
