"""Rows added to a store: new series, later rows of known ones, and late rows, whose series are written anew.

Nothing that was committed is rewritten: new rows start on a fresh shard, and the new version's index knows where.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

from zstore.errors import SourceError, UsageError
from zstore.format.storage import File
from zstore.format.timesteps import TimeStepRule
from zstore.format.urls import open_storage
from zstore.reading.store import Store
from zstore.writing.blocks import reduce_blocks
from zstore.writing.committed import (
    dropped_before,
    find_late,
    kept_shards,
    old_blocks,
    old_forms,
    rows_behind,
    to_widen,
)
from zstore.writing.fan_in import limit_fan_in, plan_shards
from zstore.writing.ledger import new_sources, read_digests
from zstore.writing.merge import Places, merge, scatter_statics
from zstore.writing.parse import ParseTask, parse_all
from zstore.writing.phases import (
    BLOCK_COPIES,
    MOST_BAD,
    Clock,
    block_bytes,
    channel_notes,
    check_most_bad,
    duplicate_error,
    freq_notes,
    infinite_notes,
    matched,
    plan_of,
    rows_spec,
    source_notes,
    sum_up,
    without_duplicates,
    without_fillers,
)
from zstore.writing.quarantine import set_aside
from zstore.writing.receipt import Receipt, RowCounts, write_receipt
from zstore.writing.resume import begin
from zstore.writing.scheduler import Progress, Scheduler
from zstore.writing.shards import widen_shard, write_shard
from zstore.writing.sort import DuplicateTimeError, count_rows
from zstore.writing.sources.files import check_unchanged, expand, find
from zstore.writing.sources.kinds import recorded_source, source_of
from zstore.writing.sources.options import TableOptions
from zstore.writing.sources.protocol import Source, Workspace
from zstore.writing.sources.table import TableSpec
from zstore.writing.sources.times import STEPS
from zstore.writing.statics import open_statics, read_statics
from zstore.writing.target import building
from zstore.writing.version import commit_version
from zstore.writing.words import refuse_all_numbers


def append(
    sources: str | Path | Sequence[str | Path],
    store: str | Path,
    *,
    static: str | Path | None = None,
    on_bad_row: Literal["error", "quarantine"] = "error",
    max_bad_rows: float = MOST_BAD,
    on_duplicate: Literal["error", "first", "last"] = "error",
    force: bool = False,
    storage_options: Mapping[str, str] | None = None,
    scratch: str | Path | None = None,
    given: Mapping[str, Any] | None = None,
    blocksize: int | None = None,
    memory_limit: int | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    progress: Progress | None = None,
) -> Receipt | None:
    """Add the rows of CSV files to a store, as a new version of it.

    Files are read as the store's first ones were: the store records how.

    Parameters
    ----------
    sources
        Files or globs. Those whose rows the store has already (same name, size and digest, in whatever folder) are left
        out; one that changed after its rows were taken is refused.
    store
        Folder of the store.
    static
        CSV of static attributes that replaces the known ones; None to keep those.
    on_bad_row
        ``error`` refuses the first bad row; ``quarantine`` sets bad rows aside in ``STORE.quarantine.csv``.
    max_bad_rows
        As for :func:`zstore.ingest`.
    on_duplicate
        Which row stays where the store or the files have several of an id at one time; rows of the store come first.
    storage_options, scratch
        As for :func:`zstore.ingest`.
    force
        Whether to read files again that the store knows, and those that changed.
    given
        How the user says that the files are read, by the names of :func:`zstore.ingest`; must be as the store records,
        but that `categories` may name further columns of words.
    blocksize, memory_limit, workers, scheduler, progress
        As for :func:`zstore.ingest`.

    Returns
    -------
    The receipt of the rows added; None if there was nothing new, and no version was made.

    Raises
    ------
    SourceError
        A file, column or row that cannot be stored as written. Nothing was committed.
    StoreError
        There is no store.
    ConflictError
        Another process writes to it.
    """
    clock = Clock()
    check_most_bad(max_bad_rows)
    names = [sources] if isinstance(sources, (str, Path)) else list(sources)
    files = expand(names, storage_options)
    target = open_storage(store, storage_options)
    aside = None if scratch is None else open_storage(scratch, storage_options)
    with (
        Scheduler(workers, scheduler, progress, memory_limit, BLOCK_COPIES * (blocksize or 0)) as runner,
        building(target, "append", aside, runner.shared) as site,
    ):
        base = Store(site.root)
        table = _with_categories(base, given or {})
        _refuse_other(given or {}, table, store)
        encoding, options = table["encoding"], TableOptions.from_json(table)
        source = _same_source(files, table, store)
        read = read_digests(files, target, options.id_from_path, runner)
        pairs = new_sources(files, read, () if force else base.ledger, options.id_from_path)
        if not pairs:
            site.scratch.clear()
            return None
        files, added = [file for file, _ in pairs], [record for _, record in pairs]
        ledger = list({record.key: record for record in (*base.ledger, *added)}.values())
        reading = {
            **table,
            "on_bad_row": on_bad_row,
            "sized": [blocksize, *runner.shares],
        }
        noted = begin(site.scratch, plan_of(added, site.version, reading=reading))
        prepared = source.prepare(files, encoding, Workspace(site.scratch, noted), runner)
        attributes = None
        if static is not None:
            attributes = open_statics(find(static, "--static", storage_options), options, encoding, site.scratch)
        others = (
            options.named()
            | {static.name for static in base.statics}
            | set(attributes[0].header if attributes is not None else ())
        )
        opened, spec = source.open(files, prepared, _as_before(base, options), others)
        spec = _like_before(base, spec, source, opened[0].name)
        known_statics = None if attributes is None else read_statics(*attributes, options, spec.missing)
        clock.lap("plan")

        dtype = base.schema.channels[0].dtype
        keep_bad = on_bad_row == "quarantine"
        task = ParseTask(source, spec, dtype, site.scratch, keep_bad, noted)
        size = blocksize or block_bytes(runner.memory_limit, runner.sharers, source.n_bytes(opened, spec))
        parsed = parse_all(opened, task, size, runner, max_bad_rows if keep_bad else None)
        reports, bad = parsed.reports, parsed.bad
        if not source.typed:
            refuse_all_numbers(source, parsed, spec, options.categories, _words_by_column(base, spec))
        clock.lap("parse")

        ids, fresh = reduce_blocks(reports)
        places = Places.of(base, ids)
        late = find_late(base, places, fresh)
        rows = rows_behind(base, rows_spec(site, spec, reports, dtype), reports)
        fresh, rows = limit_fan_in(len(ids), fresh, rows, site.scratch, runner)
        old = old_blocks(base, places, late, site.scratch)
        n_old, n_parsed = (int(count_rows(len(ids), part)[-1]) for part in (old, fresh))
        bringers = rows.of(rows.channels, [old_forms(base)]).bringers * len(old)
        rows = replace(rows, bringers=bringers + rows.bringers)
        everything = old + fresh
        if table["fill_gaps"] and old:
            everything = without_fillers(len(ids), everything, len(old), runner)
        n_left = int(count_rows(len(ids), everything[: len(old)])[-1])
        if on_duplicate != "error":
            everything = without_duplicates(len(ids), everything, on_duplicate, runner)
        row_start = count_rows(len(ids), everything)
        n_kept_old = int(count_rows(len(ids), everything[: len(old)])[-1])
        try:
            plans = plan_shards(row_start, everything, shard_rows=rows.shard_rows)
            sizes = [plan.stop - plan.start for plan in plans]
            shards = runner.map("write", partial(write_shard, blocks=everything, spec=rows), plans, sizes, "rows")
        except DuplicateTimeError as error:
            raise duplicate_error(error, ids, source, parsed.blocks, spec, rows.time) from None
        clock.lap("write")

        rule: TimeStepRule | None = base.schema.time.rule
        if base.schema.time.rule.kind == "irregular" and base.n_rows == base.n_series:
            rule = None  # there was no step to be irregular; else runs are not cut, and stay so
        summary = sum_up(shards, plans, rows, row_start, rule, runner, calendar=base.schema.form > 1)
        statics = scatter_statics(base.statics, places)
        n_new = len(places.ids) - base.n_series
        unmatched = [f"{n_new:,} new series have no static attributes"] if n_new and base.statics else []
        if known_statics is not None:
            statics, unmatched = matched(places.ids, known_statics)
        first_place = rows.first_shard * rows.shard_rows
        index, moments = merge(base, places, late, row_start, summary, first_place, statics)
        kept, wider = kept_shards(base, rows, index), to_widen(base, rows)
        widen = partial(widen_shard, before=base.schema.channels, spec=rows)
        records = [r for r in kept if r.key.partition("/c/")[0] not in wider]
        records += runner.map("widen", widen, [r for r in kept if r.key.partition("/c/")[0] in wider])
        schema = replace(
            base.schema,
            version=site.version,
            n_rows=int(index.row_size.sum()),
            n_places=first_place + int(row_start[-1]),
            n_series=len(places.ids),
            channels=rows.channels,
            time=replace(base.schema.time, rule=summary.rule),
            committed=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        inexact = tuple(sum(report.forms[n].n_inexact for report in reports) for n in range(len(rows.channels)))
        n_stored = int(row_start[-1]) - n_kept_old
        counts = RowCounts(
            n_filled=0,
            n_quarantined=len(bad) * max(len(spec.series), 1),
            n_duplicates=n_parsed - n_stored,
            quarantine=set_aside(site.root, target, bad, site.version),
            n_inexact=inexact,
        )
        remarks = [
            *channel_notes(rows, inexact, spec),
            *infinite_notes(rows, shards),
            *freq_notes(summary, rows.time, row_start, ids),
            *unmatched,
            *source_notes(source, parsed, spec, known_statics.seen if known_statics is not None else ()),
        ]
        remarks += ["gaps are filled by an ingest only, not by an append"] if table["fill_gaps"] else []
        remarks += [f"{late.sum():,} series had late rows and were written anew"] if late.any() else []
        remarks += [f"{n_old - n_left:,} rows that filled gaps gave way to rows"] if n_old > n_left else []
        remarks += [f"{n_left - n_kept_old:,} rows of the store were replaced"] if n_left > n_kept_old else []
        remarks += [f"{name} was written anew, since its new values need more room" for name in wider.values()]
        source_sizes = {str(file): file.n_bytes for file in files}
        told = replace(schema, n_rows=n_stored)
        receipt = write_receipt(str(target), source_sizes, told, summary, shards, counts, {}, remarks)
        site.scratch.clear()
        records += [record for shard in shards for record in shard.records]
        notes = {
            "action": "append",
            "receipt": receipt.lasting(),
            "table": table,
            **dropped_before(base, n_parsed - n_stored + n_old - n_kept_old),
            "next_shard": rows.first_shard + len(plans),
        }
        check_unchanged(files)
        commit_version(site.root, schema, rows, index, moments, records, ledger, notes)
        clock.lap("commit")
    return replace(receipt, seconds={**clock.laps, "total": round(sum(clock.laps.values()), 3)})


def _same_source(files: Sequence[File], table: Mapping[str, Any], store: str | Path) -> Source:
    """What reads the files, if it has read those that the store has."""
    source, known = source_of(files), recorded_source(table)
    if source is not known:
        raise UsageError(
            f"{files[0]} ({source.kind})",
            expected=f"files of the kind that {store} was ingested from ({known.kind})",
            fix="ingest it into a store of its own",
        )
    return source


def _with_categories(base: Store, given: Mapping[str, Any]) -> dict[str, Any]:
    """How the store was read; the user may name further columns that it has words of."""
    table: dict[str, Any] = dict(base.objects.document["table"])
    columns = {name: column for column, name in table["rename"].items()}
    words = {columns.get(c.name, c.name) for c in base.schema.channels if c.kind == "category"}
    further = [column for column in given.get("categories") or () if column not in table["categories"]]
    if further and words.issuperset(further) and set(table["categories"]) <= set(given["categories"]):
        table["categories"] = list(given["categories"])
    return table


def _words_by_column(base: Store, spec: TableSpec) -> dict[str, Sequence[str]]:
    columns = {channel.name: channel.column for channel in spec.channels}
    return {columns[c.name]: c.categories for c in base.schema.channels if c.kind == "category"}


def _refuse_other(given: Mapping[str, Any], table: Mapping[str, Any], store: str | Path) -> None:
    for name, value in given.items():
        known = table.get(name, getattr(TableOptions(), name, None))  # recorded since there is such an option
        if json.loads(json.dumps(value)) != known:
            raise UsageError(
                f"--{name.replace('_', '-')} {_shown(value)}",
                expected=f"{_shown(known)}, as {store} was ingested",
                fix="leave it out of an append, or ingest into a store of its own",
            )


def _shown(value: Any) -> str:
    if value is None or value in ([], {}):
        return "none"
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _as_before(base: Store, options: TableOptions) -> TableOptions:
    """The options of the first ingest; columns that held categories do so whatever the new rows look like."""
    if base.schema.time.unit is None and options.time_format is None:
        options = replace(options, time_unit=STEPS)  # they were read so, whatever the new ones look like
    return options.with_categories(channel.name for channel in base.schema.channels if channel.kind == "category")


def _like_before(base: Store, spec: TableSpec, source: Source, name: str) -> TableSpec:
    """What the columns mean, if that is what the store holds.

    Raises
    ------
    SourceError, UsageError
        If a channel is missing, new or of another kind, or times are of another kind.
    """
    made = {channel.name: channel for channel in spec.channels}
    problems = [f"channel {name!r} is missing" for name in base.channels if name not in made]
    problems += [f"channel {name!r} is not in the store" for name in made if name not in base.channels]
    problems += [
        f"text in channel {channel.name!r}"
        for channel in base.schema.channels
        if channel.name in made and made[channel.name].text and channel.kind == "number"
    ]
    axis, units = base.schema.time, ("s", "ms", "us", "ns")
    if spec.time.zone != (axis.zone is not None) or (spec.time.unit is None) != (axis.unit is None):
        problems.append("times of another kind")
    elif not source.typed and axis.unit is not None and units.index(str(spec.time.unit)) > units.index(axis.unit):
        problems.append(f"times in {spec.time.unit}")
    if problems:
        kind = "whole steps" if axis.unit is None else f"times in {axis.unit}, {axis.zone or 'without zone'}"
        raise SourceError(
            problems[0],
            expected=f"what {base.path} holds: {', '.join(base.channels)}; {kind}",
            where=name,
            fix="ingest it into a store of its own, or all files together anew",
        )
    if spec.time.kind == "rows":
        raise UsageError(
            f"append to {base.path}, whose rows were numbered",
            expected="rows with times of their own",
            fix="ingest all files together anew",
        )
    time = replace(spec.time, unit=axis.unit)
    return replace(spec, time=time, channels=tuple(made[name] for name in base.channels))
