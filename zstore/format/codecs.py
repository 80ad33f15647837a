"""Codecs of row-aligned variables, by name: as Zarr describes them, and as functions that threads can run at once.

Only codecs that every Zarr v3 reader has; a checksum stands behind each, since plain zstd misses most bit flips.

Adding one takes its name in `_parse` and in what :func:`check_codec` expects, its document in :func:`codec_documents`,
its :func:`encoder`, :func:`decoder` and :func:`check_inflated` (what is not zstd is taken for Blosc there), and, if
``--codec auto`` is to try it, a line in `CANDIDATES` for channels, or `ARRAY_CANDIDATES` for fields.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import google_crc32c
import numpy as np
from numcodecs.blosc import Blosc
from numcodecs.zstd import Zstd
from numpy.typing import NDArray

from zstore.errors import UsageError

# What a smaller object must save to be worth slower decoding; fixed, so that the choice depends on the rows alone.
CANDIDATES = {
    "blosc-lz4-5-bitshuffle": 1.00,
    "blosc-zstd-1-bitshuffle": 1.05,
    "blosc-zstd-3-shuffle": 1.05,
    "blosc-zstd-5-bitshuffle": 1.05,
    "zstd-3": 1.07,
}
ARRAY_CANDIDATES = {
    "blosc-lz4-5-noshuffle": 1.00,
    "blosc-lz4-5-shuffle": 1.00,
    "blosc-lz4-5-bitshuffle": 1.00,
    "blosc-zstd-3-shuffle": 1.25,
    "blosc-zstd-3-bitshuffle": 1.25,
    "zstd-3": 1.25,
}
"""The same for fields, such as images, whose bytes are many: zstd takes some five times as long as lz4 to decode."""
AUTO = "auto"
CHECKSUM = {"name": "crc32c"}
CHECKSUM_BYTES = 4
# One Blosc block per chunk: its own choice of smaller ones costs zstd a third of its decoding speed.
_BLOSC_BLOCK = 1 << 18
TIME_CODEC = "blosc-zstd-5-bitshuffle"
_SHUFFLES = {"bitshuffle": Blosc.BITSHUFFLE, "shuffle": Blosc.SHUFFLE, "noshuffle": Blosc.NOSHUFFLE}


def default_codec(dtype: str) -> str:
    """The codec of packed integers, or of floats."""
    return "blosc-zstd-1-bitshuffle" if np.dtype(dtype).kind == "i" else "zstd-3"


def check_codec(name: str) -> str:
    """The name, if it is one.

    Raises
    ------
    UsageError
        If it is not.
    """
    try:
        _parse(name)
    except (ValueError, KeyError):
        raise UsageError(
            f"codec {name!r}",
            expected=f"{AUTO}, zstd-LEVEL, or blosc-LIBRARY-LEVEL-SHUFFLE, such as {', '.join(CANDIDATES)}",
            fix="correct --codec",
        ) from None
    return name


def codec_documents(name: str, dtype: str) -> list[dict[str, Any]]:
    """The codec as a ``zarr.json`` lists it, its checksum included."""
    library, level, shuffle = _parse(name)
    if library == "zstd":
        return [{"name": "zstd", "configuration": {"level": level, "checksum": False}}, CHECKSUM]
    configuration = {
        "typesize": np.dtype(dtype).itemsize,
        "cname": library.removeprefix("blosc-"),
        "clevel": level,
        "shuffle": shuffle,
        "blocksize": _BLOSC_BLOCK,
    }
    return [{"name": "blosc", "configuration": configuration}, CHECKSUM]


def encoder(name: str) -> Callable[[NDArray[Any]], bytes]:
    """The codec as a function of one contiguous chunk, its checksum included."""
    library, level, shuffle = _parse(name)
    if library == "zstd":
        codec: Any = Zstd(level=level)
    else:
        codec = Blosc(library.removeprefix("blosc-"), level, _SHUFFLES[shuffle], _BLOSC_BLOCK)
    return lambda chunk: with_checksum(bytes(codec.encode(chunk)))


def decoder(name: str) -> Callable[[memoryview, NDArray[Any]], None]:
    """The codec backwards, into an array; the checksum is left to whoever has compared a digest of the whole.

    The name of its library is enough: ``zstd`` or ``blosc``. What would not fill the array exactly is refused before
    anything is inflated, with a `ValueError`; so is what cannot be inflated.
    """
    codec: Any = Zstd() if name.startswith("zstd") else Blosc()
    library = name.partition("-")[0]

    def decode(content: memoryview, out: NDArray[Any]) -> None:
        compressed = content[:-CHECKSUM_BYTES]
        check_inflated(library, compressed, out.nbytes)
        try:
            codec.decode(compressed, out)
        except RuntimeError as error:
            raise ValueError(f"a chunk that cannot be inflated ({error})") from error

    return decode


def check_inflated(library: str, compressed: bytes | memoryview, n_bytes: int) -> None:
    """Compare what a compressed chunk says of its sizes with what it is, and with the room that it is to fill.

    Parameters
    ----------
    library
        ``zstd`` or ``blosc``.
    compressed
        One chunk, without its checksum.
    n_bytes
        Bytes that it must have once inflated.

    Raises
    ------
    ValueError
        If it says otherwise, or nothing.
    """
    if library == "zstd":
        claimed = _zstd_size(compressed)
    else:
        header = bytes(compressed[:16])
        if len(header) < 16 or int.from_bytes(header[12:16], "little") != len(compressed):
            raise ValueError(f"a chunk of {len(compressed):,} bytes that says it has another length")
        claimed = int.from_bytes(header[4:8], "little")
    if claimed != n_bytes:
        size = "an unknown number of" if claimed is None else f"{claimed:,}"
        raise ValueError(f"a chunk of {len(compressed):,} bytes that inflates to {size} bytes, not {n_bytes:,}")


def inflated_bytes(frame: bytes | memoryview) -> int:
    """What a zstd frame inflates to, as it says itself. Raises `ValueError` where it does not say."""
    size = _zstd_size(frame)
    if size is None:
        raise ValueError(f"a chunk of {len(frame):,} bytes that does not say what it inflates to")
    return size


def _zstd_size(frame: bytes | memoryview) -> int | None:
    """What a zstd frame says that it inflates to (RFC 8878, 3.1.1.1); None where it does not say, or is no frame."""
    head = bytes(frame[:18])
    if len(head) < 6 or head[:4] != b"\x28\xb5\x2f\xfd":
        return None
    descriptor = head[4]
    single, flag = descriptor >> 5 & 1, descriptor >> 6
    width = (1 if single else 0, 2, 4, 8)[flag]
    first = 5 + (0 if single else 1) + (0, 1, 2, 4)[descriptor & 3]
    field = head[first : first + width]
    if not width or len(field) < width:
        return None
    return int.from_bytes(field, "little") + (256 if width == 2 else 0)


def with_checksum(content: bytes) -> bytes:
    """Bytes with their CRC-32C behind them."""
    checksum: int = google_crc32c.value(content)
    return content + checksum.to_bytes(4, "little")


def checked(content: bytes | memoryview, name: str) -> bytes | memoryview:
    """Bytes without their CRC-32C, which is compared.

    Raises
    ------
    ValueError
        If it differs.
    """
    found, expected = google_crc32c.value(bytes(content[:-CHECKSUM_BYTES])), content[-CHECKSUM_BYTES:]
    if len(expected) != CHECKSUM_BYTES or found != int.from_bytes(expected, "little"):
        raise ValueError(f"{name} differs from its CRC-32C")
    return content[:-CHECKSUM_BYTES]


def smallest(
    sample: NDArray[Any], chunk_rows: int, candidates: Mapping[str, float] = CANDIDATES
) -> tuple[str, dict[str, int]]:
    """The codec for a column, or a field, by trial on a sample of it.

    Parameters
    ----------
    sample
        (row, …) stored values, in the order of the store.
    chunk_rows
        Rows encoded at once.
    candidates
        What a smaller object must save to be worth slower decoding, by codec.

    Returns
    -------
    The name of the best, and the bytes of the sample with each.
    """
    sizes = {}
    for name in candidates:
        encode = encoder(name)
        starts = range(0, len(sample), chunk_rows)
        sizes[name] = sum(len(encode(np.ascontiguousarray(sample[a : a + chunk_rows]))) for a in starts)
    return min(sizes, key=lambda name: sizes[name] * candidates[name]), sizes


def _parse(name: str) -> tuple[str, int, str]:
    parts = name.split("-")
    if parts[0] == "zstd" and len(parts) == 2:
        return "zstd", _level(parts[1], 22), ""
    library, compressor, level, shuffle = parts
    if library != "blosc" or compressor not in ("lz4", "zstd") or shuffle not in _SHUFFLES:
        raise ValueError(name)
    return f"blosc-{compressor}", _level(level, 9), shuffle


def _level(text: str, most: int) -> int:
    level = int(text)
    if not 0 <= level <= most:
        raise ValueError(text)
    return level
