"""Which objects a version has: its manifest, in one piece or in parts that are read when an object of theirs is."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol

from zstore.errors import CorruptionError
from zstore.format.arrays import decode_small
from zstore.format.index import SeriesIndex
from zstore.format.layout import PARTED_VERSION, manifest_path
from zstore.format.manifest import ObjectRecord, from_arrays
from zstore.format.parts import Axes, Part, decode_part, decode_top, top_key
from zstore.format.refusals import refuse
from zstore.format.soundness import check_covered, check_records, check_shards
from zstore.reading.compared import FIX

Read = Callable[[Sequence[ObjectRecord]], list[bytes]]
"""The bytes of objects, each compared with its record; several at once where each waits for a bucket."""


class Manifest(Protocol):
    """What a version lists, checked when it is read."""

    @property
    def records(self) -> Mapping[str, ObjectRecord]:
        """All objects by key, but for those of the manifest itself. Cost: the whole manifest, some 300 bytes each."""
        ...

    @property
    def sources(self) -> list[ObjectRecord]:
        """The sources whose rows the version has."""
        ...

    @property
    def own_keys(self) -> set[str]:
        """Objects of the manifest itself that the root document does not list."""
        ...

    def find(self, key: str) -> ObjectRecord | None:
        """The record of one object; None if there is none."""
        ...

    def keys_beside(self, seen: set[ObjectRecord]) -> Iterable[str]:
        """Keys of the objects, but for those in parts that were seen, to which the others are added."""
        ...

    def check_shards(self, index: SeriesIndex) -> None:
        """Refuse an index, sound in itself, whose rows lie in shards that are not listed. Raises `StoreError`."""
        ...


@dataclass(frozen=True)
class Described:
    """A version whose root document was checked, and where it is.

    Parameters
    ----------
    document, nodes
        What the root document says.
    where
        For messages.
    read
        Reads objects.
    """

    document: Mapping[str, Any]
    nodes: Mapping[str, Any]
    where: str
    read: Read

    @property
    def listing(self) -> dict[str, ObjectRecord]:
        """The objects that the root document itself lists."""
        return {key: ObjectRecord(key, n_bytes, found) for key, n_bytes, found in self.document["manifest"]}

    @property
    def group(self) -> str:
        """Path of the manifest."""
        return manifest_path(self.document["version"])


def manifest_of(version: Described) -> Manifest:
    """The manifest of a version, of which nothing is read yet, but the list of its parts where it has some."""
    return PartedManifest(version) if version.document["format"] == PARTED_VERSION else WholeManifest(version)


class WholeManifest:
    """A manifest in one piece: three arrays of objects, and three of sources."""

    def __init__(self, version: Described) -> None:
        self._version, self._lock = version, threading.Lock()
        self._records: dict[str, ObjectRecord] | None = None

    @property
    def records(self) -> dict[str, ObjectRecord]:
        """See :class:`Manifest`."""
        with self._lock:
            if self._records is None:
                version, records = self._version, self._listed("")
                check_records(records, version.document, version.nodes, f"{version.where}/{version.group}")
                self._records = {record.key: record for record in records}
            return self._records

    @property
    def own_keys(self) -> set[str]:
        """See :class:`Manifest`."""
        return set()

    @property
    def sources(self) -> list[ObjectRecord]:
        """See :class:`Manifest`."""
        return self._listed("source_")

    def find(self, key: str) -> ObjectRecord | None:
        """See :class:`Manifest`."""
        return self.records.get(key)

    def keys_beside(self, seen: set[ObjectRecord]) -> Iterable[str]:
        """See :class:`Manifest`."""
        return self.records.keys()

    def check_shards(self, index: SeriesIndex) -> None:
        """See :class:`Manifest`."""
        version = self._version
        check_shards(index, version.document, self.records.keys(), f"{version.where}/{version.group}")

    def _listed(self, prefix: str) -> list[ObjectRecord]:
        version = self._version
        group, listing = version.group, version.listing
        contents = dict(zip(listing, version.read(list(listing.values())), strict=True))
        arrays = []
        for name in ("key", "n_bytes", "digest"):
            path = f"{group}/{prefix}{name}"
            try:
                arrays.append(decode_small(version.nodes[path], partial(_chunk, contents, path)))
            except ValueError as error:
                raise undecodable(path, version.nodes, error, version.where) from error
        return from_arrays(*arrays)


class PartedManifest:
    """A manifest in parts, of which each is read when an object of it is looked up, and kept.

    Parameters
    ----------
    version
        Its version.

    Raises
    ------
    StoreError
        If the document at the top lists what cannot be.

    Notes
    -----
    Cost: the document at the top, some 120 bytes for 2,000 objects; each part 250 kB, and some milliseconds.
    """

    def __init__(self, version: Described) -> None:
        self._version, self._axes = version, Axes(version.document)
        key, listing = top_key(version.document["version"]), version.listing
        if key not in listing:
            refuse("a manifest without a list of its parts", key, version.where)
        contents = dict(zip(listing, version.read(list(listing.values())), strict=True))
        self.top = decode_top(contents[key], version.document, self._axes, version.where)
        self._begins = [part.begin for part in self.top.objects]
        self._loaded: dict[str, dict[str, ObjectRecord]] = {}
        self._locks: dict[str, threading.Lock] = {}

    @cached_property
    def records(self) -> dict[str, ObjectRecord]:
        """See :class:`Manifest`."""
        missing = [part for part in self.top.objects if part.record.key not in self._loaded]
        self._loaded.update(zip((part.record.key for part in missing), self._read(missing), strict=True))
        return {key: record for part in self.top.objects for key, record in self._loaded[part.record.key].items()}

    @property
    def sources(self) -> list[ObjectRecord]:
        """See :class:`Manifest`; in the order in which they were taken."""
        return [record for some in self.sources_by_part for record in some]

    @property
    def sources_by_part(self) -> list[list[ObjectRecord]]:
        """The sources that each part lists."""
        contents = self._version.read([part.record for part in self.top.sources])
        where = self._version.where
        return [decode_part(part, content, where) for part, content in zip(self.top.sources, contents, strict=True)]

    @property
    def own_keys(self) -> set[str]:
        """See :class:`Manifest`."""
        return {part.record.key for part in (*self.top.objects, *self.top.sources)}

    def find(self, key: str) -> ObjectRecord | None:
        """See :class:`Manifest`."""
        position = self._axes.position(key)
        number = bisect_right(self._begins, position) - 1
        if number < 0 or position > self.top.objects[number].end:
            return None
        return self.listed(self.top.objects[number]).get(key)

    def listed(self, part: Part) -> Mapping[str, ObjectRecord]:
        """The objects of a part by key; read once, and kept.

        Raises
        ------
        CorruptionError
            If it is not what the document at the top says.
        StoreError
            If it lists what cannot be.
        """
        key = part.record.key
        if key not in self._loaded:
            with self._locks.setdefault(key, threading.Lock()):  # of two threads that want it at once, one reads it
                if key not in self._loaded:
                    (self._loaded[key],) = self._read([part])
        return self._loaded[key]

    def keys_beside(self, seen: set[ObjectRecord]) -> Iterable[str]:
        """See :class:`Manifest`; what is read for it is not kept."""
        for part in self.top.objects:
            if part.record not in seen:
                seen.add(part.record)
                yield from self._loaded.get(part.record.key) or self._read([part])[0]

    def check_shards(self, index: SeriesIndex) -> None:
        """See :class:`Manifest`; of a shard, only whether a part is there that may list it."""
        version = self._version
        check_covered(index, version.document, self.top.objects, f"{version.where}/{version.group}")

    def _read(self, parts: Sequence[Part]) -> list[dict[str, ObjectRecord]]:
        version, found = self._version, []
        for part, content in zip(parts, version.read([part.record for part in parts]), strict=True):
            where = f"{version.where}/{part.record.key}"
            records = decode_part(part, content, version.where)
            check_records(records, version.document, version.nodes, where, not part.dimension)
            for record in records:
                if not part.begin <= self._axes.position(record.key) <= part.end:
                    refuse(f"object {record.key!r}", f"objects from {part.begin!r} to {part.end!r}", where)
            found.append({record.key: record for record in records})
        return found


def undecodable(path: str, nodes: Mapping[str, Any], error: ValueError, where: str) -> CorruptionError:
    """The error of a small array that is not what its shape says."""
    return CorruptionError(
        f"array {path} cannot be decoded ({error})",
        expected=f"an array of shape {tuple(nodes[path]['shape'])}",
        where=where,
        fix=FIX,
    )


def _chunk(contents: Mapping[str, bytes], path: str, key: str) -> bytes:
    """A chunk of an array of the manifest, from the objects that the root document lists."""
    content = contents.get(f"{path}/{key}")
    if content is None:
        raise ValueError(f"the root document does not list {path}/{key}")
    return content
