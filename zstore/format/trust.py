"""What a root document may say, checked once when a store is opened, before anything in it is believed.

A store may come from anywhere, and its digests can be computed by anybody: they tell damage, and do not authenticate.
So names cannot leave the store, numbers cannot be out of their range, what is promised cannot be larger than what is
there, and parsing cannot take more memory than :data:`~zstore.format.parsing.MOST_ROOT_BYTES`.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from zstore.errors import StoreError, UsageError
from zstore.format.codecs import check_codec
from zstore.format.encodings.arrays import ARRAY_DTYPES
from zstore.format.encodings.base import fill_of
from zstore.format.encodings.numbers import MAX_DECIMALS
from zstore.format.layout import RESERVED, manifest_path, n_shards
from zstore.format.refusals import FIX, is_whole, refuse, shown, text, texts, whole
from zstore.format.rowarrays import array_names, byte_names, origin_name
from zstore.format.timesteps import TimeStepRule

MOST_PLACES = 1 << 53
MOST_CHUNK_ROWS, MOST_SHARD_ROWS, MOST_CHUNKS = 1 << 20, 1 << 28, 1 << 16
MOST_VERSION = 99_999_999
MOST_AXES, MOST_ROW_BYTES, MOST_CHUNK_BYTES = 6, 1 << 30, 1 << 21
"""Of a field: axes beside the row, bytes of a row, and of a chunk of several rows."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.\-]{0,127}")
_KEY = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9_.\-]{0,127}/){0,7}[A-Za-z0-9][A-Za-z0-9_.\-]{0,127}")
_DIGEST = re.compile(r"[0-9a-f]{32}")
_UUID = re.compile(r"[0-9a-f\-]{1,64}")
_STORED = {"int16": True, "int32": True, "float32": False, "float64": False}
_UNITS = (None, "s", "ms", "us", "ns")


def check_document(document: Mapping[str, Any], where: str) -> None:
    """Check ``attributes["zstore"]`` of a root document whose digest is right.

    Raises
    ------
    StoreError
        Naming the first thing that cannot be.
    """
    try:
        _check_sizes(document, where)
        taken = _check_channels(document, where)
        _check_fields(document, taken, where)
        _check_listing(document, where)
        _check_notes(document, where)
        _check_time(document["time"], document["format"], where)
    except (KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            f"a root document that lacks something, or has it in another form ({error!r})",
            expected="all that the store format has",
            where=where,
            fix=FIX,
        ) from error


def _check_sizes(document: Mapping[str, Any], where: str) -> None:
    whole(document["version"], 1, MOST_VERSION, "version", where)
    n_places = whole(document["n_places"], 0, MOST_PLACES, "n_places", where)
    whole(document["n_rows"], 0, n_places, "n_rows", where)
    whole(document["n_series"], 0, 1 << 31, "n_series", where)
    fault = grid_fault(document["chunk_rows"], document["shard_rows"])
    if fault is not None:
        refuse(*fault, where)
    most_shards = MOST_PLACES // document["shard_rows"]
    least = n_shards(n_places, document["shard_rows"])
    whole(document["next_shard"], least, most_shards, "next_shard", where)
    if not _UUID.fullmatch(text(document["uuid"], "uuid", where)):
        refuse(f"uuid {document['uuid']!r}", "hex digits", where)
    for name in ("committed", "id_name", "action"):
        text(document[name], name, where)


def _check_channels(document: Mapping[str, Any], where: str) -> tuple[set[str], set[str]]:
    """Check the channels. Returns the names and the variables, in small letters, that are taken."""
    channels = document["channels"]
    if not isinstance(channels, list):
        refuse("channels that are no list", "a list", where)
    taken: tuple[set[str], set[str]] = (set(), {name.lower() for name in RESERVED})
    for channel in channels:
        name = _check_name(channel, "channel", (channel["variable"],), taken, where)
        _check_channel(channel, f"channel {name!r}", where)
    return taken


def _check_name(
    field: Mapping[str, Any], kind: str, variables: Iterable[str], taken: tuple[set[str], set[str]], where: str
) -> str:
    """Check that name and variables of a field are safe and not taken yet, and take them."""
    names, used = taken
    name = text(field["name"], f"the name of a {kind}", where)
    if name in names:
        refuse(f"two {kind}s {name!r}", "each name once", where)
    names.add(name)
    for each in variables:
        variable = text(each, f"the variable of {kind} {name!r}", where)
        if not _NAME.fullmatch(variable):
            refuse(f"variable {variable!r} of {kind} {name!r}", "a letter, then letters, digits, _ . -", where)
        if variable.lower() in used:
            refuse(f"variable {variable!r} of {kind} {name!r}", "a name that is not taken, whatever its case", where)
        used.add(variable.lower())
    return name


def _check_fields(document: Mapping[str, Any], taken: tuple[set[str], set[str]], where: str) -> None:
    """The fields: what a row of each may take is bounded, and its grid lies in that of the channels."""
    fields = document.get("fields", [])
    if not isinstance(fields, list) or (fields and document["format"] == 1):
        refuse("fields that are no list, or in format 1", "a list, in format 2", where)
    for field in fields:
        text(field["variable"], "the variable of a field", where)
        if field.get("origins", True) is not True:
            refuse(f"origins {field['origins']!r} of a field", "true, or nothing", where)
        more = (origin_name(field["variable"]),) if "origins" in field else ()
        if "n_bytes" in field:
            own = _check_name(field, "field", (*byte_names(field["variable"]), *more), taken, where)
            whole(field["n_bytes"], 0, MOST_PLACES, f"n_bytes of field {own!r}", where)
            if field["units"] is not None:
                text(field["units"], f"units of field {own!r}", where)
            continue
        name = f"field {_check_name(field, 'field', (*array_names(field['variable']), *more), taken, where)!r}"
        stored, source = field["stored"], field["dtype"]
        if stored not in ARRAY_DTYPES or source not in ARRAY_DTYPES:
            refuse(f"{name} of {source!r} stored as {stored!r}", f"one of {', '.join(ARRAY_DTYPES)}", where)
        if stored != source and not (stored == "uint8" and source.startswith("float")):
            refuse(f"{name} of {source} stored as {stored}", f"{source}, or floats as uint8", where)
        shape, dimensions = field["shape"], field["dimensions"]
        if not isinstance(shape, list) or not 0 < len(shape) <= MOST_AXES:
            refuse(f"{name} of shape {shape!r}", f"one to {MOST_AXES} lengths", where)
        row_bytes = np.dtype(stored).itemsize
        for length in shape:
            row_bytes *= whole(length, 1, MOST_ROW_BYTES, f"a length of {name}", where)
        whole(row_bytes, 1, MOST_ROW_BYTES, f"bytes of a row of {name}", where)
        if not isinstance(dimensions, list) or len({*texts(dimensions, f"a dimension of {name}", where)}) != len(shape):
            refuse(f"{name} with dimensions {dimensions!r}", f"{len(shape)} names, each once", where)
        fault = grid_fault(field["chunk_rows"], field["shard_rows"])
        if fault is not None:
            refuse(f"{name} with {fault[0]}", fault[1], where)
        if field["shard_rows"] > document["shard_rows"]:
            refuse(f"{name} with {field['shard_rows']:,} rows in a shard", f"{document['shard_rows']:,} at most", where)
        if field["chunk_rows"] > 1 and field["chunk_rows"] * row_bytes > MOST_CHUNK_BYTES:
            refuse(
                f"chunks of {field['chunk_rows'] * row_bytes:,} bytes of {name}", f"{MOST_CHUNK_BYTES:,} at most", where
            )
        if field["units"] is not None:
            text(field["units"], f"units of {name}", where)
        _check_codec(field["codec"], name, where)


def _check_codec(codec: Any, name: str, where: str) -> None:
    try:
        check_codec(text(codec, f"the codec of {name}", where))
    except UsageError as error:
        refuse(f"codec {codec!r} of {name}", error.expected, where)


def _check_channel(channel: Mapping[str, Any], name: str, where: str) -> None:
    stored, decimals, words = channel["stored"], channel["decimals"], channel["categories"]
    if not isinstance(stored, str) or stored not in _STORED:
        refuse(f"{name} stored as {stored!r}", f"one of {', '.join(_STORED)}", where)
    if _STORED[stored]:
        whole(decimals, 0, MAX_DECIMALS, f"decimals of {name}", where)
    elif decimals is not None:
        refuse(f"decimals {decimals!r} of {name}", f"none, for {stored}", where)
    if channel["dtype"] not in ("float32", "float64"):
        refuse(f"{name} read as {channel['dtype']!r}", "float32 or float64", where)
    if channel["units"] is not None:
        text(channel["units"], f"units of {name}", where)
    _check_codec(channel["codec"], name, where)
    if words is not None:
        check_words(words, f"categories of {name}", where)
        if decimals != 0 or len(words) > -int(fill_of(np.dtype(stored))):
            refuse(f"{len(words):,} categories of {name} as {stored}", "integers that hold every code", where)


def check_words(words: Any, what: str, where: str) -> None:
    """Refuse categories that are no list of distinct texts."""
    if not isinstance(words, list):
        refuse(f"{what} that are no list", "a list of texts", where)
    for word in words:
        text(word, f"one of the {what}", where)
    if len(set(words)) < len(words):
        refuse(f"{what} that have a word twice", "each word once", where)


def _check_listing(document: Mapping[str, Any], where: str) -> None:
    """The objects of the manifest itself."""
    if not isinstance(document["manifest"], list):
        refuse("a manifest that is no list", "a list", where)
    group, seen = f"{manifest_path(document['version'])}/", set()
    for entry in document["manifest"]:
        if not isinstance(entry, list) or len(entry) != 3:
            refuse(f"{entry!r} in the manifest", "key, length and digest", where)
        check_record(entry[0], entry[1], entry[2], where)
        if not (entry[0].startswith(group) or entry[0] == "manifest/zarr.json") or entry[0] in seen:
            refuse(f"object {entry[0]!r} in the manifest", f"objects of {group}, each once", where)
        seen.add(entry[0])


def check_record(key: Any, n_bytes: Any, digest: Any, where: str) -> None:
    """Refuse an entry of a manifest whose key could leave the store, or whose length or digest is none."""
    if not _KEY.fullmatch(text(key, "the key of an object", where)):
        refuse(f"object {key!r}", "a key of letters, digits, _ . - and /, inside the store", where)
    whole(n_bytes, 0, MOST_PLACES, f"length of object {key}", where)
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        refuse(f"digest {digest!r} of object {key}", "32 hex digits", where)


def _check_notes(document: Mapping[str, Any], where: str) -> None:
    """What is there for people, and for the next append."""
    receipt, table = document["receipt"], document["table"]
    for name, size in receipt["sources"].items():
        text(name, "the name of a source", where)
        whole(size, 0, 1 << 63, f"length of source {name!r}", where)
    for name in ("n_quarantined", "n_duplicates", "n_known"):
        whole(receipt.get(name, 0), 0, 1 << 63, f"{name} of the receipt", where)
    for note in (*receipt.get("notes", ()), receipt.get("quarantine") or ""):
        text(note, "a note of the receipt", where)
    for name in ("n_dropped", "n_updated"):
        if document.get(name) is not None:
            whole(document[name], 0, 1 << 63, name, where)
    if not isinstance(table, dict):
        refuse("a table that is none", "how the sources were read", where)
    encoding = text(table["encoding"], "the encoding of the sources", where)
    try:
        known = codecs.lookup(encoding)._is_text_encoding
    except (LookupError, ValueError):
        known = False
    if not known:
        refuse(f"encoding {encoding!r} of the sources", "an encoding of text", where)


def _check_time(time: Mapping[str, Any], form: int, where: str) -> None:
    if time["unit"] not in _UNITS:
        refuse(f"time unit {time['unit']!r}", f"one of {', '.join(map(str, _UNITS))}", where)
    if time["zone"] not in (None, "UTC"):
        refuse(f"time zone {time['zone']!r}", "UTC, or none", where)
    if form == 1:
        if time["freq"] is not None:
            whole(time["freq"], 1, 1 << 62, "time step", where)
        return
    try:
        TimeStepRule.from_json(time["rule"], time["unit"])
    except ValueError as error:
        refuse(f"a {error}", "a time step rule of the store format", where)


def grid_fault(chunk_rows: Any, shard_rows: Any) -> tuple[str, str] | None:
    """What cannot be the rows of a chunk and of a shard, and what was expected; None if they can."""
    for name, rows, most in (("chunk_rows", chunk_rows, MOST_CHUNK_ROWS), ("shard_rows", shard_rows, MOST_SHARD_ROWS)):
        if not is_whole(rows, 1, most):
            return f"{name} {shown(rows)}", f"a whole number from 1 to {most:,}"
        if rows & (rows - 1):
            return f"{name} {rows:,}", "a power of two"
    if shard_rows < chunk_rows:
        return f"shard_rows {shard_rows:,}", f"at least chunk_rows {chunk_rows:,}"
    if shard_rows // chunk_rows > MOST_CHUNKS:
        return f"{shard_rows // chunk_rows:,} chunks in a shard", f"at most {MOST_CHUNKS:,}"
    return None


def is_key(name: str) -> bool:
    """Whether a key or the path of a node stays inside a store."""
    return _KEY.fullmatch(name) is not None
