"""What an append needs of what was committed: rows that come too late, packings that hold, shards that stay."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.arrow import text_array
from zstore.format.codecs import default_codec
from zstore.format.encodings import FAMILIES, Form
from zstore.format.encodings.base import NumberForm, WordForm, fill_of
from zstore.format.index import SeriesIndex
from zstore.format.layout import split_shard_key
from zstore.format.manifest import ObjectRecord
from zstore.format.parts import ROWS, Part
from zstore.format.rowarrays import byte_arrays, row_arrays
from zstore.format.schema import Field
from zstore.format.spans import holds, uncovered, union
from zstore.reading.store import Store
from zstore.storage.protocol import Storage
from zstore.writing.blocks import BlockReport
from zstore.writing.encode_plan import references_of
from zstore.writing.listing import Inventory, parts_of
from zstore.writing.merge import Places
from zstore.writing.shards import RowsSpec
from zstore.writing.sort import SortedBlock, Spill
from zstore.writing.sources.payloads import STORED

_OLD_ROWS = 1 << 18
_WIDENED = r"-v\d+_*$"


def find_late(base: Store, places: Places, blocks: Sequence[SortedBlock]) -> NDArray[np.bool_]:
    """(new series,) whether the store has rows of it that do not all lie before its new ones."""
    first = np.full(len(places.new), np.iinfo(np.int64).max)
    for block in blocks:
        if block.spill.n_rows:
            times = block.spill.read(0, 0, block.spill.n_rows)[block.starts[:-1]]
            np.minimum.at(first, block.series, times)
    known = places.known >= 0
    late: NDArray[np.bool_] = np.zeros(len(first), bool)
    late[known] = first[known] <= base.column("time_stop").take(places.known[known])
    return late


def rows_behind(base: Store, rows: RowsSpec, reports: Sequence[BlockReport]) -> RowsSpec:
    """Where and how new rows are written: on fresh shards, in the store's encoding if that holds them."""
    channels: list[Field] = []
    largest, taken = _largest(base), {channel.variable for channel in base.schema.channels}
    for n, old in enumerate(base.schema.channels):
        forms = [report.forms[n] for report in reports if report.spill.n_rows]
        encoding = old.encoding
        if forms:
            before = encoding if base.n_rows else None
            encoding = FAMILIES[old.kind].choose(forms, old.dtype, before, largest[n])
        same = encoding.same_arrays(old.encoding)
        wider = f"{re.sub(_WIDENED, '', old.variable)}-v{base.version + 1}"
        while wider in taken:
            wider += "_"
        variable, codec = (old.variable, old.codec) if same else (wider, default_codec(encoding.dtype))
        channels.append(replace(old, encoding=encoding, variable=variable, codec=codec))
    all_forms = [report.forms for report in reports]
    references = references_of([*all_forms, old_forms(base)], len(channels), len(base.fields))
    return replace(rows, references=references).of(channels, all_forms)


def _largest(base: Store) -> list[float]:
    """Per channel the largest absolute value that is stored."""
    low, high = base.extremes
    return np.where(low <= high, np.maximum(np.abs(low), np.abs(high)), 0.0).tolist()  # type: ignore[no-any-return]


def old_blocks(base: Store, places: Places, late: NDArray[np.bool_], scratch: Storage) -> list[SortedBlock]:
    """The rows that the store has of some series, spilled like rows of a source; they come first in order."""
    if not late.any():
        return []
    bounds = base.index.row_start
    pieces = [
        (series, start, min(start + _OLD_ROWS, int(bounds[places.known[series] + 1])))
        for series in np.flatnonzero(late).tolist()
        for start in range(int(bounds[places.known[series]]), int(bounds[places.known[series] + 1]), _OLD_ROWS)
    ]
    groups: list[list[tuple[int, int, int]]] = []
    for piece in pieces:
        if not groups or sum(stop - start for _, start, stop in groups[-1]) + piece[2] - piece[1] > _OLD_ROWS:
            groups.append([])
        groups[-1].append(piece)
    return [spill_rows(base, group, scratch, f"old{number}") for number, group in enumerate(groups)]


def spill_rows(base: Store, group: list[tuple[int, int, int]], scratch: Storage, name: str) -> SortedBlock:
    """Spill rows of a store.

    Parameters
    ----------
    base
        The store.
    group
        The number that each series is to have, ascending, and the rows ``[start, stop)`` to take of it.
    scratch, name
        Where to write.
    """

    def gathered(read: Callable[[int, int], NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate([read(start, stop) for start, stop in joined])

    joined: list[tuple[int, int]] = []
    for _, start, stop in group:
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    columns = [gathered(partial(base.read_stored, name)) for name in base.channels]
    for field in base.fields:
        columns += _references(base, field, joined)
    spill = Spill.write(scratch, name, [gathered(base.times), *columns])
    starts = np.cumsum([0, *(stop - start for _, start, stop in group)])
    return SortedBlock(spill, np.array([series for series, _, _ in group], np.int32), starts)


def _references(base: Store, field: str, ranges: Sequence[tuple[int, int]]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Holders and positions of the payloads of some rows of a store, in the forms of :func:`old_forms`."""
    places = [np.arange(low, high) for start, stop in ranges for low, high in base.index.places(start, stop)]
    digests = [base.payload_digests(field, start, stop) for start, stop in ranges]
    absent = ~np.concatenate(digests).any(axis=1)
    holders = np.where(absent, fill_of(np.dtype(np.int16)), 0).astype(np.int16)
    return holders, np.where(absent, np.nan, np.concatenate(places)).astype(np.float64)


def old_forms(base: Store) -> tuple[Form, ...]:
    """How the rows of a store are spilled: as they are stored."""
    references = (WordForm(text_array([STORED])), NumberForm(None, 0)) * len(base.fields)
    return (*(channel.encoding.form_of(0) for channel in base.schema.channels), *references)


def shards_of(base: Store) -> Inventory:
    """All shards of a version, for another one that has the same."""
    manifest, parts = parts_of(base.objects.manifest)
    if manifest is not None:
        return Inventory((), kept=parts, before=manifest)
    arrays = {*row_arrays(base.objects.document), *byte_arrays(base.objects.document)}
    return Inventory((), [each for each in base.objects.records.values() if split_shard_key(each.key)[0] in arrays])


def kept_shards(base: Store, index: SeriesIndex | None, rewritten: Collection[str]) -> Inventory:
    """Shards of a version that still hold rows.

    Parameters
    ----------
    base
        The version.
    index
        Of the version after it; None where all rows of `base` stay where they are.
    rewritten
        Variables whose shards are not all taken over as they are; then no part of the manifest is.

    Notes
    -----
    Cost: some passes over the extents, and the parts of the manifest that have a shard without rows.
    """
    arrays, lengths = row_arrays(base.objects.document), byte_arrays(base.objects.document)
    sizes = {array.grid.shard_rows for array in arrays.values()}
    live = {} if index is None else {size: _live(index, size) for size in sizes}

    def has_rows(record: ObjectRecord) -> bool:
        variable, shard = split_shard_key(record.key)
        array = arrays.get(variable)
        if array is None:
            return bool(shard) and variable in lengths  # of bytes, nothing tells whose they are
        return bool(shard) and (not live or bool(holds(live[array.grid.shard_rows], np.array(int(shard)))))

    manifest, parts = parts_of(base.objects.manifest)
    if manifest is None:
        return Inventory((), list(filter(has_rows, base.objects.records.values())))
    gone = [size * uncovered(_live(base.index, size), live[size]) for size in live]
    gone_rows = union(*np.concatenate(gone).T) if gone else np.zeros((0, 2), np.int64)
    begun = [part for part in parts if rewritten or (part.dimension == ROWS and _meets(gone_rows, part))]
    others = [record for part in begun for record in manifest.listed(part).values() if has_rows(record)]
    left = set(begun)
    return Inventory((), others, [part for part in parts if part not in left], manifest)


def _live(index: SeriesIndex, shard_rows: int) -> NDArray[np.int64]:
    """(span, 2) shards that hold rows."""
    _, places, sizes = index.pieces
    return union(places // shard_rows, -(-(places + sizes) // shard_rows))


def _meets(rows: NDArray[np.int64], part: Part) -> bool:
    """Whether spans of rows begin or go on between the first and the last position of a part."""
    return bool(np.any((rows[:, 0] <= part.last) & (rows[:, 1] > part.first)))


def dropped_before(base: Store, n_more: int = 0, n_updated: int = 0) -> dict[str, int]:
    """The notes on rows of sources since the ingest.

    Parameters
    ----------
    base
        The store before.
    n_more, n_updated
        Rows that were dropped or replaced now, and rows that were made of several.

    Returns
    -------
    ``n_dropped``, unless a release before kept none; ``n_updated``, where there were any.
    """
    dropped = base.objects.document.get("n_dropped")
    updated = base.objects.document.get("n_updated", 0) + n_updated
    found = {} if dropped is None else {"n_dropped": dropped + n_more}
    return {**found, "n_updated": updated} if updated else found


def to_widen(base: Store, rows: RowsSpec) -> dict[str, str]:
    """Variables of the store whose packing does not hold the new rows, and the channels in them."""
    pairs = zip(base.schema.channels, rows.channels, strict=True)
    return {old.variable: old.name for old, new in pairs if old.variable != new.variable}
