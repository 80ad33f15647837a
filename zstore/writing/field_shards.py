"""One task, one shard of a field: its payloads are read in the order of their rows, encoded and written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.format.encodings.arrays import Dense, observe_array
from zstore.format.layout import split_shard_key
from zstore.format.manifest import ObjectRecord
from zstore.format.rowarrays import DIGEST_BYTES, array_names, origin_name
from zstore.format.schema import Field
from zstore.format.shards import ArrayPlan, decode_shard
from zstore.reading.compared import compare
from zstore.writing.object_notes import ObjectNotes
from zstore.writing.referred import Payloads, References
from zstore.writing.shard_parts import ShardReport
from zstore.writing.shards import RowsSpec, digest_plan, origin_plan, undecodable
from zstore.writing.sources.payloads import BadPayload, Outcome, Payload, PayloadError

_NO_DIGEST = bytes(DIGEST_BYTES)


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
    known
        What came of the payloads of its first rows, where they have been read already.
    """

    shard: int
    start: int
    stop: int
    references: References
    known: Sequence[Outcome] = ()

    def outcomes(self, payloads: Payloads) -> Iterator[Outcome]:
        """What comes of the payloads of its rows."""
        return chain(self.known, payloads.of(self.references, self.start + len(self.known), self.stop))


@dataclass(frozen=True)
class WrittenShard:
    """A shard of a field, written.

    Parameters
    ----------
    records
        Its objects.
    bad
        Payloads that cannot be stored, where those are kept: their rows lie in it without a value.
    """

    records: tuple[ObjectRecord, ...]
    bad: tuple[BadPayload, ...] = ()


def field_shards(
    shards: Sequence[ShardReport],
    n_rows: int,
    rows: RowsSpec,
    shard_rows: int,
    n: int,
    known: Sequence[Outcome] = (),
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
    known
        What came of the first payloads, where they have been read.
    """
    made = []
    stops = [*(shard.start for shard in shards[1:]), n_rows] if shards else []
    for report, after in zip(shards, stops, strict=True):
        assert report.references is not None
        references = References(report.references, 1 + 2 * n, report.start)
        for start in range(report.start, after, shard_rows):
            number, stop = (rows.first_shard * rows.shard_rows + start) // shard_rows, min(start + shard_rows, after)
            made.append(FieldShard(number, start, stop, references, known[start:stop]))
    return made


def write_field(
    shard: FieldShard, field: Field, payloads: Payloads, rows: RowsSpec, notes: ObjectNotes
) -> WrittenShard:
    """Read, encode and write the payloads of one shard, and their digests; unless a run that was killed has done so.

    Raises
    ------
    PayloadFaultError
        If a payload cannot be read, or differs in shape or dtype from the first one, unless those are kept.
    NarrowError
        If the encoding does not hold a value.

    Notes
    -----
    Memory: one chunk of values, and the encoded shard.
    """
    name = f"field-{payloads.fingerprint(shard.references, shard.start, shard.stop, shard.shard, field)}"
    known = notes.known(name)
    if known is not None:
        return WrittenShard(tuple(known["records"]))
    plan = rows.plan(field)
    digests, origins = np.zeros((2, shard.stop - shard.start, DIGEST_BYTES), np.uint8)
    outcomes, encoded = shard.outcomes(payloads), []
    bad: list[BadPayload] = []
    for start in range(shard.start, shard.stop, plan.chunk_rows):
        n_rows = min(plan.chunk_rows, shard.stop - start)
        chunk = np.zeros((n_rows, *field.shape), plan.dtype)
        for n, outcome in enumerate(islice(outcomes, n_rows)):
            if outcome is None:
                continue
            try:
                if isinstance(outcome, PayloadError):
                    raise outcome
                chunk[n] = _as_stored(outcome, field)
                digests[start - shard.start + n] = np.frombuffer(outcome.digest, np.uint8)
                origins[start - shard.start + n] = np.frombuffer(outcome.origin, np.uint8)
            except PayloadError as error:
                bad.append(payloads.bad(shard.references, start + n, error))
        encoded.append(plan.encode_chunk(chunk))
    beside = [(array_names(field.variable)[1], digest_plan(field), digests)]
    beside += [(origin_name(field.variable), origin_plan(field), origins)] if field.origins else []
    records = (
        _put(rows, field.variable, shard.shard, plan.join_chunks(encoded), plan),
        *(_put(rows, name, shard.shard, each.encode_shard(values), each) for name, each, values in beside),
    )
    if not bad:
        notes.add(name, records)
    return WrittenShard(records, tuple(dict.fromkeys(bad)))


def _as_stored(payload: Payload, field: Field) -> NDArray[Any]:
    """A value in the encoding of its field. Raises `PayloadError` or `NarrowError`."""
    value, encoding = payload.value, field.encoding
    if value.shape != field.shape or str(value.dtype) != field.dtype:
        raise PayloadError(
            f"a value of shape {value.shape} and dtype {value.dtype}",
            f"shape {field.shape} and dtype {field.dtype}, as the first one has"
            + ("" if payload.grid is None else "; --file-chain gives volumes one shape"),
        )
    if len(payload.digest) != DIGEST_BYTES or payload.digest == _NO_DIGEST:
        raise PayloadError("a payload without a digest", f"{DIGEST_BYTES} bytes, not all of them 0")
    if encoding.dtype == field.dtype:
        return value
    form = observe_array(value)
    if isinstance(encoding, Dense) and not encoding.holds(form):
        raise NarrowError(field.name)
    return encoding.bringer(form)(value)


def _put(rows: RowsSpec, variable: str, shard: int, content: bytes, plan: ArrayPlan) -> ObjectRecord:
    key = plan.key(variable, shard)
    rows.root.write(key, content)
    return ObjectRecord.of(key, content)


def widen_field(record: ObjectRecord, before: Field, after: Field, rows: RowsSpec) -> ObjectRecord:
    """Write a committed shard of a field, of its digests or origins, anew: as the source has it, in a new variable.

    Raises
    ------
    CorruptionError
        If the shard differs from its digest, or cannot be decoded.
    """
    content = compare(rows.root, record)
    variable, shard = split_shard_key(record.key)
    if variable != before.variable:
        name = after.variable + variable.removeprefix(before.variable)
        return _put(rows, name, int(shard), content, digest_plan(after))
    old, new = rows.plan(before), rows.plan(after)
    try:
        chunks = decode_shard(content, old.dtype, old.codec, old.chunk_rows, old.shard_rows, old.shape)
        encoded = [new.encode_chunk(chunk.astype(new.dtype)) for chunk in chunks]
    except ValueError as error:
        raise undecodable(rows.root, record, error) from error
    return _put(rows, after.variable, int(shard), new.join_chunks(encoded), new)
