"""From numpy to the very bytes of Zarr v3 objects, in memory; whoever calls decides where they go."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.storage import MemoryStore

from zstore.format.codecs import CHECKSUM_BYTES, decoder, encoder, with_checksum, zarr_codecs

_SMALL_CHUNK = 1 << 20
_ABSENT = 2**64 - 1
_WRITE_ALL: Any = {"write_empty_chunks": True}  # every object of a version exists and stands in its manifest


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
    """

    dtype: str
    fill: int | float
    codec: str
    chunk_rows: int
    shard_rows: int
    attributes: dict[str, Any]

    def document(self, n_rows: int) -> dict[str, Any]:
        """The variable's ``zarr.json``."""
        objects = _Objects()
        self._create(objects, n_rows)
        return objects.document()

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
        encode = encoder(self.codec)
        index = np.full((self.shard_rows // self.chunk_rows, 2), _ABSENT, "<u8")
        parts, position = [], 0
        for number, start in enumerate(range(0, len(values), self.chunk_rows)):
            chunk = values[start : start + self.chunk_rows]
            if len(chunk) < self.chunk_rows:
                chunk = np.concatenate([chunk, np.full(self.chunk_rows - len(chunk), self.fill, self.dtype)])
            encoded = encode(np.ascontiguousarray(chunk))
            index[number] = position, len(encoded)
            position += len(encoded)
            parts.append(encoded)
        return b"".join([*parts, with_checksum(index.tobytes())])

    def _create(self, objects: _Objects, n_rows: int) -> Any:
        return zarr.create_array(
            MemoryStore(objects),
            shape=(n_rows,),
            dtype=self.dtype,
            chunks=(self.chunk_rows,),
            shards=(self.shard_rows,),
            compressors=zarr_codecs(self.codec, self.dtype),
            fill_value=self.fill,
            dimension_names=["row"],
            attributes=self.attributes,
            config=_WRITE_ALL,
        )


def decode_shard(content: bytes, dtype: str, codec: str, chunk_rows: int, shard_rows: int) -> Iterator[NDArray[Any]]:
    """The chunks of one shard, in order, each (chunk_rows,), the last one padded with the fill value.

    Each is valid until the next is asked for: they share their memory.

    Parameters
    ----------
    content
        The object, whose digest has been compared.
    dtype, codec, chunk_rows, shard_rows
        As it was encoded.

    Notes
    -----
    For reading everything: the object is read once, for its digest and for its rows, and a chunk is unpacked while it
    is still in cache. Parts of a shard are read by Zarr.
    """
    decode, view = decoder(codec), memoryview(content)
    n_chunks = shard_rows // chunk_rows
    index = np.frombuffer(content[-16 * n_chunks - CHECKSUM_BYTES : -CHECKSUM_BYTES], "<u8").reshape(n_chunks, 2)
    chunk = np.empty(chunk_rows, dtype)
    for offset, length in index.tolist():
        if offset == _ABSENT:
            return
        decode(view[offset : offset + length], chunk)
        yield chunk


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
    objects = _Objects()
    chunks = (min(max(values.shape[0], 1), _SMALL_CHUNK), *(max(n, 1) for n in values.shape[1:]))
    array = zarr.create_array(
        MemoryStore(objects),
        shape=values.shape,
        dtype=values.dtype,
        chunks=chunks,
        compressors=[ZstdCodec(level=3), Crc32cCodec()],
        fill_value=float("nan") if values.dtype.kind == "f" else None,
        dimension_names=list(dimensions),
        attributes=attributes or {},
        config=_WRITE_ALL,
    )
    if values.size:
        array[...] = values
    return objects.contents()


def group_document(attributes: dict[str, Any] | None = None) -> dict[str, Any]:
    """The ``zarr.json`` of a group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes or {}}


def to_bytes(document: dict[str, Any]) -> bytes:
    """A JSON document as it is stored."""
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False).encode()


def strings(values: Any) -> NDArray[Any]:
    """Text as a numpy array of variable-length strings."""
    return np.array(values, dtype=np.dtypes.StringDType())


class _Objects(dict[str, Any]):
    """What Zarr writes, as a plain dict of its buffers: no file system, and no event loop of our own."""

    def contents(self) -> dict[str, bytes]:
        return {key: buffer.to_bytes() for key, buffer in self.items()}

    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self["zarr.json"].to_bytes())
        return document
