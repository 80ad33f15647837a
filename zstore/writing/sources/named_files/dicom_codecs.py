"""Voxels of DICOM that a codec has compressed: JPEG, lossless or not, JPEG-LS and JPEG 2000, by pydicom's decoders.

Those are plugins: Pillow has JPEG of 8 bits and JPEG 2000, GDCM has all. What a codestream says of itself is compared
with the header before anything is decoded: so it takes no more memory than the header claims, and none that ends early
is filled up with zeros.
"""

from __future__ import annotations

import struct
from typing import Any

from numpy.typing import NDArray

from zstore.errors import UsageError
from zstore.format.payloads.error import PayloadError
from zstore.format.payloads.extras import library

_JPEG_2000 = {"1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"}
_JPEG = {f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70, 80, 81)}

CODECS = frozenset(_JPEG | _JPEG_2000)
"""Transfer syntaxes of such voxels."""

_FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # of all kinds of JPEG, and JPEG-LS
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
_WHOLE = "a whole codestream of one slice, as its header says"


def require_codec(syntax: str) -> None:
    """Raise UsageError unless something is installed that decodes a transfer syntax; says how to install it."""
    uid = library("pydicom.uid", "volume").UID(syntax)
    if not library("pydicom.pixels", "volume").get_decoder(uid).is_available:
        raise UsageError(
            f"DICOM in the transfer syntax {uid.name}, which nothing that is installed decodes",
            expected="the libraries of the extra 'dicom'",
            fix="pip install 'zstore[dicom]'",
        )


def decoded(data: Any, syntax: str, frame: bytes, size: tuple[int, int], bits: int) -> NDArray[Any]:
    """(row, column) voxels as they are stored.

    Parameters
    ----------
    data
        The data set of pydicom that has them.
    syntax
        Its transfer syntax, one of :data:`CODECS`.
    frame
        Its codestream.
    size
        Columns and rows, as the header says.
    bits
        Of a voxel, as it is stored.

    Raises
    ------
    PayloadError
        If the codestream ends early, or is of another size.
    """
    said = _size_of_jpeg_2000(frame) if syntax in _JPEG_2000 else _size_of_jpeg(frame)
    if said[:2] != size or said[2] != 1 or said[3] > bits:
        columns, rows, n_components, precision = said
        raise PayloadError(
            f"a DICOM file with {columns} × {rows} voxels of {n_components} × {precision} bits in its codestream",
            f"{size[0]} × {size[1]} of at most {bits} bits, as its header says",
        )
    if frame.rstrip(b"\0")[-2:] != b"\xff\xd9":
        raise PayloadError("a DICOM file whose codestream ends early", _WHOLE)
    decoder = library("pydicom.pixels", "volume").get_decoder(library("pydicom.uid", "volume").UID(syntax))
    voxels: NDArray[Any] = decoder.as_array(data, index=0, raw=True)[0]
    return voxels


def _size_of_jpeg(frame: bytes) -> tuple[int, int, int, int]:
    """Columns, rows, components and bits of a component, from the frame header of JPEG or JPEG-LS."""
    at = 2
    while frame[:2] == b"\xff\xd8" and at + 10 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker in _FRAME_HEADERS:
            precision, rows, columns, n_components = struct.unpack_from(">BHHB", frame, at + 4)
            return columns, rows, n_components, precision
        if marker == 0xFF:  # fills up
            at += 1
        elif marker in _WITHOUT_LENGTH:
            at += 2
        else:
            at += 2 + struct.unpack_from(">H", frame, at + 2)[0]
    raise PayloadError("a DICOM file whose codestream is no JPEG", _WHOLE)


def _size_of_jpeg_2000(frame: bytes) -> tuple[int, int, int, int]:
    """The same from the marker SIZ, which is the first of a codestream of JPEG 2000."""
    if frame[:4] != b"\xff\x4f\xff\x51" or len(frame) < 43:
        raise PayloadError("a DICOM file whose codestream is no JPEG 2000", _WHOLE)
    right, bottom, left, top = struct.unpack_from(">4I", frame, 8)
    n_components, precision = struct.unpack_from(">HB", frame, 40)
    return right - left, bottom - top, n_components, (precision & 0x7F) + 1
