"""PNG files as arrays: every checksum compared, every row accounted for, no colour rounded.

Pillow unfilters the rows. It is shown what the image is made of and nothing else, after that was checked here: Pillow
itself reads past checksums, takes rows that are not there for black ones, and halves colours of 16 bits.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zstore.format.payloads.error import PayloadError, check_size
from zstore.format.payloads.extras import library

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_WHOLE = "a whole PNG file"
_PIECE_BYTES = 1 << 20
_MOST_CHUNKS = 1 << 19
_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGBA = 0, 2, 3, 4, 6
_COMPONENTS = {_GREY: 1, _RGB: 3, _PALETTE: 1, _GREY_ALPHA: 2, _RGBA: 4}  # as they are stored
_DEPTHS = {_GREY: (1, 2, 4, 8, 16), _RGB: (8, 16), _PALETTE: (1, 2, 4, 8), _GREY_ALPHA: (8, 16), _RGBA: (8, 16)}
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


class PngHeader(NamedTuple):
    """What a PNG file says of its image.

    Parameters
    ----------
    width, height
        In pixels.
    depth
        Bits of a component.
    colour
        Type of colour, as PNG numbers them.
    interlaced
        Whether its rows come in seven passes.
    transparent
        Whether some colours of its palette are.
    """

    width: int
    height: int
    depth: int
    colour: int
    interlaced: bool
    transparent: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """(y, x) of grey ones, (y, x, colour) of others."""
        n = _COMPONENTS[self.colour]
        if self.colour == _PALETTE:
            n = 4 if self.transparent else 3
        return (self.height, self.width) if n == 1 else (self.height, self.width, n)

    @property
    def dtype(self) -> str:
        """Of the array."""
        return "uint16" if self.depth == 16 else "uint8"

    @property
    def n_raw_bytes(self) -> int:
        """Bytes of all rows, each with the number of its filter."""
        bits = self.depth * _COMPONENTS[self.colour]
        passes = _PASSES if self.interlaced else ((0, 0, 1, 1),)
        sizes = [
            (-(-(self.width - x) // over), -(-(self.height - y) // down))
            for x, y, over, down in passes
            if self.width > x and self.height > y
        ]
        return sum(height * (1 + -(-width * bits // 8)) for width, height in sizes)


def look(content: bytes, limit_bytes: int, whole: bool = True) -> PngHeader | None:
    """What a PNG file holds.

    Parameters
    ----------
    content
        The file, or its beginning.
    limit_bytes
        The most bytes that the array may take.
    whole
        Whether it is the whole file.

    Returns
    -------
    None if the beginning does not reach to the first row.

    Raises
    ------
    PayloadError
        If it is no PNG file, cut short before its rows, too large, or of a kind that cannot be read exactly.
    """
    header, transparent = None, False
    for name, body in _chunks(content, check=False):
        if name == b"IHDR" and header is None:
            header = _header(body)
        elif name == b"tRNS":
            transparent = True
        elif name == b"IDAT":
            if header is None:
                break
            header = header._replace(transparent=transparent)
            n_bytes = int(np.prod(header.shape, dtype=object)) * np.dtype(header.dtype).itemsize
            what = f"an image of {header.width:,} × {header.height:,} pixels"
            check_size(what, max(n_bytes, header.n_raw_bytes), limit_bytes)
            return header
        elif header is None:
            break
    if not whole:
        return None
    raise PayloadError(
        f"a PNG file of {len(content):,} bytes without rows"
        if header
        else "a PNG file that does not begin with a header",
        _WHOLE,
    )


def check(content: bytes, limit_bytes: int) -> PngHeader:
    """Compare every checksum of a PNG file, and count its rows; raises :class:`PayloadError` as :func:`decode`."""
    header = look(content, limit_bytes)
    assert header is not None
    _check_rows(content, header)
    return header


def decode(content: bytes, limit_bytes: int, proved: bool = False) -> NDArray[Any]:
    """A PNG file as an array.

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
    (y, x) of a grey image, (y, x, colour) of others: two components with an alpha channel, three, or four with one;
    uint8, or uint16 of grey images of 16 bits. Palettes are colours; 1, 2 and 4 bits of grey are spread over 0…255.

    Raises
    ------
    PayloadError
        If it is no whole PNG file, is larger than the limit, or of a kind that cannot be read exactly.
    """
    header = look(content, limit_bytes) if proved else check(content, limit_bytes)
    assert header is not None
    pillow, opener = library("PIL.Image", "image"), library("PIL.PngImagePlugin", "image").PngImageFile
    try:
        with opener(io.BytesIO(_essence(content))) as image:
            if header.colour == _PALETTE:
                _check_palette(np.asarray(image), content)
                return np.asarray(image.convert("RGBA" if header.transparent else "RGB"))
            values = np.asarray(image.convert("L") if image.mode == "1" else image)
    except (OSError, ValueError, SyntaxError, pillow.DecompressionBombError) as error:
        raise PayloadError(f"a PNG file that cannot be read ({error})", _WHOLE) from error
    if values.shape != header.shape or values.dtype != header.dtype:
        raise PayloadError(
            f"a PNG file that came out as {values.dtype} {values.shape}", f"{header.dtype} {header.shape}"
        )
    return values


def _chunks(content: bytes, check: bool) -> Iterator[tuple[bytes, memoryview]]:
    """Names and bodies; ends where the content does, or after the last one."""
    if not content.startswith(SIGNATURE):
        raise PayloadError(f"a file that begins with {content[:8]!r}" if content else "an empty file", "a PNG file")
    view, at, n_chunks = memoryview(content), len(SIGNATURE), 0
    while at + 8 <= len(content):
        (n_bytes,), name = struct.unpack_from(">I", view, at), bytes(view[at + 4 : at + 8])
        body = view[at + 8 : at + 8 + n_bytes]
        if name == b"IDAT" and not check:
            yield name, body
            return
        if at + 12 + n_bytes > len(content):
            return
        if check and zlib.crc32(view[at + 4 : at + 8 + n_bytes]) != struct.unpack_from(">I", view, at + 8 + n_bytes)[0]:
            raise PayloadError(f"a PNG file whose chunk {name!r} at byte {at:,} differs from its checksum", _WHOLE)
        yield name, body
        at, n_chunks = at + 12 + n_bytes, n_chunks + 1
        if n_chunks > _MOST_CHUNKS:
            raise PayloadError(f"a PNG file of more than {_MOST_CHUNKS:,} chunks", "fewer, each with more in it")
        if name == b"IEND":
            return


def _header(body: memoryview) -> PngHeader:
    if len(body) != 13:
        raise PayloadError(f"a PNG header of {len(body)} bytes", "13 bytes")
    width, height, depth, colour, compression, filters, interlaced = struct.unpack(">IIBBBBB", body)
    if not width or not height or max(width, height) >= 1 << 31:
        raise PayloadError(f"a PNG image of {width:,} × {height:,} pixels", "at least one pixel each way")
    if depth not in _DEPTHS.get(colour, ()) or compression or filters or interlaced > 1:
        raise PayloadError(f"a PNG image of colour type {colour} in {depth} bits", "one that the standard has")
    if depth == 16 and colour != _GREY:
        raise PayloadError(
            "a PNG image with 16 bits a colour, of which only 8 could be read", "8 bits a colour, 16 of grey, or npy"
        )
    return PngHeader(width, height, depth, colour, bool(interlaced), transparent=False)


def _check_rows(content: bytes, header: PngHeader) -> None:
    """Hold all chunks against their checksums, and rows against what the header promises."""
    name, left, inflater = b"", header.n_raw_bytes, zlib.decompressobj()
    for name, body in _chunks(content, check=True):
        if name == b"acTL" and len(body) == 8 and struct.unpack(">I", body[:4])[0] > 1:
            raise PayloadError(f"an animation of {struct.unpack('>I', body[:4])[0]:,} images", "one image")
        if name != b"IDAT":
            continue
        packed: bytes | memoryview = body
        try:
            while packed and left >= 0 and not inflater.eof:
                left -= len(inflater.decompress(packed, _PIECE_BYTES))
                packed = inflater.unconsumed_tail
        except zlib.error as error:
            raise PayloadError(f"a PNG file whose rows cannot be inflated ({error})", _WHOLE) from error
    if name != b"IEND":
        raise PayloadError(f"a PNG file of {len(content):,} bytes that ends too early", _WHOLE)
    if left or not inflater.eof:
        amount = f"{header.n_raw_bytes - left:,} of" if left > 0 else "more than"
        raise PayloadError(f"a PNG file with {amount} {header.n_raw_bytes:,} bytes of rows", _WHOLE)


def _essence(content: bytes) -> bytes:
    """The chunks that make the image, without those that say things about it."""
    wanted = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
    pieces: list[bytes | memoryview] = [SIGNATURE]
    for name, body in _chunks(content, check=True):
        if name in wanted:
            checksum = zlib.crc32(body, zlib.crc32(name))
            pieces += [struct.pack(">I", len(body)), name, body, struct.pack(">I", checksum)]
        elif name[:1].isupper():
            raise PayloadError(f"a PNG file with a chunk {name!r}", "the chunks of the standard")
    return b"".join(pieces)


def _check_palette(indices: NDArray[np.uint8], content: bytes) -> None:
    palettes = [len(body) // 3 for name, body in _chunks(content, check=True) if name == b"PLTE"]
    if len(palettes) != 1 or int(indices.max()) >= palettes[0]:
        n_colours = palettes[0] if palettes else 0
        raise PayloadError(f"a PNG file with colour {indices.max()} of a palette of {n_colours}", _WHOLE)
