"""Sources as plain UTF-8: all of a file as a stream, or its first bytes, in as little memory as those take."""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from zstore.errors import SourceError, UsageError
from zstore.storage.file import File
from zstore.storage.protocol import Storage
from zstore.writing.room import check_room, with_room
from zstore.writing.sources.files import cannot_read, read_source

COMPRESSED = (".gz", ".zst", ".zstd")
_COPY_BYTES = 1 << 22
_SIP_BYTES = 1 << 9  # of a compressed file: so near is known how much of it makes some plain bytes


@dataclass(frozen=True)
class Head:
    """The first plain bytes of a file.

    Parameters
    ----------
    plain
        The bytes.
    n_read
        Bytes of the file that hold them.
    whole
        Whether that is all of it.
    """

    plain: bytes
    n_read: int
    whole: bool


def pieces(file: File) -> Iterator[bytes]:
    """All plain bytes of a file.

    Raises
    ------
    SourceError
        If it cannot be read, is cut short or damaged.
    """
    try:
        with _opened(file) as stream:
            while piece := stream.read(_COPY_BYTES):
                yield piece
    except (EOFError, gzip.BadGzipFile, zlib.error, OSError) as error:
        raise _damaged(file, error) from error


def head(file: File, n_bytes: int) -> Head:
    """The first `n_bytes` plain bytes of a file, or fewer where it has fewer; raises as :func:`pieces`.

    Notes
    -----
    No more than that is inflated, whatever the file would make. A gzip of several members is read on across them.
    """
    try:
        if file.path.suffix == ".gz":
            return _gzip_head(file, n_bytes)
        if file.path.suffix in COMPRESSED:
            return _zstd_head(file, n_bytes)
    except (EOFError, gzip.BadGzipFile, zlib.error, OSError) as error:
        raise _damaged(file, error) from error
    content = read_source(file, 0, n_bytes)
    return Head(content, len(content), len(content) == file.n_bytes)


def is_plain(file: File, encoding: str) -> bool:
    """Whether a file can be read as it is."""
    return file.path.suffix not in COMPRESSED and is_plain_text(encoding)


def plain_utf8(file: File, scratch: Storage, key: str, encoding: str) -> File:
    """The file as plain UTF-8: itself if it is, else a copy on scratch space, inflated and transcoded as a stream.

    Raises
    ------
    SourceError
        If the file is cut short, damaged, or not of this encoding.
    StoreError
        If there is no room for it.
    """
    if is_plain(file, encoding):
        return file
    if is_plain_text(encoding):
        check_room(scratch, file.n_bytes, key)  # before anything is inflated
    plain = pieces(file) if is_plain_text(encoding) else _transcoded(file, encoding)
    return File(scratch, key, scratch.write_stream(key, with_room(scratch, key, plain)))


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
        for piece in pieces(file):
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


def _gzip_head(file: File, n_bytes: int) -> Head:
    plain: list[bytes] = []
    left, n_read, stream = n_bytes, 0, file.open()
    packed, member = b"", zlib.decompressobj(zlib.MAX_WBITS | 16)
    while left:
        packed = packed or stream.read(_SIP_BYTES)
        if member.eof:  # zeros may follow a member, and then another one
            n_read += len(packed) - len(packed.lstrip(b"\0"))
            packed = packed.lstrip(b"\0")
            if not packed and n_read < file.n_bytes:
                continue
            member = zlib.decompressobj(zlib.MAX_WBITS | 16) if packed else member
        if not packed:
            break
        piece = member.decompress(packed, left)
        rest = member.unused_data if member.eof else member.unconsumed_tail
        n_read += len(packed) - len(rest)
        packed, left = rest, left - len(piece)
        plain.append(piece)
    if n_read == file.n_bytes and left and not member.eof:
        raise EOFError("it ended before the end of its stream")
    return Head(b"".join(plain), n_read, n_read == file.n_bytes and member.eof)


def _zstd_head(file: File, n_bytes: int) -> Head:
    raw, plain, left = _Sips(file), list[bytes](), n_bytes
    with pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd") as stream:
        while left and (piece := stream.read(min(left, _COPY_BYTES))):
            plain.append(piece)
            left -= len(piece)
        whole = raw.n_read == file.n_bytes and not stream.read(1)
    return Head(b"".join(plain), raw.n_read, whole)


class _Sips:
    """A file that is read a little at a time, and knows how much of it was."""

    closed = False

    def __init__(self, file: File) -> None:
        self._stream, self.n_read = file.open(), 0

    def read(self, n_bytes: int) -> bytes:
        content = self._stream.read(min(n_bytes, _SIP_BYTES))
        self.n_read += len(content)
        return content

    def close(self) -> None:
        self.closed = True


def _opened(file: File) -> Any:
    if file.path.suffix == ".gz":
        return gzip.open(file.open(), "rb")
    if file.path.suffix in COMPRESSED:
        return pa.CompressedInputStream(pa.PythonFile(file.open(), "r"), "zstd")
    return file.open()


def _damaged(file: File, error: Exception) -> SourceError:
    if isinstance(error, OSError) and error.errno is not None:  # of the storage, not of the stream in it
        return cannot_read(str(file), error)
    return SourceError(
        f"damaged file ({file}): {error}", expected=f"a whole {file.path.suffix} stream", fix="fetch the file again"
    )
