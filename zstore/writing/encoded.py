"""Fields of bytes, such as encoded images: the bytes of each row as they are, one behind the other.

How long each value is, is known before any is read. So where each begins is a sum, and a task writes a stretch of the
array of bytes, whatever rows it is of.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.format.layout import BYTES_CODEC, CHUNK_BYTES, SHARD_BYTES, RowGrid
from zstore.format.manifest import ObjectRecord
from zstore.format.rowarrays import DIGEST_BYTES, RowArray, byte_names, rows_of_bytes
from zstore.format.schema import Field
from zstore.format.shards import ArrayPlan
from zstore.storage.protocol import Storage
from zstore.writing.referred import Payloads, References
from zstore.writing.scheduler import Scheduler
from zstore.writing.shards import RowsSpec
from zstore.writing.sort import Spill
from zstore.writing.sources.payloads import PayloadError
from zstore.writing.sweep import free_bytes


@dataclass(frozen=True)
class Stretch:
    """The rows of a shard of channels, and where their bytes lie among all that are written.

    Parameters
    ----------
    shard
        Number of the shard.
    start, stop
        Its rows, counted from the first that is written.
    references
        Where their payloads lie.
    sizes
        (row,) bytes of each, on scratch space; 0 where a row has no payload.
    first, last
        Its first byte, and the one behind its last, counted from the first that is written.
    """

    shard: int
    start: int
    stop: int
    references: References
    sizes: Spill
    first: int
    last: int

    def starts(self) -> NDArray[np.int64]:
        """(row + 1,) first byte of each row, and the byte behind the last."""
        sizes = self.sizes.read(0, 0, self.stop - self.start)
        starts: NDArray[np.int64] = self.first + np.concatenate([[0], np.cumsum(sizes)])
        return starts


@dataclass(frozen=True)
class WrittenBytes:
    """What one task has written of the array of bytes.

    Parameters
    ----------
    record
        The object.
    row
        The first row that begins in it.
    digests
        (row, 16) digests of those rows, on scratch space, byte by byte.
    """

    record: ObjectRecord
    row: int
    digests: Spill


def write_bytes(
    field: Field,
    payloads: Payloads,
    parts: Sequence[tuple[int, int, int, References]],
    rows: RowsSpec,
    scratch: Storage,
    runner: Scheduler,
) -> tuple[Field, list[ObjectRecord]]:
    """Write a field of bytes.

    Parameters
    ----------
    field
        What it is; its length is that of the array before.
    payloads
        Its payloads.
    parts
        For each shard of channels, its number, its first row, the row behind its last, and where its payloads lie.
    rows
        How channels lie.
    scratch
        Where sizes and digests go meanwhile.
    runner
        Runs the tasks.

    Returns
    -------
    The field with its new length, and the objects that were written.

    Raises
    ------
    PayloadFaultError
        If a payload cannot be read.
    """
    spec = _without_blocks(rows)
    sized = runner.map(f"size {field.name}", partial(_sizes, payloads=payloads, scratch=scratch), parts)
    ends = list(accumulate((n_bytes for _, n_bytes in sized), initial=0))
    stretches = [
        Stretch(*part, sizes, first, last)
        for part, (sizes, _), first, last in zip(parts, sized, ends[:-1], ends[1:], strict=True)
    ]
    n_shards = -(-ends[-1] // SHARD_BYTES)
    first_shard = free_bytes(rows.root, field.variable, n_shards)
    put = partial(_write_bytes, field=field, payloads=payloads, stretches=stretches, spec=spec, scratch=scratch)
    written = runner.map(f"write {field.name}", partial(put, first_shard=first_shard), range(n_shards))
    place = partial(_write_places, field=field, written=written, offset=first_shard * SHARD_BYTES, spec=spec)
    places = runner.map(f"index {field.name}", place, stretches)
    length = max(field.n_bytes or 0, first_shard * SHARD_BYTES + ends[-1])
    records = [*(each.record for each in written), *(record for some in places for record in some)]
    return Field.of_bytes(field.name, field.variable, field.units, length), records


def byte_plan(field: Field) -> ArrayPlan:
    """The array that has the bytes of all rows."""
    about = field.attributes()
    return ArrayPlan("uint8", 0, BYTES_CODEC, CHUNK_BYTES, SHARD_BYTES, about, along=f"{field.variable}_byte")


def place_plans(field: Field, grid: RowGrid) -> dict[str, ArrayPlan]:
    """By variable, the arrays over rows that say where bytes lie, and what they were read from."""
    texts = (
        f"first byte of {field.name} of each row",
        f"bytes of {field.name} of each row; 0 where a row has none",
        f"xxh3-128 of the source bytes of {field.name}; zeros where a row has none",
    )
    return {
        array.variable: _plan(array, {"long_name": text})
        for array, text in zip(rows_of_bytes(field.variable, grid), texts, strict=True)
    }


def _plan(array: RowArray, about: dict[str, Any]) -> ArrayPlan:
    grid, axes = array.grid, (("digest_byte",) if array.shape else ())
    size = (grid.chunk_rows, grid.shard_rows)
    return ArrayPlan(array.dtype, 0, str(array.codec), *size, about, array.shape, axes)


def _without_blocks(rows: RowsSpec) -> RowsSpec:
    """What tasks need of it: not how each block was spilled."""
    return RowsSpec(rows.root, rows.channels, (), rows.time, rows.chunk_rows, rows.shard_rows, rows.first_shard)


def _sizes(part: tuple[int, int, int, References], payloads: Payloads, scratch: Storage) -> tuple[Spill, int]:
    """How many bytes each row of a shard has, and all of them together."""
    shard, start, stop, references = part
    sizes = payloads.sizes(references, start, stop)
    return Spill.write(scratch, f"sizes{shard}", [sizes]), int(sizes.sum())


def _write_bytes(
    number: int,
    field: Field,
    payloads: Payloads,
    stretches: Sequence[Stretch],
    spec: RowsSpec,
    scratch: Storage,
    first_shard: int,
) -> WrittenBytes:
    """Write one shard of the array of bytes: all that lies in it, also of rows that begin before it or end behind."""
    low = number * SHARD_BYTES
    content: NDArray[np.uint8] = np.zeros(min(SHARD_BYTES, stretches[-1].last - low), np.uint8)
    high, row, digests = low + len(content), None, []
    for stretch in stretches:
        if stretch.last <= low or stretch.first >= high:
            continue
        starts = stretch.starts()
        first, last = np.searchsorted(starts[:-1], [low, high]).tolist()
        first -= first > 0 and int(starts[first]) > low  # the row before goes on in here
        some = payloads.of(stretch.references, stretch.start + first, stretch.start + last)
        for n, payload in enumerate(some, first):
            begin, end = int(starts[n]), int(starts[n + 1])
            if payload is not None:
                value = payload.value
                if value.dtype != np.uint8 or value.shape != (end - begin,):
                    error = PayloadError(f"{value.size:,} bytes", f"{end - begin:,}, as it had when it was looked at")
                    raise payloads.fault(stretch.references, stretch.start + n, error)
                content[max(begin - low, 0) : end - low] = value[max(low - begin, 0) : high - begin]
            if low <= begin:
                row = stretch.start + n if row is None else row
                digests.append(bytes(DIGEST_BYTES) if payload is None else payload.digest)
    variable, plan = byte_names(field.variable)[0], byte_plan(field)
    record = _put(spec.root, plan, variable, first_shard + number, plan.encode_shard(content))
    columns = np.frombuffer(b"".join(digests), np.uint8)
    return WrittenBytes(record, row or 0, Spill.write(scratch, f"digests{number}", [columns]))


def _write_places(
    stretch: Stretch, field: Field, written: Sequence[WrittenBytes], offset: int, spec: RowsSpec
) -> list[ObjectRecord]:
    """Write where the bytes of the rows of a shard begin, how many there are, and their digests."""
    starts = stretch.starts()
    sizes = np.diff(starts)
    digests = np.zeros((len(sizes), DIGEST_BYTES), np.uint8)
    for row, some in _digests_in(written, stretch.start, stretch.stop):
        digests[row - stretch.start : row - stretch.start + len(some)] = some
    columns = (np.where(sizes > 0, starts[:-1] + offset, 0), sizes, digests)
    plans = place_plans(field, RowGrid(spec.chunk_rows, spec.shard_rows))
    return [
        _put(spec.root, plan, variable, stretch.shard, plan.encode_shard(values))
        for (variable, plan), values in zip(plans.items(), columns, strict=True)
    ]


def _digests_in(written: Sequence[WrittenBytes], start: int, stop: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Digests of rows ``[start, stop)``, and the first row of each part of them."""
    for each in written:
        n_rows = each.digests.n_rows // DIGEST_BYTES
        low, high = max(each.row, start), min(each.row + n_rows, stop)
        if high > low:
            some = each.digests.read(0, (low - each.row) * DIGEST_BYTES, (high - each.row) * DIGEST_BYTES)
            yield low, some.reshape(-1, DIGEST_BYTES)


def _put(root: Storage, plan: ArrayPlan, variable: str, shard: int, content: bytes) -> ObjectRecord:
    key = plan.key(variable, shard)
    root.write(key, content)
    return ObjectRecord.of(key, content)
