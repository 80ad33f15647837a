"""The manifest of a large version, cut into parts, so that a commit writes the parts that it changed and no other.

A part lists objects that lie beside each other along a dimension: the shards of all arrays over some rows, or those of
some bytes of a field. The document at the top lists the parts. Both are plain JSON. See decision 35.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

from zstore.format.layout import SHARD_BYTES, manifest_path, split_shard_key
from zstore.format.manifest import ObjectRecord
from zstore.format.parsing import parse_json
from zstore.format.refusals import refuse, text, whole
from zstore.format.rowarrays import byte_arrays, row_arrays
from zstore.format.trust import MOST_PLACES, check_record

MOST_LISTED = 1 << 14
"""A version of more objects, or of more sources, has its manifest in parts."""
PART_OBJECTS = 1 << 11
"""Objects, or sources, of a part that is written; more only where one position has more."""
MOST_PART_OBJECTS, MOST_PART_BYTES = 1 << 12, 1 << 26
"""Of a part that is read; the first but for objects of one position."""
ROWS = "row"
"""The dimension of the arrays over rows."""

_LEAST_BYTES = 40  # of an object in a part, where its digest alone has 32
_PART = re.compile(r"manifest/([0-9]{8})/part/(?:0|[1-9][0-9]{0,8})\.json")

Position = tuple[str, int]
"""A dimension, empty for objects that lie along none, and where an object begins along it."""


@dataclass(frozen=True)
class Part:
    """One part of a manifest.

    Parameters
    ----------
    record
        The object that it is.
    n_objects
        Objects, or sources, that it lists.
    dimension
        What they lie along: ``row``, the dimension of the bytes of a field, or nothing, for the index, the moments and
        sources.
    first, last
        Where the first and the last of them begin along it.
    """

    record: ObjectRecord
    n_objects: int
    dimension: str = ""
    first: int = 0
    last: int = 0

    @property
    def begin(self) -> Position:
        """Where its first object begins."""
        return self.dimension, self.first

    @property
    def end(self) -> Position:
        """Where its last object begins."""
        return self.dimension, self.last

    def to_json(self) -> list[Any]:
        """As the document at the top lists it."""
        record = self.record
        return [record.key, record.n_bytes, record.digest, self.n_objects, self.dimension, self.first, self.last]


@dataclass(frozen=True)
class Top:
    """The parts of a version.

    Parameters
    ----------
    objects
        Those of its objects, by dimension and position; none overlap.
    sources
        Those of its sources, in the order in which they were taken.
    """

    objects: tuple[Part, ...]
    sources: tuple[Part, ...]

    def to_bytes(self) -> bytes:
        """As it is stored."""
        some = (f'"{name}": {_lines([part.to_json() for part in getattr(self, name)])}' for name in _LISTS)
        return f"{{{', '.join(some)}}}\n".encode()


_LISTS = ("objects", "sources")


def top_key(version: int) -> str:
    """Key of the document that lists the parts of a version."""
    return f"{manifest_path(version)}/top.json"


def in_parts(n_objects: int, n_sources: int) -> bool:
    """Whether a version of so many objects and sources has its manifest in parts."""
    return max(n_objects, n_sources) > MOST_LISTED


def fits(n_objects: int) -> bool:
    """Whether so many objects, or sources, go into one part."""
    return n_objects <= PART_OBJECTS


def in_pieces(records: Sequence[ObjectRecord]) -> list[list[ObjectRecord]]:
    """Sources in their order, each piece of which goes into one part."""
    return [list(records[first : first + PART_OBJECTS]) for first in range(0, len(records), PART_OBJECTS)]


def part_key(version: int, number: int) -> str:
    """Key of a part that a version has written."""
    return f"{manifest_path(version)}/part/{number}.json"


class Axes:
    """Where the objects of a version lie.

    Parameters
    ----------
    document
        ``attributes["zstore"]`` of its root document.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._axes = {name: (ROWS, array.grid.shard_rows) for name, array in row_arrays(document).items()}
        self._axes |= {name: (f"{name}_byte", SHARD_BYTES) for name in byte_arrays(document)}

    @property
    def dimensions(self) -> set[str]:
        """Every dimension that objects may lie along, and that of those which lie along none."""
        return {"", *(dimension for dimension, _ in self._axes.values())}

    def position(self, key: str) -> Position:
        """Where an object begins: a shard at its first row or byte; any other along no dimension, at 0."""
        variable, shard = split_shard_key(key)
        axis = self._axes.get(variable)
        if axis is None or not (shard.isascii() and shard.isdigit()):
            return "", 0
        return axis[0], int(shard) * axis[1]

    def ordered(self, records: Iterable[ObjectRecord]) -> list[tuple[Position, list[ObjectRecord]]]:
        """Objects by position; those of one position by key."""
        placed = sorted((self.position(record.key), record.key, record) for record in records)
        return [(at, [record for _, _, record in some]) for at, some in groupby(placed, key=lambda item: item[0])]


def cut(placed: Sequence[tuple[Position, list[ObjectRecord]]]) -> list[list[tuple[Position, list[ObjectRecord]]]]:
    """Cut objects in their order into parts: each of one dimension, and as full as may be.

    Parameters
    ----------
    placed
        As :meth:`Axes.ordered` has them.
    """
    parts: list[list[tuple[Position, list[ObjectRecord]]]] = []
    n_objects = 0
    for at, records in placed:
        if not parts or parts[-1][-1][0][0] != at[0] or not fits(n_objects + len(records)):
            parts.append([])
            n_objects = 0
        parts[-1].append((at, records))
        n_objects += len(records)
    return parts


def encode_part(records: Sequence[ObjectRecord]) -> bytes:
    """A part, as it is stored: a JSON list of ``[key, n_bytes, digest]``."""
    return _lines([[record.key, record.n_bytes, record.digest] for record in records]).encode()


def decode_part(part: Part, content: bytes, where: str) -> list[ObjectRecord]:
    """Read :func:`encode_part` back; what the records say is checked elsewhere.

    Raises
    ------
    StoreError
        If it is no list of as many records as the document at the top says.
    """
    key = part.record.key
    entries = parse_json(content, f"{where}/{key}", "part of a manifest")
    if not isinstance(entries, list) or len(entries) != part.n_objects:
        refuse(f"{key} that lists other than {part.n_objects:,} objects", "what the manifest says of it", where)
    for entry in entries:
        if not isinstance(entry, list) or len(entry) != 3:
            refuse(f"{entry!r} in {key}", "key, length and digest", where)
    return [ObjectRecord(*entry) for entry in entries]


def decode_top(content: bytes, document: Mapping[str, Any], axes: Axes, where: str) -> Top:
    """Read :meth:`Top.to_bytes` back.

    Parameters
    ----------
    content
        The document at the top, compared with its digest.
    document, axes
        Of the version, checked.
    where
        For messages.

    Raises
    ------
    StoreError
        Naming the first thing that cannot be: a key that is none of a part, more objects than its bytes can list, or
        parts that are out of order or overlap.
    """
    found, where = parse_json(content, where, "top of a manifest"), f"{where}, top of the manifest"
    if not isinstance(found, dict) or not all(isinstance(found.get(name), list) for name in _LISTS):
        refuse("a document without lists of parts", " and ".join(_LISTS), where)
    top = Top(*(tuple(_part(entry, document, where) for entry in found[name]) for name in _LISTS))
    keys = [part.record.key for part in (*top.objects, *top.sources)]
    if len(set(keys)) < len(keys):
        refuse("a part twice", "each part once", where)
    for part in top.objects:
        if part.dimension not in axes.dimensions or part.last < part.first or (not part.dimension and part.last):
            refuse(f"part {part.record.key} from {part.begin!r} to {part.end!r}", "objects of this store", where)
        if part.n_objects > MOST_PART_OBJECTS and part.last > part.first:
            refuse(f"{part.n_objects:,} objects in {part.record.key}", f"{MOST_PART_OBJECTS:,} at most", where)
    for before, after in pairwise(top.objects):
        if after.begin <= before.end:
            refuse(f"part {after.record.key} that begins before {before.record.key} ends", "parts in order", where)
    return top


def _part(entry: Any, document: Mapping[str, Any], where: str) -> Part:
    if not isinstance(entry, list) or len(entry) != 7:
        refuse(f"{entry!r} as a part", "key, length, digest, objects, dimension, first and last position", where)
    key, n_bytes, found, n_objects, dimension, first, last = entry
    check_record(key, n_bytes, found, where)
    match = _PART.fullmatch(key)
    if match is None or not 0 < int(match[1]) <= document["version"]:
        refuse(f"part {key!r}", "manifest/<version>/part/<number>.json of this version or one before", where)
    whole(n_bytes, 0, MOST_PART_BYTES, f"length of {key}", where)
    whole(n_objects, 1, n_bytes // _LEAST_BYTES, f"number of objects in the {n_bytes:,} bytes of {key}", where)
    whole(first, 0, MOST_PLACES, f"first position of {key}", where)
    whole(last, 0, MOST_PLACES, f"last position of {key}", where)
    return Part(
        ObjectRecord(key, n_bytes, found), n_objects, text(dimension, f"dimension of {key}", where), first, last
    )


def _lines(entries: Iterable[Any]) -> str:
    """A JSON list with a line for each entry."""
    return "[\n" + ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries) + "\n]"
