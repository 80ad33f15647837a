"""Fields: payloads are read in the final order of their rows, encoded and written, each once.

References to payloads went through blocks, spills and merges like any column, so a task that owns a shard of a field
knows which payloads it needs, in which order, and nothing else does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.format.codecs import ARRAY_CANDIDATES, smallest
from zstore.format.encodings.arrays import ARRAY_DTYPES, Arrays, Dense, observe_array
from zstore.format.layout import RESERVED, array_grid, safe_names
from zstore.format.manifest import ObjectRecord
from zstore.format.rowarrays import DIGEST_BYTES, array_names
from zstore.format.schema import Field
from zstore.format.shards import ArrayPlan
from zstore.format.trust import MOST_AXES, MOST_ROW_BYTES
from zstore.writing.scheduler import Scheduler
from zstore.writing.shards import RowsSpec, ShardReport, digest_plan
from zstore.writing.sort import Spill
from zstore.writing.sources.payloads import FieldSpec, Payload, PayloadError, PayloadFaultError, PayloadReader

_NO_DIGEST = bytes(DIGEST_BYTES)
_SAMPLE_BYTES = 1 << 21
_AXES = {1: ("x",), 2: ("y", "x"), 3: ("y", "x", "colour"), 4: ("z", "y", "x", "colour")}


class NarrowError(Exception):
    """A value that the encoding of a field does not hold, which a sample did not show."""


@dataclass(frozen=True)
class References:
    """Where the payloads of one field lie, for the rows of a shard of channels, on scratch space.

    Parameters
    ----------
    spill
        Holders and positions of all fields.
    column
        Of the spill: the holders of this field, whose positions are behind them.
    start
        Number of the first row.
    """

    spill: Spill
    column: int
    start: int

    def read(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(row,) number of the holder, -1 where a row has no payload, and position in it, of rows ``[start, stop)``."""
        low, high = start - self.start, stop - self.start
        holders, positions = (self.spill.read(column, low, high) for column in (self.column, self.column + 1))
        codes = np.where(holders < 0, -1, holders).astype(np.int64)
        return codes, np.where(codes < 0, 0, positions).astype(np.int64)

    def time(self, row: int) -> int:
        """Time of a row."""
        return int(self.spill.read(0, row - self.start, row - self.start + 1)[0])


@dataclass(frozen=True)
class FieldShard:
    """What one task writes: a shard of a field.

    Parameters
    ----------
    shard
        Its number.
    start, stop
        Its rows among those that are written.
    references
        Where their payloads lie.
    """

    shard: int
    start: int
    stop: int
    references: References


@dataclass(frozen=True)
class Payloads:
    """Payloads of one field, row by row.

    Parameters
    ----------
    name
        Of the field.
    reader
        Reads them.
    holders
        (holder,) names that references have as numbers.
    row_start
        (series + 1,) first row of each series.
    """

    name: str
    reader: PayloadReader
    holders: Sequence[str]
    row_start: Any

    def of(self, references: References, start: int, stop: int) -> Iterator[Payload | None]:
        """The payloads of rows ``[start, stop)``; None where a row has none.

        Neighbours in one holder are read together.

        Raises
        ------
        PayloadFaultError
            If one cannot be read.
        """
        codes, positions = references.read(start, stop)
        borders = np.flatnonzero(np.diff(codes, prepend=-2, append=-2))
        for first, last in pairwise(borders.tolist()):
            if codes[first] < 0:
                yield from [None] * (last - first)
                continue
            row = start + first
            try:
                for payload in self.reader.read(self.holders[int(codes[first])], positions[first:last].tolist()):
                    yield payload
                    row += 1
            except PayloadError as error:
                raise self.fault(references, min(row, start + last - 1), error) from error

    def fault(self, references: References, row: int, error: PayloadError) -> PayloadFaultError:
        """What is wrong with the payload of a row."""
        codes, positions = references.read(row, row + 1)
        place = self.reader.show(self.holders[int(codes[0])], int(positions[0]))
        series = int(np.searchsorted(self.row_start, row, side="right")) - 1
        return PayloadFaultError(self.name, series, references.time(row), place, error.reason, error.expected)


def plan_field(
    spec: FieldSpec, payloads: Payloads, shards: Sequence[FieldShard], rows: RowsSpec, taken: Sequence[str]
) -> tuple[Field, dict[str, int]] | None:
    """How a field is to lie in its array, from its first payloads in final order; None where no row has any.

    Parameters
    ----------
    spec
        What it is.
    payloads, shards
        Its payloads; shards as of channels, in order.
    rows
        How channels lie.
    taken
        Variables that are used.

    Returns
    -------
    The field, and the bytes of a sample with each codec tried.

    Raises
    ------
    PayloadFaultError
        If the first payload cannot be read, or cannot be of a field.
    """
    found: list[NDArray[Any]] = []
    most = 1
    for shard in shards:
        rows_of_shard = payloads.of(shard.references, shard.start, shard.stop)
        for row, payload in enumerate(rows_of_shard, shard.start):
            if payload is None:
                continue
            value = payload.value
            if not found:
                try:
                    _check_first(value)
                except PayloadError as error:
                    raise payloads.fault(shard.references, row, error) from error
                most = max(_SAMPLE_BYTES // value.nbytes, 1)
            if value.shape == found[0].shape and value.dtype == found[0].dtype if found else True:
                found.append(value)
            if len(found) >= most:
                break
        if found and len(found) >= most:
            break
    if not found:
        return None
    value = found[0]
    encoding = Arrays().choose([observe_array(each) for each in found], str(value.dtype))
    sample = np.stack([each.astype(encoding.dtype) for each in found])
    grid = array_grid(sample[0].nbytes, rows.shard_rows)
    codec, trial = smallest(sample, grid.chunk_rows, ARRAY_CANDIDATES)
    dimensions = spec.dimensions or _dimensions(value.ndim)
    variable = _variable(spec.name, taken)
    shape = tuple(map(int, value.shape))
    return Field(spec.name, variable, encoding, str(value.dtype), spec.units, codec, shape, dimensions, grid), trial


def _check_first(value: NDArray[Any]) -> None:
    """Refuse what no field can be made of. Raises `PayloadError`."""
    if str(value.dtype) not in ARRAY_DTYPES:
        raise PayloadError(f"values of dtype {value.dtype}", f"one of {', '.join(ARRAY_DTYPES)}")
    if not 0 < value.ndim <= MOST_AXES or not value.size:
        raise PayloadError(f"a value of shape {value.shape}", f"one to {MOST_AXES} axes, none of them empty")
    if value.nbytes > MOST_ROW_BYTES:
        raise PayloadError(f"a value of {value.nbytes:,} bytes", f"at most {MOST_ROW_BYTES:,}")


def _dimensions(n_axes: int) -> tuple[str, ...]:
    """Usual names of the axes of a value."""
    return _AXES.get(n_axes, tuple(f"axis_{n}" for n in range(n_axes)))


def _variable(name: str, taken: Sequence[str]) -> str:
    """A variable for a field, whose arrays are called like nothing else."""
    used = {each.lower() for each in (*RESERVED, *taken)}
    (variable,) = safe_names([name], used)
    while used.intersection(each.lower() for each in array_names(variable)):
        used.add(variable.lower())
        (variable,) = safe_names([name], used)
    return variable


def write_field(shard: FieldShard, field: Field, payloads: Payloads, rows: RowsSpec) -> tuple[ObjectRecord, ...]:
    """Read, encode and write the payloads of one shard, and their digests.

    Raises
    ------
    PayloadFaultError
        If a payload cannot be read, or differs in shape or dtype from the first one.
    NarrowError
        If the encoding does not hold a value.

    Notes
    -----
    Memory: one chunk of values, and the encoded shard.
    """
    plan, digests = rows.plan(field), np.zeros((shard.stop - shard.start, DIGEST_BYTES), np.uint8)
    values = payloads.of(shard.references, shard.start, shard.stop)
    encoded = []
    for start in range(shard.start, shard.stop, plan.chunk_rows):
        n_rows = min(plan.chunk_rows, shard.stop - start)
        chunk = np.zeros((n_rows, *field.shape), plan.dtype)
        for n, payload in enumerate(islice(values, n_rows)):
            if payload is not None:
                try:
                    chunk[n] = _as_stored(payload, field)
                except PayloadError as error:
                    raise payloads.fault(shard.references, start + n, error) from error
                digests[start - shard.start + n] = np.frombuffer(payload.digest, np.uint8)
        encoded.append(plan.encode_chunk(chunk))
    return (
        _put(rows, field.variable, shard.shard, plan.join_chunks(encoded), plan),
        _put_digests(rows, field, shard.shard, digests),
    )


def _as_stored(payload: Payload, field: Field) -> NDArray[Any]:
    """A value in the encoding of its field. Raises `PayloadError` or `NarrowError`."""
    value, encoding = payload.value, field.encoding
    if value.shape != field.shape or str(value.dtype) != field.dtype:
        raise PayloadError(
            f"a value of shape {value.shape} and dtype {value.dtype}",
            f"shape {field.shape} and dtype {field.dtype}, as the first one has",
        )
    if len(payload.digest) != DIGEST_BYTES or payload.digest == _NO_DIGEST:
        raise PayloadError("a payload without a digest", f"{DIGEST_BYTES} bytes, not all of them 0")
    if encoding.dtype == field.dtype:
        return value
    form = observe_array(value)
    if isinstance(encoding, Dense) and not encoding.holds(form):
        raise NarrowError(field.name)
    return encoding.bringer(form)(value)


def _put_digests(rows: RowsSpec, field: Field, shard: int, digests: NDArray[np.uint8]) -> ObjectRecord:
    plan = digest_plan(field)
    return _put(rows, array_names(field.variable)[1], shard, plan.encode_shard(digests), plan)


def _put(rows: RowsSpec, variable: str, shard: int, content: bytes, plan: ArrayPlan) -> ObjectRecord:
    key = plan.key(variable, shard)
    rows.root.write(key, content)
    return ObjectRecord.of(key, content)


def field_shards(
    shards: Sequence[ShardReport], n_rows: int, rows: RowsSpec, shard_rows: int, n: int
) -> list[FieldShard]:
    """The shards of a field; each lies in one of channels.

    Parameters
    ----------
    shards
        Of channels, with their references.
    n_rows
        Rows that are written.
    rows
        How channels lie.
    shard_rows, n
        Rows of a shard of the field, and which of all it is.
    """
    made = []
    for report, after in zip(shards, [*(shard.start for shard in shards[1:]), n_rows], strict=True):
        assert report.references is not None
        references = References(report.references, 1 + 2 * n, report.start)
        for start in range(report.start, after, shard_rows):
            place = rows.first_shard * rows.shard_rows + start
            made.append(FieldShard(place // shard_rows, start, min(start + shard_rows, after), references))
    return made


@dataclass(frozen=True)
class WrittenFields:
    """Fields in the arrays of a store, which no version has yet.

    Parameters
    ----------
    fields
        Those that any row has a payload of.
    records
        The objects that were written.
    trials
        Per field, the bytes of a sample with each codec tried.
    """

    fields: tuple[Field, ...]
    records: tuple[ObjectRecord, ...]
    trials: dict[str, dict[str, int]]


def write_fields(
    specs: Sequence[FieldSpec], shards: Sequence[ShardReport], row_start: Any, rows: RowsSpec, runner: Scheduler
) -> WrittenFields:
    """Write all fields of rows whose channels have been written.

    Parameters
    ----------
    specs
        What they are.
    shards, rows
        The rows.
    row_start
        (series + 1,) first row of each series.
    runner
        Runs a task for each shard of each field.

    Raises
    ------
    PayloadFaultError
        If a payload cannot be stored.
    """
    fields: list[Field] = []
    records: list[ObjectRecord] = []
    trials: dict[str, dict[str, int]] = {}
    n_rows = int(row_start[-1])
    for n, spec in enumerate(specs):
        payloads = Payloads(spec.name, spec.reader, rows.references[2 * n].categories, row_start)
        taken = [*(channel.variable for channel in rows.channels)]
        taken += [name for field in fields for name in array_names(field.variable)]
        whole = field_shards(shards, n_rows, rows, rows.shard_rows, n)
        planned = plan_field(spec, payloads, whole, rows, taken)
        if planned is None:
            continue
        field, trials[spec.name] = planned
        written = _written(n, field, payloads, shards, n_rows, rows, runner)
        if written is None:
            field = _widened(field, rows)
            written = _written(n, field, payloads, shards, n_rows, rows, runner) or []
        fields.append(field)
        records += written
    return WrittenFields(tuple(fields), tuple(records), trials)


def _widened(field: Field, rows: RowsSpec) -> Field:
    """A field whose values are stored in the dtype of the source."""
    encoding = Dense(field.dtype, field.dtype)
    wider = replace(field, encoding=encoding)
    return replace(wider, grid=array_grid(wider.row_bytes, rows.shard_rows))


def _written(
    n: int,
    field: Field,
    payloads: Payloads,
    shards: Sequence[ShardReport],
    n_rows: int,
    rows: RowsSpec,
    runner: Scheduler,
) -> list[ObjectRecord] | None:
    """The objects of a field; None where its encoding does not hold all values."""
    assert field.grid is not None
    parts = field_shards(shards, n_rows, rows, field.grid.shard_rows, n)
    sizes = [part.stop - part.start for part in parts]
    task = partial(write_field, field=field, payloads=payloads, rows=replace(rows, bringers=(), references=()))
    try:
        pairs = runner.map(f"write {field.name}", task, parts, sizes, "rows")
    except NarrowError:
        return None
    return [record for pair in pairs for record in pair]
