"""The manifest of a version as it is written: in one piece, or the parts that changed since the version before."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from zstore.format.arrays import encode_small
from zstore.format.documents import group_document, to_bytes
from zstore.format.layout import FORMAT_VERSION, PARTED_VERSION, ROOT, manifest_path
from zstore.format.manifest import ObjectRecord, to_arrays
from zstore.format.parts import (
    Axes,
    Part,
    Position,
    Top,
    cut,
    encode_part,
    fits,
    in_parts,
    in_pieces,
    part_key,
    top_key,
)
from zstore.format.schema import Schema
from zstore.reading.listed import Manifest, PartedManifest


@dataclass(frozen=True)
class Inventory:
    """The shards that a version needs.

    Parameters
    ----------
    new
        Those that were written for it.
    others
        Those of versions before, but for what `kept` lists.
    kept
        Parts of the manifest `before` that the version has as they are: of shards alone, and all of them needed.
    before
        The manifest of the version before; None where that is none in parts. Its parts of sources are taken over too,
        where they list what the ledger has.
    """

    new: Sequence[ObjectRecord]
    others: Sequence[ObjectRecord] = ()
    kept: Sequence[Part] = ()
    before: PartedManifest | None = None

    @property
    def n_objects(self) -> int:
        """How many there are."""
        return len(self.new) + len(self.others) + sum(part.n_objects for part in self.kept)

    @property
    def records(self) -> list[ObjectRecord]:
        """All of them. Cost: the parts are read."""
        kept = [record for part in self.kept for record in self._listed(part)]
        return [*kept, *self.others, *self.new]

    def without_parts(self, taken: Sequence[Part]) -> Inventory:
        """The same shards, those of some parts among the others."""
        gone = set(taken)
        kept = [part for part in self.kept if part not in gone]
        others = [*self.others, *(record for part in taken for record in self._listed(part))]
        return replace(self, others=others, kept=kept)

    def _listed(self, part: Part) -> list[ObjectRecord]:
        if self.before is None:
            raise ValueError(f"part {part.record.key} of no manifest")
        return list(self.before.listed(part).values())


def parts_of(manifest: Manifest) -> tuple[PartedManifest | None, list[Part]]:
    """A manifest and the parts of it that list shards; None and nothing where it is in one piece."""
    if not isinstance(manifest, PartedManifest):
        return None, []
    return manifest, [part for part in manifest.top.objects if part.dimension]


def form_of(schema: Schema, n_objects: int, n_sources: int) -> int:
    """The format version of a version of a store: stores of the first one stay so until they are compacted."""
    if schema.form == 1:
        return 1
    return PARTED_VERSION if in_parts(n_objects, n_sources) else FORMAT_VERSION


@dataclass(frozen=True)
class WrittenManifest:
    """The objects of the manifest of a version, which nobody has written yet.

    Parameters
    ----------
    parts
        New parts, by key.
    listing
        What the root document lists, by key.
    nodes
        Metadata of arrays and groups, by path.
    flushed
        Keys of the shards that are to be durable before the version is committed.
    """

    parts: dict[str, bytes]
    listing: dict[str, bytes]
    nodes: dict[str, dict[str, Any]]
    flushed: list[str]

    @classmethod
    def of(
        cls,
        version: int,
        listing: dict[str, bytes],
        shards: Sequence[ObjectRecord],
        parts: dict[str, bytes] | None = None,
        nodes: dict[str, dict[str, Any]] | None = None,
    ) -> WrittenManifest:
        """With the documents of its groups."""
        groups = {group: group_document() for group in ("manifest", manifest_path(version))}
        documents = {f"{group}/{ROOT}": to_bytes(document) for group, document in groups.items()}
        flushed = [record.key for record in shards]
        return cls(parts or {}, {**listing, **documents}, {**(nodes or {}), **groups}, flushed)


def manifest_in_one(
    schema: Schema, shards: Inventory, small: Sequence[ObjectRecord], ledger: Sequence[ObjectRecord]
) -> WrittenManifest:
    """The manifest in one piece: arrays of every object, and of every source; see :func:`manifest_in_parts`."""
    listing: dict[str, bytes] = {}
    nodes: dict[str, dict[str, Any]] = {}
    records, group = shards.records, manifest_path(schema.version)
    for name, values in to_arrays([*records, *small]).items():
        _add(listing, nodes, f"{group}/{name}", encode_small(values, ("object",)))
    for name, values in to_arrays(list(ledger)).items():
        _add(listing, nodes, f"{group}/source_{name}", encode_small(values, ("source",)))
    return WrittenManifest.of(schema.version, listing, records, nodes=nodes)


def manifest_in_parts(
    schema: Schema, shards: Inventory, small: Sequence[ObjectRecord], ledger: Sequence[ObjectRecord]
) -> WrittenManifest:
    """The manifest in parts.

    Parameters
    ----------
    schema
        Of the version.
    shards
        Its shards.
    small
        Its index and moments.
    ledger
        Its sources, those that the version before has first, in its order.

    Notes
    -----
    Cost: the parts that are not kept are made; one that has room for what comes right behind it is read.
    """
    version, axes, written = schema.version, Axes(schema.to_json()), dict[str, bytes]()

    def put(records: list[ObjectRecord], position: Position = ("", 0), last: int = 0) -> Part:
        key, content = part_key(version, len(written)), encode_part(records)
        written[key] = content
        return Part(ObjectRecord.of(key, content), len(records), *position, last)

    shards = shards.without_parts(_touched(axes, shards))
    begins, objects = sorted(part.begin for part in shards.kept), list(shards.kept)
    placed = axes.ordered([*shards.others, *shards.new, *small])
    for _, between in groupby(placed, key=lambda item: bisect_right(begins, item[0])):  # no part may reach over another
        for piece in cut(list(between)):
            records = [record for _, some in piece for record in some]
            objects.append(put(records, piece[0][0], piece[-1][0][1]))
    objects.sort(key=lambda part: part.begin)
    sources = tuple(part if isinstance(part, Part) else put(part) for part in _source_parts(ledger, shards.before))
    listing = {top_key(version): Top(tuple(objects), sources).to_bytes()}
    return WrittenManifest.of(version, listing, shards.new, parts=written)


def _add(objects: dict[str, bytes], nodes: dict[str, dict[str, Any]], path: str, made: Mapping[str, bytes]) -> None:
    objects.update({f"{path}/{key}": content for key, content in made.items()})
    nodes[path] = json.loads(made[ROOT])


def _touched(axes: Axes, shards: Inventory) -> list[Part]:
    """Kept parts that something comes into, and those that have room for what comes right behind them."""
    kept = sorted(shards.kept, key=lambda part: part.begin)
    begins, touched, behind = [part.begin for part in kept], set[int](), set[int]()
    for position, records in axes.ordered([*shards.others, *shards.new]):
        number = bisect_right(begins, position) - 1
        if number < 0 or kept[number].dimension != position[0]:
            continue
        if position <= kept[number].end:
            touched.add(number)
        elif number not in behind:
            behind.add(number)
            if fits(kept[number].n_objects + len(records)):
                touched.add(number)
    return [kept[number] for number in sorted(touched)]


def _source_parts(ledger: Sequence[ObjectRecord], before: PartedManifest | None) -> list[Part | list[ObjectRecord]]:
    """Sources as parts of the manifest before, where one lists the same, and as new ones."""
    pieces: list[Part | list[ObjectRecord]] = []
    left = list(ledger)
    if before is not None:
        for part, known in zip(before.top.sources, before.sources_by_part, strict=True):
            own, left = left[: len(known)], left[len(known) :]
            if own:
                pieces.append(part if own == known else own)
                last = own
    if left and pieces and fits(len(last) + 1):
        pieces.pop()
        left = [*last, *left]
    return [*pieces, *in_pieces(left)]
