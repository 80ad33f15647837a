"""Compressed bytes into memory of a known size: no more is inflated than was promised."""

from __future__ import annotations

import bz2
import zlib
from collections.abc import Callable
from typing import Protocol

import numpy as np
import xxhash
from numpy.typing import NDArray

from zstore.format.payloads.error import PayloadError

_PIECE_BYTES = 1 << 18
_MOST_RATIO = {"gzip": 1032, "deflate": 1032, "bzip2": 1 << 17}  # that a byte can become; deflate has no more


class Readable(Protocol):
    """What bytes can be read from: at most as many as asked for, none at the end."""

    def read(self, n_bytes: int, /) -> bytes:
        """Some bytes."""
        ...


class Hashed:
    """A stream whose bytes are hashed on their way.

    Parameters
    ----------
    stream
        At its beginning.
    """

    def __init__(self, stream: Readable) -> None:
        self._stream, self._hasher, self.n_read = stream, xxhash.xxh3_128(), 0

    def read(self, n_bytes: int, /) -> bytes:
        """Some bytes."""
        piece = self._stream.read(n_bytes)
        self._hasher.update(piece)
        self.n_read += len(piece)
        return piece

    def digest(self) -> bytes:
        """xxh3-128 of what was read, 16 bytes."""
        return self._hasher.digest()


class _Gzip:
    def __init__(self) -> None:
        self._member, self._rest = zlib.decompressobj(zlib.MAX_WBITS | 16), b""

    @property
    def eof(self) -> bool:
        return self._member.eof

    @property
    def unused_data(self) -> bytes:
        return self._member.unused_data

    def inflate(self, packed: bytes, n_bytes: int) -> bytes:
        piece = self._member.decompress(self._rest + packed, n_bytes)
        self._rest = self._member.unconsumed_tail
        return piece

    @property
    def hungry(self) -> bool:
        return not self._rest


class _Bzip2:
    def __init__(self) -> None:
        self._member = bz2.BZ2Decompressor()

    @property
    def eof(self) -> bool:
        return self._member.eof

    @property
    def unused_data(self) -> bytes:
        return self._member.unused_data

    def inflate(self, packed: bytes, n_bytes: int) -> bytes:
        return self._member.decompress(packed, n_bytes)

    @property
    def hungry(self) -> bool:
        return self._member.needs_input


_Member = _Gzip | _Bzip2
_KINDS: dict[str, Callable[[], _Member]] = {"gzip": _Gzip, "bzip2": _Bzip2}


class Inflated:
    """A compressed stream, read as what it makes. Several members behind each other count as one.

    Parameters
    ----------
    stream
        At its beginning.
    kind
        ``gzip`` or ``bzip2``.
    """

    def __init__(self, stream: Readable, kind: str) -> None:
        self._stream, self._kind = stream, kind
        self._member, self._packed, self._began = _KINDS[kind](), b"", False

    def read(self, n_bytes: int, /) -> bytes:
        """At most so many bytes; none at the end.

        Raises
        ------
        PayloadError
            If the stream is damaged or ends too early.
        """
        expected = f"a whole {self._kind} stream"
        try:
            while True:
                if self._member.eof:
                    self._packed = self._member.unused_data.lstrip(b"\0")
                    while not self._packed and (more := self._stream.read(_PIECE_BYTES)):
                        self._packed = more.lstrip(b"\0")  # zeros may follow a member
                    if not self._packed:
                        return b""
                    self._member = _KINDS[self._kind]()
                elif self._member.hungry and not self._packed:
                    self._packed = self._stream.read(_PIECE_BYTES)
                    if not self._packed:
                        raise PayloadError(f"a {self._kind} stream that ends too early", expected)
                packed, self._packed = self._packed, b""
                if piece := self._member.inflate(packed, min(n_bytes, _PIECE_BYTES)):
                    return piece
        except (zlib.error, OSError, EOFError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # of the disk
                raise
            raise PayloadError(f"a {self._kind} stream that is damaged ({error})", expected) from error


def check_plausible(n_bytes: int, n_packed: int, kind: str) -> None:
    """Refuse a promise that no stream of this length can keep, before memory is taken for it.

    Raises
    ------
    PayloadError
        If `n_packed` bytes can never become `n_bytes`.
    """
    if n_bytes > (n_packed + 64) * _MOST_RATIO[kind]:
        raise PayloadError(
            f"a {kind} stream of {n_packed:,} bytes that is to become {n_bytes:,}", f"a whole {kind} stream"
        )


def some(stream: Readable, n_bytes: int) -> bytes:
    """The next bytes of a stream; fewer only where it ends."""
    pieces = []
    while n_bytes and (piece := stream.read(min(n_bytes, _PIECE_BYTES))):
        pieces.append(piece)
        n_bytes -= len(piece)
    return b"".join(pieces)


def exactly(stream: Readable, n_bytes: int, what: str) -> NDArray[np.uint8]:
    """The next bytes of a stream.

    Parameters
    ----------
    stream
        Its bytes are copied piece by piece.
    n_bytes
        How many; checked against a limit and the file by the caller.
    what
        What they are, for messages, such as ``voxels``.

    Returns
    -------
    (byte,) uint8.

    Raises
    ------
    PayloadError
        If there are fewer.
    """
    values = np.empty(n_bytes, np.uint8)
    at = 0
    while at < n_bytes:
        piece = stream.read(min(n_bytes - at, _PIECE_BYTES))
        if not piece:
            reason = f"a file that ends after {at:,} of {n_bytes:,} bytes of {what}"
            raise PayloadError(reason, "a whole file", whole=True)
        values[at : at + len(piece)] = np.frombuffer(piece, np.uint8)
        at += len(piece)
    return values


def skip(stream: Readable, n_bytes: int, what: str) -> None:
    """Read over some bytes; raises as :func:`exactly`."""
    while n_bytes:
        piece = stream.read(min(n_bytes, _PIECE_BYTES))
        if not piece:
            raise PayloadError(f"a file that ends {n_bytes:,} bytes before its {what}", "a whole file", whole=True)
        n_bytes -= len(piece)


def check_end(stream: Readable, what: str) -> None:
    """Refuse bytes that no header speaks of; so checksums at the end of streams are compared, too.

    Raises
    ------
    PayloadError
        If there are any.
    """
    if stream.read(1):
        reason = f"a file with more bytes behind its {what} than its header says"
        raise PayloadError(reason, "a file that ends there", whole=True)
