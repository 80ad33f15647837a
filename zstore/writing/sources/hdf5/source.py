"""HDF5 as a source: episodes as blocks, read along their chunks, with one handle for each group of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from zstore.errors import NoColumnError, SourceError
from zstore.format.index import StaticAttribute
from zstore.format.schema import Schema
from zstore.storage.file import File
from zstore.writing.sources.hdf5.episodes import Episode, Fault, Layout, Stretch
from zstore.writing.sources.hdf5.fields import reader_of
from zstore.writing.sources.hdf5.layout import layout_of
from zstore.writing.sources.hdf5.library import KIND, h5py_of
from zstore.writing.sources.hdf5.objects import ObjectError
from zstore.writing.sources.hdf5.presets import PRESETS
from zstore.writing.sources.hdf5.read_mapping import mapping_of
from zstore.writing.sources.hdf5.statics import as_number
from zstore.writing.sources.hdf5.table import HOLDER, POSITION, EpisodeRow, Hdf5Table, statics_by_id
from zstore.writing.sources.options import TableOptions
from zstore.writing.sources.payloads import FieldSpec
from zstore.writing.sources.table import ChannelSpec, StaticTable, TableSpec
from zstore.writing.sources.typed.source import TypedSource
from zstore.writing.sources.typed.spec import typed_spec
from zstore.writing.sources.typed.table import TypedBlock, cut, whole_row_bytes
from zstore.writing.sources.workspace import Runner

FIX = "write or fetch the file again, correct the mapping, or --on-bad-row quarantine to set it aside"


@dataclass(frozen=True)
class Hdf5Block(TypedBlock):
    """Rows of one group of a table that has no other.

    Parameters
    ----------
    number
        Of the group in the whole table.
    """

    number: int = 0

    @property
    def key(self) -> str:
        """What tells it from the other blocks of all ways to cut the file."""
        return f"{self.number}-{self.start}-{self.stop}-{self.part_rows}"


class Hdf5Source(TypedSource):
    """HDF5 files, see :class:`~zstore.writing.sources.protocol.Source`."""

    kind = "hdf5"
    endings = (".h5", ".hdf5", ".he5")
    one = KIND
    many = "HDF5 files"
    place = EpisodeRow

    def check(self, options: TableOptions, encoding: str) -> None:
        """Refuse options that HDF5 files do not have; they need a mapping."""
        if options.mapping is None:
            raise NoColumnError(
                "HDF5 files without --mapping",
                expected=f"one of {', '.join(PRESETS)}, or a YAML file that says what is what",
                fix="zstore inspect FILE.h5 shows the tree, and a mapping to start from",
            )
        super().check(replace(options, mapping=None), encoding)
        h5py_of("HDF5 files")

    def open_one(self, file: File, options: TableOptions) -> Hdf5Table:
        """One file, whose episodes have been found."""
        text = str(options.mapping)
        try:
            return _table(file, text, layout_of(file, mapping_of(text)))
        except ObjectError as error:
            raise SourceError(error.reason, expected=error.expected, where=str(file), fix=FIX) from error

    def open(
        self,
        files: Sequence[File],
        prepared: Sequence[File],
        options: TableOptions,
        others: Collection[str] = (),
        runner: Runner | None = None,
    ) -> tuple[list[Any], TableSpec]:
        """The columns of all files, and what they mean; a file that cannot be opened has one row, which is lost."""
        opened: list[Hdf5Table | tuple[File, SourceError]] = []
        for file in files:
            try:
                opened.append(self.open_one(file, options))
            except SourceError as error:
                opened.append((file, error))
        good = next((table for table in opened if isinstance(table, Hdf5Table)), None)
        if good is None:
            raise next(each[1] for each in opened if not isinstance(each, Hdf5Table))
        tables = [each if isinstance(each, Hdf5Table) else _lost(good, *each) for each in opened]
        tables = _alike(tables, [field.name for field in self.fields(tables, options)])
        spec = typed_spec(tables, _without_fields(tables, options), others, self.one, runner=runner)
        return tables, _with_fields(spec, self.fields(tables, options))

    def fields(self, files: Sequence[Hdf5Table], options: TableOptions) -> tuple[FieldSpec, ...]:
        """The fields that options keep; see :data:`~zstore.writing.sources.hdf5.table.HOLDER` for where they lie.

        Parameters
        ----------
        files
            From :meth:`open`.
        options
            ``leave_out`` may name fields, and so may ``channels``, which then have no others.
        """
        storages = tuple(dict.fromkeys(table.file.storage for table in files))
        by_name = {field.name: field for table in files for field in table.fields}
        kept = [name for name in by_name if name not in options.leave_out]
        kept = [name for name in kept if options.channels is None or name in options.channels]
        return tuple(
            FieldSpec(
                options.rename.get(name, name),
                reader_of(by_name[name], storages),
                HOLDER,
                POSITION,
                by_name[name].way.dimensions or None,
                options.units.get(name, by_name[name].way.units),
                by_name[name].way.lengths is not None,
            )
            for name in kept
        )

    def open_known(
        self, file: File, prepared: File, options: TableOptions, others: Collection[str], schema: Schema
    ) -> tuple[Any, TableSpec] | None:
        """One file whose rows a store has, with its fields."""
        table = self.open_one(file, options)
        opened = super().open_known(file, prepared, _without_fields([table], options), others, schema)
        return None if opened is None else (opened[0], _with_fields(opened[1], self.fields([table], options)))

    def sample_row_bytes(self, table: Hdf5Table) -> int:
        """Of all columns, and all fields."""
        return whole_row_bytes(table) + sum(field.row_bytes for field in table.fields)

    def refuse_damaged(self, files: Sequence[Hdf5Table]) -> None:
        """Refuse episodes that cannot be read."""
        for table in files:
            for group, fault in table.faults:
                where = table.name if group == "/" else f"{table.name} {group}"
                raise SourceError(fault.reason, expected=fault.expected, where=where, fix=FIX)

    def statics(self, files: Sequence[Hdf5Table]) -> StaticTable | None:
        """Attributes of episodes: numbers where all are some, else words."""
        ids, values, notes = statics_by_id(files)
        if not values:
            return None
        attributes = tuple(_attribute(name, some) for name, some in values.items())
        return StaticTable("the mapping", np.array(ids, np.dtypes.StringDType()), attributes, tuple(notes))

    def cut(
        self, files: Sequence[Any], spec: TableSpec, block_bytes: int, runner: Runner | None = None
    ) -> list[TypedBlock]:
        """Groups of stretches, each with what its task needs of the file."""
        return [
            Hdf5Block(b.table.only(b.group), 0, b.start, b.stop, b.part_rows, b.n_bytes, b.group)  # type: ignore[attr-defined]  # its tables are of HDF5
            for b in cut(files, spec, block_bytes)
        ]


def _without_fields(tables: Sequence[Hdf5Table], options: TableOptions) -> TableOptions:
    """The options without names of fields."""
    names = {field.name for table in tables for field in table.fields}
    return replace(
        options,
        leave_out=tuple(name for name in options.leave_out if name not in names),
        channels=None if options.channels is None else tuple(name for name in options.channels if name not in names),
        rename={column: name for column, name in options.rename.items() if column not in names},
        units={column: unit for column, unit in options.units.items() if column not in names},
    )


def _with_fields(spec: TableSpec, fields: Sequence[FieldSpec]) -> TableSpec:
    """What the columns mean, with where payloads lie: in the same holder and row for all fields."""
    references = (
        ChannelSpec(HOLDER, HOLDER, text=True, reference=True),
        ChannelSpec(POSITION, POSITION, reference=True),
    )
    return replace(spec, channels=(*spec.channels, *references * len(fields)), fields=tuple(fields))


def _table(file: File, mapping: str, layout: Layout) -> Hdf5Table:
    return Hdf5Table(
        str(file),
        file,
        mapping,
        layout.columns,
        layout.fields,
        layout.groups,
        layout.row_bytes,
        layout.chunk_rows,
        layout.notes,
    )


def _lost(good: Hdf5Table, file: File, error: SourceError) -> Hdf5Table:
    """A file that cannot be opened, with the columns of another one."""
    episode = Episode("/", "", 1, fault=Fault(error.what, error.expected))
    return replace(good, name=str(file), file=file, groups=((Stretch(episode, 0, 1),),), notes=())


def _alike(tables: Sequence[Hdf5Table], fields: Sequence[str]) -> list[Hdf5Table]:
    """Tables of which those are lost whose fields, of those that are kept, are not as most tables have them."""
    alike = list(tables)
    for name in fields:
        kinds = [next((field.shown for field in table.fields if field.name == name), None) for table in tables]
        usual = Counter(kind for kind in kinds if kind is not None).most_common(1)[0][0]
        where = tables[kinds.index(usual)].name
        for number, kind in enumerate(kinds):
            if kind != usual:
                reason = f"field {name!r} is missing" if kind is None else f"field {name!r} of {kind}"
                alike[number] = alike[number].without(
                    Fault(reason, f"{usual} as in {where}"), tables[kinds.index(usual)]
                )
    return alike


def _attribute(name: str, values: Sequence[Any]) -> StaticAttribute:
    known = [value for value in values if value is not None]
    numbers = [as_number(value) for value in known]
    if known and None not in numbers:
        filled = [np.nan if value is None else float(value) for value in values]
        return StaticAttribute(name, np.array(filled, np.float64))
    words = sorted({str(value) for value in known}, key=str.encode)
    code = {word: number for number, word in enumerate(words)}
    codes = [-1 if value is None else code[str(value)] for value in values]
    return StaticAttribute(name, np.array(codes, np.int32), tuple(words))
