"""Rows added to a store: new series, later rows of known ones, and late rows, whose series are written anew.

Nothing that was committed is rewritten: new rows start on a fresh shard, and the new version's index knows where.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from zstore.errors import SourceError, UsageError
from zstore.format.index import StaticAttribute
from zstore.reading.store import Store
from zstore.storage.file import File
from zstore.writing.arguments import Request
from zstore.writing.attempts import write_good
from zstore.writing.behind import Added, order_behind, shards_behind
from zstore.writing.clock import Clock
from zstore.writing.cluster import ClusterClient
from zstore.writing.committed import dropped_before, to_widen
from zstore.writing.duplicates import OnDuplicate
from zstore.writing.ledger import new_sources, read_digests, read_states
from zstore.writing.merge import Places, merge, update_statics
from zstore.writing.notes import Before, freq_notes, matched, row_notes
from zstore.writing.parse import Parsed, row_error
from zstore.writing.pipeline import Version, Written, commit, next_schema, write
from zstore.writing.plan import MOST_BAD, Planned, described, plan, plan_text
from zstore.writing.quarantine import set_aside
from zstore.writing.receipt import Receipt, row_counts, write_receipt
from zstore.writing.resume import forget
from zstore.writing.scheduler import Progress
from zstore.writing.source_notes import SourceNotes
from zstore.writing.sources.files import check_unchanged
from zstore.writing.sources.ids import parts_of
from zstore.writing.sources.kinds import Named, recorded_source, source_of
from zstore.writing.sources.named_files.options import FileOptions
from zstore.writing.sources.options import TableOptions
from zstore.writing.sources.protocol import Source
from zstore.writing.sources.table import TableSpec
from zstore.writing.sources.times.spec import STEPS
from zstore.writing.sources.typed.given import ArrowStream
from zstore.writing.spliced_index import spliced_statics
from zstore.writing.target import building
from zstore.writing.updates import refuse_fields
from zstore.writing.words import refuse_all_numbers


def append(
    sources: Named | Sequence[Named],
    store: str | Path,
    *,
    static: str | Path | ArrowStream | None = None,
    file_root: str | Path | None = None,
    file_limit: int | str | None = None,
    on_bad_row: Literal["error", "quarantine"] = "error",
    max_bad_rows: float | str = MOST_BAD,
    on_duplicate: OnDuplicate = "error",
    on_empty_file: Literal["error", "skip"] = "error",
    force: bool = False,
    storage_options: Mapping[str, str] | None = None,
    scratch: str | Path | None = None,
    given: Mapping[str, Any] | None = None,
    blocksize: int | str | None = None,
    memory_limit: int | str | None = None,
    workers: int | None = None,
    scheduler: str | ClusterClient | None = None,
    progress: Progress | None = None,
) -> Receipt | None:
    """Add the rows of files to a store, as a new version of it.

    Files are read as the store's first ones were: the store records how.

    Parameters
    ----------
    sources
        Files or globs, a :class:`zstore.Query`, or tables. Files whose rows the store has already (same name, size and
        digest, in whatever folder) are left out, and so are tables of the same content; a file that changed after its
        rows were taken is refused. Where a column names files, it is read again: rows that the store has with the same
        values and files are left out, before any of those is read.
    store
        Folder of the store.
    static
        Table of static attributes that replaces the known ones; None to keep those.
    file_root
        Folder that the paths of files start from, if it is not the one that the store records.
    file_limit
        As for :func:`zstore.ingest`.
    on_duplicate
        What becomes of several rows of an id at one time, see :func:`zstore.ingest`. Rows of the store come first: so
        with ``update`` new values replace what the store has, and empty cells keep it. Where a column names files, rows
        that the store has as they are count as none.
    on_bad_row, max_bad_rows, on_empty_file, storage_options, scratch
        As for :func:`zstore.ingest`.
    force
        Whether to read files again that the store knows, or that changed. So files are looked at that a table names.
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
    arguments, clock = dict(locals()), Clock()
    request = Request.of(append, arguments)
    target = request.target
    with request.runner() as runner, building(target, "append", request.scratch, runner.shared, True) as site:
        base = Store(site.root)
        table = _as_recorded(base, given or {}, store)
        options, source = TableOptions.from_json(table), _same_source(request.files, table, store)
        fields = _named_files(table, file_root, file_limit).fields(options.units)
        named = source.taken(request.files, site.scratch, runner.shared)
        files = source.since(named, table, on_duplicate != "error")
        taken = () if force else base.ledger
        files = new_sources(files, target, taken, options.id_from_path, runner, bool(fields))
        if not files:
            forget(site)
            return None
        dtype, grid = base.schema.channels[0].dtype if base.channels else table["dtype"], base.schema.grid
        reading = request.reading(source, options, table["encoding"], dtype, grid, files, fields)
        read_as = {
            **table,
            "fields": described(fields),
            "on_bad_row": on_bad_row,
            "sized": [request.blocksize, *runner.shares],
        }
        others = options.named() | {name for name, _, _ in base.static_columns}
        text = plan_text(read_states(files, target), site.version, reading=read_as)
        planned = plan(reading, text, site, runner, _as_before(base, options), others)
        refuse_fields(on_duplicate, planned.spec.fields)
        planned = replace(planned, spec=_like_before(base, planned.spec, source, planned.files[0].name))
        clock.lap("plan")
        words = _words_by_column(base, planned.spec)

        def attempt(parsed: Parsed) -> tuple[Added, Written]:
            refuse_all_numbers(source, parsed, planned.spec, options.categories, words)
            clock.lap("parse")
            new = order_behind(base, planned, parsed, on_duplicate, table.get("fill_gaps", False), site, runner)
            axis = new.ordered.rows.time
            refuse = partial(row_error, ids=new.ids, planned=planned, parsed=parsed, axis=axis)
            return new, write(new.ordered, runner, refuse, keep_codecs=True)

        parsed, new, written = write_good(planned, site, runner, attempt)
        added = read_digests(files, target, options.id_from_path, runner, parsed.pieces)
        ledger = list({record.key: record for record in (*base.ledger, *added)}.values())
        clock.lap("write")
        statics, unmatched = _statics(base, planned, new.places)
        index, moments = merge(base, new.places, new.late, written, statics)
        shards = shards_behind(base, written, index if new.late.any() else None, runner)
        schema = next_schema(base.schema, site, written, index)
        n_stored = written.n_rows - new.n_kept
        quarantine = set_aside(site.root, target, parsed.bad, site.version)
        n_dropped = new.n_parsed - n_stored - new.n_known
        counts = row_counts(planned, parsed, written, 0, n_dropped, quarantine, new.n_known)
        remarks = row_notes(
            planned,
            parsed,
            written,
            freq_notes(schema.time.rule, index, Before(base, new.places, bool(new.late.any()))),
            unmatched,
        )
        remarks += _remarks(base, new, written, table)
        told = replace(schema, n_rows=n_stored)
        receipt = write_receipt(str(target), reading.sizes, told, written, counts, remarks)
        notes = {
            "action": "append",
            "receipt": receipt.lasting(),
            "table": {**table, **source.state(planned.files)},
            **dropped_before(base, counts.n_duplicates + new.n_old - new.n_kept, new.n_updated),
            "next_shard": written.next_shard,
        }
        check_unchanged(files)
        commit(site, Version(schema, index, moments, shards, ledger, notes), written.rows)
        SourceNotes.of(target, options.id_from_path).with_files(files, added, clock.began_ns).write()
        clock.lap("commit")
    return clock.on(receipt)


def _statics(base: Store, planned: Planned, places: Places) -> tuple[tuple[StaticAttribute, ...], list[str]]:
    """Static attributes of all series, and what should be known of them."""
    own = planned.own_statics
    statics = spliced_statics(base, places.unknown)
    unmatched: list[str] = []
    if planned.statics is not None:
        replaced, unmatched = matched(places.ids, planned.statics)
        names = set() if own is None else {each.name for each in own.attributes}
        statics = (*(each for each in statics if each.name in names), *replaced)
    elif own is None and len(places.unknown) and statics:
        unmatched = [f"{len(places.unknown):,} new series have no static attributes"]
    if own is not None:
        statics = update_statics(statics, own, places.ids)
        unmatched = [*own.notes, *unmatched]
    columns = planned.reading.options.id_columns
    parts = parts_of(places.ids, columns) if columns else ()
    return (*parts, *(each for each in statics if each.name not in columns)), unmatched


def _remarks(base: Store, new: Added, written: Written, table: Mapping[str, Any]) -> list[str]:
    """What should be known of rows of the store."""
    remarks = ["gaps are filled by an ingest only, not by an append"] if table.get("fill_gaps", False) else []
    wider = to_widen(base, written.rows).values()
    return [
        *remarks,
        *new.notes(),
        *(f"{name} was written anew, since its new values need more room" for name in wider),
    ]


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


def _as_recorded(base: Store, given: Mapping[str, Any], store: str | Path) -> dict[str, Any]:
    """How the store was read; the user may name further columns that it has words of, and say nothing else.

    Raises
    ------
    UsageError
        If the user says that files are read otherwise.
    """
    table: dict[str, Any] = dict(base.objects.document["table"])
    FileOptions.from_json(table)
    TableOptions.from_json(table)  # refuses what no release wrote, before anything is taken from it
    columns = {name: column for column, name in table["rename"].items()}
    words = {columns.get(c.name, c.name) for c in base.schema.channels if c.kind == "category"}
    asked = {**asdict(TableOptions.of(given)), **FileOptions.of(given).to_json()}
    further = [column for column in asked["categories"] if column not in table["categories"]]
    if further and words.issuperset(further) and set(table["categories"]) <= set(asked["categories"]):
        table["categories"] = list(asked["categories"])
    known = {
        **asdict(TableOptions()),
        **asdict(FileOptions()),
        **table,
        **asdict(base.schema.grid),
    }  # what is not recorded is as usual
    for name, value in given.items():
        pairs = [(asked.get(name, value), known.get(name))]
        pairs += [(asked["id_columns"], known["id_columns"])] if name == "id" else []
        if any(_plain(said) != _plain(recorded) for said, recorded in pairs):
            raise UsageError(
                f"--{name.replace('_', '-')} {_shown(value)}",
                expected=f"{_shown(known.get(name))}, as {store} was ingested",
                fix="leave it out of an append, or ingest into a store of its own",
            )
    return table


def _named_files(table: Mapping[str, Any], file_root: str | Path | None, file_limit: int | str | None) -> FileOptions:
    """Files that columns name, as the store records them; in another folder, or larger, as the user says."""
    recorded = FileOptions.from_json(table)
    if file_root is not None:
        recorded = replace(recorded, file_root=file_root)
    return replace(recorded, file_limit=file_limit)


def _words_by_column(base: Store, spec: TableSpec) -> dict[str, Sequence[str]]:
    columns = {channel.name: channel.column for channel in spec.stored}
    return {columns[c.name]: c.categories for c in base.schema.channels if c.kind == "category"}


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    return list(value) if isinstance(value, tuple) else value


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
    made = {channel.name: channel for channel in spec.stored}
    problems = [f"channel {name!r} is missing" for name in base.channels if name not in made]
    problems += [f"channel {name!r} is not in the store" for name in made if name not in base.channels]
    fields = {field.name: field for field in spec.fields}
    problems += [f"field {name!r} is missing" for name in base.fields if name not in fields]
    problems += [f"field {name!r} is not in the store" for name in fields if name not in base.fields]
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
    references = (channel for channel in spec.channels if channel.reference)
    like = replace(spec, time=time, channels=(*(made[name] for name in base.channels), *references))
    return like.with_fields([fields[name] for name in base.fields])
