"""From numpy to the very bytes of Zarr v3 objects, in memory; whoever calls decides where they go."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numcodecs.vlen import VLenUTF8
from numpy.typing import NDArray

from zstore.arrow import octets_of, padded_of
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
_SMALL_CODEC, _QUICK_CODEC = "zstd-3", "zstd-1"
_QUICK, _MANY = ("extent", "run"), 1 << 18
"""Dimensions of numbers that ascend evenly, which a higher level makes no smaller, and from how many on time counts."""


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
    document = small_document(values, dimensions, attributes)
    chunks = document["chunk_grid"]["configuration"]["chunk_shape"][0]
    starts = range(0, values.shape[0] if values.size else 0, chunks)
    made = (encode_small_chunk(values[start : start + chunks], document) for start in starts)
    return {ROOT: to_bytes(document), **{small_key(document, number): content for number, content in enumerate(made)}}


def small_document(
    values: NDArray[Any], dimensions: tuple[str, ...], attributes: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The ``zarr.json`` of a small array; parameters as of :func:`encode_small`."""
    text = values.dtype.kind == "T"
    chunks = (min(max(values.shape[0], 1), _SMALL_CHUNK), *(max(n, 1) for n in values.shape[1:]))
    fill = "" if text else float("nan") if values.dtype.kind == "f" else values.dtype.type(0).item()
    first = [{"name": "vlen-utf8", "configuration": {}}] if text else bytes_codec(values.dtype)
    quick = values.shape[0] > _MANY and (values.dtype.kind == "f" or dimensions[0] in _QUICK)
    codecs = [*first, *codec_documents(_QUICK_CODEC if quick else _SMALL_CODEC, "")]
    data_type = "string" if text else str(values.dtype)
    return array_document(values.shape, data_type, chunks, codecs, json_fill(fill), dimensions, attributes or {})


def small_key(document: dict[str, Any], number: int) -> str:
    """The relative key of a chunk, by its number along the first axis, of a small array with this ``zarr.json``."""
    return "/".join(["c", str(number), *["0"] * (len(document["shape"]) - 1)])


def encode_small_chunk(chunk: NDArray[Any], document: dict[str, Any]) -> bytes:
    """The bytes of one chunk of a small array, of at most the rows of a chunk; the last one is filled up."""
    text, shape = chunk.dtype.kind == "T", document["chunk_grid"]["configuration"]["chunk_shape"]
    if len(chunk) < shape[0]:
        rest = (shape[0] - len(chunk), *shape[1:])
        fill = "" if text else float("nan") if chunk.dtype.kind == "f" else 0
        chunk = np.concatenate([chunk, np.full(rest, fill, chunk.dtype)])
    level = document["codecs"][1]["configuration"]["level"]
    return encoder(f"zstd-{level}")(_encoded_texts(chunk) if text else np.ascontiguousarray(chunk))


def _encoded_texts(texts: NDArray[Any]) -> Any:
    """The texts of one chunk, as VLenUTF8 has them: how many, then each behind its length in four bytes."""
    fast = octets_of(texts)
    if fast is None:
        return VLenUTF8().encode(texts.astype(object))
    octets, lengths = fast
    content = np.empty(4 + 4 * len(texts) + len(octets), np.uint8)
    content[:4] = np.array([len(texts)], "<u4").view(np.uint8)
    sizes, width = lengths.astype("<u4").view(np.uint8).reshape(-1, 4), int(lengths.max(initial=0))
    if np.all(lengths == width):
        rows = content[4:].reshape(len(texts), 4 + width)
        rows[:, :4], rows[:, 4:] = sizes, octets.reshape(len(texts), width)
        return content
    starts = np.cumsum(lengths + 4) - lengths - 4
    is_length = np.zeros(len(content) - 4, np.bool_)
    is_length[(starts[:, None] + np.arange(4)).reshape(-1)] = True
    content[4:][is_length], content[4:][~is_length] = sizes.reshape(-1), octets
    return content


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
    made = np.empty(document["shape"], dtype_of(document))
    for number, rows in enumerate(small_chunks(document)):
        part = made[rows]
        values = decode_small_chunk(document, number, read, part)
        if values is not part:
            part[:] = values
    return made


def small_chunks(document: dict[str, Any]) -> Iterator[slice]:
    """The rows of each chunk of a small array with this ``zarr.json``; none where it has no values.

    One after the other: a document from elsewhere may promise any number of them.
    """
    shape, (chunk, *_) = document["shape"], document["chunk_grid"]["configuration"]["chunk_shape"]
    return (slice(low, min(low + chunk, shape[0])) for low in range(0, shape[0] if math.prod(shape) else 0, chunk))


def decode_small_chunk(
    document: dict[str, Any], number: int, read: Callable[[str], bytes], out: NDArray[Any] | None = None
) -> NDArray[Any]:
    """One chunk of a small array, without what fills up the last one; arguments and errors as of `decode_small`.

    Parameters
    ----------
    document, read
        As there.
    number
        Which chunk.
    out
        Memory that a chunk of numbers may be decoded into, if it is one that nothing fills up.
    """
    (length, *rest), (chunk, *_) = document["shape"], document["chunk_grid"]["configuration"]["chunk_shape"]
    n_rows = min(length - number * chunk, chunk)
    if document["data_type"] == "string":
        texts = decode_text_chunk(document, number, read)
        return texts.astype(np.dtypes.StringDType()) if texts.dtype.kind == "S" else texts
    content = memoryview(read(small_key(document, number)))
    values = out if out is not None and n_rows == chunk else np.empty((chunk, *rest), dtype_of(document))
    decoder("zstd")(content, values)
    return values if n_rows == chunk else values[:n_rows]


def decode_text_chunk(document: dict[str, Any], number: int, read: Callable[[str], bytes]) -> NDArray[Any]:
    """One chunk of texts, as of `decode_small_chunk`; where they are ASCII, and none is 0, as bytes of one length.

    Such bytes sort as the texts do, and are made in a fraction of the time.
    """
    chunk = document["chunk_grid"]["configuration"]["chunk_shape"][0]
    n_rows = min(document["shape"][0] - number * chunk, chunk)
    return _decode_texts(memoryview(read(small_key(document, number)))[:-CHECKSUM_BYTES], chunk, n_rows)


def dtype_of(document: dict[str, Any]) -> Any:
    """The numpy type of a small array."""
    text = document["data_type"] == "string"
    return np.dtypes.StringDType() if text else np.dtype(document["data_type"]).newbyteorder("<")


def _decode_texts(compressed: memoryview, n_texts: int, n_rows: int) -> NDArray[Any]:
    """The first texts of one chunk, as bytes where that can be; their number is compared with `n_texts` before."""
    n_bytes = inflated_bytes(compressed)
    if n_bytes > MOST_TEXT_BYTES + MOST_TEXT_FACTOR * len(compressed):
        raise ValueError(f"texts of {n_bytes:,} bytes in {len(compressed):,} bytes")
    content = np.empty(n_bytes, np.uint8)
    decoder("zstd")(memoryview(bytes(compressed) + bytes(CHECKSUM_BYTES)), content)
    if n_bytes < 4 or int.from_bytes(content[:4].tobytes(), "little") != n_texts:
        raise ValueError(f"a chunk of another number of texts than {n_texts:,}")
    if n_bytes < 4 + 4 * n_texts:
        raise ValueError(f"a chunk of {n_texts:,} texts that is cut short")
    n_fill = 4 * (n_texts - n_rows)  # bytes of the empty texts that fill up the last chunk
    if not content[len(content) - n_fill :].any():
        short = _short_texts(content[4 : len(content) - n_fill], n_rows)
        if short is not None:
            return short
    texts: NDArray[Any] = VLenUTF8().decode(content).astype(np.dtypes.StringDType())
    return texts[:n_rows]


def _short_texts(content: NDArray[np.uint8], n_texts: int) -> NDArray[Any] | None:
    """Texts as most ids are, all at once, as `padded_of` has them: ASCII, at most 127 characters, none empty; or None.

    Each is its length in four bytes, and then itself. Where all are of one length, that is compared. Else of such texts
    a zero is found in the last three bytes of each length alone. That each length leads to the next one, from the first
    byte to the last, is compared.
    """
    stride = len(content) // max(n_texts, 1)
    if n_texts and stride > 4 and stride * n_texts == len(content):
        rows = content.reshape(n_texts, stride)
        if np.all(rows[:, :4] == np.array([stride - 4], "<u4").view(np.uint8)):
            return padded_of(np.ascontiguousarray(rows[:, 4:]).reshape(-1), np.full(n_texts, stride - 4))
    zeros = np.flatnonzero(content == 0)
    if not n_texts or len(zeros) != 3 * n_texts or zeros[0] != 1:
        return None
    starts = zeros[::3] - 1
    lengths = content[starts].astype(np.int64)
    behind = np.append(starts[1:], len(content))
    if np.any(zeros[2::3] - zeros[::3] != 2) or np.any(starts + 4 + lengths != behind):
        return None
    of_texts = np.ones(len(content), np.bool_)
    of_texts[(starts[:, None] + np.arange(4)).reshape(-1)] = False
    return padded_of(content[of_texts], lengths)


def strings(values: Any) -> NDArray[Any]:
    """Text as a numpy array of variable-length strings."""
    return np.array(values, dtype=np.dtypes.StringDType())
