"""The small arrays of a version, written part by part: several at once, and parts that stay as they are not encoded."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.format.arrays import encode_small_chunk, small_document, small_key
from zstore.format.documents import to_bytes
from zstore.format.index import SeriesIndex
from zstore.format.layout import ROOT, index_path, moments_path
from zstore.format.manifest import ObjectRecord
from zstore.format.moments import Moments
from zstore.reading.store import Store
from zstore.storage.protocol import Storage

_ENCODERS, _SENDERS = 4, 16  # arrays at once, of which each takes the memory of one of its parts; the same for a bucket
_SAME = ("data_type", "chunk_grid", "codecs", "fill_value")


@dataclass(frozen=True)
class SmallArray:
    """An array of the index or of the moments.

    Parameters
    ----------
    path
        Where it is to lie.
    values
        Numbers, or ``numpy.dtypes.StringDType`` texts.
    dimensions
        A name for each axis.
    attributes
        CF attributes.
    """

    path: str
    values: NDArray[Any]
    dimensions: tuple[str, ...]
    attributes: Mapping[str, Any]


def small_arrays_of(
    index: SeriesIndex, moments: Moments, version: int, time_attributes: dict[str, Any]
) -> list[SmallArray]:
    """All arrays of the index and of the moments of a version."""
    group = index_path(version)
    arrays = [
        SmallArray(f"{group}/{name}", values, (dimension,), attributes)
        for name, (values, dimension, attributes) in index.to_arrays(time_attributes).items()
    ]
    group = moments_path(version)
    return arrays + [
        SmallArray(f"{group}/{name}", values, ("series", "channel"), {}) for name, values in moments.fields().items()
    ]


def write_small(
    root: Storage, arrays: Sequence[SmallArray], base: Store | None = None
) -> tuple[list[ObjectRecord], dict[str, dict[str, Any]]]:
    """Write small arrays.

    Parameters
    ----------
    root
        Where the store is.
    arrays
        What to write.
    base
        The version before: parts that are the same there are copied as they lie there, and not encoded again.

    Returns
    -------
    The objects, and the document of each array by its path.
    """
    before = {}
    if base is not None:
        known = small_arrays_of(base.index, base.moments, base.version, {})
        before = {_name(array.path): array for array in known}
    put = partial(_write_array, root, base, before)
    with ThreadPoolExecutor(_SENDERS if root.remote else _ENCODERS) as pool:
        written = list(pool.map(put, arrays))
    nodes = {array.path: node for array, (_, node) in zip(arrays, written, strict=True)}
    return [record for records, _ in written for record in records], nodes


def _name(path: str) -> str:
    """A path without its version: ``index/id`` of ``index/00000001/id``."""
    group, _, name = path.split("/", 2)
    return f"{group}/{name}"


def _write_array(
    root: Storage, base: Store | None, before: Mapping[str, SmallArray], array: SmallArray
) -> tuple[list[ObjectRecord], dict[str, Any]]:
    document = small_document(array.values, array.dimensions, dict(array.attributes))
    content = to_bytes(document)
    node: dict[str, Any] = json.loads(content)
    records = [ObjectRecord.of(f"{array.path}/{ROOT}", content)]
    root.write(records[0].key, content)
    for key, part in _parts(base, before.get(_name(array.path)), array, node):
        root.write(f"{array.path}/{key}", part)
        records.append(ObjectRecord.of(f"{array.path}/{key}", part))
    return records, node


def _parts(
    base: Store | None, old: SmallArray | None, array: SmallArray, node: dict[str, Any]
) -> Iterator[tuple[str, bytes]]:
    """The key and the bytes of each chunk of an array."""
    rows = int(node["chunk_grid"]["configuration"]["chunk_shape"][0])
    known = None
    if base is not None and old is not None:
        there = base.objects.nodes[old.path]
        known = old if all(there[name] == node[name] for name in _SAME) else None
    for number in range(-(-len(array.values) // rows) if array.values.size else 0):
        key, part = small_key(node, number), slice(number * rows, (number + 1) * rows)
        if base is not None and known is not None and _are_same(array.values, known.values, part):
            yield key, base.objects.content(f"{known.path}/{key}")
        else:
            yield key, encode_small_chunk(array.values[part], node)


def _are_same(values: NDArray[Any], before: NDArray[Any], part: slice) -> bool:
    """Whether a part of an array has the very same values that another array has there."""
    if values is before:
        return True
    new, old = values[part], before[part]
    if new.shape != old.shape or new.dtype != old.dtype:
        return False
    if new.dtype.kind == "T":
        return bool(np.all(new == old))
    octets = [np.ascontiguousarray(each).view(np.uint8) for each in (new, old)]  # a NaN is the same as itself
    return np.array_equal(octets[0], octets[1])
