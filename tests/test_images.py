"""Encoded images as arrays, with Pillow as the oracle where it is one."""

from __future__ import annotations

import io
import re
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from zstore.format.payloads import jpeg, png
from zstore.format.payloads.error import PayloadError
from zstore.format.payloads.images import decode_image, look_image

LIMIT = 1 << 26
BANDS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def pixels(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def photo(height: int = 48, width: int = 70) -> Image.Image:
    """Smooth, as what JPEG is made for."""
    return Image.fromarray(pixels(6, 8, 3)).resize((width, height), Image.Resampling.BICUBIC)


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def drawn_png(width: int, height: int, rows: bytes, depth: int = 8, colour: int = 0, *more: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *more, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return png.SIGNATURE + b"".join(parts)


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(list(BANDS)), st.booleans(), st.integers(0, 99))
def test_png_files_come_out_as_they_went_in(height: int, width: int, mode: str, smallest: bool, seed: int) -> None:
    values = pixels(height, width, BANDS[mode], seed=seed)
    values = values[..., 0] if mode == "L" else values
    content = encoded(Image.fromarray(values), "PNG", optimize=smallest)
    look = look_image(content, LIMIT)
    assert look is not None
    assert (look.shape, look.dtype, look.n_bytes) == (values.shape, "uint8", values.nbytes)
    np.testing.assert_array_equal(values, decode_image(content, LIMIT))


@pytest.mark.parametrize("depth", [1, 2, 4, 16])
def test_grey_png_files_of_other_depths_are_read_exactly(depth: int) -> None:
    levels = (1 << depth) - 1
    values = np.arange(24).reshape(4, 6) * 2731 % (levels + 1)
    bits = "".join(
        f"{0:08b}" + "".join(f"{value:0{depth}b}" for value in row).ljust(-(-6 * depth // 8) * 8, "0") for row in values
    )
    content = drawn_png(6, 4, int(bits, 2).to_bytes(len(bits) // 8, "big"), depth)
    expected = values if depth == 16 else values * (255 // levels)
    np.testing.assert_array_equal(expected, png.decode(content, LIMIT))
    assert png.decode(content, LIMIT).dtype == ("uint16" if depth == 16 else "uint8")


@pytest.mark.parametrize("transparent", [False, True])
def test_palettes_become_colours(transparent: bool) -> None:
    image = photo().quantize(30)
    content = encoded(image, "PNG", **({"transparency": bytes(range(30))} if transparent else {}))
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGBA" if transparent else "RGB"))
    look = look_image(content, LIMIT)
    assert look is not None
    assert look.shape == expected.shape
    np.testing.assert_array_equal(expected, decode_image(content, LIMIT))


def test_interlaced_png_files_are_read_and_their_rows_counted() -> None:
    values = pixels(11, 13)
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    rows = [b"\0" + row.tobytes() for x, y, over, down in passes for row in values[y::down, x::over] if row.size]
    header = struct.pack(">IIBBBBB", 13, 11, 8, 0, 0, 0, 1)
    for n, whole in ((len(rows), True), (len(rows) - 1, False)):
        body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"".join(rows[:n]))) + chunk(b"IEND", b"")
        if whole:
            np.testing.assert_array_equal(values, png.decode(png.SIGNATURE + body, LIMIT))
        else:
            with pytest.raises(PayloadError, match="bytes of rows"):
                png.decode(png.SIGNATURE + body, LIMIT)


def test_a_png_file_whose_rows_end_early_is_refused_and_never_black() -> None:
    rows = b"".join(b"\0" + row.tobytes() for row in pixels(20, 30))
    content = drawn_png(30, 40, rows)
    assert not np.asarray(Image.open(io.BytesIO(content)))[20:].any()  # as Pillow reads it
    with pytest.raises(PayloadError, match="620 of 1,240 bytes of rows"):
        png.decode(content, LIMIT)


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"", "empty"),
        (b"GIF89a" + bytes(20), "begins with"),
        (png.SIGNATURE, "without|begin with a header"),
        (drawn_png(30, 10, bytes(310) + b"x"), "more than"),
        (drawn_png(0, 10, b""), "0 × 10"),
        (drawn_png(10, 10, bytes(610), 16, 2), "16 bits a colour"),
        (drawn_png(10, 10, bytes(110), 3), "3 bits"),
        (drawn_png(4, 1, b"\0\0\1\2\3", 8, 3, chunk(b"PLTE", bytes(6))), "colour 3 of a palette of 2"),
        (drawn_png(2, 1, b"\0\0\0", 8, 0, chunk(b"acTL", struct.pack(">II", 12, 0))), "animation of 12"),
        (drawn_png(2, 1, b"\0\0\0", 8, 0, chunk(b"CRIT", b"")), "CRIT"),
    ],
)
def test_a_png_file_that_is_none_or_cannot_be_read_exactly_is_refused(content: bytes, names: str) -> None:
    with pytest.raises(PayloadError, match=names):
        decode_image(content, LIMIT)


def test_a_png_file_is_compared_with_all_of_its_checksums() -> None:
    content = encoded(photo(), "PNG")
    whole = decode_image(content, LIMIT)
    for at in [*range(100), *range(100, len(content), 97), *range(len(content) - 20, len(content))]:
        damaged = content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]
        try:
            values = decode_image(damaged, LIMIT)
        except PayloadError:
            continue
        np.testing.assert_array_equal(whole, values)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_an_image_that_ends_early_is_refused_wherever_it_ends(kind: str) -> None:
    content = encoded(photo(), kind)
    for n in [*range(0, len(content), 211), len(content) - 1]:
        with pytest.raises(PayloadError):
            decode_image(content[:n], LIMIT)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"progressive": True},
        {"subsampling": 0},
        {"quality": 30, "optimize": True},
        {"restart_marker_rows": 1},
        {"keep_rgb": True},
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpeg_files_are_decoded_as_libjpeg_does(mode: str, options: dict[str, Any]) -> None:
    content = encoded(photo().convert(mode), "JPEG", **options)
    expected = np.asarray(Image.open(io.BytesIO(content)))
    look = look_image(content, LIMIT)
    assert look is not None
    assert (look.shape, look.dtype) == (expected.shape, "uint8")
    np.testing.assert_array_equal(expected, decode_image(content, LIMIT))


def test_what_stands_behind_a_jpeg_file_is_left_alone() -> None:
    content = encoded(photo(), "JPEG")
    np.testing.assert_array_equal(decode_image(content, LIMIT), decode_image(content + bytes(999), LIMIT))


def test_a_jpeg_file_that_was_closed_too_early_is_refused_and_never_grey() -> None:
    content = encoded(photo(200, 300), "JPEG")
    for n in range(700, len(content) - 2, 997):
        closed = content[:n] + b"\xff\xd9"
        with pytest.raises(PayloadError):
            decode_image(closed, LIMIT)


def test_a_progressive_jpeg_file_without_its_last_scans_is_refused_and_never_blurred() -> None:
    content = encoded(photo(200, 300), "JPEG", progressive=True)
    scans = [match.start() for match in re.finditer(b"\xff\xda", content)]
    assert len(scans) > 5
    for at in scans[1:]:
        with pytest.raises(PayloadError, match="last scans"):
            decode_image(content[:at] + b"\xff\xd9", LIMIT)


def test_jpeg_files_of_other_processes_and_colours_are_refused_by_name() -> None:
    content = encoded(photo(), "JPEG")
    at = content.index(b"\xff\xc0")
    for damaged, names in [
        (content[: at + 1] + b"\xc3" + content[at + 2 :], "process 3"),
        (content[: at + 4] + b"\x0c" + content[at + 5 :], "12 bits"),
        (content[: at + 5] + bytes(4) + content[at + 9 :], "0 × 0"),
        (encoded(photo().convert("CMYK"), "JPEG"), "4 components"),
        (content[:at] + content[at : at + 19] + content[at:], "two headers"),
    ]:
        with pytest.raises(PayloadError, match=names):
            decode_image(damaged, LIMIT)


def test_an_image_of_very_many_pieces_is_refused_before_all_are_looked_at() -> None:
    content = encoded(photo(), "JPEG")
    with pytest.raises(PayloadError, match="segments"):
        decode_image(content[:2] + b"\xff\xfe\x00\x02" * (1 << 17) + content[2:], LIMIT)
    content = encoded(photo(), "PNG")
    with pytest.raises(PayloadError, match="chunks"):
        decode_image(content[:33] + chunk(b"teXt", b"") * (1 << 20) + content[33:], LIMIT)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_an_image_beyond_the_limit_is_refused_by_its_header(kind: str) -> None:
    content = encoded(photo(), kind)
    with pytest.raises(PayloadError, match="70 × 48 pixels"):
        decode_image(content, 10_079)
    assert decode_image(content, 10_200).nbytes == 10_080
    vast = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = png.SIGNATURE + chunk(b"IHDR", vast) + chunk(b"IDAT", zlib.compress(bytes(1 << 20))) + chunk(b"IEND", b"")
    if kind == "JPEG":
        at = content.index(b"\xff\xc0")
        bomb = content[: at + 5] + struct.pack(">HH", 60_000, 60_000) + content[at + 9 :]
    with pytest.raises(PayloadError, match="60,000 × 60,000") as refused:
        decode_image(bomb, 1 << 30)
    assert "--file-limit" in refused.value.expected


def test_a_beginning_tells_what_an_image_is_once_it_reaches_so_far() -> None:
    for content, kind in [(encoded(photo(), "PNG"), png), (encoded(photo(), "JPEG"), jpeg)]:
        looks = {kind.look(content[:n], LIMIT, whole=False) for n in range(8, 800, 7)}
        assert looks == {None, kind.look(content, LIMIT)}
