"""Rows added to a store: new series, later rows of known ones, and late rows, whose series are written anew.

Nothing that was committed is rewritten: new rows start on a fresh shard, and the new version's index knows where.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from zstore.errors import SourceError, UsageError
from zstore.format.index import SeriesIndex, StaticAttribute
from zstore.format.schema import Schema
from zstore.reading.store import Store
from zstore.storage.file import File
from zstore.storage.urls import open_storage
from zstore.writing.behind import kept_records, order_behind
from zstore.writing.clock import Clock
from zstore.writing.committed import dropped_before, to_widen
from zstore.writing.ledger import new_sources, read_digests
from zstore.writing.merge import Places, merge, scatter_statics
from zstore.writing.notes import StepCounts, freq_notes, matched, row_notes
from zstore.writing.parse import BLOCK_COPIES, duplicate_error, parse
from zstore.writing.pipeline import Version, commit, next_schema, write
from zstore.writing.plan import MOST_BAD, Planned, Reading, check_most_bad, plan, plan_text
from zstore.writing.quarantine import set_aside
from zstore.writing.receipt import Receipt, RowCounts, write_receipt
from zstore.writing.scheduler import Progress, Scheduler
from zstore.writing.sources.files import check_unchanged, expand, find
from zstore.writing.sources.ids import parts_of
from zstore.writing.sources.kinds import recorded_source, source_of
from zstore.writing.sources.options import TableOptions
from zstore.writing.sources.protocol import Source
from zstore.writing.sources.table import TableSpec
from zstore.writing.sources.times import STEPS
from zstore.writing.target import building
from zstore.writing.words import refuse_all_numbers


def append(
    sources: str | Path | Sequence[str | Path],
    store: str | Path,
    *,
    static: str | Path | None = None,
    on_bad_row: Literal["error", "quarantine"] = "error",
    max_bad_rows: float = MOST_BAD,
    on_duplicate: Literal["error", "first", "last"] = "error",
    on_empty_file: Literal["error", "skip"] = "error",
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
    """Add the rows of files to a store, as a new version of it.

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
    on_empty_file, storage_options, scratch
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
    files = expand(
        [sources] if isinstance(sources, (str, Path)) else list(sources), storage_options, on_empty_file == "skip"
    )
    target = open_storage(store, storage_options)
    aside = None if scratch is None else open_storage(scratch, storage_options)
    named = None if static is None else find(static, "--static", storage_options)
    with (
        Scheduler(workers, scheduler, progress, memory_limit, BLOCK_COPIES * (blocksize or 0)) as runner,
        building(target, "append", aside, runner.shared) as site,
    ):
        base = Store(site.root)
        table = _with_categories(base, given or {})
        _refuse_other(given or {}, {**table, **asdict(base.schema.grid)}, store)
        options, source = TableOptions.from_json(table), _same_source(files, table, store)
        read = read_digests(files, target, options.id_from_path, runner)
        pairs = new_sources(files, read, () if force else base.ledger, options.id_from_path)
        if not pairs:
            site.scratch.clear()
            return None
        files, added = [file for file, _ in pairs], [record for _, record in pairs]
        ledger = list({record.key: record for record in (*base.ledger, *added)}.values())
        dtype = base.schema.channels[0].dtype
        grid = base.schema.grid
        reading = Reading(
            files, source, options, table["encoding"], dtype, grid, on_bad_row, max_bad_rows, blocksize, named
        )
        sized = [blocksize, *runner.shares]
        text = plan_text(added, site.version, reading={**table, "on_bad_row": on_bad_row, "sized": sized})
        others = options.named() | {attribute.name for attribute in base.statics}
        planned = plan(reading, text, site, runner, _as_before(base, options), others)
        planned = replace(planned, spec=_like_before(base, planned.spec, source, planned.files[0].name))
        clock.lap("plan")
        parsed = parse(planned, site, runner)
        if not source.typed:
            refuse_all_numbers(source, parsed, planned.spec, options.categories, _words_by_column(base, planned.spec))
        clock.lap("parse")
        added_rows = order_behind(base, planned, parsed, on_duplicate, table.get("fill_gaps", False), site, runner)
        ids, ordered = added_rows.ids, added_rows.ordered
        refuse = partial(duplicate_error, ids=ids, planned=planned, parsed=parsed, axis=ordered.rows.time)
        written = write(ordered, runner, refuse, keep_codecs=True)
        clock.lap("write")
        statics, unmatched = _statics(base, planned, added_rows.places)
        parts = parts_of(added_rows.places.ids, options.id_columns)
        statics = (*parts, *(static for static in statics if static.name not in options.id_columns))
        index, moments = merge(base, added_rows.places, added_rows.late, written, statics)
        records = kept_records(base, written.rows, index, runner)
        schema = next_schema(base.schema, site, written, index)
        n_stored = written.n_rows - added_rows.n_kept
        counts = RowCounts(
            n_filled=0,
            n_quarantined=len(parsed.bad) * max(len(planned.spec.series), 1),
            n_duplicates=added_rows.n_parsed - n_stored,
            quarantine=set_aside(site.root, target, parsed.bad, site.version),
            n_inexact=parsed.n_inexact(len(schema.channels)),
        )
        remarks = row_notes(planned, parsed, written, _freq_notes(base, index, added_rows.places, schema), unmatched)
        remarks += ["gaps are filled by an ingest only, not by an append"] if table.get("fill_gaps", False) else []
        remarks += added_rows.notes()
        wider = to_widen(base, written.rows).values()
        remarks += [f"{name} was written anew, since its new values need more room" for name in wider]
        told = replace(schema, n_rows=n_stored)
        receipt = write_receipt(str(target), reading.sizes, told, written, counts, remarks)
        notes = {
            "action": "append",
            "receipt": receipt.lasting(),
            "table": table,
            **dropped_before(base, counts.n_duplicates + added_rows.n_old - added_rows.n_kept),
            "next_shard": written.next_shard,
        }
        check_unchanged(files)
        commit(site, Version(schema, index, moments, [*records, *written.records], ledger, notes), written.rows)
        clock.lap("commit")
    return clock.on(receipt)


def _freq_notes(base: Store, index: SeriesIndex, places: Places, schema: Schema) -> Iterator[str]:
    """What should be known of the steps that are new, judged by all rows of their series."""
    rule = schema.time.rule
    n_before = np.zeros(len(index.ids), np.int64)
    n_before[places.old] = StepCounts.of(base.index, rule).n_gaps
    return freq_notes(rule, index, n_before)


def _statics(base: Store, planned: Planned, places: Places) -> tuple[tuple[StaticAttribute, ...], list[str]]:
    """Static attributes of all series, and what should be known of them."""
    if planned.statics is not None:
        return matched(places.ids, planned.statics)
    n_new = len(places.ids) - base.n_series
    unmatched = [f"{n_new:,} new series have no static attributes"] if n_new and base.statics else []
    return scatter_statics(base.statics, places), unmatched


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
    TableOptions.from_json(table)  # refuses what no release wrote, before anything is taken from it
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
    ids = given.get("id")
    if ids is not None and not isinstance(ids, str):  # as an ingest records it
        given = {**given, "id": ",".join(ids), **({"id_columns": ids} if len(ids) > 1 else {})}
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
    problems += [
        f"unit {made[channel.name].units!r} of channel {channel.name!r}, which has {channel.units or 'none'}"
        for channel in base.schema.channels
        if channel.name in made and made[channel.name].units not in (None, channel.units)
    ]
    axis, units = base.schema.time, ("s", "ms", "us", "ns")
    if spec.time.in_utc != (axis.zone is not None) or (spec.time.unit is None) != (axis.unit is None):
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
    time = spec.time.on_axis(axis.unit)
    return replace(spec, time=time, channels=tuple(made[name] for name in base.channels))
