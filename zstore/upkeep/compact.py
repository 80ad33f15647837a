"""One extent per series again, and every channel under its own name: what many appends leave, put in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from zstore.format.layout import FORMAT_VERSION, n_shards, safe_names
from zstore.format.timesteps import IRREGULAR
from zstore.reading.store import Store
from zstore.storage.protocol import Storage
from zstore.storage.urls import open_storage
from zstore.writing.cluster import ClusterClient
from zstore.writing.committed import dropped_before, old_forms, spill_rows
from zstore.writing.encode_plan import references_of
from zstore.writing.fields import Fields
from zstore.writing.listing import Inventory, parts_of
from zstore.writing.pipeline import Ordered, Version, commit, next_schema, write
from zstore.writing.plan import plan_text
from zstore.writing.resume import begin, forget
from zstore.writing.scheduler import Progress, Scheduler
from zstore.writing.shards import RowsSpec
from zstore.writing.sweep import free_shard
from zstore.writing.target import building
from zstore.writing.version import index_of


def compact(
    path: str | Path,
    *,
    storage_options: Mapping[str, str] | None = None,
    scratch: str | Path | None = None,
    workers: int | None = None,
    scheduler: str | ClusterClient | None = None,
    progress: Progress | None = None,
) -> Store:
    """Commit a version whose rows lie in their order, on the first shards that no other version needs.

    Parameters
    ----------
    path
        Folder or URL of the store.
    storage_options, scratch, workers, scheduler, progress
        As for :func:`zstore.ingest`.

    Returns
    -------
    The new version, of the newest format version; the store as it is if it is in order, of that version, and of a time
    step rule that was given or found in all of its rows, already.

    Raises
    ------
    StoreError
        There is no store.
    ConflictError
        Another process writes to it.

    Notes
    -----
    Reads and writes everything once. After a kill, the same call goes on: what was written of fields is compared with
    its digest, and not read and written again. The space of the old extents is free after :func:`zstore.gc`; if the
    arrays are to start with the first row, as in a store ingested in one go, compact once more after that.
    """
    store = open_storage(path, storage_options)
    aside = None if scratch is None else open_storage(scratch, storage_options)
    with (
        Scheduler(workers, scheduler, progress) as runner,
        building(store, "append", aside, runner.shared, True) as site,
    ):
        base, root = Store(site.root), site.root
        names = safe_names([channel.name for channel in base.schema.channels])
        first_shard = free_shard(root, n_shards(base.n_rows, base.schema.shard_rows))
        in_order = len(base.index.pieces[0]) <= 1 and [c.variable for c in base.schema.channels] == names
        lowest = first_shard * base.schema.shard_rows
        if (
            base.schema.form >= FORMAT_VERSION
            and _rule_is_of_all_rows(base)
            and in_order
            and (base.index.contiguous or lowest >= int(base.index.extent_start.min()))
        ):
            forget(site)
            return Store(store)
        notes = begin(site, plan_text([], site.version, compacted=base.digest, first_shard=first_shard))
        runner.require(site)
        blocks = runner.map("read", partial(_spill, base=base, scratch=site.scratch), _ranges(base))
        rows = _rows(base, root, names, first_shard)
        asked = None if base.objects.document["table"]["freq"] is None else base.schema.time.rule
        fields = Fields((), site.scratch, base, anew=True, notes=notes)
        ordered = Ordered(blocks, base.index.row_start, rows, asked, fields=fields)
        site.begun.append("rows")
        written = write(ordered, runner, keep_codecs=True)
        index = index_of(base.ids, written.row_start, written.summary, base.statics, written.first_place)
        schema = replace(next_schema(base.schema, site, written, index), form=FORMAT_VERSION)
        document = base.objects.document
        about = {
            "action": "compact",
            "receipt": document["receipt"],
            "table": document["table"],
            **dropped_before(base),
            "next_shard": max(int(document["next_shard"]), written.next_shard),
        }
        shards = Inventory(written.records, before=parts_of(base.objects.manifest)[0])
        commit(site, Version(schema, index, written.summary.moments, shards, base.ledger, about), rows)
    return Store(store)


def _ranges(base: Store) -> list[tuple[int, int]]:
    """The rows of a store, a shard's worth at a time."""
    size = base.schema.shard_rows
    return [(start, min(start + size, base.n_rows)) for start in range(0, base.n_rows, size)]


def _rule_is_of_all_rows(base: Store) -> bool:
    """Whether the time step rule was given, or found in all rows: an append keeps the one of the rows before it."""
    document = base.objects.document
    return document["table"]["freq"] is not None or document["action"] in ("ingest", "compact")


def _rows(base: Store, root: Storage, names: list[str], first_shard: int) -> RowsSpec:
    """How the rows are to lie: words sorted, as an ingest has them."""
    channels = [
        replace(channel, variable=name, encoding=channel.encoding.tidied())
        for channel, name in zip(base.schema.channels, names, strict=True)
    ]
    size = base.schema.shard_rows
    axis = replace(base.schema.time, rule=IRREGULAR)  # found anew
    references = references_of([old_forms(base)], len(channels), len(base.fields))
    rows = RowsSpec(root, (), (), axis, base.schema.chunk_rows, size, first_shard, references)
    return rows.of(channels, [old_forms(base)] * n_shards(base.n_rows, size))


def _spill(rows: tuple[int, int], base: Store, scratch: Storage) -> Any:
    start, stop = rows
    bounds = base.index.row_start
    first, last = int(np.searchsorted(bounds, start, side="right")) - 1, int(np.searchsorted(bounds, stop))
    pieces = [
        (series, max(int(bounds[series]), start), min(int(bounds[series + 1]), stop)) for series in range(first, last)
    ]
    return spill_rows(base, pieces, scratch, str(start))
