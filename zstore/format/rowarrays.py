"""The arrays over rows of a version, as its root document tells of them: times, channels, fields and their digests."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from zstore.format.layout import TIME, RowGrid, shard_key

DIGEST_BYTES = 16
DIGEST_CODEC, PLACE_CODEC = "zstd-1", "blosc-zstd-1-bitshuffle"
_DIGEST, _ORIGIN = "_digest", "_origin"


@dataclass(frozen=True)
class RowArray:
    """One array whose first axis is the rows.

    Parameters
    ----------
    variable
        Its name in the store.
    dtype
        Of what is stored.
    grid
        How its rows are cut; other axes are not.
    codec
        Name of its codec; None where its metadata may name any.
    shape
        Lengths of its other axes.
    """

    variable: str
    dtype: str
    grid: RowGrid
    codec: str | None
    shape: tuple[int, ...] = ()

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, before it is compressed."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def chunk_bytes(self) -> int:
        """Bytes of one chunk, before it is compressed."""
        return self.grid.chunk_rows * self.row_bytes

    @property
    def n_chunks(self) -> int:
        """Chunks of a full shard."""
        return self.grid.shard_rows // self.grid.chunk_rows

    def key(self, shard: int) -> str:
        """Key of the object of one shard."""
        return shard_key(self.variable, shard, 1 + len(self.shape))


def row_arrays(document: Mapping[str, Any]) -> dict[str, RowArray]:
    """Every array over rows by its variable, the time first, then channels and fields.

    Parameters
    ----------
    document
        ``attributes["zstore"]`` of a root document.
    """
    grid = RowGrid(document["chunk_rows"], document["shard_rows"])
    arrays = [RowArray(TIME, "int64", grid, None)]
    arrays += [RowArray(each["variable"], each["stored"], grid, each["codec"]) for each in document["channels"]]
    for field in document.get("fields", ()):
        if "n_bytes" in field:
            arrays += rows_of_bytes(field["variable"], grid)
            if "origins" in field:
                arrays.append(replace(arrays[-1], variable=origin_name(field["variable"])))
            continue
        own = RowGrid(field["chunk_rows"], field["shard_rows"])
        arrays.append(RowArray(field["variable"], field["stored"], own, field["codec"], tuple(field["shape"])))
        arrays.append(digests_of(field["variable"], own))
        if "origins" in field:
            arrays.append(replace(arrays[-1], variable=origin_name(field["variable"])))
    return {array.variable: array for array in arrays}


def rows_of_bytes(variable: str, grid: RowGrid) -> tuple[RowArray, RowArray, RowArray]:
    """Of a field of bytes, where those of each row begin, how many they are, and the digests of its payloads."""
    start, size, digest = byte_names(variable)[1:]
    return (
        RowArray(start, "int64", grid, PLACE_CODEC),
        RowArray(size, "int64", grid, PLACE_CODEC),
        RowArray(digest, "uint8", grid, DIGEST_CODEC, (DIGEST_BYTES,)),
    )


def byte_arrays(document: Mapping[str, Any]) -> dict[str, int]:
    """Every array of bytes by its variable, and its length."""
    return {field["variable"]: field["n_bytes"] for field in document.get("fields", ()) if "n_bytes" in field}


def array_names(variable: str) -> tuple[str, str]:
    """The arrays that a field has: of its values, and of the digests of their payloads."""
    return variable, variable + _DIGEST


def byte_names(variable: str) -> tuple[str, str, str, str]:
    """The arrays that a field of bytes has: bytes, first byte of each row, bytes of each row, digests."""
    return variable, f"{variable}_start", f"{variable}_size", variable + _DIGEST


def origin_name(variable: str) -> str:
    """The array of the origins of a field whose payloads are files, laid out as its digests are.

    Of each row 16 bytes: the first 8 tell the file and how it is read, the others its length and time of change. Zeros:
    nothing is known.
    """
    return variable + _ORIGIN


def digests_of(variable: str, grid: RowGrid) -> RowArray:
    """The array of the digests of the payloads of a field, whose rows are cut as its shards are.

    A row of zeros has no payload.
    """
    whole = RowGrid(grid.shard_rows, grid.shard_rows)
    return RowArray(array_names(variable)[1], "uint8", whole, DIGEST_CODEC, (DIGEST_BYTES,))
