"""Fields: payloads are read in the final order of their rows, encoded and written, each once.

References to payloads went through blocks, spills and merges like any column, so a task that owns a shard of a field
knows which payloads it needs, in which order, and nothing else does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.errors import SourceError
from zstore.format.codecs import ARRAY_CANDIDATES, smallest
from zstore.format.encodings.arrays import ARRAY_DTYPES, Arrays, Dense, observe_array
from zstore.format.layout import RESERVED, array_grid, safe_names, split_shard_key
from zstore.format.manifest import ObjectRecord
from zstore.format.rowarrays import DIGEST_BYTES, array_names, byte_names
from zstore.format.schema import Field
from zstore.format.shards import ArrayPlan, decode_shard
from zstore.format.trust import MOST_AXES, MOST_ROW_BYTES
from zstore.reading.compared import compare
from zstore.reading.version import StoredVersion
from zstore.storage.protocol import Storage
from zstore.writing.encoded import write_bytes
from zstore.writing.referred import Payloads, References, StoredPayloads
from zstore.writing.scheduler import Scheduler
from zstore.writing.shards import RowsSpec, ShardReport, digest_plan, undecodable
from zstore.writing.sources.payloads import FieldSpec, Payload, PayloadError, PayloadLook

_NO_DIGEST = bytes(DIGEST_BYTES)
_SAMPLE_BYTES = 1 << 21
_AXES = {1: ("x",), 2: ("y", "x"), 3: ("z", "y", "x"), 4: ("z", "y", "x", "colour")}
_MOST_COLOURS = 4


@dataclass(frozen=True)
class Fields:
    """What rows have beside scalar channels, before it is written.

    Parameters
    ----------
    specs
        What the sources say of them; none where all payloads lie in `base`.
    scratch
        Where references go meanwhile; None where there are no fields.
    base
        The store that the rows come behind, or are of; None for a new one.
    anew
        Whether every row of `base` is written anew, so that variables may be called otherwise.
    """

    specs: Sequence[FieldSpec] = ()
    scratch: Storage | None = None
    base: StoredVersion | None = None
    anew: bool = False

    @property
    def known(self) -> dict[str, Field]:
        """The fields of `base` by name."""
        return {} if self.base is None else {field.name: field for field in self.base.schema.fields}


class NarrowError(Exception):
    """A value that the encoding of a field does not hold, which a sample did not show."""


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


def plan_field(
    spec: FieldSpec, payloads: Payloads, shards: Sequence[FieldShard], rows: RowsSpec, others: Sequence[Field]
) -> tuple[Field, dict[str, int]]:
    """How a field is to lie in its array, from its first payloads in final order.

    Parameters
    ----------
    spec
        What it is.
    payloads, shards
        Its payloads; shards as of channels, in order.
    rows
        How channels lie.
    others
        Fields that the store has beside it.

    Returns
    -------
    The field, and the bytes of a sample with each codec tried.

    Raises
    ------
    PayloadFaultError
        If the first payload cannot be read, or cannot be of a field.
    """
    found: list[NDArray[Any]] = []
    most, placed = 1, False
    for shard in shards:
        rows_of_shard = payloads.of(shard.references, shard.start, shard.stop)
        for row, payload in enumerate(rows_of_shard, shard.start):
            if payload is None:
                continue
            value = payload.value
            if not found:
                placed = payload.grid is not None
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
    value = found[0]
    encoding = Arrays().choose([observe_array(each) for each in found], str(value.dtype))
    sample = np.stack([each.astype(encoding.dtype) for each in found])
    grid = array_grid(sample[0].nbytes, rows.shard_rows)
    codec, trial = smallest(sample, grid.chunk_rows, ARRAY_CANDIDATES)
    variable = _variable(spec.name, _taken(rows, others))
    shape = tuple(map(int, value.shape))
    dimensions = _own_dimensions(spec.dimensions or _dimensions(shape, placed), shape, variable, others)
    return Field(spec.name, variable, encoding, str(value.dtype), spec.units, codec, shape, dimensions, grid), trial


def _check_first(value: NDArray[Any]) -> None:
    """Refuse what no field can be made of. Raises `PayloadError`."""
    if str(value.dtype) not in ARRAY_DTYPES:
        raise PayloadError(f"values of dtype {value.dtype}", f"one of {', '.join(ARRAY_DTYPES)}")
    if not 0 < value.ndim <= MOST_AXES or not value.size:
        raise PayloadError(f"a value of shape {value.shape}", f"one to {MOST_AXES} axes, none of them empty")
    if value.nbytes > MOST_ROW_BYTES:
        raise PayloadError(f"a value of {value.nbytes:,} bytes", f"at most {MOST_ROW_BYTES:,}")


def _dimensions(shape: tuple[int, ...], placed: bool) -> tuple[str, ...]:
    """Usual names of the axes of a value; of a volume that is placed in millimetres, those of its affine."""
    n_axes = len(shape)
    if n_axes == 3 and placed:
        return ("x", "y", "z")
    if n_axes == 3 and shape[-1] <= _MOST_COLOURS:
        return ("y", "x", "colour")
    return _AXES.get(n_axes, tuple(f"axis_{n}" for n in range(n_axes)))


def _own_dimensions(
    names: Sequence[str], shape: tuple[int, ...], variable: str, others: Sequence[Field]
) -> tuple[str, ...]:
    """Names of the dimensions of a field: one name has one length in a store, so that xarray can open all of it."""
    known = {"row": 0, "series": 0, "channel": 0, "digest_byte": DIGEST_BYTES}
    for field in others:
        known |= dict(zip(field.dimensions, field.shape, strict=True))
    pairs = zip(names, shape, strict=True)
    return tuple(name if known.get(name, length) == length else f"{variable}_{name}" for name, length in pairs)


def _taken(rows: RowsSpec, fields: Sequence[Field]) -> list[str]:
    """Variables of channels, and of some fields."""
    arrays = (name for field in fields for name in byte_names(field.variable))
    return [*(channel.variable for channel in rows.channels), *arrays]


def _variable(name: str, taken: Sequence[str]) -> str:
    """A variable for a field, whose arrays are called like nothing else."""
    used = {each.lower() for each in (*RESERVED, *taken)}
    (variable,) = safe_names([name], used)
    while used.intersection(each.lower() for each in byte_names(variable)):
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
    fields: Fields, shards: Sequence[ShardReport], row_start: Any, rows: RowsSpec, runner: Scheduler
) -> WrittenFields:
    """Write all fields of rows whose channels have been written.

    Parameters
    ----------
    fields
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
    SourceError
        If no row has a payload of a field.
    """
    made: list[Field] = []
    records: list[ObjectRecord] = []
    trials: dict[str, dict[str, int]] = {}
    known, specs = fields.known, {spec.name: spec for spec in fields.specs}
    for n, name in enumerate(specs or known):
        spec, old = specs.get(name), known.get(name)
        stored = None if fields.base is None or old is None else StoredPayloads(fields.base, old)
        holders = rows.references[2 * n].categories
        payloads = Payloads(name, None if spec is None else spec.reader, stored, holders, row_start)
        whole = field_shards(shards, int(row_start[-1]), rows, rows.shard_rows, n)
        if old is None:
            assert spec is not None
            if _first_look(spec, payloads, whole).shape is None:
                field = Field.of_bytes(name, _variable(name, _taken(rows, made)), spec.units, 0)
            else:
                field, trials[name] = plan_field(spec, payloads, whole, rows, made)
        else:
            field = replace(old, variable=_variable(name, _taken(rows, made))) if fields.anew else old
        if field.n_bytes is not None:
            parts = [(shard.shard, shard.start, shard.stop, shard.references) for shard in whole]
            assert fields.scratch is not None
            field, written = write_bytes(field, payloads, parts, rows, fields.scratch, runner)
        else:
            behind = None if old is None else _taken(rows, made)
            field, written = _written(n, field, payloads, shards, rows, runner, behind)
        made.append(field)
        records += written
    return WrittenFields(tuple(made), tuple(records), trials)


def _first_look(spec: FieldSpec, payloads: Payloads, shards: Sequence[FieldShard]) -> PayloadLook:
    """What the first payload will be.

    Raises
    ------
    SourceError
        If no row has any.
    """
    for shard in shards:
        look = payloads.look(shard.references, shard.start, shard.stop)
        if look is not None:
            return look
    raise SourceError(
        f"no row has a payload of field {spec.name!r}",
        expected=f"a name in column {spec.holder!r} of some row",
        fix="leave the field out",
    )


def _written(
    n: int,
    field: Field,
    payloads: Payloads,
    shards: Sequence[ShardReport],
    rows: RowsSpec,
    runner: Scheduler,
    taken: Sequence[str] | None,
) -> tuple[Field, list[ObjectRecord]]:
    """A field and its objects; where its encoding does not hold all values, as the source has them.

    Behind rows of a store, whose variables are `taken`, it keeps its grid then, and gets another variable.
    """
    task = partial(_write_all, n=n, payloads=payloads, shards=shards, rows=rows, runner=runner)
    try:
        return field, task(field)
    except NarrowError:
        wider = replace(field, encoding=Dense(field.dtype, field.dtype))
        if taken is not None:
            wider = replace(wider, variable=_variable(f"{field.name}-wide", [*taken, *byte_names(field.variable)]))
        else:
            wider = replace(wider, grid=array_grid(wider.row_bytes, rows.shard_rows))
        return wider, task(wider)


def _write_all(
    field: Field, n: int, payloads: Payloads, shards: Sequence[ShardReport], rows: RowsSpec, runner: Scheduler
) -> list[ObjectRecord]:
    grid = field.grid or array_grid(field.row_bytes, rows.shard_rows)
    parts = field_shards(shards, int(payloads.row_start[-1]), rows, grid.shard_rows, n)
    sizes = [part.stop - part.start for part in parts]
    task = partial(write_field, field=field, payloads=payloads, rows=replace(rows, bringers=(), references=()))
    pairs = runner.map(f"write {field.name}", task, parts, sizes, "rows")
    return [record for pair in pairs for record in pair]


def widen_field(record: ObjectRecord, before: Field, after: Field, rows: RowsSpec) -> ObjectRecord:
    """Write a committed shard of a field, or of its digests, anew: in the dtype of the source, under its new variable.

    Raises
    ------
    CorruptionError
        If the shard differs from its digest, or cannot be decoded.
    """
    content = compare(rows.root, record)
    variable, shard = split_shard_key(record.key)
    values, digests = array_names(after.variable)
    if variable != before.variable:
        return _put(rows, digests, int(shard), content, digest_plan(after))
    old, new = rows.plan(before), rows.plan(after)
    try:
        chunks = decode_shard(content, old.dtype, old.codec, old.chunk_rows, old.shard_rows, old.shape)
        encoded = [new.encode_chunk(chunk.astype(new.dtype)) for chunk in chunks]
    except ValueError as error:
        raise undecodable(rows.root, record, error) from error
    return _put(rows, values, int(shard), new.join_chunks(encoded), new)
