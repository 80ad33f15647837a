"""From numpy to the very bytes of Zarr v3 shards, in memory, and back; whoever calls decides where they go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.format.codecs import (
    CHECKSUM,
    CHECKSUM_BYTES,
    check_inflated,
    checked,
    codec_documents,
    decoder,
    encoder,
    with_checksum,
)
from zstore.format.documents import array_document, bytes_codec, json_fill
from zstore.format.layout import shard_key

_ABSENT = 2**64 - 1


@dataclass(frozen=True)
class ArrayPlan:
    """Everything that fixes the bytes of one variable over `row`, its rows excepted.

    Parameters
    ----------
    dtype
        On-disk dtype.
    fill
        Zarr fill value.
    codec
        Name of its codec, see :mod:`zstore.format.codecs`.
    chunk_rows, shard_rows
        Rows per chunk and per shard.
    attributes
        CF attributes.
    shape, dimensions
        Lengths and names of the axes beside the row.
    along
        Name of the first axis.
    """

    dtype: str
    fill: int | float
    codec: str
    chunk_rows: int
    shard_rows: int
    attributes: dict[str, Any]
    shape: tuple[int, ...] = ()
    dimensions: tuple[str, ...] = ()
    along: str = "row"

    def key(self, variable: str, shard: int) -> str:
        """Key of the object of one shard."""
        return shard_key(variable, shard, 1 + len(self.shape))

    def document(self, n_rows: int) -> dict[str, Any]:
        """The variable's ``zarr.json``."""
        inner = {
            "chunk_shape": [self.chunk_rows, *self.shape],
            "codecs": [*bytes_codec(np.dtype(self.dtype)), *codec_documents(self.codec, self.dtype)],
            "index_codecs": [*bytes_codec(np.dtype("u8")), CHECKSUM],
            "index_location": "end",
        }
        sharding = [{"name": "sharding_indexed", "configuration": inner}]
        fill = bool(self.fill) if self.dtype == "bool" else json_fill(self.fill)
        shape, shard = (n_rows, *self.shape), (self.shard_rows, *self.shape)
        return array_document(shape, self.dtype, shard, sharding, fill, (self.along, *self.dimensions), self.attributes)

    def encode_shard(self, values: NDArray[Any]) -> bytes:
        """The object of one shard, byte for byte what zarr-python writes for a full one.

        Parameters
        ----------
        values
            (row,) at most `shard_rows` values of `dtype`.

        Notes
        -----
        Put together here, as the Zarr v3 sharding codec has it (chunks, then an index of offset and length with its
        CRC-32C at the end), because zarr-python goes through its event loop for every chunk, which two
        threads cannot do at once: 3.4 times the time of this for int16. Chunks after the last row are left out.
        """
        starts = range(0, len(values), self.chunk_rows)
        return self.join_chunks(self.encode_chunk(values[start : start + self.chunk_rows]) for start in starts)

    def encode_chunk(self, values: NDArray[Any]) -> bytes:
        """A chunk of (row, …) at most `chunk_rows` values, the rest of which is filled."""
        if len(values) < self.chunk_rows:
            rest = np.full((self.chunk_rows - len(values), *self.shape), self.fill, self.dtype)
            values = np.concatenate([values, rest])
        return encoder(self.codec)(np.ascontiguousarray(values))

    def join_chunks(self, chunks: Iterable[bytes]) -> bytes:
        """The object of a shard from its encoded chunks, the first ones of it."""
        index = np.full((self.shard_rows // self.chunk_rows, 2), _ABSENT, "<u8")
        parts, position = [], 0
        for number, encoded in enumerate(chunks):
            index[number] = position, len(encoded)
            position += len(encoded)
            parts.append(encoded)
        return b"".join([*parts, with_checksum(index.tobytes())])


def decode_shard(
    content: bytes, dtype: str, codec: str, chunk_rows: int, shard_rows: int, shape: tuple[int, ...] = ()
) -> Iterator[NDArray[Any]]:
    """The chunks of one shard, in order, each (chunk_rows, …), the last one padded with the fill value.

    Each is valid until the next is asked for: they share their memory.

    Parameters
    ----------
    content
        The object, whose digest has been compared.
    dtype, codec, chunk_rows, shard_rows, shape
        As it was encoded.

    Notes
    -----
    For reading everything: the object is read once, for its digest and for its rows, and a chunk is unpacked while it
    is still in cache.

    Raises
    ------
    ValueError
        If a chunk lies outside the object, or does not inflate to its rows.
    """
    decode, view = decoder(codec), memoryview(content)
    chunk = np.empty((chunk_rows, *shape), dtype)
    for offset, length in chunk_ranges(content[-16 * (shard_rows // chunk_rows) - CHECKSUM_BYTES :], len(content)):
        if offset == _ABSENT:
            return
        decode(view[offset : offset + length], chunk)
        yield chunk


def chunk_ranges(index: bytes, n_bytes: int) -> list[list[int]]:
    """Offset and length of each chunk of a shard, from the index at its end, its checksum included.

    Parameters
    ----------
    index
        Those bytes.
    n_bytes
        Length of the shard's object.

    Raises
    ------
    ValueError
        If the index differs from its CRC-32C, or a chunk lies outside the object, or after one that was never written.
    """
    ranges = np.frombuffer(checked(index, "index of chunks"), "<u8").reshape(-1, 2)
    written = ranges[:, 0] != _ABSENT
    offset, length = ranges[written].T
    body = n_bytes - len(index)
    if np.any(offset > body) or np.any(length > body - np.minimum(offset, body)) or np.any(length < CHECKSUM_BYTES):
        raise ValueError(f"a chunk lies outside the {body:,} bytes of its shard")
    if np.any(written[1:] & ~written[:-1]):
        raise ValueError("a chunk lies behind one that was never written")
    return ranges.tolist()


def check_chunks(read: Callable[[int, int], bytes], n_bytes: int, library: str, chunk_bytes: int, n_chunks: int) -> int:
    """Check every chunk of a shard without inflating it: where it lies, its CRC-32C, and its size once inflated.

    Parameters
    ----------
    read, n_bytes
        As for :func:`decode_rows`.
    library
        ``zstd`` or ``blosc``.
    chunk_bytes
        Bytes of a chunk, inflated.
    n_chunks
        Chunks that a full shard has.

    Returns
    -------
    The number of chunks that were written; they are the first ones.

    Raises
    ------
    ValueError
        Naming the first chunk that cannot be decoded.
    """
    size = 16 * n_chunks + CHECKSUM_BYTES
    written = [each for each in chunk_ranges(read(n_bytes - size, n_bytes), n_bytes) if each[0] != _ABSENT]
    for number, (offset, length) in enumerate(written):
        check_inflated(library, checked(read(offset, offset + length), f"chunk {number}"), chunk_bytes)
    return len(written)


def decode_rows(
    read: Callable[[int, int], bytes],
    n_bytes: int,
    document: dict[str, Any],
    start: int,
    stop: int,
) -> NDArray[Any]:
    """The rows ``[start, stop)`` of one shard, (row, …), from the chunks that hold them.

    Parameters
    ----------
    read
        The bytes from one to another position of the shard's object.
    n_bytes
        Its length.
    document
        The variable's ``zarr.json``, as :meth:`ArrayPlan.document` makes it.
    start, stop
        Rows, counted from the first of the shard.

    Raises
    ------
    ValueError
        If a chunk, or the index of chunks, differs from its CRC-32C, is not there, or does not inflate to its rows.
    """
    size, shard_rows, decode = chunking(document)
    ranges = read_ranges(read, n_bytes, shard_rows // size)
    first, last = start // size, -(-stop // size)
    written = ranges[first:last]
    if any(offset == _ABSENT for offset, _ in written):
        raise ValueError(f"a chunk of the rows {start:,} to {stop - 1:,} was never written")
    begin = min((offset for offset, _ in written), default=0)
    end = max((offset + length for offset, length in written), default=0)
    body = memoryview(read(begin, end))
    rows = np.empty(((last - first) * size, *document["shape"][1:]), document["data_type"])
    for number, (offset, length) in enumerate(written):
        encoded = body[offset - begin : offset - begin + length]
        checked(encoded, f"chunk {first + number}")
        decode(encoded, rows[number * size : (number + 1) * size])
    return rows[start - first * size : stop - first * size]


def chunking(document: dict[str, Any]) -> tuple[int, int, Callable[[memoryview, NDArray[Any]], None]]:
    """Rows of a chunk, rows of a shard, and what decodes a chunk, of a variable by its ``zarr.json``."""
    sharding = document["codecs"][0]["configuration"]
    shard_rows = document["chunk_grid"]["configuration"]["chunk_shape"][0]
    return sharding["chunk_shape"][0], shard_rows, decoder(sharding["codecs"][1]["name"])


def read_ranges(read: Callable[[int, int], bytes], n_bytes: int, n_chunks: int) -> list[list[int]]:
    """Offset and length of each chunk of a shard; parameters as those of :func:`check_chunks`, errors as well."""
    return chunk_ranges(read(n_bytes - 16 * n_chunks - CHECKSUM_BYTES, n_bytes), n_bytes)


def decode_chunk(
    read: Callable[[int, int], bytes],
    offset: int,
    length: int,
    decode: Callable[[memoryview, NDArray[Any]], None],
    out: NDArray[Any],
) -> None:
    """Decode one chunk of a shard into an array.

    Parameters
    ----------
    read
        The bytes from one to another position of the shard's object.
    offset, length
        Where the chunk lies, from :func:`read_ranges`.
    decode
        The codec backwards, see :func:`chunking`.
    out
        (chunk_rows, …), contiguous.

    Raises
    ------
    ValueError
        If the chunk differs from its CRC-32C, was never written, or does not inflate to its rows.
    """
    if offset == _ABSENT:
        raise ValueError("a chunk was never written")
    encoded = memoryview(read(offset, offset + length))
    checked(encoded, f"the chunk at byte {offset:,}")
    decode(encoded, out)
