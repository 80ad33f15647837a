"""From numpy to the very bytes of Zarr v3 objects, in memory; whoever calls decides where they go."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numcodecs.vlen import VLenUTF8
from numpy.typing import NDArray

from zstore.format.codecs import (
    CHECKSUM_BYTES,
    codec_documents,
    decoder,
    encoder,
    inflated_bytes,
)
from zstore.format.documents import array_document, bytes_codec, json_fill, to_bytes
from zstore.format.layout import ROOT

MOST_TEXT_BYTES, MOST_TEXT_FACTOR = 16 << 20, 256
"""Texts may inflate to so many bytes, and to so many for each byte of their object."""

_SMALL_CHUNK = 1 << 20
_ASCII = 127
_PADDING = 4  # bytes for each byte of texts that differ in length
_SMALL_CODEC = "zstd-3"


def encode_small(
    values: NDArray[Any], dimensions: tuple[str, ...], attributes: dict[str, Any] | None = None
) -> dict[str, bytes]:
    """All objects of one small array (index, manifest, moments), ``zarr.json`` included, by relative key.

    Parameters
    ----------
    values
        Numbers, or ``numpy.dtypes.StringDType`` text.
    dimensions
        A name for each axis.
    attributes
        CF attributes.
    """
    text = values.dtype.kind == "T"
    chunks = (min(max(values.shape[0], 1), _SMALL_CHUNK), *(max(n, 1) for n in values.shape[1:]))
    fill = "" if text else float("nan") if values.dtype.kind == "f" else values.dtype.type(0).item()
    first = [{"name": "vlen-utf8", "configuration": {}}] if text else bytes_codec(values.dtype)
    codecs = [*first, *codec_documents(_SMALL_CODEC, "")]
    data_type = "string" if text else str(values.dtype)
    document = array_document(values.shape, data_type, chunks, codecs, json_fill(fill), dimensions, attributes or {})
    objects, encode = {ROOT: to_bytes(document)}, encoder(_SMALL_CODEC)
    for number, start in enumerate(range(0, values.shape[0] if values.size else 0, _SMALL_CHUNK)):
        chunk = values[start : start + _SMALL_CHUNK]
        if len(chunk) < chunks[0]:
            rest = (chunks[0] - len(chunk), *chunks[1:])
            chunk = np.concatenate([chunk, np.full(rest, fill, values.dtype)])
        flat = VLenUTF8().encode(chunk.astype(object)) if text else np.ascontiguousarray(chunk)
        objects["/".join(["c", str(number), *["0"] * (values.ndim - 1)])] = encode(flat)
    return objects


def decode_small(document: dict[str, Any], read: Callable[[str], bytes]) -> NDArray[Any]:
    """A whole small array from its objects, whose digests have been compared.

    Parameters
    ----------
    document
        Its ``zarr.json``.
    read
        From a relative key to the bytes there.

    Raises
    ------
    ValueError
        If a chunk does not inflate to what the shape says. Nothing larger than that is ever made.
    """
    shape, (chunk, *_) = document["shape"], document["chunk_grid"]["configuration"]["chunk_shape"]
    text = document["data_type"] == "string"
    dtype: Any = np.dtypes.StringDType() if text else np.dtype(document["data_type"]).newbyteorder("<")
    decode = decoder("zstd")
    parts: list[NDArray[Any]] = []
    for number in range(-(-shape[0] // chunk) if math.prod(shape) else 0):
        content = memoryview(read("/".join(["c", str(number), *["0"] * (len(shape) - 1)])))
        if text:
            parts.append(_decode_texts(content[:-CHECKSUM_BYTES], chunk))
            continue
        values = np.empty((chunk, *shape[1:]), dtype)
        decode(content, values)
        parts.append(values)
    if not parts:
        return np.zeros(shape, dtype)
    return (parts[0] if len(parts) == 1 else np.concatenate(parts))[: shape[0]]


def _decode_texts(compressed: memoryview, n_texts: int) -> NDArray[Any]:
    """The texts of one chunk; their number is compared with `n_texts` before anything is made of them."""
    n_bytes = inflated_bytes(compressed)
    if n_bytes > MOST_TEXT_BYTES + MOST_TEXT_FACTOR * len(compressed):
        raise ValueError(f"texts of {n_bytes:,} bytes in {len(compressed):,} bytes")
    content = np.empty(n_bytes, np.uint8)
    decoder("zstd")(memoryview(bytes(compressed) + bytes(CHECKSUM_BYTES)), content)
    if n_bytes < 4 or int.from_bytes(content[:4].tobytes(), "little") != n_texts:
        raise ValueError(f"a chunk of another number of texts than {n_texts:,}")
    if n_bytes < 4 + 4 * n_texts:
        raise ValueError(f"a chunk of {n_texts:,} texts that is cut short")
    short = _short_texts(content[4:], n_texts)
    return VLenUTF8().decode(content).astype(np.dtypes.StringDType()) if short is None else short


def _short_texts(content: NDArray[np.uint8], n_texts: int) -> NDArray[Any] | None:
    """Texts as most ids are, all at once: ASCII, at most 127 characters, none empty; None where they are not.

    Each is its length in four bytes, and then itself. Of such texts a zero is found in the last three bytes of each
    length alone. That each length leads to the next one, from the first byte to the last, is compared.
    """
    zeros = np.flatnonzero(content == 0)
    if not n_texts or len(zeros) != 3 * n_texts or zeros[0] != 1 or content.max() > _ASCII:
        return None
    starts = zeros[::3] - 1
    lengths = content[starts].astype(np.int64)
    behind = np.append(starts[1:], len(content))
    if np.any(zeros[2::3] - zeros[::3] != 2) or np.any(starts + 4 + lengths != behind):
        return None
    width = int(lengths.max())
    if n_texts * width > _PADDING * len(content):
        return None
    if np.all(lengths == width):
        octets = np.ascontiguousarray(content.reshape(n_texts, 4 + width)[:, 4:])
    else:
        of_texts = np.ones(len(content), np.bool_)
        of_texts[(starts[:, None] + np.arange(4)).reshape(-1)] = False
        octets = np.zeros((n_texts, width), np.uint8)
        octets[np.arange(width) < lengths[:, None]] = content[of_texts]
    return octets.view(f"S{width}")[:, 0].astype(np.dtypes.StringDType())


def strings(values: Any) -> NDArray[Any]:
    """Text as a numpy array of variable-length strings."""
    return np.array(values, dtype=np.dtypes.StringDType())
