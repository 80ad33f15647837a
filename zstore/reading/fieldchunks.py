"""Chunks of a variable of the store, decoded one by one, whichever they are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.format.layout import shard_key
from zstore.format.shards import chunking, decode_chunk, read_ranges
from zstore.reading.objects import ObjectReader


class VariableChunks:
    """Chunks of a variable. Where they lie in a shard is read once: 16 bytes a chunk.

    Parameters
    ----------
    objects, variable
        The version, and which of its variables.
    """

    def __init__(self, objects: ObjectReader, variable: str) -> None:
        self._objects, self._variable = objects, variable
        self.document = objects.nodes[variable]
        self.rows, shard_rows, self._codec = chunking(self.document)
        self._n_chunks = shard_rows // self.rows
        self._ranges: dict[int, NDArray[np.uint64]] = {}

    def decode(self, number: int, out: NDArray[Any]) -> None:
        """Decode a chunk, counted from the first of the variable, into contiguous ``(chunk_rows, …)``."""
        shard, inside = divmod(number, self._n_chunks)
        with self._objects.reading(shard_key(self._variable, shard, len(self.document["shape"]))) as (read, n_bytes):
            ranges = self._ranges.get(shard)
            if ranges is None:
                ranges = self._ranges[shard] = np.array(read_ranges(read, n_bytes, self._n_chunks), np.uint64)
            offset, length = ranges[inside].tolist()
            decode_chunk(read, offset, length, self._codec, out)
