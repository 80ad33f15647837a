"""The metadata documents of Zarr v3 nodes, and JSON as it is stored."""

from __future__ import annotations

import json
from json.encoder import encode_basestring
from typing import Any

import numpy as np

_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


def array_document(
    shape: tuple[int, ...],
    data_type: str,
    chunks: tuple[int, ...],
    codecs: list[dict[str, Any]],
    fill: Any,
    dimensions: tuple[str, ...],
    attributes: dict[str, Any],
) -> dict[str, Any]:
    """The ``zarr.json`` of an array, as the Zarr v3 specification has it and zarr-python writes it.

    Written here because `import zarr` takes longer than the ingest of a million rows.
    """
    return {
        "shape": list(shape),
        "data_type": data_type,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunks)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill,
        "codecs": codecs,
        "attributes": attributes,
        "dimension_names": list(dimensions),
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }


def group_document(attributes: dict[str, Any] | None = None) -> dict[str, Any]:
    """The ``zarr.json`` of a group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes or {}}


def to_bytes(document: dict[str, Any]) -> bytes:
    """A JSON document as it is stored: indented by one space.

    Notes
    -----
    The text that `json.dumps` makes with ``indent=1``, in half of the time: a store of 5,000 channels has a root
    document of half a million lines.
    """
    return _indented(document, "\n").encode()


def _indented(value: Any, newline: str) -> str:
    """JSON text of a value; `newline` ends a line and indents the next as the value itself is."""
    inner = newline + " "
    if isinstance(value, dict) and value:
        items = [f"{_quoted(key)}: {_indented(item, inner)}" for key, item in value.items()]
        return f"{{{inner}{f',{inner}'.join(items)}{newline}}}"
    if isinstance(value, (list, tuple)) and value:
        return f"[{inner}{f',{inner}'.join([_indented(item, inner) for item in value])}{newline}]"
    if type(value) is int:  # not a bool
        return int.__repr__(value)
    return encode_basestring(value) if isinstance(value, str) else _JSON.encode(value)


def _quoted(key: Any) -> str:
    if isinstance(key, str):
        return encode_basestring(key)
    raise TypeError(f"key {key!r} of a JSON document; expected text")


def bytes_codec(dtype: np.dtype[Any]) -> list[dict[str, Any]]:
    """What makes bytes of numbers, as a list of codecs begins with it."""
    configuration = {} if dtype.itemsize == 1 else {"configuration": {"endian": "little"}}
    return [{"name": "bytes", **configuration}]


def json_fill(fill: Any) -> Any:
    """A fill value as JSON has it."""
    return "NaN" if fill != fill else fill
