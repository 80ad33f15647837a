"""Fields of bytes, such as encoded images: the bytes of each row as they are, one behind the other.

How long each value is, is known before any is read. So where each begins is a sum, and a task writes a stretch of the
array of bytes, whatever rows it is of.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.format.layout import BYTES_CODEC, CHUNK_BYTES, SHARD_BYTES, RowGrid
from zstore.format.manifest import ObjectRecord, digest
from zstore.format.rowarrays import DIGEST_BYTES, RowArray, byte_names, origin_name, rows_of_bytes
from zstore.format.schema import Field
from zstore.format.shards import ArrayPlan
from zstore.storage.protocol import Storage
from zstore.writing.object_notes import ObjectNotes
from zstore.writing.referred import Payloads, References
from zstore.writing.scheduler import Scheduler
from zstore.writing.shards import RowsSpec, origin_plan
from zstore.writing.sort import Spill
from zstore.writing.sources.payloads import BadPayload, Outcome, Payload, PayloadError
from zstore.writing.sources.workspace import digest_of
from zstore.writing.sweep import free_bytes

_BESIDE_BYTES = 2 * DIGEST_BYTES


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
    fingerprint
        What tells its payloads, unread.
    """

    shard: int
    start: int
    stop: int
    references: References
    sizes: Spill
    first: int
    last: int
    fingerprint: str

    def starts(self) -> NDArray[np.int64]:
        """(row + 1,) first byte of each row, and the byte behind the last."""
        sizes = self.sizes.read(0, 0, self.stop - self.start)
        starts: NDArray[np.int64] = self.first + np.concatenate([[0], np.cumsum(sizes)])
        return starts


@dataclass(frozen=True)
class Sizes:
    """Bytes of the rows of a shard of channels.

    Parameters
    ----------
    spill
        (row,) bytes of each, on scratch space.
    n_bytes
        All of them together.
    fingerprint
        What tells the payloads, unread.
    bad
        Those that cannot be stored, where such are kept.
    """

    spill: Spill
    n_bytes: int
    fingerprint: str
    bad: tuple[BadPayload, ...] = ()


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
        (row, 32) digests and origins of those rows, on scratch space, byte by byte.
    bad
        Payloads that cannot be stored, where those are kept.
    """

    record: ObjectRecord
    row: int
    digests: Spill
    bad: tuple[BadPayload, ...] = ()


@dataclass(frozen=True)
class ByteTasks:
    """What the tasks of a field of bytes have in common.

    Parameters
    ----------
    field
        What it is; its length is that of the array before.
    payloads
        Its payloads.
    spec
        How channels lie.
    scratch
        Where sizes and digests go meanwhile.
    notes
        Of work that is done.
    """

    field: Field
    payloads: Payloads
    spec: RowsSpec
    scratch: Storage
    notes: ObjectNotes


def write_bytes(
    tasks: ByteTasks, parts: Sequence[tuple[int, int, int, References]], runner: Scheduler
) -> tuple[Field, list[ObjectRecord], list[BadPayload]]:
    """Write a field of bytes.

    Parameters
    ----------
    tasks
        What it is, and where it goes.
    parts
        For each shard of channels, its number, its first row, the row behind its last, and where its payloads lie.
    runner
        Runs the tasks.

    Returns
    -------
    The field with its new length, the objects that were written, and payloads that cannot be stored, where those are
    kept.

    Raises
    ------
    PayloadFaultError
        If a payload cannot be read, and such are not kept.
    """
    field = tasks.field
    sized = runner.map(f"size {field.name}", partial(_sizes, tasks=tasks), parts)
    ends = list(accumulate((each.n_bytes for each in sized), initial=0))
    stretches = [
        Stretch(*part, each.spill, first, last, each.fingerprint)
        for part, each, first, last in zip(parts, sized, ends[:-1], ends[1:], strict=True)
    ]
    n_shards = -(-ends[-1] // SHARD_BYTES)
    first_shard = free_bytes(tasks.spec.root, field.variable, n_shards)
    put = partial(_write_bytes, tasks=tasks, stretches=stretches, first_shard=first_shard)
    written = runner.map(f"write {field.name}", put, range(n_shards))
    place = partial(_write_places, field=field, written=written, offset=first_shard * SHARD_BYTES, spec=tasks.spec)
    places = runner.map(f"index {field.name}", place, stretches)
    length = max(field.n_bytes or 0, first_shard * SHARD_BYTES + ends[-1])
    records = [*(each.record for each in written), *(record for some in places for record in some)]
    bad = [*(each for some in sized for each in some.bad), *(each for some in written for each in some.bad)]
    return replace(field, n_bytes=length), records, bad


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
    arrays = rows_of_bytes(field.variable, grid)
    plans = {array.variable: _plan(array, {"long_name": text}) for array, text in zip(arrays, texts, strict=True)}
    if field.origins:
        plans[origin_name(field.variable)] = _plan(arrays[-1], origin_plan(field).attributes)
    return plans


def _plan(array: RowArray, about: dict[str, Any]) -> ArrayPlan:
    grid, axes = array.grid, (("digest_byte",) if array.shape else ())
    size = (grid.chunk_rows, grid.shard_rows)
    return ArrayPlan(array.dtype, 0, str(array.codec), *size, about, array.shape, axes)


def _sizes(part: tuple[int, int, int, References], tasks: ByteTasks) -> Sizes:
    """How many bytes each row of a shard has."""
    shard, start, stop, references = part
    fingerprint = tasks.payloads.fingerprint(references, start, stop, shard)
    known = tasks.notes.known(f"sizes-{fingerprint}")
    spill = None if known is None else _whole(tasks.scratch, known["spill"], "int64")
    if spill is not None:
        return Sizes(spill, int(spill.read(0, 0, spill.n_rows).sum()), fingerprint)
    sizes, bad = tasks.payloads.sizes(references, start, stop)
    spill = Spill.write(tasks.scratch, f"sizes{shard}", [sizes])
    if not bad:
        tasks.notes.add(f"sizes-{fingerprint}", (), spill=[spill.key, spill.n_rows, spill.digest])
    return Sizes(spill, int(sizes.sum()), fingerprint, tuple(bad))


def _whole(scratch: Storage, noted: Sequence[Any], dtype: str) -> Spill | None:
    """A spill of one column from the note of it; None where it is not whole."""
    spill = Spill(scratch, noted[0], noted[1], (dtype,), noted[2])
    whole = scratch.n_bytes(spill.key) == spill.n_bytes
    return spill if whole and digest_of(scratch, spill.key, spill.n_bytes) == spill.digest else None


def _write_bytes(number: int, tasks: ByteTasks, stretches: Sequence[Stretch], first_shard: int) -> WrittenBytes:
    """Write one shard of the array of bytes: all that lies in it, also of rows that begin before it or end behind."""
    low, field = number * SHARD_BYTES, tasks.field
    high = min(low + SHARD_BYTES, stretches[-1].last)
    near = [stretch for stretch in stretches if stretch.last > low and stretch.first < high]
    about = [(each.fingerprint, each.first) for each in near]
    name = f"bytes-{digest(repr((field, first_shard + number, low, high, about)).encode())}"
    known = tasks.notes.known(name)
    spill = None if known is None else _whole(tasks.scratch, known["digests"], "uint8")
    if known is not None and spill is not None:
        return WrittenBytes(known["records"][0], known["row"], spill)
    content: NDArray[np.uint8] = np.zeros(high - low, np.uint8)
    row, digests = None, []
    bad: list[BadPayload] = []
    for stretch in near:
        starts = stretch.starts()
        first, last = np.searchsorted(starts[:-1], [low, high]).tolist()
        first -= first > 0 and int(starts[first]) > low  # the row before goes on in here
        outcomes = tasks.payloads.of(stretch.references, stretch.start + first, stretch.start + last)
        for n, outcome in enumerate(outcomes, first):
            begin, end = int(starts[n]), int(starts[n + 1])
            try:
                value = _value(outcome, end - begin)
                content[max(begin - low, 0) : end - low] = value[max(low - begin, 0) : high - begin]
            except PayloadError as error:
                bad.append(tasks.payloads.bad(stretch.references, stretch.start + n, error))
            if low <= begin:
                row = stretch.start + n if row is None else row
                digests.append(
                    outcome.digest + outcome.origin if isinstance(outcome, Payload) else bytes(_BESIDE_BYTES)
                )
    variable, plan = byte_names(field.variable)[0], byte_plan(field)
    record = _put(tasks.spec.root, plan, variable, first_shard + number, plan.encode_shard(content))
    spill = Spill.write(tasks.scratch, f"digests{number}", [np.frombuffer(b"".join(digests), np.uint8)])
    if not bad:
        tasks.notes.add(name, (record,), row=row or 0, digests=[spill.key, spill.n_rows, spill.digest])
    return WrittenBytes(record, row or 0, spill, tuple(dict.fromkeys(bad)))


def _value(outcome: Outcome, n_bytes: int) -> NDArray[np.uint8]:
    """The bytes of a row. Raises `PayloadError`."""
    if isinstance(outcome, PayloadError):
        raise outcome
    value: NDArray[np.uint8] = np.zeros(0, np.uint8) if outcome is None else outcome.value
    if value.dtype != np.uint8 or value.shape != (n_bytes,):
        raise PayloadError(f"{value.size:,} bytes", f"{n_bytes:,}, as it had when it was looked at")
    return value


def _write_places(
    stretch: Stretch, field: Field, written: Sequence[WrittenBytes], offset: int, spec: RowsSpec
) -> list[ObjectRecord]:
    """Write where the bytes of the rows of a shard begin, how many there are, and their digests."""
    starts = stretch.starts()
    sizes = np.diff(starts)
    beside = np.zeros((len(sizes), _BESIDE_BYTES), np.uint8)
    for row, some in _digests_in(written, stretch.start, stretch.stop):
        beside[row - stretch.start : row - stretch.start + len(some)] = some
    digests, origins = np.ascontiguousarray(beside[:, :DIGEST_BYTES]), np.ascontiguousarray(beside[:, DIGEST_BYTES:])
    columns = (np.where(sizes > 0, starts[:-1] + offset, 0), sizes, digests, origins)
    plans = place_plans(field, RowGrid(spec.chunk_rows, spec.shard_rows))
    return [
        _put(spec.root, plan, variable, stretch.shard, plan.encode_shard(values))
        for (variable, plan), values in zip(plans.items(), columns, strict=False)  # origins, where there are some
    ]


def _digests_in(written: Sequence[WrittenBytes], start: int, stop: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Digests and origins of rows ``[start, stop)``, and the first row of each part of them."""
    for each in written:
        n_rows = each.digests.n_rows // _BESIDE_BYTES
        low, high = max(each.row, start), min(each.row + n_rows, stop)
        if high > low:
            some = each.digests.read(0, (low - each.row) * _BESIDE_BYTES, (high - each.row) * _BESIDE_BYTES)
            yield low, some.reshape(-1, _BESIDE_BYTES)


def _put(root: Storage, plan: ArrayPlan, variable: str, shard: int, content: bytes) -> ObjectRecord:
    key = plan.key(variable, shard)
    root.write(key, content)
    return ObjectRecord.of(key, content)
