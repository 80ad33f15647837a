"""Digests of the bytes of sources, piece by piece: whoever reads a whole piece for its rows digests it on the way."""

from __future__ import annotations

from typing import NamedTuple

import xxhash

from zstore.storage.file import File
from zstore.storage.urls import is_remote
from zstore.writing.sources.files import read_source, source_pieces

PIECE_BYTES = 1 << 20
EARLIER_PIECE_BYTES = 1 << 24
_READ_BYTES = 1 << 20
_MOST_BEFORE = 1 << 16


class PieceDigest(NamedTuple):
    """Digest of a piece of a file.

    Parameters
    ----------
    file
        The file, as it was named.
    start
        Its first byte, a multiple of the bytes of a piece. It has as many, or ends with the file.
    digest
        xxh3-128, 32 hex digits.
    """

    file: str
    start: int
    digest: str


def knows_digest(file: object) -> bool:
    """Whether its state says what its rows are: an object of a bucket, or a query."""
    return not isinstance(file, File) or is_remote(str(file))


def digest_piece(file: File, start: int, n_bytes: int) -> PieceDigest:
    """Read a piece of a file, of at most `n_bytes`, for its digest alone."""
    hasher = xxhash.xxh3_128()
    for some in source_pieces(file, start, min(start + n_bytes, file.n_bytes), _READ_BYTES):
        hasher.update(some)
    return PieceDigest(str(file), start, hasher.hexdigest())


def read_digested(file: File, start: int, stop: int) -> tuple[bytes, tuple[PieceDigest, ...]]:
    """The bytes ``[start, stop)`` of a file, and digests of the pieces that are read for them.

    Where a piece begins shortly before `start`, within 64 KiB, the bytes before are read too. A file of which the
    state is not known, such as one that was inflated, is not digested.

    Raises
    ------
    SourceError
        As :func:`~zstore.writing.sources.files.read_source`.
    """
    if file.etag is None or knows_digest(file):
        return read_source(file, start, stop), ()
    firsts = range(start // PIECE_BYTES * PIECE_BYTES, stop, PIECE_BYTES)
    pairs = [(first, min(first + PIECE_BYTES, file.n_bytes)) for first in firsts]
    whole = [(first, end) for first, end in pairs if first >= start - _MOST_BEFORE and end <= stop]
    begin = min([start, *(first for first, _ in whole[:1])])
    before = read_source(file, begin, start) if begin < start else b""  # on its own, so that no row is copied
    content = read_source(file, start, stop)
    view, pieces = memoryview(content), []
    for first, end in whole:
        hasher = xxhash.xxh3_128(before if first < start else b"")
        hasher.update(view[max(first - start, 0) : end - start])
        pieces.append(PieceDigest(str(file), first, hasher.hexdigest()))
    return content, tuple(pieces)
