"""Arrays as numpy writes them: npy files, and npz files of several; nothing is unpickled.

Where a field has positions, rows of one array are payloads: position ``n`` is row ``n`` of the first dimension.
"""

from __future__ import annotations

import ast
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
import xxhash
from numpy.typing import NDArray

from zstore.format.payloads.error import PayloadError, check_size
from zstore.writing.sources.named_files.below import OpenFile
from zstore.writing.sources.named_files.inflate import Readable, check_end, check_plausible, exactly, skip
from zstore.writing.sources.payloads import Payload, PayloadLook

_MAGIC = b"\x93NUMPY"
_MOST_HEADER = 10_000  # bytes, as numpy has it; they are parsed as Python literals
_DTYPE = re.compile(r"([<>|=]?)(b1|[iu][1248]|f[248])")
_EXPECTED = "an npy file of numbers"


class ArrayHeader(NamedTuple):
    """What stands at the beginning of an npy file.

    Parameters
    ----------
    shape, dtype
        Of the array; the dtype in the byte order of the file.
    fortran
        Whether the first dimension changes fastest.
    n_header
        Bytes before the values.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    n_header: int

    @property
    def n_bytes(self) -> int:
        """Bytes of the values."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def is_scattered(self) -> bool:
        """Whether the values of a row lie apart from each other."""
        return self.fortran and len(self.shape) > 1

    def row(self) -> ArrayHeader:
        """Of one row of the first dimension."""
        if len(self.shape) < 2:
            raise PayloadError(
                f"an array of shape {self.shape}", "two dimensions or more, of which the first is chosen from"
            )
        return self._replace(shape=self.shape[1:])

    def look(self) -> PayloadLook:
        """What its values will be."""
        return PayloadLook(self.shape, self.dtype.name, self.n_bytes)

    def array(self, content: NDArray[np.uint8]) -> NDArray[Any]:
        """Values from their bytes, in this machine's byte order."""
        values = content.view(self.dtype).reshape(self.shape, order="F" if self.fortran else "C")
        return values.astype(self.dtype.newbyteorder("="), copy=False)


def look_npy(file: OpenFile, position: int | None, limit_bytes: int) -> PayloadLook:
    """What an npy file holds, or one row of it; raises :class:`PayloadError`."""
    header = _npy_header(file)
    return _chosen(header, position, limit_bytes).look()


def read_npy(file: OpenFile, positions: Sequence[int] | None, limit_bytes: int) -> Iterator[Payload]:
    """An npy file as one payload, or some of its rows.

    Parameters
    ----------
    file
        Its whole length is compared with what its header says.
    positions
        Rows of the first dimension, in any order; None for the whole array.
    limit_bytes
        The most bytes of a payload.

    Raises
    ------
    PayloadError
        If it is no whole npy file of numbers, or has no such row.
    """
    header = _npy_header(file)
    if positions is None:
        _chosen(header, None, limit_bytes)
        content = file.whole(limit_bytes)
        values = header.array(np.frombuffer(content, np.uint8, header.n_bytes, header.n_header))
        yield Payload(values, xxhash.xxh3_128_digest(content))
        return
    if header.is_scattered:
        file.stream.seek(header.n_header)
        yield from _gathered(header, file.stream, positions, limit_bytes)
        return
    for position in positions:
        row = _chosen(header, position, limit_bytes)
        file.stream.seek(header.n_header + position * row.n_bytes)
        content_row = exactly(file.stream, row.n_bytes, "values")
        yield Payload(row.array(content_row), xxhash.xxh3_128_digest(content_row.data))


def look_npz(file: OpenFile, member: str | None, position: int | None, limit_bytes: int) -> PayloadLook:
    """What an array of an npz file holds, or one row of it; raises :class:`PayloadError`."""
    with _archive(file) as archive, _open(archive, member, file) as stream:
        return _chosen(_header(stream), position, limit_bytes).look()


def read_npz(
    file: OpenFile, member: str | None, positions: Sequence[int] | None, limit_bytes: int
) -> Iterator[Payload]:
    """An array of an npz file as one payload, or some of its rows.

    Parameters
    ----------
    file
        Only the array is read, to its end, where its checksum is.
    member
        Its name in there; None for the only one.
    positions, limit_bytes
        As for :func:`read_npy`. Rows are held until the array is read, as many at once as one payload may have bytes.

    Raises
    ------
    PayloadError
        If it is no whole npz file, or has no such array or row.
    """
    with _archive(file) as archive:
        if positions is None:
            with _open(archive, member, file) as stream:
                header = _header(stream)
                _chosen(header, None, limit_bytes)
                content = exactly(_Checked(stream), header.n_bytes, "values")
                check_end(_Checked(stream), "values")
            yield Payload(header.array(content), xxhash.xxh3_128_digest(content.data))
            return
        with _open(archive, member, file) as stream:
            header = _header(stream)
            if header.is_scattered:
                yield from _gathered(header, _Checked(stream), positions, limit_bytes)
                return
        start = 0
        while start < len(positions):
            rows = _rows(archive, member, file, positions[start:], limit_bytes)
            while start < len(positions) and positions[start] in rows:
                yield rows[positions[start]]
                start += 1


def _rows(
    archive: zipfile.ZipFile, member: str | None, file: OpenFile, positions: Sequence[int], limit_bytes: int
) -> dict[int, Payload]:
    """Rows for the first of some positions, as many as there is room for, in one pass through the array."""
    rows: dict[int, Payload] = {}
    with _open(archive, member, file) as raw:
        header, stream = _header(raw), _Checked(raw)
        row = _chosen(header, positions[0], limit_bytes)
        wanted: set[int] = set()
        for position in positions:  # up to one that is not there, which is told when it is the first
            full = position not in wanted and (len(wanted) + 1) * row.n_bytes > max(limit_bytes, row.n_bytes)
            if full or not 0 <= position < header.shape[0]:
                break
            wanted.add(position)
        at = 0
        for position in sorted(wanted):
            skip(stream, (position - at) * row.n_bytes, "values")
            content = exactly(stream, row.n_bytes, "values")
            rows[position] = Payload(row.array(content), xxhash.xxh3_128_digest(content.data))
            at = position + 1
        skip(stream, (header.shape[0] - at) * row.n_bytes, "values")
        check_end(stream, "values")
    return rows


def _gathered(header: ArrayHeader, stream: Readable, positions: Sequence[int], limit_bytes: int) -> Iterator[Payload]:
    """Rows of an array in which they do not lie together, which is read whole."""
    check_size(f"an array of shape {header.shape} in Fortran order", header.n_bytes, limit_bytes)
    whole = header.array(exactly(stream, header.n_bytes, "values"))
    check_end(stream, "values")
    for position in positions:
        _chosen(header, position, limit_bytes)
        values = np.ascontiguousarray(whole[position])
        yield Payload(values, xxhash.xxh3_128_digest(values.data))


def _chosen(header: ArrayHeader, position: int | None, limit_bytes: int) -> ArrayHeader:
    """The header of a payload: the array, or a row that it has."""
    chosen = header if position is None else header.row()
    if position is not None and not 0 <= position < header.shape[0]:
        raise PayloadError(
            f"position {position:,} of {header.shape[0]:,}", "a position that the array has, counted from 0"
        )
    if not chosen.shape or not math.prod(chosen.shape):
        raise PayloadError(f"an array of shape {header.shape}", "one value or more, in one dimension or more")
    check_size(f"an array of shape {chosen.shape}", chosen.n_bytes, limit_bytes)
    return chosen


def _npy_header(file: OpenFile) -> ArrayHeader:
    file.stream.seek(0)
    header = _header(file.stream)
    if header.n_header + header.n_bytes != file.n_bytes:
        raise PayloadError(
            f"an npy file of {file.n_bytes:,} bytes, whose header says {header.n_header + header.n_bytes:,}",
            "one array, whole, and nothing behind it",
        )
    return header


def _header(stream: BinaryIO) -> ArrayHeader:
    stream_ = _Checked(stream)
    begin = stream_.read(8)
    if begin[:6] != _MAGIC:
        raise PayloadError(f"a file that begins with {begin[:6]!r}" if begin else "an empty file", _EXPECTED)
    if begin[6:] not in (b"\x01\x00", b"\x02\x00"):
        raise PayloadError(f"an npy file of version {begin[6:]!r}", "version 1.0 or 2.0, which numbers are written in")
    size = "<H" if begin[6] == 1 else "<I"
    length = stream_.read(struct.calcsize(size))
    n_header = struct.unpack(size, length)[0] if len(length) == struct.calcsize(size) else 0
    if not 0 < n_header <= _MOST_HEADER:
        raise PayloadError(f"an npy file with a header of {n_header:,} bytes", f"1 to {_MOST_HEADER:,} bytes")
    text = stream_.read(n_header)
    if len(text) != n_header:
        raise PayloadError("an npy file that ends within its header", "a whole npy file")
    shape, dtype, fortran = _parsed(text.decode("latin1"))
    return ArrayHeader(shape, dtype, fortran, 8 + len(length) + n_header)


def _parsed(text: str) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    try:
        document = ast.literal_eval(re.sub(r"(\d)L\b", r"\1", text).strip())  # as Python 2 wrote whole numbers
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise PayloadError(f"an npy file with the header {text[:100]!r}", _EXPECTED) from error
    if not isinstance(document, dict) or set(document) != {"descr", "fortran_order", "shape"}:
        raise PayloadError(f"an npy file with the header {text[:100]!r}", _EXPECTED)
    shape, descr = document["shape"], document["descr"]
    if not isinstance(document["fortran_order"], bool) or not (
        isinstance(shape, tuple)
        and len(shape) <= 32
        and all(type(size) is int and 0 <= size < 1 << 62 for size in shape)
    ):
        raise PayloadError(f"an npy file with the header {text[:100]!r}", _EXPECTED)
    if not isinstance(descr, str) or not _DTYPE.fullmatch(descr):
        raise PayloadError(f"an npy file of {descr!r}", "integers, floats or booleans; objects are never unpickled")
    return shape, np.dtype(descr), document["fortran_order"]


class _Checked:
    """A stream whose faults are faults of the payload."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream

    def read(self, n_bytes: int, /) -> bytes:
        try:
            return self._stream.read(n_bytes)
        except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, ValueError) as error:
            raise PayloadError(f"an npz file that is damaged ({error})", "a whole npz file", whole=True) from error


def _archive(file: OpenFile) -> zipfile.ZipFile:
    file.stream.seek(0)
    if not file.n_bytes:
        raise PayloadError("an empty file", "an npz file")
    try:
        return zipfile.ZipFile(file.stream)
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        struct.error,
        ValueError,
        EOFError,
        OSError,
        NotImplementedError,
    ) as error:
        raise PayloadError(f"a file that is no npz archive, or not a whole one ({error})", "an npz file") from error


def _open(archive: zipfile.ZipFile, member: str | None, file: OpenFile) -> BinaryIO:
    names = [info.filename.removesuffix(".npy") for info in archive.infolist()]
    if member is None and len(names) != 1:
        shown = ", ".join(names[:10]) + (" …" if len(names) > 10 else "")
        raise PayloadError(
            f"an npz file of {len(names):,} arrays ({shown})",
            "one; name one with --file-member, or as in file.npz/array",
        )
    wanted = names[0] if member is None else member.removesuffix(".npy")
    if names.count(wanted) != 1:
        raise PayloadError(f"an npz file with {names.count(wanted)} arrays {wanted!r} ({', '.join(names[:10])})", "one")
    info = archive.infolist()[names.index(wanted)]
    if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise PayloadError(f"an npz file whose array {wanted!r} is encrypted or packed otherwise", "deflate, or none")
    check_plausible(info.file_size, min(info.compress_size, file.n_bytes), "deflate")
    try:
        return cast(BinaryIO, archive.open(info))
    except (zipfile.BadZipFile, struct.error, ValueError, EOFError, RuntimeError, NotImplementedError) as error:
        raise PayloadError(f"an npz file that is damaged ({error})", "a whole npz file") from error
