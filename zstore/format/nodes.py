"""The metadata of the arrays of a version: each must be of the shape, type, grid and codec that the version says.

An array may not promise more than its objects can hold. Its objects can be small, since equal values compress well, so
the promise is compared with all small objects of the version together: ids and digests do not compress.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from zstore.format.index import INDEX_FIELDS
from zstore.format.layout import (
    BYTES_CODEC,
    CHUNK_BYTES,
    PARTED_VERSION,
    SHARD_BYTES,
    RowGrid,
    index_path,
    manifest_path,
    moments_path,
)
from zstore.format.moments import Moments
from zstore.format.refusals import refuse, text, whole
from zstore.format.rowarrays import RowArray, byte_arrays, row_arrays
from zstore.format.trust import check_words, is_key

FREE_BYTES, FACTOR = 64 << 20, 256
"""Small arrays may promise so many bytes, and so many for each byte of their objects."""

_MOST_ITEMS = 1 << 40
_SMALL_CHUNK = 1 << 20
_STRING_BYTES = 96  # of memory, for each of an array of texts
_LISTING = {"key": "string", "n_bytes": "int64", "digest": "string"}
_MOMENTS = {name: str(values.dtype) for name, values in Moments.empty((0,)).fields().items()}


def check_nodes(document: Mapping[str, Any], nodes: Any, where: str) -> None:
    """Check the consolidated metadata of a root document against what the document itself says.

    Parameters
    ----------
    document
        ``attributes["zstore"]``, which has been checked.
    nodes
        From path to metadata.
    where
        For messages.

    Raises
    ------
    StoreError
        Naming the first array that cannot be.
    """
    if not isinstance(nodes, dict):
        refuse("metadata that are no mapping", "the metadata of every array", where)
    for path, node in nodes.items():
        if not is_key(path) or not isinstance(node, dict):
            refuse(f"array {path!r}", "a path inside the store, with its metadata", where)
    _check_rows(document, nodes, where)
    if document["format"] != PARTED_VERSION:
        _check_listing(document, nodes, where)
    _check_index(document, nodes, where)
    of_moments = (document["n_series"], len(document["channels"]))
    for name, dtype in _MOMENTS.items():
        _check_small(nodes, f"{moments_path(document['version'])}/{name}", of_moments, dtype, where)


def _check_listing(document: Mapping[str, Any], nodes: Mapping[str, Any], where: str) -> None:
    """The arrays of a manifest that is in one piece."""
    group = manifest_path(document["version"])
    for prefix in ("", "source_"):
        arrays = {f"{group}/{prefix}{name}": dtype for name, dtype in _LISTING.items()}
        length = _shape(nodes, next(iter(arrays)), 1, where)
        for path, dtype in arrays.items():
            _check_small(nodes, path, length, dtype, where)
    listing = [nodes[f"{group}/{prefix}{name}"] for prefix in ("", "source_") for name in _LISTING]
    check_promise(listing, sum(n_bytes for _, n_bytes, _ in document["manifest"]), where)
    (n_objects,) = _shape(nodes, f"{group}/key", 1, where)
    most = n_objects // (1 + len(document["channels"])) * document["shard_rows"]
    if document["n_rows"] > most:
        refuse(f"{document['n_rows']:,} rows", f"at most {most:,}, which {n_objects:,} objects can hold", where)


def check_promise(nodes: Iterable[Mapping[str, Any]], n_bytes: int, where: str) -> None:
    """Refuse small arrays that promise more than their objects can hold.

    Parameters
    ----------
    nodes
        Metadata of the arrays, each of which has been checked.
    n_bytes
        Bytes of all their objects.
    where
        For messages.
    """
    promised = 0
    for node in nodes:
        dtype = node["data_type"]
        size = _STRING_BYTES if dtype == "string" else np.dtype(dtype).itemsize
        promised += math.prod(node["shape"]) * size
    most = FREE_BYTES + FACTOR * n_bytes
    if promised > most:
        refuse(f"arrays of {promised:,} bytes in {n_bytes:,} bytes of objects", f"at most {most:,}", where)


def small_arrays(document: Mapping[str, Any], nodes: Mapping[str, Any]) -> list[str]:
    """Paths of the arrays of the index and of the moments that readers decode."""
    index, moments = index_path(document["version"]), moments_path(document["version"])
    return [*(f"{index}/{name}" for name in index_arrays(index, nodes)), *(f"{moments}/{name}" for name in _MOMENTS)]


def index_arrays(group: str, nodes: Mapping[str, Any]) -> list[str]:
    """Names of the arrays of an index: those that every index has, and static attributes."""
    names = [path.rpartition("/")[2] for path in nodes if path.rpartition("/")[0] == group]
    return [name for name in names if name in INDEX_FIELDS or "zstore_static" in nodes[f"{group}/{name}"]["attributes"]]


def _check_rows(document: Mapping[str, Any], nodes: Mapping[str, Any], where: str) -> None:
    """The arrays over rows: one grid, one of the known codecs, an index at the end of each shard."""
    lengths = dict.fromkeys(arrays := row_arrays(document), document["n_places"])
    for variable, n_bytes in byte_arrays(document).items():
        arrays[variable] = RowArray(variable, "uint8", RowGrid(CHUNK_BYTES, SHARD_BYTES), BYTES_CODEC)
        lengths[variable] = n_bytes
    for path, array in arrays.items():
        dtype, codec = array.dtype, array.codec
        node = _array(nodes, path, where)
        try:
            (sharding,) = node["codecs"]
            inner = sharding["configuration"]
            names = [each["name"] for each in inner["codecs"]]
            index_names = [each["name"] for each in inner["index_codecs"]]
            has = {
                "data type": node["data_type"],
                "shape": node["shape"],
                "grid": (node["chunk_grid"]["name"], node["chunk_grid"]["configuration"]["chunk_shape"]),
                "codec": sharding["name"],
                "chunks": inner["chunk_shape"],
                "index codecs": index_names,
                "place of the index": inner.get("index_location", "end"),
                "chunk codecs": [names[0], names[2], len(names)],
                "compressor": names[1],
            }
            fill = float(node["fill_value"])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            refuse(f"array {path} without something, or with it in another form ({error!r})", "a sharded array", where)
        wanted = {
            "data type": dtype,
            "shape": [lengths[path], *array.shape],
            "grid": ("regular", [array.grid.shard_rows, *array.shape]),
            "codec": "sharding_indexed",
            "chunks": [array.grid.chunk_rows, *array.shape],
            "index codecs": ["bytes", "crc32c"],
            "place of the index": "end",
            "chunk codecs": ["bytes", "crc32c", 3],
            "compressor": has["compressor"] if codec is None else codec.partition("-")[0],
        }
        for name, value in wanted.items():
            if has[name] != value or isinstance(has[name], bool):
                refuse(f"array {path} with {name} {has[name]!r}", f"{value!r}", where)
        if has["compressor"] not in ("blosc", "zstd"):
            refuse(f"array {path} with compressor {has['compressor']!r}", "blosc or zstd", where)
        if np.dtype(dtype).kind in "iu" and not (fill.is_integer() and abs(fill) <= 1 << 63):
            refuse(f"array {path} with fill value {fill!r}", f"one of {dtype}", where)


def _check_index(document: Mapping[str, Any], nodes: Mapping[str, Any], where: str) -> None:
    group, n_series = index_path(document["version"]), (document["n_series"],)
    _check_small(nodes, f"{group}/id", n_series, "string", where)
    for name in ("row_size", "time_start", "time_stop"):
        _check_small(nodes, f"{group}/{name}", n_series, "int64", where)
    _check_small(nodes, f"{group}/extent_ptr", (n_series[0] + 1,), "int64", where)
    for first, *others in (("extent_start", "extent_stop"), ("run_start", "run_stop", "run_series", "run_time")):
        length = _shape(nodes, f"{group}/{first}", 1, where)
        for name in (first, *others):
            # A store without rows has no run, though early releases gave it the end of one.
            early = name == "run_stop" and not length[0] and nodes.get(f"{group}/{name}", {}).get("shape") == [1]
            _check_small(nodes, f"{group}/{name}", (1,) if early else length, "int64", where)
    known = {f"{group}/{name}" for name in INDEX_FIELDS}
    places: set[int] = set()
    for path in nodes:
        if path.rpartition("/")[0] != group or path in known:
            continue
        attributes = _array(nodes, path, where)["attributes"]
        if "zstore_static" not in attributes:
            continue
        places.add(whole(attributes["zstore_static"], 0, len(nodes), f"zstore_static of {path}", where))
        text(attributes.get("long_name"), f"the name of {path}", where)
        if "categories" in attributes:
            check_words(attributes["categories"], f"categories of {path}", where)
        _check_small(nodes, path, n_series, "int32" if "categories" in attributes else "float64", where)


def _check_small(nodes: Mapping[str, Any], path: str, shape: tuple[int, ...], dtype: str, where: str) -> None:
    """A small array: one chunk after the other along its first axis, zstd and a checksum."""
    node = _array(nodes, path, where)
    chunks = (max(1, min(shape[0], _SMALL_CHUNK)), *(max(1, size) for size in shape[1:]))
    try:
        names = [each["name"] for each in node["codecs"]]
        grid = node["chunk_grid"]["name"], tuple(node["chunk_grid"]["configuration"]["chunk_shape"])
    except (KeyError, TypeError) as error:
        refuse(f"array {path} without something, or with it in another form ({error!r})", "a small array", where)
    has = (node["data_type"], tuple(node["shape"]), names)
    wanted = (dtype, shape, ["vlen-utf8" if dtype == "string" else "bytes", "zstd", "crc32c"])
    if has != wanted:
        refuse(f"array {path} with type, shape and codecs {has!r}", f"{wanted!r}", where)
    first = grid[1][0] if grid[1] else 0
    if grid[0] != "regular" or grid[1][1:] != chunks[1:] or not whole_chunk(first, shape[0]):
        refuse(f"array {path} with the grid {grid!r}", f"('regular', {chunks!r})", where)


def whole_chunk(rows: Any, n_rows: int) -> bool:
    """Whether a small array of so many rows may have chunks of `rows`."""
    return type(rows) is int and 1 <= rows <= max(n_rows, 1)


def _shape(nodes: Mapping[str, Any], path: str, n_axes: int, where: str) -> tuple[int, ...]:
    """The shape of an array, which has so many axes."""
    shape = _array(nodes, path, where)["shape"]
    if not isinstance(shape, list) or len(shape) != n_axes:
        refuse(f"array {path} of shape {shape!r}", f"{n_axes} axes", where)
    return tuple(whole(size, 0, _MOST_ITEMS, f"length of {path}", where) for size in shape)


def _array(nodes: Mapping[str, Any], path: str, where: str) -> Mapping[str, Any]:
    """The metadata of an array that must be there."""
    node: Mapping[str, Any] | None = nodes.get(path)
    if node is None:
        refuse(f"no metadata of array {path}", "the metadata of every array", where)
    if node.get("node_type") != "array" or not isinstance(node.get("attributes"), dict):
        refuse(f"{path} that is no array", "an array with its attributes", where)
    if not isinstance(node.get("shape"), list) or not isinstance(node.get("data_type"), str):
        refuse(f"array {path} of shape {node.get('shape')!r}", "a list of lengths, and a data type", where)
    return node
