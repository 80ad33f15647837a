"""THE main path: CSV files in, one committed version of a store out.

Reads like the design: plan, parse, reduce, write, commit. This is the one module that puts work on Dask.
"""

from __future__ import annotations

import logging
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import repeat
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np
import pyarrow.compute as pc

from zstore.errors import SourceError, UsageError
from zstore.format.codecs import AUTO, check_codec, default_codec, smallest
from zstore.format.index import StaticAttribute
from zstore.format.layout import CHUNK_ROWS, SHARD_ROWS, n_shards, safe_names, shard_bounds
from zstore.format.packing import Packing, choose
from zstore.format.schema import Channel, Schema, TimeAxis
from zstore.writing.blocks import BlockReport, number_rows, parse_block, reduce_blocks, rows_before, union
from zstore.writing.duplicates import drop_rows, find_extra
from zstore.writing.gaps import MOST_ROWS, OffGridError, TooManyRowsError, count_off_grid, fill, find_steps
from zstore.writing.receipt import Receipt, RowCounts, write_receipt
from zstore.writing.scheduler import Progress, Scheduler
from zstore.writing.shards import Gathered, RowsSpec, stored_breaks, write_shard
from zstore.writing.sort import (
    Border,
    DuplicateTimeError,
    ShardPlan,
    SortedBlock,
    count_rows,
    find_border,
)
from zstore.writing.sources import csv as source_csv
from zstore.writing.sources.arrow import as_numpy
from zstore.writing.sources.sniff import MISSING, TableOptions, open_source, sniff
from zstore.writing.sources.table import Block, Source, TableSpec
from zstore.writing.statics import match_statics, read_statics
from zstore.writing.steps import usual_step_of
from zstore.writing.target import building, set_aside
from zstore.writing.version import Summary, commit_version, index_of, summarise, usual_freq

logger = logging.getLogger(__name__)

_SAMPLE_CHUNKS = 2
_MIN_BLOCK, _MAX_BLOCK = 1 << 20, 1 << 24
_BLOCKS = 24  # fewer leave threads idle at the end of a phase
_BLOCK_COPIES = 8  # a block in memory: its bytes, Arrow's columns, float64, sorted and packed copies
_THREAD_BYTES = 1 << 28
_SHOWN_IDS = 3


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
    on_bad_row: Literal["error", "quarantine"] = "error",
    on_duplicate: Literal["error", "first", "last"] = "error",
    overwrite: bool = False,
    codec: str | None = None,
    dtype: Literal["float32", "float64"] = "float32",
    blocksize: int | None = None,
    memory_limit: int = 1 << 30,
    workers: int | None = None,
    scheduler: str | None = None,
    progress: Progress | None = None,
) -> Receipt:
    """Turn CSV files into a store sorted by (id, time), out of core.

    Parameters
    ----------
    sources
        Files or globs, plain, ``.gz`` or ``.zst``, with the same columns in any order, rows in any order.
    store
        Folder to make.
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
        Step between rows, such as ``1D`` or ``15min``; None to find the usual one.
    start
        Time of the first row of each series, where there is no time column.
    fill_gaps
        Whether to add a row of missing values at each step that a series skips between its first and last time.
    time_format
        How times are written, as `strptime` has it.
    time_unit
        Unit of times that are numbers since 1970: ``d``, ``h``, ``min``, ``s``, ``ms``, ``us`` or ``ns``.
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
        Texts that mean a missing value. Never applied to ids.
    on_bad_row
        ``error`` refuses the first bad row; ``quarantine`` sets bad rows aside in ``STORE.quarantine.csv``.
    on_duplicate
        Which row stays when an id has several at one time, in the order of the files as named and the rows in them.
    overwrite
        Replace an existing store.
    codec
        Name of a codec for every channel, such as ``zstd-3`` or ``blosc-lz4-5-bitshuffle``; ``auto`` tries several on
        a sample of each channel; None for the usual one of integers, and of floats.
    dtype
        Float type of channels.
    blocksize
        Bytes of a source parsed at once; None to derive it from `memory_limit`.
    memory_limit
        Bytes of memory to stay under, at least 256 MiB a thread.
    workers
        Threads; None for one per core.
    scheduler
        Address of a Dask cluster that shares this file system.
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
    clock = _Clock()
    if codec not in (None, AUTO):
        check_codec(str(codec))
    names = [sources] if isinstance(sources, (str, Path)) else list(sources)
    paths = source_csv.expand(names)
    runner = Scheduler(workers, scheduler, progress)
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
        largest=float(np.finfo(dtype).max),
    )
    with building(Path(store), "overwrite" if overwrite else "new") as (root, scratch):
        sizes = {str(path): path.stat().st_size for path in paths}
        logger.info("ingest %s of %d files into %s", f"{sum(sizes.values()):,} bytes", len(paths), store)
        plain = _inflate(paths, scratch, encoding, runner)
        opened, spec = _open_all(paths, plain, options)
        if spec.time.kind == "rows" and on_bad_row == "quarantine":
            raise UsageError(
                "quarantine without a time column",
                expected="a time for the rows that stay",
                fix="name the time column with --time, or --on-bad-row error",
            )
        known_statics = read_statics(Path(static), id) if static is not None else None
        clock.lap("plan")

        parse = partial(parse_block, spec=spec, dtype=dtype, scratch=scratch, keep_bad=on_bad_row == "quarantine")
        n_bytes = sum(source.path.stat().st_size for source in opened)
        size = blocksize or _blocksize(memory_limit, runner.workers, n_bytes)
        blocks, reports = _parse_all(opened, size, parse, runner)
        clock.lap("parse")

        ids, sorted_blocks = reduce_blocks(reports)
        if spec.time.kind == "rows":
            runner.map("number", partial(number_rows, time=spec.time), rows_before(len(ids), sorted_blocks))
        n_parsed = int(count_rows(len(ids), sorted_blocks)[-1])
        if on_duplicate != "error":
            sorted_blocks = _without_duplicates(len(ids), sorted_blocks, on_duplicate, runner)
        rows = _rows_spec(root, spec, reports, dtype)
        n_stored = int(count_rows(len(ids), sorted_blocks)[-1])
        if fill_gaps and n_stored:
            given = _given_freq(freq, rows.time)
            fillers = _fill_gaps(ids, sorted_blocks, given, rows, scratch, runner)
            sorted_blocks += fillers
            rows = replace(rows, forms=rows.forms + ((0,) * len(rows.channels),) * len(fillers))
        row_start = count_rows(len(ids), sorted_blocks)
        try:
            plans = _plan_shards(row_start, sorted_blocks)
            rows, trials = _choose_codecs(rows, row_start, sorted_blocks, codec)
            n_rows = [plan.stop - plan.start for plan in plans]
            shards = runner.map("write", partial(write_shard, blocks=sorted_blocks, spec=rows), plans, n_rows, "rows")
        except DuplicateTimeError as error:
            raise _duplicate_error(error, ids, blocks, spec, rows.time) from None
        clock.lap("write")

        step = _given_freq(freq, rows.time) or usual_freq(shards)
        dense = [plan for plan, shard in zip(plans, shards, strict=True) if step and shard.steps.runs is None]
        reread = runner.map("gaps", partial(stored_breaks, spec=rows, row_start=row_start, freq=step or 0), dense)
        summary = summarise(shards, row_start, len(rows.channels), step, reread)
        statics: tuple[StaticAttribute, ...] = ()
        inexact = [sum(report.packed[n].n_inexact for report in reports) for n in range(len(rows.channels))]
        remarks = [*_channel_notes(rows, inexact), *_freq_notes(summary, rows.time, row_start, ids)]
        if known_statics is not None:
            statics, n_without, n_unused = match_statics(ids, *known_statics)
            remarks += [f"{n_without} series have no static attributes"] if n_without else []
            remarks += [f"{n_unused} ids of {static} are not in the rows"] if n_unused else []
        bad = [row for report in reports for row in report.bad]
        aside = set_aside(Path(store), bad) if bad else None
        schema = Schema(
            uuid=str(uuid.uuid4()),
            version=1,
            n_rows=int(row_start[-1]),
            n_places=int(row_start[-1]),
            n_series=len(ids),
            chunk_rows=rows.chunk_rows,
            shard_rows=rows.shard_rows,
            channels=rows.channels,
            time=replace(rows.time, freq=summary.freq),
            id_name=id or "",
            committed=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        counts = RowCounts(
            n_filled=schema.n_rows - n_stored,
            n_quarantined=len(bad) * max(len(spec.series), 1),
            n_duplicates=n_parsed - n_stored,
            quarantine=aside,
            n_inexact=tuple(inexact),
        )
        receipt = write_receipt(Path(store), sizes, schema, summary, shards, counts, trials, remarks)
        kept = receipt.lasting()
        table = {**options.to_json(), "encoding": encoding}
        shutil.rmtree(scratch)
        index = index_of(ids, row_start, summary, statics)
        records = [record for shard in shards for record in shard.records]
        notes = {"action": "ingest", "receipt": kept, "table": table, "ledger": []}
        commit_version(root, schema, rows, index, summary.moments, records, notes)
        clock.lap("commit")
    return replace(receipt, seconds={**clock.laps, "total": round(sum(clock.laps.values()), 3)})


class _Clock:
    def __init__(self) -> None:
        self._last = perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, phase: str) -> None:
        now = perf_counter()
        self.laps[phase] = round(now - self._last, 3)
        logger.info("%s took %.1f s", phase, now - self._last)
        self._last = now


def _blocksize(memory_limit: int, workers: int, n_bytes: int) -> int:
    share = max(memory_limit // workers, _THREAD_BYTES) // _BLOCK_COPIES
    return max(min(share, n_bytes // _BLOCKS, _MAX_BLOCK), _MIN_BLOCK)


def _inflate(paths: Sequence[Path], scratch: Path, encoding: str, runner: Scheduler) -> list[Path]:
    """Where the plain UTF-8 bytes of each file lie."""
    plain = list(paths)
    tasks = [(n, path) for n, path in enumerate(paths) if not source_csv.is_plain(path, encoding)]
    sizes = [path.stat().st_size for _, path in tasks]
    made = runner.map("inflate", partial(_plain, scratch=scratch, encoding=encoding), tasks, sizes, "bytes")
    for (number, _), path in zip(tasks, made, strict=True):
        plain[number] = path
    return plain


def _plain(task: tuple[int, Path], scratch: Path, encoding: str) -> Path:
    number, path = task
    return source_csv.plain_utf8(path, scratch / f"{number}.csv", encoding)


def _open_all(paths: Sequence[Path], plain: Sequence[Path], options: TableOptions) -> tuple[list[Source], TableSpec]:
    first, delimiter = open_source(paths[0], plain[0], options.delimiter, options.id_from_path)
    rest = [open_source(n, p, delimiter, options.id_from_path)[0] for n, p in zip(paths[1:], plain[1:], strict=True)]
    sources = [first, *rest]
    return sources, sniff(sources, delimiter, options)


def _parse_all(
    sources: Sequence[Source], blocksize: int, parse: partial[BlockReport], runner: Scheduler
) -> tuple[list[Block], list[BlockReport]]:
    """Cut the sources into blocks and parse them.

    Where a record ends depends on the quotes before it. Few files have any, so blocks are cut as if there were
    none; if one turns up (or a block cannot be parsed), quotes are counted and everything is cut and parsed anew.
    """
    ranges = [source_csv.nominal_ranges(source, blocksize) for source in sources]
    if not any(source.quoted for source in sources):
        blocks = _cut(sources, ranges, None)
        try:
            return blocks, _parse_blocks(blocks, partial(parse, quotes_counted=False), runner)
        except (source_csv.UncountedQuotesError, SourceError) as error:
            failed = error
    else:
        failed = source_csv.UncountedQuotesError()
    tasks = [(source.path, *ab) for source, pairs in zip(sources, ranges, strict=True) for ab in pairs]
    quotes = runner.map("scan", _count_quotes, tasks, [stop - start for _, start, stop in tasks], "bytes")
    if not any(quotes):
        raise failed
    blocks = _cut(sources, ranges, quotes)
    return blocks, _parse_blocks(blocks, partial(parse, quotes_counted=True), runner)


def _parse_blocks(
    blocks: Sequence[Block], parse: Callable[[tuple[int, Block]], BlockReport], runner: Scheduler
) -> list[BlockReport]:
    sizes = [block.stop - block.start for block in blocks]
    return runner.map("parse", parse, list(enumerate(blocks)), sizes, "bytes")


def _cut(
    sources: Sequence[Source], ranges: Sequence[Sequence[tuple[int, int]]], quotes: Sequence[int] | None
) -> list[Block]:
    counts = iter(quotes) if quotes is not None else repeat(0)
    blocks: list[Block] = []
    for source, pairs in zip(sources, ranges, strict=True):
        blocks += source_csv.align(source, pairs, [next(counts) for _ in pairs])
    return blocks


def _count_quotes(task: tuple[Path, int, int]) -> int:
    return source_csv.count_quotes(*task)


def _without_duplicates(
    n_series: int, blocks: list[SortedBlock], keep: Literal["first", "last"], runner: Scheduler
) -> list[SortedBlock]:
    plans = _plan_shards(count_rows(n_series, blocks), blocks, unique=False)
    found = runner.map("duplicates", partial(find_extra, blocks=blocks, keep=keep), plans)
    extra: dict[int, list[Any]] = {}
    for number, rows in (pair for pairs in found for pair in pairs):
        extra.setdefault(number, []).append(rows)
    tasks = [(blocks[number], np.sort(np.concatenate(rows))) for number, rows in extra.items()]
    thinned = dict(zip(extra, runner.map("drop", drop_rows, tasks), strict=True))
    return [thinned.get(number, block) for number, block in enumerate(blocks)]


def _fill_gaps(
    ids: Any, blocks: list[SortedBlock], freq: int | None, rows: RowsSpec, scratch: Path, runner: Scheduler
) -> list[SortedBlock]:
    """Blocks of missing rows, one for each shard's worth of rows that skips any."""
    plans = _plan_shards(count_rows(len(ids), blocks), blocks, unique=False)
    if freq is None:
        freq = usual_step_of(runner.map("steps", partial(find_steps, blocks=blocks), plans))
    if not freq:
        raise SourceError(
            "gaps in irregular times cannot be filled",
            expected="a step that more than half of all rows have",
            fix="--freq STEP, or leave out --fill-gaps",
        )
    axis = replace(rows.time, freq=freq)
    n_off = np.zeros(len(ids), np.int64)
    for series, counts in runner.map("grid", partial(count_off_grid, blocks=blocks, freq=freq), plans):
        n_off[series] += counts
    irregular = np.flatnonzero(2 * n_off > np.diff(count_rows(len(ids), blocks)) - 1)
    try:
        n_channels = len(rows.channels)
        make = partial(fill, blocks=blocks, freq=freq, irregular=irregular, n_channels=n_channels, scratch=scratch)
        return [block for block in runner.map("fill", make, plans) if block is not None]
    except OffGridError as error:
        raise SourceError(
            f"time {axis.show(error.time)} of id {str(ids[error.series])!r} is off the grid",
            expected=f"times a multiple of {axis.show_freq()} after the first",
            fix="another --freq, or leave out --fill-gaps",
        ) from None
    except TooManyRowsError as error:
        raise SourceError(
            f"filling gaps would add {error.args[0]:,} rows to a stretch of {rows.shard_rows:,}",
            expected=f"at most {MOST_ROWS:,}",
            fix="a larger --freq, or leave out --fill-gaps",
        ) from None


def _rows_spec(root: Path, spec: TableSpec, reports: Sequence[BlockReport], dtype: str) -> RowsSpec:
    filled = [report for report in reports if report.spill.n_rows]
    variables = safe_names([channel.name for channel in spec.channels])
    channels: list[Channel] = []
    forms: list[list[Any]] = [[] for _ in reports]
    for n, (channel, variable) in enumerate(zip(spec.channels, variables, strict=True)):
        categories = None
        if channel.text:
            words = union([report.words[n] for report in reports])
            categories = tuple(words.to_pylist())
            packing = Packing("int16" if len(categories) < 1 << 15 else "int32", 0)
            for form, report in zip(forms, reports, strict=True):
                form.append(as_numpy(pc.index_in(report.words[n], value_set=words), "int32"))
        else:
            packing = choose([report.packed[n] for report in filled], dtype)
            for form, report in zip(forms, reports, strict=True):
                form.append(report.packed[n].decimals)
        channels.append(Channel(channel.name, variable, packing, dtype, channel.units, categories))
    axis = TimeAxis(spec.time.unit, zone="UTC" if spec.time.zone else None)
    return RowsSpec(root, tuple(channels), tuple(map(tuple, forms)), axis, CHUNK_ROWS, SHARD_ROWS)


def _choose_codecs(
    rows: RowsSpec, row_start: Any, blocks: Sequence[SortedBlock], codec: str | None
) -> tuple[RowsSpec, dict[str, dict[str, int]]]:
    """The channels with their codecs, and, for ``auto``, the bytes of a sample of each with every candidate."""
    trials: dict[str, dict[str, int]] = {}
    chosen = [codec or default_codec(channel.packing.dtype) for channel in rows.channels]
    n_rows = int(row_start[-1])
    if codec == AUTO and n_rows:
        stop = min(_SAMPLE_CHUNKS * rows.chunk_rows, n_rows)
        end = Border(len(row_start) - 1, None) if stop == n_rows else find_border(stop, row_start, blocks, unique=False)
        sample = Gathered(ShardPlan(0, 0, stop, Border(0, None), end), blocks, rows)
        for position, channel in enumerate(rows.channels):
            chosen[position], trials[channel.name] = smallest(sample.column(position), rows.chunk_rows)
    elif codec == AUTO:
        chosen = [default_codec(channel.packing.dtype) for channel in rows.channels]
    channels = tuple(replace(channel, codec=name) for channel, name in zip(rows.channels, chosen, strict=True))
    return replace(rows, channels=channels), trials


def _plan_shards(row_start: Any, blocks: Sequence[SortedBlock], unique: bool = True) -> list[ShardPlan]:
    n_rows = int(row_start[-1])
    bounds = [shard_bounds(shard, n_rows) for shard in range(n_shards(n_rows))]
    borders = [find_border(start, row_start, blocks, unique) for start, _ in bounds]
    borders.append(Border(len(row_start) - 1, None))
    return [ShardPlan(s, start, stop, borders[s], borders[s + 1]) for s, (start, stop) in enumerate(bounds)]


def _duplicate_error(
    error: DuplicateTimeError, ids: Any, blocks: Sequence[Block], spec: TableSpec, axis: TimeAxis
) -> SourceError:
    id_ = str(ids[error.series])
    places = source_csv.find_rows(blocks, spec, id_, error.time, limit=2)
    return SourceError(
        f"duplicate time: id {id_!r} has {axis.show(error.time)} twice",
        expected="one row per (id, time)",
        where=" and ".join(places),
        fix="--on-duplicate first or last, clean the file, or name the id column with --id if it holds several series",
    )


def _channel_notes(rows: RowsSpec, inexact: Sequence[int]) -> Iterator[str]:
    for channel, n_inexact in zip(rows.channels, inexact, strict=True):
        if n_inexact:
            yield (
                f"{channel.name} has {n_inexact:,} values with more digits than float32 keeps (about 7); "
                "--dtype float64 keeps them"
            )
        if channel.categories is not None:
            yield f"{channel.name} holds text and is stored as categories; --leave-out {channel.name} leaves it out"
    if rows.time.zone is not None:
        yield f"times have offsets and are stored as {rows.time.zone}"


def _given_freq(freq: str | None, axis: TimeAxis) -> int | None:
    if freq is None:
        return None
    try:
        return axis.parse_freq(freq)
    except ValueError:
        wanted = "a whole number of steps" if axis.unit is None else "a step such as 1D, 1h, 15min or 30s"
        raise UsageError(f"frequency {freq!r}", expected=wanted, fix="mend --freq") from None


def _freq_notes(summary: Summary, axis: TimeAxis, row_start: Any, ids: Any) -> Iterator[str]:
    if summary.freq is None and np.any(np.diff(row_start) > 1):
        yield "times are irregular: no step between rows is the usual one, so runs are not split"
    elif summary.freq is not None and summary.n_gaps:
        usual = TimeAxis(axis.unit, summary.freq).show_freq()
        yield f"{summary.n_gaps:,} steps in {summary.n_gapped:,} series differ from {usual}; runs are split there"
        if len(summary.irregular):
            shown = ", ".join(repr(str(ids[series])) for series in summary.irregular[:_SHOWN_IDS])
            more = ", …" if len(summary.irregular) > _SHOWN_IDS else ""
            yield (
                f"{len(summary.irregular):,} series are irregular and kept as they are: most of their steps are no "
                f"multiple of {usual} ({shown}{more}); ingest them apart for windows over their rows"
            )
