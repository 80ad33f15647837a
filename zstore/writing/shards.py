"""One task, one shard or some channels of it: gather rows from the spills, order, pack, encode, digest, and sum up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.errors import CorruptionError
from zstore.format.codecs import TIME_CODEC
from zstore.format.encodings import Encoding, Form
from zstore.format.encodings.base import Values
from zstore.format.layout import TIME, RowGrid, shard_key, split_shard_key
from zstore.format.manifest import ObjectRecord
from zstore.format.moments import Moments, stack
from zstore.format.rowarrays import digests_of
from zstore.format.schema import Field, TimeAxis
from zstore.format.shards import ArrayPlan, decode_shard
from zstore.format.timesteps import TimeStepRule
from zstore.reading.compared import compare
from zstore.storage.protocol import Storage
from zstore.writing.segments import Segments
from zstore.writing.shard_parts import PartReport, ShardPart, ShardReport
from zstore.writing.sort import DuplicateTimeError, ShardPlan, SortedBlock, Spill, find_duplicate, read_all
from zstore.writing.steps import Trial, encode_steps, gather_keys, report_steps

Int64 = NDArray[np.int64]

_TOGETHER_ROWS = 1 << 17  # of which moments are made at once
_TOGETHER_BYTES = 1 << 24  # of columns that are read at once


@dataclass(frozen=True)
class RowsSpec:
    """What every shard has in common: where it goes and how its variables are laid out."""

    root: Storage
    channels: tuple[Field, ...]
    bringers: tuple[tuple[Callable[[Values], Values], ...], ...]
    """Per block and column, what brings spilled values to the encoding of the column."""
    time: TimeAxis
    chunk_rows: int
    shard_rows: int
    first_shard: int = 0
    """Number of the shard that holds row 0 of what is being written."""
    references: tuple[Field, ...] = ()
    """Of each field to be written, the holders of its payloads and their positions: columns of spills, not stored."""

    @property
    def columns(self) -> tuple[Field, ...]:
        """What is spilled beside the time."""
        return (*self.channels, *self.references)

    def of(self, channels: Sequence[Field], forms: Iterable[Sequence[Form]]) -> RowsSpec:
        """The same for other channels, and blocks in some forms, (block, column)."""
        columns = (*channels, *self.references)
        bringers = (
            tuple(column.encoding.bringer(form) for column, form in zip(columns, block, strict=True)) for block in forms
        )
        return replace(self, channels=tuple(channels), bringers=tuple(bringers))

    @property
    def unchanged(self) -> tuple[Callable[[Values], Values], ...]:
        """Per column, the bringer of a block that is in its encoding already."""
        return tuple(column.encoding.bringer(column.encoding.form_of(0)) for column in self.columns)

    @property
    def missing(self) -> tuple[Callable[[Values], Values], ...]:
        """Per column, the bringer of a block of int16 that has missing values only."""
        return tuple(column.encoding.bringer(column.encoding.empty_form) for column in self.columns)

    def plan(self, channel: Field | None) -> ArrayPlan:
        """The array of one channel or field, or of the time."""
        if channel is None:
            return ArrayPlan("int64", 0, TIME_CODEC, self.chunk_rows, self.shard_rows, self.time.attributes())
        encoding, grid = channel.encoding, channel.grid or RowGrid(self.chunk_rows, self.shard_rows)
        size = (grid.chunk_rows, grid.shard_rows)
        axes = (channel.shape, channel.dimensions)
        return ArrayPlan(encoding.dtype, encoding.fill, channel.codec, *size, channel.attributes(), *axes)


class Gathered:
    """The rows between two places of the final order, read from the spills column by column.

    Parameters
    ----------
    plan
        The places.
    blocks
        All blocks.
    spec
        How their columns were spilled.
    """

    def __init__(self, plan: ShardPlan, blocks: Sequence[SortedBlock], spec: RowsSpec) -> None:
        self._blocks, self._spec = blocks, spec
        self.codes, self.times, (self._slices, self._order) = gather_keys(plan, blocks)
        self._n_rows = len(self.codes)

    def forget_keys(self) -> None:
        """Drop series and times, three quarters of the memory of a shard."""
        del self.codes, self.times

    def columns(self, positions: Sequence[int]) -> Iterator[NDArray[Any]]:
        """(row,) values of some columns, one after the other, as they are to be stored.

        Notes
        -----
        Some are read at once, as many as :data:`_TOGETHER_BYTES` have room for: spills are opened once for all of them.
        """
        dtypes = [np.dtype(column.encoding.dtype) for column in self._spec.columns]
        widest = max((dtypes[position].itemsize for position in positions), default=1)
        n_at_once = max(1, _TOGETHER_BYTES // max(1, self._n_rows * widest))
        for first in range(0, len(positions), n_at_once):
            some = positions[first : first + n_at_once]
            wanted = [position + 1 for position in some]  # times come first
            reads = [partial(self._blocks[n].spill.read_columns, wanted, *rows) for n, *rows in self._slices]
            pieces = list(zip(*read_all(self._blocks, reads), strict=True))
            for number, position in enumerate(some):
                yield self._put_together(position, pieces[number] if pieces else ())

    def _put_together(self, position: int, pieces: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """One column in the final order from what of it lies in each block."""
        stored = np.empty(self._n_rows, self._spec.columns[position].encoding.dtype)
        row = 0
        for (n, start, stop), piece in zip(self._slices, pieces, strict=True):
            stored[row : row + stop - start] = self._spec.bringers[n][position](piece)
            row += stop - start
        return stored if self._order is None else stored.take(self._order)


def write_part(
    part: ShardPart, blocks: Sequence[SortedBlock], spec: RowsSpec, scratch: Storage | None = None
) -> PartReport:
    """Gather, order, pack, encode and write objects of one shard.

    References of fields go to scratch space, and what a whole shard knows of very many series.

    Raises
    ------
    DuplicateTimeError
        If a series has two rows at one time.
    """
    rows, shard = Gathered(part.plan, blocks, spec), spec.first_shard + part.plan.shard
    starts = _segment_starts(rows.codes)
    keys = _write_keys(part.plan, rows, starts, spec, scratch) if part.first else None
    rows.forget_keys()
    records, moments, n_infinite = [], [Moments.empty((len(starts), 0))], []
    channels = [spec.channels[position] for position in part.channels]
    for channel, stored in zip(channels, rows.columns(part.channels), strict=True):
        records.append(_put(spec, channel.variable, shard, spec.plan(channel), stored))
        moments.append(_segment_moments(stored, channel.encoding, starts))
        endless = moments[-1].count.any() and np.isinf([moments[-1].low.min(), moments[-1].high.max()]).any()
        n_infinite.append(channel.encoding.count_infinite(stored) if endless else 0)
    together = stack(moments, axis=1)
    if keys is not None and len(part.channels) == len(spec.channels):
        segments = replace(keys.segments, moments=together).put_aside(scratch, f"series{part.plan.shard}")
        keys, together = replace(keys, segments=segments), Moments.empty((0, 0))
    return PartReport(keys, tuple(records), together, tuple(n_infinite))


def _segment_starts(codes: NDArray[np.integer[Any]]) -> Int64:
    """(segment,) first row of each series of a shard."""
    return np.concatenate([np.zeros(min(len(codes), 1), np.int64), np.flatnonzero(codes[1:] != codes[:-1]) + 1])


def _write_keys(plan: ShardPlan, rows: Gathered, starts: Int64, spec: RowsSpec, scratch: Storage | None) -> ShardReport:
    """Write the times of a shard; its report, still without channels."""
    codes, times, number = rows.codes, rows.times, spec.first_shard + plan.shard
    twice = find_duplicate(codes, times)
    if twice is not None:
        raise DuplicateTimeError(int(codes[twice]), int(times[twice]))
    stops = np.append(starts[1:], len(codes)) - 1
    return ShardReport(
        (_put(spec, TIME, number, spec.plan(None), times),),
        plan.start,
        Segments(codes[starts], times[starts], times[stops], Moments.empty((len(starts), 0))),
        report_steps(encode_steps(codes, times, plan.start), times, spec.time),
        references=None if scratch is None or not spec.references else _spill_references(rows, spec, scratch, number),
    )


def _spill_references(rows: Gathered, spec: RowsSpec, scratch: Storage, shard: int) -> Spill:
    """References of all fields in final order, behind the times."""
    n_channels = len(spec.channels)
    columns = rows.columns(range(n_channels, n_channels + len(spec.references)))
    return Spill.write(scratch, f"payloads{shard}", [rows.times, *columns])


def digest_plan(field: Field) -> ArrayPlan:
    """The array of the digests of a field's payloads."""
    grid = field.grid or RowGrid()
    array = digests_of(field.variable, grid)
    about = {"long_name": f"xxh3-128 of the source bytes of {field.name}; zeros where a row has none"}
    size = (array.grid.chunk_rows, array.grid.shard_rows)
    return ArrayPlan(array.dtype, 0, str(array.codec), *size, about, array.shape, ("digest_byte",))


def origin_plan(field: Field) -> ArrayPlan:
    """The array of the origins of a field's payloads, which lies as their digests do."""
    about = {"long_name": f"files of {field.name}, and how they were; zeros where nothing is known"}
    return replace(digest_plan(field), attributes=about)


def stored_trial(plan: ShardPlan, spec: RowsSpec, row_start: Int64, rule: TimeStepRule) -> Trial:
    """What a rule makes of the rows of a shard, from its times on disk: for steps too many to report, and calendars.

    Parameters
    ----------
    plan
        The shard.
    spec
        Where it was written.
    row_start
        (series + 1,) first row of each series.
    rule
        Complete and regular.
    """
    content = spec.root.read(shard_key(TIME, spec.first_shard + plan.shard))
    chunks = decode_shard(content, "int64", TIME_CODEC, spec.chunk_rows, spec.shard_rows)
    times = np.concatenate([chunk.copy() for chunk in chunks])[: plan.stop - plan.start]
    series = np.searchsorted(row_start, np.arange(plan.start, plan.stop), side="right") - 1
    return Trial.of(series, times, plan.start, rule)


def widen_shard(record: ObjectRecord, before: Sequence[Field], spec: RowsSpec) -> ObjectRecord:
    """Write a committed shard of a channel anew, in the channel's new packing and under its new variable.

    Parameters
    ----------
    record
        The shard, as the manifest has it.
    before
        The channels as they were.
    spec
        The channels as they are to be.

    Raises
    ------
    CorruptionError
        If the shard differs from its digest, or cannot be decoded.
    """
    variable, shard = split_shard_key(record.key)
    old, new = next(pair for pair in zip(before, spec.channels, strict=True) if pair[0].variable == variable)
    content = compare(spec.root, record)
    try:
        chunks = decode_shard(content, old.encoding.dtype, old.codec, spec.chunk_rows, spec.shard_rows)
        values = new.encoding.bringer(old.encoding.form_of(0))(np.concatenate([chunk.copy() for chunk in chunks]))
    except ValueError as error:
        raise undecodable(spec.root, record, error) from error
    return _put(spec, new.variable, int(shard), spec.plan(new), values)


def undecodable(root: Storage, record: ObjectRecord, error: ValueError) -> CorruptionError:
    """The error of an object that has its digest, and is none of its array."""
    return CorruptionError(
        f"object {record.key} cannot be decoded ({error})",
        where=f"{root}/{record.key}",
        fix="restore the store from a copy, or ingest again",
    )


def _put(spec: RowsSpec, variable: str, shard: int, plan: ArrayPlan, values: NDArray[Any]) -> ObjectRecord:
    content = plan.encode_shard(values)
    key = shard_key(variable, shard)
    spec.root.write(key, content)
    return ObjectRecord.of(key, content)


def _segment_moments(stored: NDArray[Any], encoding: Encoding, starts: Int64) -> Moments:
    """(segment, 1) moments, made of some whole segments after the other: their floats lie in memory, and in cache."""
    parts = [Moments.empty((0,))]
    first = 0
    while first < len(starts):
        start = int(starts[first])
        last = max(int(np.searchsorted(starts, start + _TOGETHER_ROWS, side="right")) - 1, first + 1)
        stop = int(starts[last]) if last < len(starts) else len(stored)
        parts.append(Moments.of_segments(encoding.unpack(stored[start:stop], "float64"), starts[first:last] - start))
        first = last
    return Moments(*(values[:, None] for values in stack(parts).fields().values()))  # type: ignore[arg-type]
