"""The small arrays of a version, written part by part: several at once, and parts that stay as they are not encoded."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from zstore.format.arrays import encode_small_chunk, small_chunks, small_document, small_key
from zstore.format.documents import to_bytes
from zstore.format.layout import ROOT, index_path, moments_path
from zstore.format.manifest import ObjectRecord
from zstore.reading.smallcolumn import SmallColumn
from zstore.storage.protocol import Storage
from zstore.writing.spliced import Spliced
from zstore.writing.spliced_index import IndexOf, MomentsOf

_ENCODERS, _SENDERS = 4, 16  # arrays at once, of which each takes the memory of one of its parts; the same for a bucket
_SAME = ("data_type", "chunk_grid", "fill_value")  # codecs of small arrays differ in their level alone


@dataclass(frozen=True)
class SmallArray:
    """An array of the index or of the moments.

    Parameters
    ----------
    path
        Where it is to lie.
    values
        Numbers, or ``numpy.dtypes.StringDType`` texts; or a :class:`Spliced` array of them.
    dimensions
        A name for each axis.
    attributes
        CF attributes.
    """

    path: str
    values: Any
    dimensions: tuple[str, ...]
    attributes: Mapping[str, Any]


def small_arrays_of(
    index: IndexOf, moments: MomentsOf, version: int, time_attributes: dict[str, Any]
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


def write_small(root: Storage, arrays: Sequence[SmallArray]) -> tuple[list[ObjectRecord], dict[str, dict[str, Any]]]:
    """Write small arrays.

    Parameters
    ----------
    root
        Where the store is.
    arrays
        What to write; chunks of spliced arrays that stay are copied as they lie there, and not encoded again.

    Returns
    -------
    The objects, and the document of each array by its path.
    """
    with ThreadPoolExecutor(_SENDERS if root.remote else _ENCODERS) as pool:
        written = list(pool.map(partial(_write_array, root), arrays))
    nodes = {array.path: node for array, (_, node) in zip(arrays, written, strict=True)}
    return [record for records, _ in written for record in records], nodes


def _write_array(root: Storage, array: SmallArray) -> tuple[list[ObjectRecord], dict[str, Any]]:
    document = small_document(array.values, array.dimensions, dict(array.attributes))
    content = to_bytes(document)
    node: dict[str, Any] = json.loads(content)
    records = [ObjectRecord.of(f"{array.path}/{ROOT}", content)]
    root.write(records[0].key, content)
    for key, part in _parts(array, node):
        root.write(f"{array.path}/{key}", part)
        records.append(ObjectRecord.of(f"{array.path}/{key}", part))
    return records, node


def _parts(array: SmallArray, node: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """The key and the bytes of each chunk of an array."""
    values, base = array.values, array.values.base if isinstance(array.values, Spliced) else None
    same = base is not None and all(base.document[name] == node[name] for name in _SAME)
    for number, rows in enumerate(small_chunks(node)):
        key = small_key(node, number)
        if base is None:
            yield key, encode_small_chunk(values[rows], node)
        elif same and _stays(values, base, rows):
            yield key, base.objects.content(f"{base.path}/{key}")
        else:
            yield key, encode_small_chunk(values.read(rows.start, rows.stop), node)


def _stays(values: Spliced, base: SmallColumn, rows: slice) -> bool:
    """Whether a chunk is that of the array before: the same items, and what fills it up."""
    ends_alike = rows.stop == len(base) or (rows.stop < len(values) and rows.stop < len(base))
    return ends_alike and values.stays(rows.start, rows.stop)
