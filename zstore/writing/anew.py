"""Rows of sources in the order of a new store: duplicates dropped, gaps filled."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from zstore.format.layout import n_shards
from zstore.writing.blocks import number_rows, reduce_blocks, rows_before
from zstore.writing.duplicates import OnDuplicate
from zstore.writing.encode_plan import asked_rule, rows_spec
from zstore.writing.fan_in import limit_fan_in
from zstore.writing.fields import Fields
from zstore.writing.gaps import fill_skipped
from zstore.writing.parse import Parsed
from zstore.writing.pipeline import Ordered
from zstore.writing.plan import Planned, refuse_empty
from zstore.writing.scheduler import Scheduler
from zstore.writing.site import Site
from zstore.writing.sort import count_rows
from zstore.writing.sweep import free_shard
from zstore.writing.updates import settle_duplicates


class OrderedAnew(NamedTuple):
    """Rows of a new store.

    Parameters
    ----------
    ids
        (series,) all of them.
    ordered
        The rows in their order.
    n_parsed, n_kept
        How many were parsed, and stay once duplicates are dropped.
    n_updated
        How many of those that stay were made of several.
    """

    ids: Any
    ordered: Ordered
    n_parsed: int
    n_kept: int
    n_updated: int


def order_anew(
    planned: Planned,
    parsed: Parsed,
    on_duplicate: OnDuplicate,
    fill_gaps: bool,
    site: Site,
    runner: Scheduler,
) -> OrderedAnew:
    """Rows of sources in the order of a new store.

    Parameters
    ----------
    planned, parsed
        The rows.
    on_duplicate
        What becomes of several rows of a series at one time.
    fill_gaps
        Whether rows are added for the times that a series skips.
    site, runner
        Where spills go, and what runs the tasks.

    Raises
    ------
    SourceError
        If there is no row.
    """
    spec, reading, freq = planned.spec, planned.reading, planned.reading.options.freq
    ids, blocks = reduce_blocks(parsed.reports)
    n_series = len(ids)
    if spec.time.kind == "rows":
        blocks = runner.map("number", partial(number_rows, time=spec.time), rows_before(n_series, blocks))
    n_parsed = int(count_rows(n_series, blocks)[-1])
    refuse_empty(n_parsed, len(parsed.bad), planned.files)
    rows = rows_spec(site, spec, parsed.reports, reading.dtype, reading.grid, freq)
    blocks, rows = limit_fan_in(n_series, blocks, rows, site.scratch, runner)
    blocks, rows, n_updated = settle_duplicates(n_series, blocks, rows, on_duplicate, site.scratch, runner)
    n_kept = int(count_rows(n_series, blocks)[-1])
    rule = spec.time.rule if spec.time.kind in ("rows", "columns") else asked_rule(freq, rows.time)
    if fill_gaps and n_kept:
        rule, fillers = fill_skipped(ids, blocks, rule, rows, site.scratch, runner)
        blocks += fillers
        rows = replace(rows, bringers=rows.bringers + (rows.missing,) * len(fillers))
    row_start = count_rows(n_series, blocks)
    if site.version > 1:  # in the place of a store that stays until this one is committed
        rows = replace(rows, first_shard=free_shard(site.root, n_shards(int(row_start[-1]), rows.shard_rows)))
    fields = Fields(spec.fields, site.scratch, keep_bad=reading.keep_bad, notes=planned.notes)
    ordered = Ordered(blocks, row_start, rows, rule, fields=fields)
    return OrderedAnew(ids, ordered, n_parsed, n_kept, n_updated)
