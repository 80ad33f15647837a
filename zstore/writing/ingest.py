"""THE main path: CSV files in, one committed version of a store out.

Reads like the design: plan, parse, reduce, write, commit. This is the one module that puts work on Dask.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import repeat
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zstore.errors import SourceError, UsageError
from zstore.format.commit import commit
from zstore.format.index import StaticAttribute
from zstore.format.layout import CHUNK_ROWS, SHARD_ROWS, n_shards, safe_names, shard_bounds
from zstore.format.packing import choose, pack_block
from zstore.format.schema import Channel, Schema, TimeAxis
from zstore.writing.receipt import Receipt, write_receipt
from zstore.writing.scheduler import Progress, Scheduler
from zstore.writing.shards import RowsSpec, write_shard
from zstore.writing.sort import Border, DuplicateTimeError, ShardPlan, SortedBlock, Spill, find_border, sort_order
from zstore.writing.sources import csv as source_csv
from zstore.writing.sources.sniff import open_source, sniff
from zstore.writing.sources.table import BadRow, Block, Source, TableSpec, as_numpy, text_array
from zstore.writing.statics import match_statics, read_statics
from zstore.writing.target import building, set_aside
from zstore.writing.version import Summary, summarise, version_objects

_MIN_BLOCK, _MAX_BLOCK = 1 << 20, 1 << 24
_BLOCK_COPIES = 8  # a block in memory: its bytes, Arrow's columns, float64, sorted and packed copies
_THREAD_BYTES = 1 << 28


@dataclass(frozen=True)
class BlockReport:
    """What one parsed block holds.

    Parameters
    ----------
    spill
        Its sorted rows.
    ids, counts
        (id,) its ids in order, and the rows of each.
    packed
        Per channel ``(decimals, largest)``, see :class:`zstore.format.packing.BlockColumn`.
    bad
        Records left out.
    """

    spill: Spill
    ids: pa.Array
    counts: Any
    packed: tuple[tuple[int | None, int], ...]
    bad: tuple[BadRow, ...]


def ingest(
    sources: str | Path | Sequence[str | Path],
    store: str | Path,
    *,
    time: str,
    id: str | None = None,  # noqa: A002  # the command's flag is --id
    channels: Sequence[str] | None = None,
    static: str | Path | None = None,
    freq: str | None = None,
    on_bad_row: Literal["error", "quarantine"] = "error",
    overwrite: bool = False,
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
        CSV files or globs, plain or ``.gz``, with the same columns in any order, rows in any order.
    store
        Folder to make.
    time
        Column of times: ISO dates, dates and times without zone, or whole numbers.
    id
        Column of series ids, kept as exact text; None when all rows are one series (its id is ``0``).
    channels
        Columns to keep, in this order; None for all but `id` and `time`.
    static
        CSV of static attributes, one row per id.
    freq
        Step between rows, such as ``1D`` or ``15min``; None to find the usual one.
    on_bad_row
        ``error`` refuses the first bad row; ``quarantine`` sets bad rows aside in ``STORE.quarantine.csv``.
    overwrite
        Replace an existing store.
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
        Called with ``(phase, done, total)``.

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
    names = [sources] if isinstance(sources, (str, Path)) else list(sources)
    paths = source_csv.expand(names)
    runner = Scheduler(workers, scheduler, progress)
    blocksize = blocksize or _blocksize(memory_limit, runner.workers)
    with building(Path(store), overwrite) as (root, scratch):
        inflated = runner.map("inflate", partial(_inflate, scratch=scratch), list(enumerate(paths)))
        opened, delimiter = _open_all(paths, inflated)
        spec = sniff(opened, delimiter, id, time, channels)
        known_statics = read_statics(Path(static), id or "") if static is not None else None
        clock.lap("plan")

        parse = partial(parse_block, spec=spec, dtype=dtype, scratch=scratch, keep_bad=on_bad_row == "quarantine")
        blocks, reports = _parse_all(opened, blocksize, parse, runner)
        clock.lap("parse")

        ids, row_start, sorted_blocks = _reduce(reports)
        rows = _rows_spec(root, spec, reports, dtype)
        try:
            plans = _plan_shards(row_start, sorted_blocks)
            shards = runner.map("write", partial(write_shard, blocks=sorted_blocks, spec=rows), plans)
        except DuplicateTimeError as error:
            raise _duplicate_error(error, ids, blocks, spec) from None
        clock.lap("write")

        summary = summarise(shards, row_start, len(rows.channels), _given_freq(freq, rows.time))
        statics: tuple[StaticAttribute, ...] = ()
        notes = list(_freq_notes(summary, rows.time, row_start))
        if known_statics is not None:
            statics, n_without, n_unused = match_statics(ids, *known_statics)
            notes += [f"{n_without} series have no static attributes"] if n_without else []
            notes += [f"{n_unused} ids of {static} are not in the rows"] if n_unused else []
        bad = [row for report in reports for row in report.bad]
        aside = set_aside(Path(store), bad) if bad else None
        schema = Schema(
            uuid=str(uuid.uuid4()),
            version=1,
            n_rows=int(row_start[-1]),
            n_series=len(ids),
            chunk_rows=rows.chunk_rows,
            shard_rows=rows.shard_rows,
            channels=rows.channels,
            time=TimeAxis(rows.time.unit, summary.freq),
            id_name=id or "",
            committed=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        sizes = {str(path): path.stat().st_size for path in paths}
        receipt = write_receipt(Path(store), sizes, schema, summary, shards, aside, len(bad), notes)
        keys, document = version_objects(
            root, schema, rows, ids, row_start, summary, shards, statics, receipt.lasting()
        )
        shutil.rmtree(scratch)
        commit(root, keys, document)
        clock.lap("commit")
    return _with_seconds(receipt, clock.laps)


def parse_block(
    task: tuple[int, Block], spec: TableSpec, dtype: str, scratch: Path, keep_bad: bool, quotes_counted: bool
) -> BlockReport:
    """Read one block, sort it by (id, time), pack each channel, and spill it."""
    number, block = task
    columns = source_csv.read_block(block, spec, keep_bad, quotes_counted)
    order = sort_order(columns.codes, columns.times)
    everything = slice(None) if order is None else order
    packed = [pack_block(values[everything], dtype) for values in columns.channels]
    spill = Spill.write(scratch / f"{number}.spill", [columns.times[everything], *(column.values for column in packed)])
    counts = np.bincount(columns.codes, minlength=len(columns.ids))
    return BlockReport(spill, columns.ids, counts, tuple((c.decimals, c.largest) for c in packed), columns.bad)


class _Clock:
    def __init__(self) -> None:
        self._last = perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, phase: str) -> None:
        now = perf_counter()
        self.laps[phase] = round(now - self._last, 3)
        self._last = now


def _blocksize(memory_limit: int, workers: int) -> int:
    share = max(memory_limit // workers, _THREAD_BYTES) // _BLOCK_COPIES
    return min(max(share, _MIN_BLOCK), _MAX_BLOCK)


def _inflate(task: tuple[int, Path], scratch: Path) -> Path:
    number, path = task
    return source_csv.inflate(path, scratch / f"{number}.csv") if source_csv.is_compressed(path) else path


def _open_all(paths: Sequence[Path], inflated: Sequence[Path]) -> tuple[list[Source], str]:
    first, delimiter = open_source(paths[0], inflated[0])
    rest = [open_source(n, p, delimiter)[0] for n, p in zip(paths[1:], inflated[1:], strict=True)]
    return [first, *rest], delimiter


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
            return blocks, runner.map("parse", partial(parse, quotes_counted=False), list(enumerate(blocks)))
        except (source_csv.UncountedQuotesError, SourceError) as error:
            failed = error
    else:
        failed = source_csv.UncountedQuotesError()
    tasks = [(source.path, *ab) for source, pairs in zip(sources, ranges, strict=True) for ab in pairs]
    quotes = runner.map("scan", _count_quotes, tasks)
    if not any(quotes):
        raise failed
    blocks = _cut(sources, ranges, quotes)
    return blocks, runner.map("parse", partial(parse, quotes_counted=True), list(enumerate(blocks)))


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


def _reduce(reports: Sequence[BlockReport]) -> tuple[Any, Any, list[SortedBlock]]:
    """All ids in order, the first row of each series, and each block in terms of them."""
    everyone = pa.concat_arrays([report.ids for report in reports] or [text_array([])])
    ids = pc.unique(everyone)
    ids = ids.take(pc.sort_indices(ids))
    sizes = np.zeros(len(ids), np.int64)
    blocks = []
    for report in reports:
        series = as_numpy(pc.index_in(report.ids, value_set=ids), "int32")
        sizes[series] += report.counts
        blocks.append(SortedBlock(report.spill, series, np.concatenate([[0], np.cumsum(report.counts)])))
    names = np.array(ids.to_pylist(), dtype=np.dtypes.StringDType())
    return names, np.concatenate([[0], np.cumsum(sizes)]), blocks


def _rows_spec(root: Path, spec: TableSpec, reports: Sequence[BlockReport], dtype: str) -> RowsSpec:
    filled = [report for report in reports if report.spill.n_rows]
    packings = [choose([report.packed[n] for report in filled], dtype) for n in range(len(spec.channels))]
    variables = safe_names(spec.channels)
    channels = tuple(
        Channel(name, variable, packing, dtype)
        for name, variable, packing in zip(spec.channels, variables, packings, strict=True)
    )
    decimals = tuple(tuple(decimals for decimals, _ in report.packed) for report in reports)
    return RowsSpec(root, channels, decimals, TimeAxis(spec.time_unit), CHUNK_ROWS, SHARD_ROWS)


def _plan_shards(row_start: Any, blocks: Sequence[SortedBlock]) -> list[ShardPlan]:
    n_rows = int(row_start[-1])
    bounds = [shard_bounds(shard, n_rows) for shard in range(n_shards(n_rows))]
    borders = [find_border(start, row_start, blocks) for start, _ in bounds]
    borders.append(Border(len(row_start) - 1, None))
    return [ShardPlan(s, start, stop, borders[s], borders[s + 1]) for s, (start, stop) in enumerate(bounds)]


def _duplicate_error(error: DuplicateTimeError, ids: Any, blocks: Sequence[Block], spec: TableSpec) -> SourceError:
    id_ = str(ids[error.series])
    places = source_csv.find_rows(blocks, spec, id_, error.time, limit=2)
    return SourceError(
        f"duplicate time: id {id_!r} has {TimeAxis(spec.time_unit).show(error.time)} twice",
        expected="one row per (id, time)",
        where=" and ".join(places),
        fix="clean the file, or name the id column with --id if it holds several series",
    )


def _given_freq(freq: str | None, axis: TimeAxis) -> int | None:
    if freq is None:
        return None
    try:
        return axis.parse_freq(freq)
    except ValueError:
        wanted = "a whole number of steps" if axis.unit is None else "a step such as 1D, 1h, 15min or 30s"
        raise UsageError(f"frequency {freq!r}", expected=wanted, fix="mend --freq") from None


def _freq_notes(summary: Summary, axis: TimeAxis, row_start: Any) -> Iterator[str]:
    if summary.freq is None and np.any(np.diff(row_start) > 1):
        yield "times are irregular: no step between rows is the usual one, so runs are not split"
    elif summary.freq is not None and summary.n_gaps:
        usual = TimeAxis(axis.unit, summary.freq).show_freq()
        yield f"{summary.n_gaps:,} steps in {summary.n_gapped:,} series differ from {usual}; runs are split there"


def _with_seconds(receipt: Receipt, laps: dict[str, float]) -> Receipt:
    return replace(receipt, seconds={**laps, "total": round(sum(laps.values()), 3)})
