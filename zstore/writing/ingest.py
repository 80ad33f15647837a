"""THE main path: CSV files in, one committed version of a store out.

Reads like the design: plan, parse, reduce, write, commit. This is the one module that puts work on Dask.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from zstore.errors import UsageError
from zstore.format.codecs import AUTO, check_codec
from zstore.format.index import StaticAttribute
from zstore.format.layout import n_shards
from zstore.format.schema import Schema
from zstore.format.urls import open_storage
from zstore.writing.blocks import number_rows, reduce_blocks, rows_before
from zstore.writing.fan_in import limit_fan_in, plan_shards
from zstore.writing.ledger import read_digests
from zstore.writing.parse import ParseTask, parse_all
from zstore.writing.phases import (
    BLOCK_COPIES,
    MOST_BAD,
    Clock,
    asked_rule,
    block_bytes,
    channel_notes,
    check_most_bad,
    choose_codecs,
    duplicate_error,
    fill_skipped,
    freq_notes,
    infinite_notes,
    matched,
    plan_of,
    refuse_empty,
    rows_spec,
    source_notes,
    sum_up,
    without_duplicates,
)
from zstore.writing.quarantine import set_aside
from zstore.writing.receipt import Receipt, RowCounts, write_receipt
from zstore.writing.resume import begin
from zstore.writing.scheduler import Progress, Scheduler
from zstore.writing.shards import write_shard
from zstore.writing.site import Mode
from zstore.writing.sort import (
    DuplicateTimeError,
    count_rows,
)
from zstore.writing.sources.files import check_unchanged, expand, find
from zstore.writing.sources.kinds import record_of, source_of
from zstore.writing.sources.options import MISSING, TableOptions, check_options
from zstore.writing.sources.protocol import Workspace
from zstore.writing.statics import open_statics, read_statics
from zstore.writing.sweep import free_shard
from zstore.writing.target import building
from zstore.writing.version import commit_version, index_of
from zstore.writing.words import refuse_numbers

logger = logging.getLogger(__name__)


def ingest(
    sources: str | Path | Sequence[str | Path],
    store: str | Path,
    *,
    time: str | Sequence[str] | None = None,
    id: str | None = None,  # noqa: A002  # the command's flag is --id
    channels: Sequence[str] | None = None,
    leave_out: Sequence[str] = (),
    categories: Sequence[str] = (),
    allow_new_channels: bool = False,
    rename: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
    static: str | Path | None = None,
    freq: str | None = None,
    start: str | None = None,
    fill_gaps: bool = False,
    time_format: str | None = None,
    time_unit: str | None = None,
    layout: Literal["long", "wide"] = "long",
    value_name: str = "value",
    id_from_path: str | None = None,
    delimiter: str | None = None,
    decimal: Literal[".", ","] = ".",
    encoding: str = "utf-8",
    missing: Sequence[str] = MISSING,
    thousands: str | None = None,
    percent: Sequence[str] = (),
    on_bad_row: Literal["error", "quarantine"] = "error",
    max_bad_rows: float = MOST_BAD,
    on_duplicate: Literal["error", "first", "last"] = "error",
    overwrite: bool = False,
    storage_options: Mapping[str, str] | None = None,
    scratch: str | Path | None = None,
    codec: str | None = None,
    dtype: Literal["float32", "float64"] = "float32",
    blocksize: int | None = None,
    memory_limit: int | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    progress: Progress | None = None,
) -> Receipt:
    """Turn CSV files into a store sorted by (id, time), out of core.

    Parameters
    ----------
    sources
        Files or globs, plain, ``.gz`` or ``.zst``, with the same columns in any order, rows in any order; also
        ``s3://BUCKET/KEY``.
    store
        Folder to make, or ``s3://BUCKET/PREFIX``.
    time
        Column of times: ISO dates or dates and times, with or without offset from UTC, or whole numbers. Or three to
        six columns: year, month, day, hour, minute, second. None where rows just follow each other.
    id
        Column of series ids, kept as exact text; None when all rows are one series (its id is ``0``).
    channels
        Columns to keep, in this order; None for all but `id` and `time`. In a wide table of series, the series.
        Columns of text become categories.
    leave_out
        Columns not to keep.
    categories
        Columns of words, also where some look like numbers; columns without any number are found.
    allow_new_channels
        Whether files may have columns that the first has not: missing in the rows of the others. In a wide table of
        series, they are series without rows there.
    rename
        New names of columns.
    units
        Units of columns, to record.
    static
        CSV of static attributes, one row per id.
    freq
        Time step rule: a step such as ``1D`` or ``15min``; ``MS ME QS QE YS YE`` for months, quarters and years, with a
        count (``2MS``) and an anchor month (``YE-JUN``); ``W-WED``; ``B`` for weekdays; ``rows`` where each row is one
        step after the one before, whatever their times. None to find the one under which most rows follow each other.
    start
        Time of the first row of each series, where there is no time column.
    fill_gaps
        Whether to add a row of missing values at each step that a series skips between its first and last time.
    time_format
        How times are written, as `strptime` has it.
    time_unit
        Unit of times that are numbers since 1970: ``d``, ``h``, ``min``, ``s``, ``ms``, ``us`` or ``ns``; ``steps``
        where they count steps. Needed only where numbers look like dates (20010131) or like epochs (978307200).
    layout
        ``long``: a row per id and time. ``wide``: a row per time, a column per series.
    value_name
        Name of the one channel of a wide table of series.
    id_from_path
        Regular expression; its first group in the path of each file is the id of that file's rows.
    delimiter
        Between fields; None to find it.
    decimal
        Decimal point.
    encoding
        Of the files.
    missing
        What means a missing value. ``TEXT``: in columns of numbers, where numbers are compared as numbers (``-999``
        is ``-999.00`` too), and in times, which then are bad rows. ``COLUMN=TEXT``: in that column, whether of
        numbers or words, rows or static attributes. Words are missing only where empty or where so named. Texts take
        the place of the usual ones; those of a column are added. Never applied to ids.
    thousands
        Character between groups of three digits, as in ``1,234``; a space stands for every kind of space.
    percent
        Columns of numbers with a ``%`` behind each, which is dropped.
    on_bad_row
        ``error`` refuses the first bad row; ``quarantine`` sets bad rows aside in ``STORE.quarantine.csv``.
    max_bad_rows
        Most rows that `on_bad_row` may set aside: a number of rows if it is an int, else a share of all rows, such as
        0.01. With more, or without a row left, nothing is stored.
    on_duplicate
        Which row stays when an id has several at one time, in the order of the files as named and the rows in them.
    overwrite
        Replace an existing store.
    storage_options
        For object storage, beside the usual environment variables: what obstore's ``S3Config`` takes, such as
        ``region`` or ``endpoint``.
    scratch
        Folder or ``s3://…`` for what is needed meanwhile, some 1.5 times the bytes of the store; None for one in the
        store, or a temporary one where the store is in a bucket.
    codec
        Name of a codec for every channel, such as ``zstd-3`` or ``blosc-lz4-5-bitshuffle``; ``auto`` tries several on
        a sample of each channel; None for the usual one of integers, and of floats.
    dtype
        Float type of channels.
    blocksize
        Bytes of a source parsed at once; None to derive it from `memory_limit`.
    memory_limit
        Bytes of memory to stay under, at least 256 MiB; on a cluster, of each worker. A thread takes 256 MiB, or 8
        times `blocksize` if that is more, and there are only as many threads as fit. None for enough for all threads,
        but at most half of the memory that this process may use: that of the machine, or of its container.
    workers
        Threads, or processes where `scheduler` is ``local``; None for one per core.
    scheduler
        Address of a Dask cluster whose workers see the same files; ``local`` starts one of `workers` processes here.
    progress
        Called with ``(phase, done, total, unit)``.

    Returns
    -------
    The receipt.

    Raises
    ------
    SourceError
        A file, column or row that cannot be stored as written. Nothing was committed.
    StoreError
        The target exists or cannot be written.
    """
    clock = Clock()
    check_most_bad(max_bad_rows)
    if codec not in (None, AUTO):
        check_codec(str(codec))
    names = [sources] if isinstance(sources, (str, Path)) else list(sources)
    files = expand(names, storage_options)
    source = source_of(files)
    target = open_storage(store, storage_options)
    aside = None if scratch is None else open_storage(scratch, storage_options)
    options = TableOptions(
        id=id,
        time=(time,) if isinstance(time, str) else tuple(time or ()),
        time_format=time_format,
        time_unit=time_unit,
        freq=freq,
        start=start,
        layout=layout,
        id_from_path=id_from_path,
        channels=tuple(channels) if channels else None,
        leave_out=tuple(leave_out),
        categories=tuple(categories),
        allow_new_channels=allow_new_channels,
        rename=rename or {},
        units=units or {},
        value_name=value_name,
        delimiter=delimiter,
        decimal=decimal,
        missing=tuple(missing),
        thousands=thousands,
        percent=tuple(percent),
        largest=float(np.finfo(dtype).max),
    )
    check_options(options)
    source.check(options, encoding)
    mode: Mode = "overwrite" if overwrite else "new"
    with (
        Scheduler(workers, scheduler, progress, memory_limit, BLOCK_COPIES * (blocksize or 0)) as runner,
        building(target, mode, aside, runner.shared) as site,
    ):
        sizes = {str(file): file.n_bytes for file in files}
        logger.info("ingest %s of %d files into %s", f"{sum(sizes.values()):,} bytes", len(files), store)
        ledger = read_digests(files, target, options.id_from_path, runner)
        reading = {**record_of(source), **options.to_json()}
        reading |= {"encoding": encoding, "dtype": dtype, "on_bad_row": on_bad_row}
        sized = [blocksize, *runner.shares]
        notes = begin(site.scratch, plan_of(ledger, site.version, reading=reading, sized=sized))
        prepared = source.prepare(files, encoding, Workspace(site.scratch, notes), runner)
        attributes = None
        if static is not None:
            attributes = open_statics(find(static, "--static", storage_options), options, encoding, site.scratch)
        others = attributes[0].header if attributes is not None else ()
        opened, spec = source.open(files, prepared, options, others)
        if spec.time.kind == "rows" and on_bad_row == "quarantine":
            raise UsageError(
                "quarantine without a time column",
                expected="a time for the rows that stay",
                fix="name the time column with --time, or --on-bad-row error",
            )
        known_statics = None if attributes is None else read_statics(*attributes, options, spec.missing)
        clock.lap("plan")

        keep_bad = on_bad_row == "quarantine"
        task = ParseTask(source, spec, dtype, site.scratch, keep_bad, notes)
        size = blocksize or block_bytes(runner.memory_limit, runner.sharers, source.n_bytes(opened, spec))
        parsed = parse_all(opened, task, size, runner, max_bad_rows if keep_bad else None)
        reports, bad = parsed.reports, parsed.bad
        if not source.typed:
            refuse_numbers(source, parsed, spec, options.categories)
        clock.lap("parse")

        ids, sorted_blocks = reduce_blocks(reports)
        if spec.time.kind == "rows":
            tasks = rows_before(len(ids), sorted_blocks)
            sorted_blocks = runner.map("number", partial(number_rows, time=spec.time), tasks)
        n_parsed = int(count_rows(len(ids), sorted_blocks)[-1])
        refuse_empty(n_parsed, len(bad), opened)
        rows = rows_spec(site, spec, reports, dtype, freq)
        sorted_blocks, rows = limit_fan_in(len(ids), sorted_blocks, rows, site.scratch, runner)
        if on_duplicate != "error":
            sorted_blocks = without_duplicates(len(ids), sorted_blocks, on_duplicate, runner)
        n_stored = int(count_rows(len(ids), sorted_blocks)[-1])
        rule = spec.time.rule if spec.time.kind == "rows" else asked_rule(freq, rows.time)
        if fill_gaps and n_stored:
            rule, fillers = fill_skipped(ids, sorted_blocks, rule, rows, site.scratch, runner)
            sorted_blocks += fillers
            rows = replace(rows, bringers=rows.bringers + (rows.missing,) * len(fillers))
        row_start = count_rows(len(ids), sorted_blocks)
        if site.version > 1:  # in the place of a store that stays until this one is committed
            rows = replace(rows, first_shard=free_shard(site.root, n_shards(int(row_start[-1]))))
        first_place = rows.first_shard * rows.shard_rows
        try:
            plans = plan_shards(row_start, sorted_blocks)
            rows, trials = choose_codecs(rows, row_start, sorted_blocks, codec)
            n_rows = [plan.stop - plan.start for plan in plans]
            shards = runner.map("write", partial(write_shard, blocks=sorted_blocks, spec=rows), plans, n_rows, "rows")
        except DuplicateTimeError as error:
            raise duplicate_error(error, ids, source, parsed.blocks, spec, rows.time) from None
        clock.lap("write")

        summary = sum_up(shards, plans, rows, row_start, rule, runner)
        statics: tuple[StaticAttribute, ...] = ()
        inexact = [sum(report.forms[n].n_inexact for report in reports) for n in range(len(rows.channels))]
        remarks = [
            *channel_notes(rows, inexact, spec),
            *infinite_notes(rows, shards),
            *freq_notes(summary, rows.time, row_start, ids),
        ]
        if known_statics is not None:
            statics, unmatched = matched(ids, known_statics)
            remarks += unmatched
        remarks += source_notes(source, parsed, spec, known_statics.seen if known_statics is not None else ())
        schema = Schema(
            uuid=str(uuid.uuid4()),
            version=site.version,
            n_rows=int(row_start[-1]),
            n_places=first_place + int(row_start[-1]),
            n_series=len(ids),
            chunk_rows=rows.chunk_rows,
            shard_rows=rows.shard_rows,
            channels=rows.channels,
            time=replace(rows.time, rule=summary.rule),
            id_name=id or "",
            committed=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        counts = RowCounts(
            n_filled=schema.n_rows - n_stored,
            n_quarantined=len(bad) * max(len(spec.series), 1),
            n_duplicates=n_parsed - n_stored,
            quarantine=set_aside(site.root, target, bad, site.version),
            n_inexact=tuple(inexact),
        )
        receipt = write_receipt(str(target), sizes, schema, summary, shards, counts, trials, remarks)
        kept = receipt.lasting()
        once = {"encoding": encoding, "dtype": dtype, "codec": codec, "fill_gaps": fill_gaps}
        table = {**record_of(source), **options.to_json(), **once}
        site.scratch.clear()
        index = index_of(ids, row_start, summary, statics, first_place)
        records = [record for shard in shards for record in shard.records]
        document = {"action": "ingest", "receipt": kept, "table": table, "n_dropped": counts.n_duplicates}
        document["next_shard"] = rows.first_shard + len(plans)
        check_unchanged(files)
        commit_version(site.root, schema, rows, index, summary.moments, records, ledger, document)
        clock.lap("commit")
    return replace(receipt, seconds={**clock.laps, "total": round(sum(clock.laps.values()), 3)})
