"""JPEG files as arrays: what ends early is refused, where most readers go on in grey.

libjpeg decodes; simplejpeg hands on its warnings, which Pillow drops. What libjpeg does not warn of is looked for here:
a picture whose later scans, those that make it sharp, are not there.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zstore.format.payloads.error import PayloadError, check_size
from zstore.format.payloads.extras import library

SIGNATURE = b"\xff\xd8\xff"
_WHOLE = "a whole JPEG file"
_READABLE = {0xC0: "baseline", 0xC1: "extended", 0xC2: "progressive"}
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # the others of these are tables
_IN_SCAN = {0x00, *range(0xD0, 0xD8)}  # behind 0xff: a stuffed byte, or a restart
_MOST_SEGMENTS = 1 << 16
_MOST_SCANS = 500  # real ones have some ten; each is as much work as the whole image
_START_OF_SCAN, _END = 0xDA, 0xD9


class JpegHeader(NamedTuple):
    """What a JPEG file says of its image.

    Parameters
    ----------
    width, height
        In pixels.
    components
        Their numbers: one of a grey image, three of one in colour.
    """

    width: int
    height: int
    components: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """(y, x) of grey ones, (y, x, colour) of others."""
        size = (self.height, self.width)
        return size if len(self.components) == 1 else (*size, len(self.components))

    @property
    def dtype(self) -> str:
        """Of the array."""
        return "uint8"


class _Segment(NamedTuple):
    marker: int
    body: memoryview
    end: int  # the byte behind it


def look(content: bytes, limit_bytes: int, whole: bool = True) -> JpegHeader | None:
    """What a JPEG file holds; parameters, result and errors as those of :func:`zstore.format.payloads.png.look`."""
    at, n_segments = _begin(content), 0
    while (segment := _segment(content, at)) is not None and n_segments < _MOST_SEGMENTS:
        n_segments += 1
        if segment.marker in _FRAMES:
            header = _header(segment)
            what = f"an image of {header.width:,} × {header.height:,} pixels"
            check_size(what, header.width * header.height * len(header.components), limit_bytes)
            return header
        if segment.marker in (_START_OF_SCAN, _END):
            break
        at = segment.end
    if not whole:
        return None
    raise PayloadError(
        f"a JPEG file of {len(content):,} bytes and {n_segments:,} segments without a header of its image", _WHOLE
    )


def decode(content: bytes, limit_bytes: int, proved: bool = False) -> NDArray[Any]:
    """A JPEG file as an array.

    Parameters
    ----------
    content
        The file.
    limit_bytes
        The most bytes that the array may take.
    proved
        Whether these bytes were decoded before.

    Returns
    -------
    (y, x) uint8 of a grey image, (y, x, colour) uint8 of one in colour, which is red, green and blue. It lies as it is
    stored; a note of the camera on which side is up is not followed.

    Raises
    ------
    PayloadError
        If it is no whole JPEG file, is larger than the limit, or of a kind that cannot be read, such as CMYK.
    """
    header = look(content, limit_bytes)
    assert header is not None
    if not proved:
        _check_scans(content, header)
    grey = len(header.components) == 1
    decoder = library("simplejpeg", "image").decode_jpeg
    try:
        values = decoder(content, colorspace="GRAY" if grey else "RGB", strict=True)
    except (ValueError, RuntimeError) as error:
        raise PayloadError(f"a JPEG file that cannot be read ({error})", _WHOLE) from error
    values = values[..., 0] if grey else values
    if values.shape != header.shape:
        raise PayloadError(f"a JPEG file that came out as {values.shape}", f"{header.shape}")
    return np.asarray(values)


def _begin(content: bytes) -> int:
    if not content.startswith(SIGNATURE):
        raise PayloadError(f"a file that begins with {content[:4]!r}" if content else "an empty file", "a JPEG file")
    return 2


def _segment(content: bytes, at: int) -> _Segment | None:
    """What begins at a marker; None where the content ends before it does."""
    if content[at : at + 1] not in (b"\xff", b""):
        raise PayloadError(f"a JPEG file with {content[at : at + 2]!r} at byte {at:,}", "a marker there")
    while content[at + 1 : at + 2] == b"\xff":  # any number of them may stand before one
        at += 1
    if at + 2 > len(content):
        return None
    marker = content[at + 1]
    if marker == _END or 0xD0 <= marker <= 0xD8 or marker == 0x01:
        return _Segment(marker, memoryview(b""), at + 2)
    if at + 4 > len(content):
        return None
    (n_bytes,) = struct.unpack_from(">H", content, at + 2)
    if n_bytes < 2:
        raise PayloadError(f"a JPEG file with a segment of {n_bytes} bytes at byte {at:,}", "at least 2")
    if at + 2 + n_bytes > len(content):
        return None
    return _Segment(marker, memoryview(content)[at + 4 : at + 2 + n_bytes], at + 2 + n_bytes)


def _header(segment: _Segment) -> JpegHeader:
    if segment.marker not in _READABLE:
        raise PayloadError(
            f"a JPEG file of process {segment.marker - 0xC0}, which is lossless, hierarchical or arithmetic",
            f"{', '.join(_READABLE.values())} JPEG",
        )
    if len(segment.body) < 6 or len(segment.body) != 6 + 3 * segment.body[5]:
        raise PayloadError(f"a JPEG file with a header of {len(segment.body)} bytes", _WHOLE)
    precision, height, width, n_components = struct.unpack_from(">BHHB", segment.body)
    if precision != 8:
        raise PayloadError(f"a JPEG image of {precision} bits a colour", "8 bits")
    if not width or not height:
        raise PayloadError(f"a JPEG image of {width} × {height} pixels", "at least one pixel each way")
    if n_components not in (1, 3):
        raise PayloadError(f"a JPEG image of {n_components} components, such as CMYK", "grey, or three colours")
    components = tuple(segment.body[6::3])
    if len(set(components)) != n_components:
        raise PayloadError(f"a JPEG image with the components {components}", "each once")
    return JpegHeader(width, height, components)


def _check_scans(content: bytes, header: JpegHeader) -> None:
    """Refuse a file that ends before its last scan, or does not bring every coefficient to its full precision."""
    left = {component: [True] * 64 for component in header.components}  # coefficients that are not there in full
    at, n_scans, n_frames, n_segments, marker = _begin(content), 0, 0, 0, 0
    while marker != _END:
        segment = _segment(content, at)
        if segment is None:
            raise PayloadError(f"a JPEG file that ends after {len(content):,} bytes, before its image does", _WHOLE)
        at, marker, n_segments = segment.end, segment.marker, n_segments + 1
        n_frames += marker in _FRAMES
        if n_frames > 1:
            raise PayloadError("a JPEG file with two headers", "one image")
        if marker == _START_OF_SCAN:
            n_scans += 1
            _take_scan(segment.body, left)
            at = _behind_scan(content, at)
        if n_scans > _MOST_SCANS or n_segments > _MOST_SEGMENTS:
            raise PayloadError(
                f"a JPEG file of {n_scans:,} scans and {n_segments:,} segments", f"{_MOST_SCANS} scans at most"
            )
    if any(any(coefficients) for coefficients in left.values()):
        raise PayloadError(f"a JPEG file whose last scans are not there, after {n_scans} of them", _WHOLE)


def _behind_scan(content: bytes, at: int) -> int:
    """The marker behind the bytes of a scan, or the end of the file."""
    while (at := content.find(b"\xff", at)) >= 0:
        following = content[at + 1 : at + 2]
        if following == b"\xff":
            at += 1
        elif following and following[0] in _IN_SCAN:
            at += 2
        else:
            return at
    return len(content)


def _take_scan(body: memoryview, left: dict[int, list[bool]]) -> None:
    if not body or len(body) != 4 + 2 * body[0]:
        raise PayloadError(f"a JPEG file with a scan whose header has {len(body)} bytes", _WHOLE)
    first, last, precision = body[-3:]
    for component in body[1:-3:2]:
        if component not in left or first > last or last > 63:
            raise PayloadError(f"a JPEG file with a scan of component {component}, {first}…{last}", _WHOLE)
        if precision & 15 == 0:  # no bit is left for later scans
            left[component][first : last + 1] = [False] * (last + 1 - first)
