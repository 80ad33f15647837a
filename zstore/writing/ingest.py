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

from zstore.format.codecs import AUTO, check_codec
from zstore.format.layout import CHUNK_ROWS, SHARD_ROWS, RowGrid
from zstore.format.schema import Schema
from zstore.writing.anew import OrderedAnew, order_anew
from zstore.writing.arguments import Request
from zstore.writing.attempts import write_good
from zstore.writing.clock import Clock
from zstore.writing.cluster import ClusterClient
from zstore.writing.duplicates import OnDuplicate
from zstore.writing.ledger import read_digests, read_states
from zstore.writing.listing import Inventory
from zstore.writing.notes import all_matched, freq_notes, row_notes
from zstore.writing.parse import Parsed, row_error
from zstore.writing.pipeline import Version, Written, commit, write
from zstore.writing.plan import MOST_BAD, check_grid, described, plan, plan_text
from zstore.writing.quarantine import set_aside
from zstore.writing.receipt import Receipt, row_counts, write_receipt
from zstore.writing.scheduler import Progress
from zstore.writing.site import Site
from zstore.writing.source_notes import SourceNotes
from zstore.writing.sources.files import check_unchanged
from zstore.writing.sources.ids import parts_of
from zstore.writing.sources.kinds import Named, record_of, source_of
from zstore.writing.sources.named_files.options import FileOptions
from zstore.writing.sources.options import MISSING, TableOptions, check_options
from zstore.writing.sources.typed.given import ArrowStream
from zstore.writing.target import building
from zstore.writing.updates import refuse_fields
from zstore.writing.version import index_of
from zstore.writing.words import refuse_numbers

logger = logging.getLogger(__name__)


def ingest(
    sources: Named | Sequence[Named],
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
    static: str | Path | ArrowStream | None = None,
    file: Mapping[str, str] | None = None,
    file_root: str | Path | None = None,
    file_limit: int | str | None = None,
    file_position: Mapping[str, str] | None = None,
    file_member: Mapping[str, str] | None = None,
    file_chain: Mapping[str, str | Path | Mapping[str, Any]] | None = None,
    keep_encoded: Sequence[str] = (),
    freq: str | None = None,
    start: str | None = None,
    fill_gaps: bool = False,
    time_format: str | None = None,
    time_unit: str | None = None,
    timezone: str | None = None,
    layout: Literal["long", "wide", "series", "calendar"] = TableOptions.layout,
    value_name: str = TableOptions.value_name,
    id_from_path: str | None = None,
    mapping: str | Path | dict[str, Any] | None = None,
    delimiter: str | None = None,
    decimal: Literal[".", ","] = TableOptions.decimal,
    encoding: str = "utf-8",
    missing: Sequence[str] = MISSING,
    thousands: str | None = None,
    percent: Sequence[str] = (),
    censored: Sequence[str] = (),
    skip_lines: int = 0,
    comment: str | None = None,
    units_row: bool = False,
    skip_below_header: int = 0,
    no_header: bool = False,
    names: Sequence[str] = (),
    widths: Sequence[str | int] = (),
    on_bad_row: Literal["error", "quarantine"] = "error",
    max_bad_rows: float | str = MOST_BAD,
    on_duplicate: OnDuplicate = "error",
    on_empty_file: Literal["error", "skip"] = "error",
    overwrite: bool = False,
    storage_options: Mapping[str, str] | None = None,
    scratch: str | Path | None = None,
    codec: str | None = None,
    dtype: Literal["float32", "float64"] = "float32",
    chunk_rows: int = CHUNK_ROWS,
    shard_rows: int = SHARD_ROWS,
    blocksize: int | str | None = None,
    memory_limit: int | str | None = None,
    workers: int | None = None,
    scheduler: str | ClusterClient | None = None,
    progress: Progress | None = None,
) -> Receipt:
    r"""Turn CSV, Parquet, Arrow or HDF5 files into a store sorted by (id, time), out of core.

    Parameters
    ----------
    sources
        Files of CSV (also ``.gz``, ``.zst``), Parquet, Arrow or HDF5, globs of them, or ``s3://…``. All with the same
        columns in any order, rows in any order. The types of ``.parquet``, ``.arrow`` and ``.feather`` say what columns
        hold: lists of numbers are channels ``COL.0``, ``COL.1`` …, and `delimiter`, `decimal`, `encoding`, `thousands`,
        `percent` and `censored` are refused. HDF5 needs a `mapping`. A folder of LeRobot says all of that itself, and
        what ids and times are. Or one or several :class:`zstore.Query`, whose database says what columns hold. Or
        tables: data frames of pandas or polars, tables and readers of pyarrow, or anything that is an Arrow stream; the
        levels of a pandas index that have names are columns.
    store
        Folder to make, or ``s3://BUCKET/PREFIX``, ``gs://BUCKET/PREFIX``, ``az://CONTAINER/PREFIX``.
    time
        Column of times, ISO or whole numbers; or several: a date and a clock, or year, month, day and so on. ISO dates
        or dates and times may have an offset from UTC. Of parts there are three to six: year, month, day, hour,
        minute, second. None where rows just follow each other.
    id
        Column of ids, kept as exact text; or several; None for one series. That one has the id ``0``. Of several
        columns, ids are joined by ``/`` (``\\`` before each ``/`` and ``\\`` within); the parts are static attributes.
    channels
        Columns to keep; None for all but `id` and `time`. In this order. In a wide table of series, the series.
        Columns of text become categories.
    leave_out
        Columns not to keep.
    categories
        Columns of words that may look like numbers. Columns without any number are found.
    allow_new_channels
        Whether files may have columns that the first has not: missing elsewhere. In a wide table of series, they are
        series without rows in the other files.
    rename
        New names of columns.
    units
        Units of columns, to record.
    static
        Table of static attributes, one row per id. A file of CSV, Parquet or Arrow, or a data frame; without `id`, its
        first column has the ids. A column of types says what it holds: numbers, or words, never one for the other.
    file
        Fields whose values are files: for each, the column with their paths. npy, npz, PNG, JPEG, NIfTI, NRRD, DICOM,
        or a folder of a DICOM series; with the extras ``image`` and ``volume``, and ``dicom`` for compressed ones. An
        empty cell is a row without a value.
    file_root
        Folder that the paths of `file` start from, and never lead out of.
    file_limit
        Most bytes of a value of `file`, such as ``2GiB``; None for 1GiB.
    file_position
        Fields of `file` that are rows of arrays: for each, the column with the number of the row, from 0 on.
    file_member
        Fields of `file` in ``.npz`` archives: for each, the name of the array. Or it stands in the path, as in
        ``scans.npz/train``.
    file_chain
        What is done to the volumes of a field of `file`: a YAML file, or ``merlin``. A mapping with ``orientation``,
        ``spacing``, ``interpolation``, ``window``, ``shape``, ``fill``, ``dtype``; :func:`zstore.original_grid` goes
        the way back.
    keep_encoded
        Fields of `file` whose images stay the bytes of their PNG or JPEG.
    freq
        Time step rule, from row to row: ``15min``, ``1D``; ``MS ME QS QE YS YE`` for months, quarters, years (``2MS``,
        ``YE-JUN``); ``W-WED``; ``B`` for weekdays; ``rows`` to count rows; None for the one that most rows follow. With
        ``rows`` each row is one step after the one before, whatever their times.
    start
        Time of the first row of each series, where there is no column of times; `freq` follows.
    fill_gaps
        Whether to add a row of missing values at each step that a series skips. Between its first and last time.
    time_format
        How times are written, as in ``'%d.%m.%Y %H:%M'``. As `strptime` has it.
    time_unit
        Times are numbers since 1970: ``d``, ``h``, ``min``, ``s``, ``ms``, ``us``, ``ns``; or ``excel`` for serial
        days, ``steps`` where they count steps. With a fraction or without; ``excel1904`` counts from 1904. Needed only
        where numbers look like dates (20010131) or like epochs (978307200).
    timezone
        Zone whose clocks the times are of, as ``Europe/Berlin``; they are stored as UTC. A time that its clocks show
        twice, or not at all, is a bad row.
    layout
        ``long``: a row per id and time; ``wide``: a column per series; ``series``: a row per series, with `freq`. Of
        ``wide`` each row has a time. Of ``series`` it has an id and then the values, the first at `start`, `freq`
        apart; empty cells behind the last are no rows. ``calendar``: a row per year and a column per month, or a row
        per day and a column per hour; `time` is the year or the day, and columns are named as months (``JAN``, ``1``)
        or as clocks (``00:00``, ``H0``).
    value_name
        Channel of a table with a column or a row per series.
    id_from_path
        Regular expression whose first group, in the path of a file, is the id of all its rows.
    mapping
        Of HDF5: a YAML or JSON file that says what is what, or ``emg2pose``, ``emg2qwerty``, ``aloha``, ``robomimic``.
        It says what ids and times are, too. ``zstore inspect FILE.h5`` shows one to start from.
    delimiter
        Between fields; ``spaces`` for runs of spaces and tabs; None for the one that is found.
    decimal
        Decimal point.
    encoding
        Of the files.
    missing
        What means missing among numbers; or ``COL=TEXT``, in one column, words too. ``TEXT``: in columns of numbers,
        where numbers are compared as numbers (``-999`` is ``-999.00`` too), and in times, which then are bad rows.
        ``COL=TEXT``: in that column, whether of numbers or words, rows or static attributes. Words are missing only
        where empty or where so named. Texts take the place of the usual ones; those of a column are added. Never
        applied to ids.
    thousands
        Between groups of three digits, as ``,`` in ``1,234``. A space stands for every kind of space.
    percent
        Columns of numbers with a ``%`` behind each, which is dropped.
    censored
        Columns of numbers of which some are limits, as in ``<0.5`` or ``>200``. The limit is stored, and a further
        channel ``COL.censored`` has -1 where the value is below it, 1 where it is above, and 0 elsewhere.
    skip_lines
        Lines before the header to leave out. Blank lines and comments behind them are left out too.
    comment
        Lines that begin with this are left out, as in ``'#'``. A line that begins otherwise is a record.
    units_row
        Whether a row of units stands below the header, to record; `units` win over it.
    skip_below_header
        Further lines below the header to leave out, such as a row of types. Below the row of units, if there is one.
    no_header
        Whether the files have no header; `names` has the columns.
    names
        With `no_header`: names of all columns.
    widths
        Characters of each column, where columns have widths; ``*`` as the last for the rest of the line.
    on_bad_row
        ``error`` refuses the first bad row; ``quarantine`` sets bad rows aside in ``STORE.quarantine.csv``.
    max_bad_rows
        Most bad rows to set aside: a number, or a share such as ``1%`` or ``0.01``. An int is a number of rows, a float
        a share of all. With more, or without a row left, nothing is stored.
    on_duplicate
        What becomes of several rows of an id at one time, in the order of the files as named and the rows in them.
        ``error`` refuses them; ``first`` or ``last`` keeps one as it is; ``update`` makes one row of them: each cell
        has the last value that is not missing. Not for rows with images or other fields: those stay as a whole.
    on_empty_file
        ``error`` refuses a file without a byte; ``skip`` leaves it out if there are others.
    overwrite
        Whether to replace an existing store once the new one is complete.
    storage_options
        For ``s3://``, ``gs://`` and ``az://``, as ``region=…``; secrets are better set as ``AWS_SECRET_ACCESS_KEY`` and
        the like. What obstore's ``S3Config``, ``GCSConfig`` or ``AzureConfig`` takes, beside the usual environment
        variables.
    scratch
        Folder or ``s3://…`` for what is needed meanwhile; None for one in the store. Some 1.5 times the bytes of the
        store; where that is in a bucket, None for a temporary folder.
    codec
        Codec of every channel, such as ``zstd-3``; ``auto`` tries some on a sample of each; None for the usual ones.
        Those are one for integers, and one for floats. With ``blosc-lz4-5-bitshuffle`` and the like, Blosc's.
    dtype
        Float type of channels.
    chunk_rows
        Rows decoded together: fewer read short ranges faster and take more space. A power of two, at most 2^20. Appends
        and compactions keep it.
    shard_rows
        Rows of an object: more make fewer objects, and take more memory. One task writes the rows of a shard, and a
        thread holds them. A power of two, at least `chunk_rows`, at most 2^28, with at most 2^16 chunks.
    blocksize
        Bytes of a file parsed at once, such as ``16MiB``; None for what `memory_limit` allows.
    memory_limit
        Memory to stay under, such as ``2GiB``; None for enough for all threads, but at most half of what is there. At
        least 256 MiB. On a cluster it is that of a task, and a worker does as many at once as it has memory for. Else a
        thread takes 256 MiB, or 8 times `blocksize` if that is more, and there are only as many threads as fit. What is
        there is the memory of the machine, or of its container.
    workers
        Threads, or processes where `scheduler` is ``local``; None for one per core.
    scheduler
        A Dask cluster whose workers see the same files, as ``tcp://host:8786``; ``local`` starts one of `workers`
        processes here. Or a ``dask.distributed.Client``, of whichever cluster; it stays open. Workers may come and go,
        and may differ in memory and threads; all have this release of zstore.
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
    arguments, clock = dict(locals()), Clock()
    request, options, grid = Request.of(ingest, arguments), TableOptions.of(arguments), RowGrid(chunk_rows, shard_rows)
    check_grid(grid)
    check_options(options)
    named_files = FileOptions.of(arguments)
    named_files.check_table(options)
    fields = named_files.fields(options.units)
    if codec not in (None, AUTO):
        check_codec(str(codec))
    source = source_of(request.files)
    source.check(options, encoding)
    options = source.usual(options)
    with (
        request.runner() as runner,
        building(request.target, "overwrite" if overwrite else "new", request.scratch, runner.shared, True) as site,
    ):
        files = source.taken(request.files, site.scratch, runner.shared)
        reading = request.reading(source, options, encoding, dtype, grid, files, fields)
        logger.info("ingest %s of %d files into %s", f"{sum(reading.sizes.values()):,} bytes", len(files), store)
        table = {
            **record_of(source),
            **options.to_json(),
            **named_files.to_json(),
            "encoding": encoding,
            "dtype": dtype,
        }
        read_as = {**table, "on_bad_row": on_bad_row, "grid": asdict(grid), "fields": described(fields)}
        text = plan_text(
            read_states(files, request.target), site.version, reading=read_as, sized=[request.blocksize, *runner.shares]
        )
        planned = plan(reading, text, site, runner)
        refuse_fields(on_duplicate, planned.spec.fields)
        clock.lap("plan")

        def attempt(parsed: Parsed) -> tuple[OrderedAnew, Written]:
            refuse_numbers(source, parsed, planned.spec, options.categories)
            clock.lap("parse")
            new = order_anew(planned, parsed, on_duplicate, fill_gaps, site, runner)
            refuse = partial(row_error, ids=new.ids, planned=planned, parsed=parsed, axis=new.ordered.rows.time)
            return new, write(new.ordered, runner, refuse, codec)

        parsed, (ids, _, n_parsed, n_kept, n_updated), written = write_good(planned, site, runner, attempt)
        ledger = read_digests(files, request.target, options.id_from_path, runner, parsed.pieces)
        clock.lap("write")
        statics, unmatched = all_matched(ids, planned)
        statics = (*parts_of(ids, options.id_columns), *statics)
        index = index_of(ids, written.row_start, written.summary, statics, written.first_place)
        schema = _schema(written, site, len(ids), options.id or "")
        quarantine = set_aside(site.root, request.target, parsed.bad, site.version)
        counts = row_counts(planned, parsed, written, written.n_rows - n_kept, n_parsed - n_kept, quarantine)
        remarks = row_notes(planned, parsed, written, freq_notes(schema.time.rule, index), unmatched)
        receipt = write_receipt(str(request.target), reading.sizes, schema, written, counts, remarks)
        notes = {
            "action": "ingest",
            "receipt": receipt.lasting(),
            "table": {**table, **source.state(planned.files), "codec": codec, "fill_gaps": fill_gaps},
            "n_dropped": counts.n_duplicates,
            **({"n_updated": n_updated} if n_updated else {}),
            "next_shard": written.next_shard,
        }
        check_unchanged(files)
        version = Version(schema, index, written.summary.moments, Inventory(written.records), ledger, notes)
        commit(site, version, written.rows)
        SourceNotes.of(request.target, options.id_from_path).with_files(files, ledger, clock.began_ns).write()
        clock.lap("commit")
    return clock.on(receipt)


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
        fields=written.fields,
    )
