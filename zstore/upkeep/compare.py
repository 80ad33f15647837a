"""A store against the files it came from, row by row and cell by cell, without the ingest's sorting."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.errors import UsageError
from zstore.reading.root import committed_versions, root_document
from zstore.reading.store import Store
from zstore.storage.file import File
from zstore.storage.folder import Folder
from zstore.storage.protocol import Storage
from zstore.upkeep.compare_fields import StoredDigests, reference_channels
from zstore.writing.plan import with_references
from zstore.writing.sources.files import check_unchanged
from zstore.writing.sources.kinds import Named, find_sources, recorded_source, source_of
from zstore.writing.sources.named_files.options import FileOptions
from zstore.writing.sources.options import TableOptions
from zstore.writing.sources.payloads import FieldSpec
from zstore.writing.sources.protocol import Block, Source
from zstore.writing.sources.table import Columns, TableSpec
from zstore.writing.sources.workspace import Workspace

_BLOCK_BYTES = 1 << 24
_SHOWN = 20


@dataclass(frozen=True)
class SourceComparison:
    """What a comparison found.

    Parameters
    ----------
    n_rows
        Rows of the sources that were compared.
    n_bad
        Records of the sources that cannot be stored, rows among them that name a file that cannot, and that the store
        lacks.
    n_different
        Rows whose cells differ, or that the store lacks; not those that were dropped or replaced as duplicates.
    n_unseen
        Rows of the store that no source has and that are not missing as a whole.
    n_inexact
        Cells with more digits than the store's float type keeps; the digits beyond are not compared.
    faults
        The first differences as sentences.
    """

    n_rows: int
    n_bad: int
    n_different: int
    n_unseen: int
    n_inexact: int
    faults: tuple[str, ...]


def compare_sources(
    store: Store,
    sources: Named | Sequence[Named],
    progress: Callable[[int, int], None] | None = None,
    storage_options: Mapping[str, str] | None = None,
    file_root: str | Path | None = None,
    file_limit: int | str | None = None,
) -> SourceComparison:
    """Read the sources again and look every row up in the store.

    Parameters
    ----------
    store
        What came of them.
    sources
        The files or globs it was ingested from.
    progress
        Called with blocks done and in all.
    storage_options
        For sources in object storage, see :func:`zstore.ingest`.
    file_root
        Folder that paths of files start from now; None for the one that the store records.
    file_limit
        Most bytes of a value that is a file, as for :func:`zstore.ingest`; None for 1GiB.

    Raises
    ------
    UsageError
        If the store cannot be compared: its rows have no times of their own. If files that columns name are not there.
    SourceError
        If a source cannot be read.

    Notes
    -----
    Decodes the channels of the store once into a scratch file, then streams the sources. Times are looked up by the run
    table. Payloads of fields are read again, and their digests compared with those that the store has.

    Where an ingest or an append dropped or replaced rows of one time, the store has one of them: the others may differ
    from it, as many as all receipts together tell of. Where rows were updated, each cell of the store must be that of
    one of the rows of its time.
    """
    document = store.objects.document["table"]
    encoding, options = document["encoding"], TableOptions.from_json(document)
    if not options.time and options.layout != "series":
        raise UsageError(
            f"--source of {store.path}, whose rows were numbered",
            expected="rows with times of their own",
            fix="leave out --source, and every byte is compared with its digest",
        )
    with tempfile.TemporaryDirectory(prefix="zstore-") as scratch:
        files = find_sources(sources, storage_options, skip_empty=True)
        source = recorded_source(document)
        if source_of(files) is not source:
            raise UsageError(
                f"--source {files[0]} ({source_of(files).kind})",
                expected=f"the files that {store.path} was ingested from ({source.kind})",
                fix="name those",
            )
        named = replace(FileOptions.from_json(document), file_limit=file_limit)
        fields = (named if file_root is None else replace(named, file_root=file_root)).fields(options.units)
        blocks = _blocks(
            store, source, files, with_references(options, fields), encoding, Folder(Path(scratch)), fields
        )
        rows, digests = _decoded(store, Path(scratch)), StoredDigests.of(store, Path(scratch))
        comparison = _compare(store, source, blocks, rows, digests, progress)
        check_unchanged(files)
        return comparison


def _blocks(
    store: Store,
    source: Source,
    files: list[File],
    options: TableOptions,
    encoding: str,
    scratch: Storage,
    fields: Sequence[FieldSpec],
) -> list[tuple[Block, TableSpec]]:
    """Blocks of the sources, and what the columns of each file mean.

    Each file is read on its own, for those that were appended may be written in another way. What its columns hold and
    which times it has is for the store to say, not for the first rows of a file.
    """
    columns = {name: column for column, name in options.rename.items()}
    channels = {columns.get(channel.name, channel.name) for channel in store.schema.channels}
    others = {*channels, *options.named(), *(static.name for static in store.statics)}
    blocks: list[tuple[Block, TableSpec]] = []
    for number, file in enumerate(files):
        prepared = source.prepare([file], encoding, Workspace(scratch.at(str(number)), {}), None)
        opened = source.open_known(file, prepared[0], options, others, store.schema)
        if opened is not None:
            spec = replace(
                opened[1],
                channels=(*opened[1].channels, *reference_channels(fields)),
                fields=(*opened[1].fields, *fields),
            )
            blocks += [(block, spec) for block in source.cut([opened[0]], spec, _BLOCK_BYTES)]
    return blocks


def _decoded(store: Store, scratch: Path) -> list[NDArray[Any]]:
    """Per channel (row,) values, on disk."""
    columns: list[NDArray[Any]] = []
    for number, channel in enumerate(store.schema.channels):
        column = np.memmap(scratch / f"{number}.rows", channel.dtype, "w+", shape=(max(store.n_rows, 1),))
        for start in range(0, store.n_rows, store.schema.shard_rows):
            stop = min(start + store.schema.shard_rows, store.n_rows)
            column[start:stop] = store.read(channel.name, start, stop)
        columns.append(column)
    return columns


class _Counts:
    """How often rows of sources stand for each row of a store.

    Parameters
    ----------
    n_rows
        Rows of the store.
    n_cells
        Channels, if rows may have been made of several of the sources; else 0. Then a row stands for several if each of
        its cells is that of one of them.
    """

    def __init__(self, n_rows: int, n_cells: int) -> None:
        self.equal, self.other, self.bad = np.zeros((3, n_rows), np.int64)
        self.cells = np.zeros((n_cells, n_rows), bool)
        self.n_lacking = self.n_bad_lacking = 0

    def add(self, place: NDArray[np.int64], wrong: NDArray[np.bool_], bad: NDArray[np.bool_]) -> None:
        """Rows of a block: those of the store that they are, -1 for none; whether they differ, or cannot be stored."""
        known = place >= 0
        for counts, which in (
            (self.equal, ~wrong & known),
            (self.other, wrong & ~bad & known),
            (self.bad, bad & known),
        ):
            np.add.at(counts, place[which], 1)
        self.n_lacking += int(np.count_nonzero(~known & ~bad))
        self.n_bad_lacking += int(np.count_nonzero(~known & bad))

    def stands(self) -> NDArray[np.bool_]:
        """(row,) whether a row of the store is one of the sources, or made of several."""
        equal: NDArray[np.bool_] = self.equal > 0
        return equal | self.cells.all(axis=0) if len(self.cells) else equal

    def dropped(self, most: int | None) -> NDArray[np.bool_]:
        """(row,) whether others at the time of a row were dropped or replaced: if the receipts tell of so many."""
        dropped = self.stands()
        n_gone = int(self.other[dropped].sum()) - int(np.count_nonzero(dropped & (self.equal == 0)))
        return dropped if most is None or n_gone <= most else np.zeros_like(dropped)


@dataclass(frozen=True)
class _WrongRows:
    """Rows of one part of a block that differ: their numbers, those of the store, and whether they cannot be stored."""

    block: int
    part: int
    rows: NDArray[np.int64]
    place: NDArray[np.int64]
    bad: NDArray[np.bool_]


def _compare(
    store: Store,
    source: Source,
    blocks: Sequence[tuple[Block, TableSpec]],
    rows: list[NDArray[Any]],
    digests: StoredDigests,
    progress: Callable[[int, int], None] | None,
) -> SourceComparison:
    n_cells = len(rows) if store.objects.document.get("n_updated", 0) else 0
    counts, n_rows, n_bad, n_inexact = _Counts(store.n_rows, n_cells), 0, 0, 0
    wrong_rows: list[_WrongRows] = []
    times = store.times(0, store.n_rows)
    positions = {str(id_): position for position, id_ in enumerate(store.ids)}
    for number, (block, spec) in enumerate(blocks):
        for part, columns in enumerate(source.read(block, spec, keep_bad=True)):
            place = _places(store, columns, positions, times)
            wrong = place < 0
            safe = np.where(wrong, 0, place)
            n_inexact += sum(columns.n_lost[: len(rows)])
            for n, (channel, stored) in enumerate(zip(store.schema.channels, rows, strict=True)):
                values = columns.channels[n]
                expected = values.as_stored(channel.categories or (), channel.dtype)
                n_inexact += values.n_inexact(expected)
                found = stored[safe]
                same = (found == expected) | (np.isnan(found) & np.isnan(expected))
                if n_cells:
                    counts.cells[n, place[same & (place >= 0)]] = True
                wrong |= ~same
            other, bad = digests.differ(columns, spec, place)
            wrong |= other | bad
            counts.add(place, wrong, bad)
            n_rows, n_bad = n_rows + columns.n_rows, n_bad + len(columns.bad)
            if wrong.any():
                wrong_rows.append(_WrongRows(number, part, np.flatnonzero(wrong), place[wrong], bad[wrong]))
        if progress:
            progress(number + 1, len(blocks))
    dropped = counts.dropped(_n_dropped(store))
    stands = counts.stands()
    # A row that cannot be stored was set aside, if the store has none of its time, or has another one.
    n_set_aside = counts.n_bad_lacking + int(counts.bad[stands].sum())
    n_different = counts.n_lacking + int(counts.other[~dropped].sum()) + int(counts.bad[~stands].sum())
    faults = list(_sentences(store, source, blocks, wrong_rows, dropped, stands))
    filled = np.all([np.isnan(column[: store.n_rows]) for column in rows], axis=0)
    n_unseen = int(np.count_nonzero((counts.equal + counts.other + counts.bad == 0) & ~filled))
    if n_unseen:
        faults.append(f"{n_unseen:,} rows of the store are in no source")
    return SourceComparison(n_rows - n_set_aside, n_bad + n_set_aside, n_different, n_unseen, n_inexact, tuple(faults))


def _n_dropped(store: Store) -> int | None:
    """Rows of sources that were dropped as duplicates, or replaced, at most; None where nothing tells any more."""
    known: int | None = store.objects.document.get("n_dropped")
    if known is not None:
        return known
    versions = [version for version in committed_versions(store.storage) if version <= store.version]
    documents = [root_document(store.storage, version).document for version in versions]
    begins = [version for version, document in zip(versions, documents, strict=True) if document["action"] == "ingest"]
    whole = bool(begins) and versions[versions.index(begins[-1]) :] == list(range(begins[-1], store.version + 1))
    receipts = [document["receipt"] for document in documents]
    notes = [note for receipt in receipts for note in receipt["notes"]]
    replaced = any("were replaced" in note or "were updated" in note for note in notes)
    return 0 if whole and not replaced and not any(receipt["n_duplicates"] for receipt in receipts) else None


def _places(store: Store, columns: Columns, positions: dict[str, int], times: NDArray[np.int64]) -> NDArray[np.int64]:
    """(row,) row of the store that has the id and time of each row of a block; -1 where none has."""
    index = store.index
    found = np.full(columns.n_rows, -1, np.int64)
    order = np.argsort(columns.codes, kind="stable")
    borders = np.searchsorted(columns.codes[order], np.arange(len(columns.ids) + 1))
    for code, id_ in enumerate(columns.ids.to_pylist()):
        position = positions.get(id_)
        mine = order[borders[code] : borders[code + 1]]
        if position is None:
            continue
        start, stop = index.row_start[position : position + 2].tolist()
        row = start + np.searchsorted(times[start:stop], columns.times[mine])
        hit = (row < stop) & (times[np.minimum(row, len(times) - 1)] == columns.times[mine])
        found[mine[hit]] = row[hit]
    return found


def _sentences(
    store: Store,
    source: Source,
    blocks: Sequence[tuple[Block, TableSpec]],
    wrong_rows: Sequence[_WrongRows],
    dropped: NDArray[np.bool_],
    equal: NDArray[np.bool_],
) -> Iterator[str]:
    """The first rows of sources that differ, but for those that were dropped, replaced, or set aside.

    `dropped` and `equal` are of the rows of the store: whether others at their time were, and whether a source has one.
    """
    show, n_left = store.schema.time.show, _SHOWN
    for wrong in wrong_rows:
        known = wrong.place >= 0
        excused = wrong.bad & ~known
        excused[known] = np.where(wrong.bad, equal[wrong.place], dropped[wrong.place])[known] if len(equal) else False
        told = wrong.rows[~excused][:n_left]
        if not len(told):
            continue
        n_left -= len(told)
        block, spec = blocks[wrong.block]
        columns = next(islice(source.read(block, spec, keep_bad=True), wrong.part, None))
        for row in told.tolist():
            id_ = columns.ids[int(columns.codes[row])].as_py()
            yield (f"id {id_!r} at {show(int(columns.times[row]))} in {block.name} is not what the store has")
