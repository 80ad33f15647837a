"""What an ingest would do, told before it is done: a sample of the sources is ingested, and the rest is arithmetic."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from zstore.errors import UsageError
from zstore.format.layout import SHARD_ROWS, n_shards
from zstore.reading.store import open_store
from zstore.sizes import bytes_of
from zstore.storage.file import File
from zstore.writing.arguments import check_choices, source_files, static_table
from zstore.writing.fan_in import MOST_FILES, MOST_OBJECTS
from zstore.writing.ingest import ingest
from zstore.writing.parse import BLOCK_COPIES, block_bytes
from zstore.writing.scheduler import Scheduler
from zstore.writing.sources.csv.sample import first_records
from zstore.writing.sources.digests import PIECE_BYTES
from zstore.writing.sources.inflate import is_plain
from zstore.writing.sources.join import MOST_TOGETHER
from zstore.writing.sources.kinds import Named, source_of
from zstore.writing.sources.named_files.options import FileOptions
from zstore.writing.sources.options import TableOptions

_SAMPLE_BYTES = 1 << 24
_RECORD_BYTES = 90  # of the manifest for an object, as it was measured before compression
_GROUP_BYTES = 24  # of a series in a block: its position, its first row, its id


@dataclass(frozen=True)
class Sample:
    """What the ingest of the first bytes of a source has shown.

    Parameters
    ----------
    n_bytes, n_rows, n_series
        Of plain text; rows and series in it.
    row_bytes, stored_bytes
        Of a row on scratch space, and in the store.
    parse_s, write_s
        Seconds of one thread.
    n_channels
        Channels.
    growth
        Bytes as they are read for each byte of the sources.
    prepared
        Whether copies of the sources have to lie on scratch space.
    n_bad
        Further rows in it that cannot be stored as they stand.
    source_bytes
        Bytes of all rows as they are read, of a query; None where sources have sizes.
    digested
        Whether pieces of the source that are read whole are digested on the way.
    """

    n_bytes: int
    n_rows: int
    n_series: int
    row_bytes: int
    stored_bytes: float
    parse_s: float
    write_s: float
    n_channels: int
    growth: float
    prepared: bool = False
    n_bad: int = 0
    source_bytes: int | None = None
    digested: bool = False


@dataclass(frozen=True)
class IngestPlan:
    """How large an ingest is. Sizes in bytes, times in seconds.

    Parameters
    ----------
    n_files, source_bytes
        The sources.
    plain_bytes
        What is parsed: the sources as plain text, or, of files whose columns have types, their rows in memory.
    inflated
        Whether copies of the sources as plain text, or the rows of a query, lie on scratch space.
    n_rows
        About how many.
    block_bytes, n_blocks
        What is parsed at once.
    n_shards, n_objects, stored_bytes
        The store.
    fan_in, merge_passes
        Blocks that the writer of a shard reads from at most, and how often all rows are merged before.
    tasks
        By phase.
    scratch_bytes
        Space needed meanwhile, at its peak.
    client_bytes
        Memory of the process that plans: where every series lies in every block.
    manifest_bytes
        Of the list of objects, before compression.
    worker_bytes
        Memory of each worker thread: what it parses or writes at once.
    seconds
        By phase, on `workers` threads like those here and storage that keeps up with them.
    workers
        Threads.
    n_bad, n_seen
        Rows that cannot be stored as they stand, of so many that were looked at.
    """

    n_files: int
    source_bytes: int
    plain_bytes: int
    inflated: bool
    n_rows: int
    block_bytes: int
    n_blocks: int
    n_shards: int
    n_objects: int
    stored_bytes: int
    fan_in: int
    merge_passes: int
    tasks: dict[str, int]
    scratch_bytes: int
    client_bytes: int
    manifest_bytes: int
    worker_bytes: int
    seconds: dict[str, float]
    workers: int
    n_bad: int = 0
    n_seen: int = 0

    def to_json(self) -> dict[str, Any]:
        """The plan as a document."""
        return asdict(self)


def plan_ingest(
    sources: Named | Sequence[Named],
    *,
    storage_options: Mapping[str, str] | None = None,
    blocksize: int | str | None = None,
    memory_limit: int | str | None = None,
    workers: int | None = None,
    remote_scratch: bool = False,
    on_empty_file: Literal["error", "skip"] = "error",
    **table: Any,
) -> IngestPlan:
    """Plan an ingest without doing it.

    Parameters
    ----------
    sources, storage_options, blocksize, memory_limit, workers, on_empty_file
        As for :func:`zstore.ingest`.
    remote_scratch
        Whether scratch space would be in a bucket.
    table
        How the files are read, as for :func:`zstore.ingest`.

    Raises
    ------
    SourceError, UsageError
        As :func:`zstore.ingest` does of the first 16 MiB; bad rows and duplicates there are passed over.

    Notes
    -----
    Cost: some seconds at most, whatever the size of the sources.
    """
    check_choices(plan_ingest, {"on_empty_file": on_empty_file})
    files = source_files(sources, storage_options, on_empty_file)
    n_block, limit = bytes_of(blocksize, "--blocksize"), bytes_of(memory_limit, "--memory-limit")
    sample = take_sample(files[0], storage_options, **table)
    n_bytes = sum(file.n_bytes for file in files) if sample.source_bytes is None else sample.source_bytes
    if sample.source_bytes is not None and len(files) > 1:
        raise UsageError(f"--dry-run of {len(files)} queries", expected="one", fix="plan each of them alone")
    runner = Scheduler(workers, memory_limit=limit, task_bytes=BLOCK_COPIES * (n_block or 0))
    size = n_block or block_bytes(runner.memory_limit, runner.sharers, int(n_bytes * sample.growth))
    shard_rows = table.get("shard_rows", SHARD_ROWS)
    return extrapolate(sample, n_bytes, len(files), size, runner.workers, remote_scratch, shard_rows)


def _is_long_text(file: File, encoding: str) -> bool:
    """Whether a file is text of which a sample does."""
    return not source_of([file]).typed and (not is_plain(file, encoding) or file.n_bytes > _SAMPLE_BYTES)


def take_sample(file: File, storage_options: Mapping[str, str] | None = None, /, **table: Any) -> Sample:
    """Ingest the first 16 MiB of a file into a temporary folder, without what columns name."""
    table, source = _without_files(table), source_of([file])
    with tempfile.TemporaryDirectory(prefix="zstore-") as folder:
        encoding = table.get("encoding", "utf-8")
        taken = source.sample(file, TableOptions.of(table), encoding, Path(folder) / "sources", _SAMPLE_BYTES)
        plainly = {**table, "encoding": taken.encoding, "on_duplicate": "first"}
        named = None if table.get("static") is None else static_table(table["static"], storage_options)
        if isinstance(named, File) and _is_long_text(named, encoding):  # options may name its columns
            plainly["static"] = Path(folder) / "static.csv"
            plainly["static"].write_bytes(first_records(named, encoding, _SAMPLE_BYTES, TableOptions())[0])
        if table.get("time") or table.get("layout") == "wide":
            plainly |= {"on_bad_row": "quarantine", "max_bad_rows": 1.0}
        receipt = ingest(taken.path, Path(folder) / "s.zarr", storage_options=storage_options, workers=1, **plainly)
        store = open_store(Path(folder) / "s.zarr")
        widths = [np.dtype(channel.encoding.dtype).itemsize for channel in store.schema.channels]
    n_rows = max(receipt.n_stored, 1)
    return Sample(
        n_bytes=taken.n_bytes,
        n_rows=n_rows,
        n_series=receipt.n_series,
        row_bytes=8 + sum(widths),
        stored_bytes=receipt.n_bytes / n_rows,
        parse_s=receipt.seconds["parse"],
        write_s=receipt.seconds["write"],
        n_channels=len(widths),
        growth=taken.growth,
        prepared=taken.prepared,
        n_bad=receipt.n_quarantined,
        source_bytes=taken.source_bytes,
        digested=not taken.prepared and not source.typed,
    )


def _without_files(table: Mapping[str, Any]) -> dict[str, Any]:
    """How files are read, without fields whose values lie in further ones: a sample would read thousands of them."""
    named = FileOptions.of(table)
    plain = {name: value for name, value in table.items() if name not in {each.name for each in fields(FileOptions)}}
    if named.file and table.get("channels") is None:
        plain["leave_out"] = (*table.get("leave_out", ()), *named.columns)
    return plain


def extrapolate(
    sample: Sample,
    source_bytes: int,
    n_files: int,
    size: int,
    workers: int,
    remote_scratch: bool = False,
    shard_rows: int = SHARD_ROWS,
) -> IngestPlan:
    """The plan of sources that are like a sample.

    Parameters
    ----------
    sample
        What is known.
    source_bytes, n_files
        The sources.
    size
        Bytes of a block.
    workers
        Threads.
    remote_scratch
        Whether scratch space is in a bucket.
    shard_rows
        Rows of a shard.
    """
    plain, is_query = int(source_bytes * sample.growth), sample.source_bytes is not None
    n_rows = round(plain / sample.n_bytes * sample.n_rows)
    whole = sample.digested and (source_bytes / n_files <= size or size % PIECE_BYTES == 0)
    n_blocks, shards = _n_groups(plain, n_files, size, workers), n_shards(n_rows, shard_rows)
    most, groups, passes = MOST_OBJECTS if remote_scratch else MOST_FILES, n_blocks, 0
    while groups > most:
        groups, passes = math.ceil(groups / most), passes + 1
    fan_in = groups if not passes else min(2 * groups, shards + groups)
    parse_s, write_s = (seconds / sample.n_rows * n_rows for seconds in (sample.parse_s, sample.write_s))
    tasks = {
        **({"query" if is_query else "inflate": n_files} if sample.prepared else {}),
        "parse": n_blocks,
        **({} if is_query or whole else {"digest": _n_groups(source_bytes, n_files, PIECE_BYTES, workers)}),
        **({"merge": shards * passes} if passes else {}),
        "write": shards,
    }
    seconds = {"parse": parse_s, **({"merge": write_s * passes} if passes else {}), "write": write_s}
    in_block = min(sample.n_series, round(sample.n_rows / sample.n_bytes * size))
    n_objects = shards * (sample.n_channels + 1)
    return IngestPlan(
        n_files=n_files,
        source_bytes=source_bytes,
        plain_bytes=plain,
        inflated=sample.prepared,
        n_rows=n_rows,
        block_bytes=size,
        n_blocks=n_blocks,
        n_shards=shards,
        n_objects=n_objects,
        stored_bytes=round(sample.stored_bytes * n_rows),
        fan_in=fan_in,
        merge_passes=passes,
        tasks=tasks,
        scratch_bytes=round(n_rows * sample.row_bytes * (1 + (passes > 0) / max(n_blocks / most, 1)))
        + (plain if sample.prepared else 0),
        client_bytes=n_blocks * in_block * _GROUP_BYTES,
        manifest_bytes=n_objects * _RECORD_BYTES,
        worker_bytes=max(BLOCK_COPIES * size, min(shard_rows, n_rows) * (2 * sample.row_bytes + 24)),
        seconds={phase: round(found / workers, 2) for phase, found in seconds.items()},
        workers=workers,
        n_bad=sample.n_bad,
        n_seen=sample.n_rows + sample.n_bad,
    )


def _n_groups(n_bytes: int, n_files: int, size: int, workers: int) -> int:
    """Tasks of files of equal size, of which neighbours go together up to `size` bytes, and larger ones are cut."""
    each = n_bytes / n_files
    if each >= size:
        return n_files * math.ceil(each / size)
    together = min(MOST_TOGETHER, max(int(size // max(each, 1)), 1))
    return max(math.ceil(n_files / together), min(n_files, workers))
