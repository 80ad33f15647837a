"""THE main path: files in, one committed version of a store out.

Reads like the design: plan, parse, order, write, commit. This is the one module that puts work on Dask.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from zstore.format.codecs import AUTO, check_codec
from zstore.format.layout import CHUNK_ROWS, SHARD_ROWS, RowGrid, n_shards
from zstore.format.schema import Schema
from zstore.storage.urls import open_storage
from zstore.writing.blocks import number_rows, reduce_blocks, rows_before
from zstore.writing.clock import Clock
from zstore.writing.duplicates import without_duplicates
from zstore.writing.encode_plan import asked_rule, rows_spec
from zstore.writing.fan_in import limit_fan_in
from zstore.writing.gaps import fill_skipped
from zstore.writing.ledger import read_digests
from zstore.writing.notes import freq_notes, matched, row_notes
from zstore.writing.parse import BLOCK_COPIES, Parsed, duplicate_error, parse
from zstore.writing.pipeline import Ordered, Version, Written, commit, write
from zstore.writing.plan import MOST_BAD, Planned, Reading, check_grid, check_most_bad, plan, plan_text, refuse_empty
from zstore.writing.quarantine import set_aside
from zstore.writing.receipt import Receipt, RowCounts, write_receipt
from zstore.writing.scheduler import Progress, Scheduler
from zstore.writing.site import Site
from zstore.writing.sort import count_rows
from zstore.writing.sources.files import check_unchanged, expand, find
from zstore.writing.sources.ids import parts_of
from zstore.writing.sources.kinds import record_of, source_of
from zstore.writing.sources.options import MISSING, TableOptions, check_options
from zstore.writing.sweep import free_shard
from zstore.writing.target import building
from zstore.writing.version import index_of
from zstore.writing.words import refuse_numbers

logger = logging.getLogger(__name__)


def ingest(
    sources: str | Path | Sequence[str | Path],
    store: str | Path,
    *,
    time: str | Sequence[str] | None = None,
    id: str | Sequence[str] | None = None,  # noqa: A002  # the command's flag is --id
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
    timezone: str | None = None,
    layout: Literal["long", "wide", "series"] = "long",
    value_name: str = "value",
    id_from_path: str | None = None,
    delimiter: str | None = None,
    decimal: Literal[".", ","] = ".",
    encoding: str = "utf-8",
    missing: Sequence[str] = MISSING,
    thousands: str | None = None,
    percent: Sequence[str] = (),
    skip_lines: int = 0,
    comment: str | None = None,
    units_row: bool = False,
    skip_below_header: int = 0,
    no_header: bool = False,
    names: Sequence[str] = (),
    widths: Sequence[str | int] = (),
    on_bad_row: Literal["error", "quarantine"] = "error",
    max_bad_rows: float = MOST_BAD,
    on_duplicate: Literal["error", "first", "last"] = "error",
    on_empty_file: Literal["error", "skip"] = "error",
    overwrite: bool = False,
    storage_options: Mapping[str, str] | None = None,
    scratch: str | Path | None = None,
    codec: str | None = None,
    dtype: Literal["float32", "float64"] = "float32",
    chunk_rows: int = CHUNK_ROWS,
    shard_rows: int = SHARD_ROWS,
    blocksize: int | None = None,
    memory_limit: int | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    progress: Progress | None = None,
) -> Receipt:
    r"""Turn CSV, Parquet or Arrow files into a store sorted by (id, time), out of core.

    Parameters
    ----------
    sources
        Files or globs, with the same columns in any order, rows in any order; also ``s3://BUCKET/KEY``. CSV, plain,
        ``.gz`` or ``.zst``; or ``.parquet``, ``.arrow`` or ``.feather``, whose types say what columns hold: lists of
        numbers are channels ``COL.0``, ``COL.1`` …, and `delimiter`, `decimal`, `encoding`, `thousands` and `percent`
        are refused.
    store
        Folder to make, or ``s3://BUCKET/PREFIX``.
    time
        Column of times: ISO dates or dates and times, with or without offset from UTC, or whole numbers. Or two
        columns, a date and a clock, or three to six: year, month, day, hour, minute, second. None where rows just
        follow each other.
    id
        Column of series ids, kept as exact text; None when all rows are one series (its id is ``0``). Of several
        columns, ids are joined by ``/`` (``\\`` before each ``/`` and ``\\`` within); the parts are static attributes.
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
        Unit of times that are numbers since 1970, with a fraction or without: ``d``, ``h``, ``min``, ``s``, ``ms``,
        ``us`` or ``ns``; ``excel`` (``excel1904``) for serial days of spreadsheets; ``steps`` where they count steps.
        Needed only where numbers look like dates (20010131) or like epochs (978307200).
    timezone
        Zone such as ``Europe/Berlin`` whose clocks the times are of; they are stored as UTC. A time that its clocks
        show twice, or not at all, is a bad row.
    layout
        ``long``: a row per id and time. ``wide``: a row per time, a column per series. ``series``: a row per series,
        with its id and then its values, the first at `start`, `freq` apart; empty cells behind the last are no rows.
    value_name
        Name of the one channel of a table with a column or a row per series.
    id_from_path
        Regular expression; its first group in the path of each file is the id of that file's rows.
    delimiter
        Between fields; ``spaces`` where runs of spaces and tabs stand there; None to find it.
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
    skip_lines
        Lines before the header that are left out; blank lines and comments behind them are left out too.
    comment
        What lines begin with that are left out, such as ``#``; a line that begins otherwise is a record.
    units_row
        Whether a row of units stands below the header; `units` win over it.
    skip_below_header
        Further lines below the header, or the row of units, that are left out.
    no_header
        Whether files have no header, and `names` has the columns.
    names
        Names of all columns of files without a header.
    widths
        Characters of each column, where columns have widths; ``*`` as the last for the rest of the line.
    on_bad_row
        ``error`` refuses the first bad row; ``quarantine`` sets bad rows aside in ``STORE.quarantine.csv``.
    max_bad_rows
        Most rows that `on_bad_row` may set aside: a number of rows if it is an int, else a share of all rows, such as
        0.01. With more, or without a row left, nothing is stored.
    on_duplicate
        Which row stays when an id has several at one time, in the order of the files as named and the rows in them.
    on_empty_file
        ``error`` refuses a file without a byte; ``skip`` leaves it out if there are others.
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
    chunk_rows
        Rows that are encoded together, and decoded together when one of them is read: a power of two, at most 2^20.
        Fewer make reading a short range faster and the store larger. Appends and compactions keep them.
    shard_rows
        Rows of each object of a channel, which one task writes: a power of two, at least `chunk_rows`, at most 2^28,
        with at most 2^16 chunks. More make fewer objects, and take more memory: a thread holds the rows of a shard.
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
    UsageError
        Options that do not fit, or that no store can have.
    """
    clock = Clock()
    check_most_bad(max_bad_rows)
    grid = RowGrid(chunk_rows, shard_rows)
    check_grid(grid)
    if codec not in (None, AUTO):
        check_codec(str(codec))
    files = expand(
        [sources] if isinstance(sources, (str, Path)) else list(sources), storage_options, on_empty_file == "skip"
    )
    target = open_storage(store, storage_options)
    aside = None if scratch is None else open_storage(scratch, storage_options)
    options = TableOptions(
        id=id if id is None or isinstance(id, str) else ",".join(id) or None,
        id_columns=tuple(id) if id and not isinstance(id, str) and len(id) > 1 else (),
        time=(time,) if isinstance(time, str) else tuple(time or ()),
        time_format=time_format,
        time_unit=time_unit,
        timezone=timezone,
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
        skip_lines=skip_lines,
        comment=comment,
        units_row=units_row,
        skip_below_header=skip_below_header,
        no_header=no_header,
        names=tuple(names),
        widths=tuple(map(str, widths)),
        largest=float(np.finfo(dtype).max),
    )
    check_options(options)
    named = None if static is None else find(static, "--static", storage_options)
    source = source_of(files)
    source.check(options, encoding)
    reading = Reading(files, source, options, encoding, dtype, grid, on_bad_row, max_bad_rows, blocksize, named)
    with (
        Scheduler(workers, scheduler, progress, memory_limit, BLOCK_COPIES * (blocksize or 0)) as runner,
        building(target, "overwrite" if overwrite else "new", aside, runner.shared) as site,
    ):
        logger.info("ingest %s of %d files into %s", f"{sum(reading.sizes.values()):,} bytes", len(files), store)
        ledger = read_digests(files, target, options.id_from_path, runner)
        table = {**record_of(source), **options.to_json(), "encoding": encoding, "dtype": dtype}
        sized = [blocksize, *runner.shares]
        read_as = {**table, "on_bad_row": on_bad_row, "grid": asdict(grid)}
        text = plan_text(ledger, site.version, reading=read_as, sized=sized)
        planned = plan(reading, text, site, runner)
        clock.lap("plan")
        parsed = parse(planned, site, runner)
        if not source.typed:
            refuse_numbers(source, parsed, planned.spec, options.categories)
        clock.lap("parse")
        ids, ordered, n_parsed, n_kept = _order(planned, parsed, on_duplicate, fill_gaps, site, runner)
        axis = ordered.rows.time
        refuse = partial(duplicate_error, ids=ids, planned=planned, parsed=parsed, axis=axis)
        written = write(ordered, runner, refuse, codec)
        clock.lap("write")
        statics, unmatched = matched(ids, planned.statics) if planned.statics else ((), [])
        statics = (*parts_of(ids, options.id_columns), *statics)
        index = index_of(ids, written.row_start, written.summary, statics, written.first_place)
        schema = _schema(written, site, len(ids), options.id or "")
        counts = RowCounts(
            n_filled=written.n_rows - n_kept,
            n_quarantined=len(parsed.bad) * max(len(planned.spec.series), 1),
            n_duplicates=n_parsed - n_kept,
            quarantine=set_aside(site.root, target, parsed.bad, site.version),
            n_inexact=parsed.n_inexact(len(schema.channels)),
        )
        remarks = row_notes(planned, parsed, written, freq_notes(schema.time.rule, index), unmatched)
        receipt = write_receipt(str(target), reading.sizes, schema, written, counts, remarks)
        notes = {
            "action": "ingest",
            "receipt": receipt.lasting(),
            "table": {**table, "codec": codec, "fill_gaps": fill_gaps},
            "n_dropped": counts.n_duplicates,
            "next_shard": written.next_shard,
        }
        check_unchanged(files)
        commit(site, Version(schema, index, written.summary.moments, written.records, ledger, notes), written.rows)
        clock.lap("commit")
    return clock.on(receipt)


def _order(
    planned: Planned,
    parsed: Parsed,
    on_duplicate: Literal["error", "first", "last"],
    fill_gaps: bool,
    site: Site,
    runner: Scheduler,
) -> tuple[Any, Ordered, int, int]:
    """All ids, the rows in their order, and how many were parsed, and stay once duplicates are dropped."""
    spec, reading, freq = planned.spec, planned.reading, planned.reading.options.freq
    ids, blocks = reduce_blocks(parsed.reports)
    n_series = len(ids)
    if spec.time.kind == "rows":
        blocks = runner.map("number", partial(number_rows, time=spec.time), rows_before(n_series, blocks))
    n_parsed = int(count_rows(n_series, blocks)[-1])
    refuse_empty(n_parsed, len(parsed.bad), planned.files)
    rows = rows_spec(site, spec, parsed.reports, reading.dtype, reading.grid, freq)
    blocks, rows = limit_fan_in(n_series, blocks, rows, site.scratch, runner)
    if on_duplicate != "error":
        blocks = without_duplicates(n_series, blocks, on_duplicate, rows.shard_rows, runner)
    n_kept = int(count_rows(n_series, blocks)[-1])
    rule = spec.time.rule if spec.time.kind in ("rows", "columns") else asked_rule(freq, rows.time)
    if fill_gaps and n_kept:
        rule, fillers = fill_skipped(ids, blocks, rule, rows, site.scratch, runner)
        blocks += fillers
        rows = replace(rows, bringers=rows.bringers + (rows.missing,) * len(fillers))
    row_start = count_rows(n_series, blocks)
    if site.version > 1:  # in the place of a store that stays until this one is committed
        rows = replace(rows, first_shard=free_shard(site.root, n_shards(int(row_start[-1]), rows.shard_rows)))
    return ids, Ordered(blocks, row_start, rows, rule), n_parsed, n_kept


def _schema(written: Written, site: Site, n_series: int, id_name: str) -> Schema:
    rows = written.rows
    return Schema(
        uuid=str(uuid.uuid4()),
        version=site.version,
        n_rows=written.n_rows,
        n_places=written.first_place + written.n_rows,
        n_series=n_series,
        chunk_rows=rows.chunk_rows,
        shard_rows=rows.shard_rows,
        channels=rows.channels,
        time=replace(rows.time, rule=written.summary.rule),
        id_name=id_name,
        committed="",
    )
