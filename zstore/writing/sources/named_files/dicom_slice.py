"""One DICOM file: what its header says of its slice, and the voxels: uncompressed, in runs (RLE), or of a codec."""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from zstore.errors import ZstoreError
from zstore.format.payloads.error import PayloadError
from zstore.format.payloads.extras import library
from zstore.writing.sources.named_files.below import OpenFile
from zstore.writing.sources.named_files.dicom_codecs import CODECS, decoded, require_codec

_RUNS = "1.2.840.10008.1.2.5"
_SYNTAXES = {"1.2.840.10008.1.2": "<", "1.2.840.10008.1.2.1": "<", "1.2.840.10008.1.2.2": ">", _RUNS: "<"}
_EXPECTED, _WHOLE = "a DICOM file", "a whole DICOM file of one slice"
_MOST_SIDE = 1 << 16

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Slice:
    """What the header of one file says.

    Parameters
    ----------
    name
        Of the file.
    size
        Columns and rows.
    stored
        Type of its voxels, in the byte order of the file.
    bits
        Of a voxel that are used.
    syntax
        The transfer syntax: how voxels are compressed, if they are.
    slope, intercept
        Values are ``slope * stored + intercept``.
    series
        Number of its series.
    position
        (3,) float64 mm to the left, back and top, of the first voxel; None if it is not said.
    directions
        (6,) float64 that a row runs to, and that a column runs to; None if it is not said.
    spacing
        Millimetres between columns, and between rows.
    thickness
        Millimetres to the next slice, for one that is alone.
    """

    name: str
    size: tuple[int, int]
    stored: np.dtype[Any]
    bits: int
    syntax: str
    slope: float
    intercept: float
    series: str
    position: NDArray[np.float64] | None
    directions: NDArray[np.float64] | None
    spacing: tuple[float, float]
    thickness: float

    def distance(self) -> float:
        """How far along their normal slices lie."""
        assert self.position is not None
        assert self.directions is not None
        return float(np.cross(self.directions[:3], self.directions[3:]) @ self.position)


def header_of(file: OpenFile, name: str) -> Slice:
    """What the header of a DICOM file says.

    Raises
    ------
    PayloadError
        If it is none, or its voxels are no slice of numbers that can be read.
    """
    library("pydicom", "volume")
    return _faults(name, lambda: _header(_Bounded(file), name))


def voxels_of(content: bytes, header: Slice) -> NDArray[Any]:
    """(row, column) voxels as they are stored, in this machine's byte order.

    Parameters
    ----------
    content
        The file.
    header
        Its header, as :func:`header_of` has it.

    Raises
    ------
    PayloadError
        If it has changed since, or its voxels are not all there.
    """
    return _faults(header.name, lambda: _voxels(content, header))


def _faults(name: str, read: Callable[[], _Result]) -> _Result:
    """What `read` returns; pydicom raises whatever a damaged file leads it to, and all of it means that file."""
    try:
        return read()
    except PayloadError as error:
        raise PayloadError(f"{error.reason}, {name}", error.expected) from error
    except (ZstoreError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise PayloadError(f"a DICOM file that cannot be read ({reason}), {name}", _WHOLE) from error


class _Bounded:
    """A file that no length in it can make anyone read, or take memory, beyond its end."""

    def __init__(self, file: OpenFile) -> None:
        self._stream, self._n_bytes = file.stream, file.n_bytes
        self.name = file.name

    def read(self, n_bytes: int | None = None) -> bytes:
        left = max(0, self._n_bytes - self._stream.tell())
        return self._stream.read(left if n_bytes is None or n_bytes < 0 else min(n_bytes, left))

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def close(self) -> None:
        """Whoever has opened the file closes it."""


def _header(stream: Any, name: str) -> Slice:
    syntax = _syntax(stream)
    stream.seek(0)
    data = library("pydicom", "volume").dcmread(stream, stop_before_pixels=True)
    rows, columns = _whole(data, "Rows", 1, _MOST_SIDE), _whole(data, "Columns", 1, _MOST_SIDE)
    if _whole(data, "SamplesPerPixel", 1, 4, 1) != 1 or _whole(data, "NumberOfFrames", 1, 1 << 31, 1) != 1:
        raise PayloadError("a DICOM file of colours or of several frames", _WHOLE)
    colours = str(data.get("PhotometricInterpretation", "MONOCHROME2"))
    if not colours.startswith("MONOCHROME"):
        raise PayloadError(f"a DICOM file of {colours}", "one number a voxel, as MONOCHROME2 has it")
    if data.get("ModalityLUTSequence"):
        raise PayloadError("a DICOM file whose values are looked up in a table", "a slope and an intercept")
    allocated, signed = _whole(data, "BitsAllocated", 1, 64), _whole(data, "PixelRepresentation", 0, 1)
    bits = _whole(data, "BitsStored", 1, 64, allocated)
    if allocated not in (8, 16, 32) or bits > allocated or _whole(data, "HighBit", 0, 63, bits - 1) != bits - 1:
        raise PayloadError(f"a DICOM file of {bits} bits in {allocated}", "8, 16 or 32, and those below used")
    spacing = _numbers(data, "PixelSpacing", 2) or [1.0, 1.0]
    position, directions = _numbers(data, "ImagePositionPatient", 3), _numbers(data, "ImageOrientationPatient", 6)
    known = position is not None and directions is not None and data.get("PixelSpacing") is not None
    thickness = _numbers(data, "SpacingBetweenSlices", 1) or _numbers(data, "SliceThickness", 1) or [1.0]
    return Slice(
        name,
        (columns, rows),
        np.dtype(f"{_SYNTAXES.get(syntax, '<')}{'i' if signed else 'u'}{allocated // 8}"),
        bits,
        syntax,
        (_numbers(data, "RescaleSlope", 1) or [1.0])[0],
        (_numbers(data, "RescaleIntercept", 1) or [0.0])[0],
        str(data.get("SeriesInstanceUID", "")),
        np.array(position) if known else None,
        np.array(directions) if known else None,
        (spacing[1], spacing[0]),
        abs(thickness[0]),
    )


def _syntax(stream: Any) -> str:
    """The transfer syntax; one that inflates, or that nothing decodes, is refused before it is read with."""
    reader = library("pydicom.filereader", "volume")
    begin = stream.read(132)
    if begin[128:] != b"DICM":
        raise PayloadError("a file without the mark of DICOM" if begin else "an empty file", _EXPECTED)
    stream.seek(132)
    meta = reader.read_dataset(stream, False, True, stop_when=lambda tag, _vr, _length: tag.group != 2)
    syntax = str(meta.get("TransferSyntaxUID", "none"))
    if syntax in CODECS:
        require_codec(syntax)
    elif syntax not in _SYNTAXES:
        uid = library("pydicom.uid", "volume").UID(syntax)
        raise PayloadError(
            f"a DICOM file in the transfer syntax {uid.name}",
            "another one; gdcmconv --raw makes it",
        )
    return syntax


def _voxels(content: bytes, header: Slice) -> NDArray[Any]:
    stream = io.BytesIO(content)
    _syntax(stream)
    stream.seek(0)
    data = library("pydicom", "volume").dcmread(stream)
    element = data.get("PixelData")
    if element is None:
        raise PayloadError("a DICOM file without voxels", _WHOLE)
    columns, rows = header.size
    n_bytes = columns * rows * header.stored.itemsize
    if header.syntax == _RUNS:
        voxels = _from_runs(bytes(element), header)
    elif header.syntax in CODECS:
        frame = _single_frame(bytes(element))
        voxels = decoded(data, header.syntax, frame, header.size, 8 * header.stored.itemsize)
        if voxels.shape != (rows, columns) or voxels.dtype != header.stored.newbyteorder("="):
            raise PayloadError(f"a DICOM file that decodes to {voxels.dtype} of {voxels.shape}", _WHOLE)
    elif n_bytes <= len(element) <= n_bytes + (n_bytes & 1):
        voxels = np.frombuffer(element, header.stored, rows * columns).reshape(rows, columns)
    else:
        raise PayloadError(f"a DICOM file with {len(element):,} of {n_bytes:,} bytes of voxels", _WHOLE)
    native = voxels.astype(header.stored.newbyteorder("="))
    spare = 8 * header.stored.itemsize - header.bits
    return (native << spare) >> spare if spare else native  # the sign fills what is not used, or nothing does


def _from_runs(element: bytes, header: Slice) -> NDArray[Any]:
    """Voxels from segments of runs, the highest bytes first; DICOM PS3.5 annex G."""
    frame = _single_frame(element)
    n_voxels, width = math.prod(header.size), header.stored.itemsize
    if len(frame) < 64:
        raise PayloadError(f"a DICOM file with {len(frame)} bytes of runs", _WHOLE)
    offsets = struct.unpack_from("<16I", frame)
    starts = [*offsets[1 : width + 1], len(frame)]
    if offsets[0] != width or starts[0] < 64 or any(one > two for one, two in pairwise(starts)):
        raise PayloadError(f"a DICOM file of {offsets[0]} segments of runs", f"{width}, one behind the other")
    segments = [_runs(frame[one:two], n_voxels) for one, two in pairwise(starts)]
    voxels = np.stack(segments, axis=-1).reshape(-1).view(header.stored.newbyteorder(">"))
    return voxels.reshape(header.size[::-1])


def _single_frame(element: bytes) -> bytes:
    """The frame of encapsulated voxels, behind a table of offsets: one fragment, or several that are pieces of it."""
    items, at = [], 0
    while at + 8 <= len(element):
        tag, n_bytes = struct.unpack_from("<II", element, at)
        if tag == 0xE0DDFFFE:
            break
        if tag != 0xE000FFFE or at + 8 + n_bytes > len(element):
            raise PayloadError("a DICOM file with damaged fragments of voxels", _WHOLE)
        items.append(element[at + 8 : at + 8 + n_bytes])
        at += 8 + n_bytes
    if len(items) < 2:
        raise PayloadError("a DICOM file without voxels behind their table", _WHOLE)
    return b"".join(items[1:])


def _runs(segment: bytes, n_bytes: int) -> NDArray[np.uint8]:
    """PackBits of a known length: no more is made of them."""
    pieces, at, left = [], 0, n_bytes
    while left > 0:
        if at >= len(segment):
            raise PayloadError(f"a DICOM file that ends {left:,} bytes before its runs do", _WHOLE)
        count = segment[at]
        if count == 128:
            at += 1
            continue
        n, piece = (count + 1, segment[at + 1 : at + 2 + count]) if count < 128 else (257 - count, b"")
        piece = piece if count < 128 else segment[at + 1 : at + 2] * n
        at += 1 + n if count < 128 else 2
        if len(piece) != n:
            raise PayloadError(f"a DICOM file that ends {left:,} bytes before its runs do", _WHOLE)
        pieces.append(piece)
        left -= n
    if left < 0 or len(segment) - at > 1:
        raise PayloadError("a DICOM file with more runs than voxels", _WHOLE)
    return np.frombuffer(b"".join(pieces), np.uint8)


def _whole(data: Any, name: str, low: int, high: int, default: int | None = None) -> int:
    value = data.get(name)
    if value is None and default is not None:
        return default
    if value is None or not low <= int(value) <= high:
        raise PayloadError(f"a DICOM file with {name} {value}", f"{low:,} to {high:,}")
    return int(value)


def _numbers(data: Any, name: str, n: int) -> list[float] | None:
    value = data.get(name)
    if value is None or (isinstance(value, str) and not value):
        return None
    numbers = [float(one) for one in (value if n > 1 else [value])]
    if len(numbers) != n or not all(map(math.isfinite, numbers)):
        raise PayloadError(f"a DICOM file with {name} {value}", f"{n} finite numbers")
    return numbers
