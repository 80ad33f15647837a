"""New rows behind those of a store: in which order they come, and what of the store they leave as it is."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from zstore.format.layout import split_shard_key
from zstore.format.manifest import ObjectRecord
from zstore.format.rowarrays import array_names, origin_name
from zstore.reading.store import Store
from zstore.writing.blocks import reduce_blocks
from zstore.writing.committed import find_late, kept_shards, old_blocks, old_forms, rows_behind, to_widen
from zstore.writing.duplicates import OnDuplicate, without_duplicates, without_fillers
from zstore.writing.encode_plan import rows_spec
from zstore.writing.fan_in import limit_fan_in
from zstore.writing.field_shards import widen_field
from zstore.writing.fields import Fields
from zstore.writing.listing import Inventory
from zstore.writing.merge import Places
from zstore.writing.parse import Parsed
from zstore.writing.pipeline import Ordered, Written
from zstore.writing.plan import Planned
from zstore.writing.scheduler import Scheduler
from zstore.writing.settled import Comparer, Settled, changed_row, settle
from zstore.writing.shards import widen_shard
from zstore.writing.site import Site
from zstore.writing.sort import count_rows
from zstore.writing.spliced_index import IndexOf
from zstore.writing.updates import settle_duplicates


@dataclass(frozen=True)
class Added:
    """Rows that come to a store, those of it among them whose series get rows before their last one.

    Parameters
    ----------
    ids
        (series of the rows,) their ids.
    ordered
        All of them.
    places
        Series of the store and of the rows, among all.
    late
        (series of the rows,) whether the store's rows of it are among them.
    n_parsed
        Rows of the sources.
    n_old, n_left, n_kept
        Rows of the store: that were taken, that did not give way as fillers, and that were not replaced either.
    n_known, n_gone
        Rows of the sources that the store has as they are, and those of them whose files are no longer there.
    n_updated
        Rows that were made of several, of the store or of the sources.
    """

    ids: Any
    ordered: Ordered
    places: Places
    late: Any
    n_parsed: int
    n_old: int
    n_left: int
    n_kept: int
    n_known: int = 0
    n_gone: int = 0
    n_updated: int = 0

    def notes(self) -> Iterator[str]:
        """What should be known of rows of the store."""
        if self.late.any():
            yield f"{self.late.sum():,} series had late rows and were written anew"
        if self.n_old > self.n_left:
            yield f"{self.n_old - self.n_left:,} rows that filled gaps gave way to rows"
        if self.n_left > self.n_kept:
            yield f"{self.n_left - self.n_kept:,} rows of the store were {'updated' if self.n_updated else 'replaced'}"
        if self.n_known:
            yield f"{self.n_known:,} rows are in the store already, with the same values and files"
        if self.n_gone:
            yield f"{self.n_gone:,} of them name files that are no longer there; the store keeps what it has of them"


def order_behind(
    base: Store,
    planned: Planned,
    parsed: Parsed,
    on_duplicate: OnDuplicate,
    filled: bool,
    site: Site,
    runner: Scheduler,
) -> Added:
    """Rows of sources in the order of a store, those of the store that are late first.

    Parameters
    ----------
    base
        The store.
    planned, parsed
        The rows.
    on_duplicate
        What becomes of several rows of a series at one time.
    filled
        Whether the store has rows that fill gaps, which give way.
    site, runner
        Where spills go, and what runs the tasks.
    """
    ids, fresh = reduce_blocks(parsed.reports)
    n_parsed, places, reading = int(count_rows(len(ids), fresh)[-1]), Places.of(base, ids), planned.reading
    made = rows_spec(site, planned.spec, parsed.reports, reading.dtype, reading.grid)
    rows = rows_behind(base, made, parsed.reports)
    new = Settled(ids, fresh)
    if reading.fields:
        if on_duplicate in ("first", "last"):  # before, or a known row may make way for an earlier one of its time
            fresh, rows = limit_fan_in(len(ids), fresh, rows, site.scratch, runner)
            fresh = without_duplicates(len(ids), fresh, on_duplicate, rows.shard_rows, runner)
        comparer = Comparer(base, places.known, replace(rows, bringers=()), planned.spec.fields, filled)
        changed = partial(changed_row, planned, parsed, base, ids)
        new = settle(comparer, ids, fresh, rows.bringers, on_duplicate, changed, runner)
        ids, fresh, places = new.ids, new.blocks, Places.of(base, new.ids)
    n_series, late = len(ids), find_late(base, places, fresh)
    fresh, rows = limit_fan_in(n_series, fresh, rows, site.scratch, runner)
    old = old_blocks(base, places, late, site.scratch)
    n_old = int(count_rows(n_series, old)[-1])
    of_store = rows.of(rows.channels, [old_forms(base)]).bringers * len(old)
    rows = replace(rows, bringers=of_store + rows.bringers)
    blocks = old + fresh
    if filled and old:
        blocks = without_fillers(n_series, blocks, len(old), rows.shard_rows, runner)
    n_left = int(count_rows(n_series, blocks[: len(old)])[-1])
    blocks, rows, n_updated = settle_duplicates(n_series, blocks, rows, on_duplicate, site.scratch, runner)
    n_kept = int(count_rows(n_series, blocks[: len(old)])[-1])
    rule = base.schema.time.rule
    # With one row a series there was no step to be irregular; else runs are not cut, and stay so.
    asked = None if rule.kind == "irregular" and base.n_rows == base.n_series else rule
    fields = Fields(planned.spec.fields, site.scratch, base, keep_bad=planned.reading.keep_bad, notes=planned.notes)
    ordered = Ordered(blocks, count_rows(n_series, blocks), rows, asked, base.schema.form > 1, fields)
    return Added(ids, ordered, places, late, n_parsed, n_old, n_left, n_kept, new.n_known, new.n_gone, n_updated)


def shards_behind(base: Store, written: Written, index: IndexOf | None, runner: Scheduler) -> Inventory:
    """Shards of a store that still hold rows, by the index now, or all of them; and those that were written.

    Of what needs more room than before, all are written anew.
    """
    rows, wider = written.rows, to_widen(base, written.rows)
    fields = [
        (before, after, {*array_names(before.variable), origin_name(before.variable)})
        for before, after in zip(base.schema.fields, written.fields, strict=True)
        if before.variable != after.variable
    ]
    rewritten = {*wider, *(variable for _, _, arrays in fields for variable in arrays)}
    kept = kept_shards(base, None if index is None else index.loaded, rewritten)

    def of(variables: Collection[str]) -> list[ObjectRecord]:
        return [record for record in kept.others if split_shard_key(record.key)[0] in variables]

    widen = partial(widen_shard, before=base.schema.channels, spec=rows)
    records = runner.map("widen", widen, of(wider))
    for before, after, arrays in fields:
        records += runner.map("widen", partial(widen_field, before=before, after=after, rows=rows), of(arrays))
    others = [record for record in kept.others if split_shard_key(record.key)[0] not in rewritten]
    return replace(kept, others=others, new=[*records, *written.records])
