"""Fields: payloads are read in the final order of their rows, encoded and written, each once.

References to payloads went through blocks, spills and merges like any column, so a task that owns a shard of a field
knows which payloads it needs, in which order, and nothing else does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from zstore.format.encodings.arrays import Dense
from zstore.format.layout import array_grid
from zstore.format.manifest import ObjectRecord, digest
from zstore.format.rowarrays import array_names, byte_names, origin_name
from zstore.format.schema import Field
from zstore.reading.version import StoredVersion
from zstore.storage.protocol import Storage
from zstore.writing.encoded import ByteTasks, write_bytes
from zstore.writing.field_plan import new_variable, no_payload, plan_field, read_sample, taken_by
from zstore.writing.field_shards import FieldShard, NarrowError, WrittenShard, field_shards, write_field
from zstore.writing.object_notes import OBJECTS, ObjectNotes
from zstore.writing.referred import Payloads, StoredPayloads
from zstore.writing.scheduler import Scheduler
from zstore.writing.shard_parts import ShardReport
from zstore.writing.shards import RowsSpec, digest_plan
from zstore.writing.sources.payloads import BadPayload, FieldSpec, Outcome


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
    keep_bad
        Whether payloads that cannot be stored are told instead of refused.
    notes
        What a run of the same plan that died has noted.
    """

    specs: Sequence[FieldSpec] = ()
    scratch: Storage | None = None
    base: StoredVersion | None = None
    anew: bool = False
    keep_bad: bool = False
    notes: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def known(self) -> dict[str, Field]:
        """The fields of `base` by name."""
        return {} if self.base is None else {each.name: each for each in self.base.schema.fields}


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
    bad
        Payloads that cannot be stored, where those are kept. Then these objects are of no version.
    """

    fields: tuple[Field, ...]
    records: tuple[ObjectRecord, ...]
    trials: dict[str, dict[str, int]]
    bad: tuple[BadPayload, ...] = ()


@dataclass(frozen=True)
class FieldWriter:
    """Writes one field after the other.

    Parameters
    ----------
    fields
        What they are.
    shards, row_start, rows
        Shards of channels, (series + 1,) first row of each series, and how channels lie.
    notes
        Of work that is done.
    runner
        Runs a task for each shard.
    """

    fields: Fields
    shards: Sequence[ShardReport]
    row_start: Any
    rows: RowsSpec
    notes: ObjectNotes
    runner: Scheduler

    def write(self, n: int, name: str, made: Sequence[Field]) -> WrittenFields:
        """The n-th of all fields, beside those that have been made."""
        fields, taken = self.fields, taken_by(self.rows, made)
        spec, old = next((each for each in fields.specs if each.name == name), None), fields.known.get(name)
        stored = None if fields.base is None or old is None else StoredPayloads(fields.base, old)
        reader, holders = None if spec is None else spec.reader, self.rows.references[2 * n].categories
        payloads = Payloads(name, reader, stored, holders, self.row_start, fields.keep_bad)
        if old is not None:
            one = replace(old, variable=new_variable(name, taken)) if fields.anew else old
            return self._bytes(n, one, payloads) if one.n_bytes is not None else self._array(n, one, payloads, taken)
        assert spec is not None
        if spec.encoded:
            written = self._bytes(n, self._of_bytes(spec, taken), payloads)
            if not written.fields[0].n_bytes and not written.bad:
                raise no_payload(spec)
            return written
        sample = read_sample(spec, payloads, self._whole(n))
        if not sample.values:
            return WrittenFields((), (), {}, tuple(sample.bad))
        one, trial = plan_field(spec, sample, self.rows, made)
        return replace(self._array(n, one, payloads, None, sample.passed), trials={name: trial})

    @staticmethod
    def _of_bytes(spec: FieldSpec, taken: Sequence[str]) -> Field:
        return Field.of_bytes(spec.name, new_variable(spec.name, taken), spec.units, 0, spec.named)

    @property
    def _n_rows(self) -> int:
        return int(self.row_start[-1])

    def _whole(self, n: int) -> list[FieldShard]:
        """Shards as those of channels."""
        return field_shards(self.shards, self._n_rows, self.rows, self.rows.shard_rows, n)

    def _bytes(self, n: int, one: Field, payloads: Payloads) -> WrittenFields:
        assert self.fields.scratch is not None
        parts = [(shard.shard, shard.start, shard.stop, shard.references) for shard in self._whole(n)]
        tasks = ByteTasks(one, payloads, self._for_tasks, self.fields.scratch, self.notes)
        made, records, bad = write_bytes(tasks, parts, self.runner)
        return WrittenFields((made,), tuple(records), {}, tuple(dict.fromkeys(bad)))

    def _array(
        self, n: int, one: Field, payloads: Payloads, taken: Sequence[str] | None, known: Sequence[Outcome] = ()
    ) -> WrittenFields:
        """A field of arrays; where its encoding does not hold all values, as the source has them.

        Behind rows of a store, whose variables are `taken`, it keeps its grid then, and gets another variable.
        """
        narrow = f"narrow-{digest(repr((one, self._n_rows)).encode())}"
        if self.notes.known(narrow) is None:
            try:
                return self._shards(n, one, payloads, known)
            except NarrowError:
                self.rows.root.remove(self._keys(n, one))
                self.notes.add(narrow, ())
        wider = replace(one, encoding=Dense(one.dtype, one.dtype))
        if taken is not None:
            variable = new_variable(f"{one.name}-wide", [*taken, *byte_names(one.variable)])
            wider = replace(wider, variable=variable)
        else:
            wider = replace(wider, grid=array_grid(wider.row_bytes, self.rows.shard_rows))
        return self._shards(n, wider, payloads, known)

    def _shards(self, n: int, one: Field, payloads: Payloads, known: Sequence[Outcome]) -> WrittenFields:
        grid = one.grid or array_grid(one.row_bytes, self.rows.shard_rows)
        parts = field_shards(self.shards, self._n_rows, self.rows, grid.shard_rows, n, known)
        sizes = [part.stop - part.start for part in parts]
        task = partial(write_field, field=one, payloads=payloads, rows=self._for_tasks, notes=self.notes)
        written: list[WrittenShard] = self.runner.map(f"write {one.name}", task, parts, sizes, "rows")
        records = tuple(record for each in written for record in each.records)
        return WrittenFields((one,), records, {}, tuple(dict.fromkeys(bad for each in written for bad in each.bad)))

    def _keys(self, n: int, one: Field) -> list[str]:
        """Objects of a field of arrays."""
        grid = one.grid or array_grid(one.row_bytes, self.rows.shard_rows)
        parts = field_shards(self.shards, self._n_rows, self.rows, grid.shard_rows, n)
        names = (*array_names(one.variable), *([origin_name(one.variable)] if one.origins else []))
        plans = (self.rows.plan(one), digest_plan(one), digest_plan(one))
        pairs = zip(names, plans, strict=False)
        return [plan.key(variable, part.shard) for variable, plan in pairs for part in parts]

    @property
    def _for_tasks(self) -> RowsSpec:
        """What tasks need of it: not how each block was spilled."""
        return replace(self.rows, bringers=(), references=())


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
        If a payload cannot be stored, unless those are kept.
    SourceError
        If no row has a payload of a field.
    """
    all_written = WrittenFields((), (), {})
    names = [spec.name for spec in fields.specs] or list(fields.known)
    if not names:
        return all_written
    assert fields.scratch is not None
    noted = {name: note for name, note in fields.notes.items() if name.startswith(OBJECTS)}
    writer = FieldWriter(fields, shards, row_start, rows, ObjectNotes(rows.root, fields.scratch, noted), runner)
    for n, name in enumerate(names):
        written = writer.write(n, name, all_written.fields)
        all_written = WrittenFields(
            (*all_written.fields, *written.fields),
            (*all_written.records, *written.records),
            {**all_written.trials, **written.trials},
            (*all_written.bad, *written.bad),
        )
    return all_written
