"""HDF5 files, opened: their episodes as record batches, group by group; damaged ones as rows that are lost."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zstore.arrow import text_array
from zstore.storage.file import File
from zstore.writing.sources.hdf5.clock import Clock
from zstore.writing.sources.hdf5.episodes import DataColumn, Fault, FieldData, Stretch
from zstore.writing.sources.hdf5.layout import arrow_type, read_rows
from zstore.writing.sources.hdf5.library import opened
from zstore.writing.sources.hdf5.mapping import ID, TIME, Hdf5Mapping
from zstore.writing.sources.hdf5.objects import ObjectError, find_data
from zstore.writing.sources.hdf5.read_mapping import mapping_of
from zstore.writing.sources.hdf5.sample import write_sample
from zstore.writing.sources.typed.table import FAULTS, LostRows

HOLDER, POSITION = "\0holder", "\0position"
"""Columns that say where the payloads of all fields of a row lie: file and group, and row."""


@dataclass(frozen=True)
class EpisodeRow:
    """Where a row stands: the group of its episode, and its number in there, from 0."""

    episode: str
    row: int

    def __str__(self) -> str:
        return f"row {self.row:,}" if self.episode == "/" else f"{self.episode} row {self.row:,}"


@dataclass(frozen=True)
class Hdf5Table:
    """One file as the user named it, see :class:`~zstore.writing.sources.typed.table.TypedTable`.

    Parameters
    ----------
    name
        Its path, for messages and the receipt.
    file
        The file.
    mapping
        What is what, as text.
    columns, fields
        Its columns beside id and time, and its fields.
    groups
        Stretches that are read together.
    mean_bytes
        Bytes of a row of all columns.
    chunk_rows
        Rows of the longest chunk, which are lost together if it is damaged.
    notes
        What should be known of it.
    """

    name: str
    file: File
    mapping: str
    columns: tuple[DataColumn, ...]
    fields: tuple[FieldData, ...]
    groups: tuple[tuple[Stretch, ...], ...]
    mean_bytes: int
    chunk_rows: int
    notes: tuple[str, ...] = ()
    id: None = None

    @property
    def header(self) -> tuple[str, ...]:
        """Its columns."""
        return (ID, TIME, *(column.name for column in self.columns if column.name != TIME))

    @property
    def head(self) -> str:
        """Where its columns are named."""
        return f"{self.name}, by the mapping"

    @property
    def types(self) -> dict[str, pa.DataType]:
        """The type of each column."""
        own = {column.name: column.type for column in self.columns}
        return {ID: pa.dictionary(pa.int32(), pa.string()), TIME: own.get(TIME, pa.int64()), **own}

    @property
    def units(self) -> Mapping[str, str]:
        """None are known: nothing says so but the times themselves."""
        return {}

    @cached_property
    def group_rows(self) -> tuple[int, ...]:
        """Rows of each group."""
        return tuple(sum(stretch.n_rows for stretch in group) for group in self.groups)

    @property
    def faults(self) -> list[tuple[str, Fault]]:
        """Episodes that cannot be read, and why."""
        some = {s.episode.group: s.episode.fault for group in self.groups for s in group}
        return [(group, fault) for group, fault in some.items() if fault is not None]

    def without(self, fault: Fault, good: Hdf5Table) -> Hdf5Table:
        """A table all of whose rows are lost, with the fields of a good one."""
        groups = tuple(
            tuple(replace(stretch, episode=replace(stretch.episode, fault=fault)) for stretch in group)
            for group in self.groups
        )
        return replace(self, groups=groups, fields=good.fields)

    def only(self, group: int) -> Hdf5Table:
        """A table of one group: what a task needs of it."""
        return replace(self, groups=(self.groups[group],))

    def place(self, group: int, row: int) -> EpisodeRow:
        """A row of a group."""
        for stretch in self.groups[group]:
            if row < stretch.n_rows:
                return EpisodeRow(stretch.episode.group, stretch.start + row)
            row -= stretch.n_rows
        raise IndexError(row)

    def write_sample(self, path: Path, n_rows: int) -> int:
        """Write the first rows, in the same layout, to another file; returns how many there are."""
        mapping = mapping_of(self.mapping)
        return write_sample(self.file, mapping, self.columns, self.fields, self.groups, path, n_rows)

    def batches(self, columns: Sequence[str], texts: Sequence[str], group: int, n_rows: int) -> Iterator[Any]:
        """The rows of a group, stretch by stretch; each stretch is read whole, so that it is good or lost as a whole.

        Raises
        ------
        SourceError
            If the file cannot be read, or changes meanwhile.
        """
        with ExitStack() as stack:
            root = None
            read: list[Any] = []
            for stretch in self.groups[group]:
                if stretch.episode.fault is not None:
                    read.append(_lost(stretch, stretch.episode.fault))
                    continue
                root = stack.enter_context(opened(self.file)) if root is None else root
                read += self._whole_or_pieces(root, stretch, columns)
        for rows in _joined(read):
            for start in range(0, rows.num_rows, n_rows):
                yield rows.slice(start, n_rows)

    def _whole_or_pieces(self, root: Any, stretch: Stretch, columns: Sequence[str]) -> list[Any]:
        """The rows of a stretch; where a chunk is damaged, only its own are lost."""
        try:
            return [self._read(root, stretch, columns)]
        except ObjectError:
            read: list[Any] = []
            for start in range(stretch.start, stretch.stop, self.chunk_rows):
                piece = Stretch(stretch.episode, start, min(start + self.chunk_rows, stretch.stop))
                try:
                    read.append(self._read(root, piece, columns))
                except ObjectError as error:
                    read.append(_lost(piece, Fault(error.reason, error.expected)))
            return read

    def _read(self, root: Any, stretch: Stretch, names: Sequence[str]) -> Any:
        wanted = [column for column in self.columns if column.name in names]
        values = _values(root, stretch, wanted, self.file.n_bytes)
        arrays: dict[str, Any] = {}
        for name in names:
            if name == ID:
                arrays[name] = _constant(stretch.episode.id, stretch.n_rows)
            elif name == HOLDER:
                arrays[name] = _constant(holder_of(self.file, stretch.episode.group), stretch.n_rows)
            elif name == POSITION or (name == TIME and TIME not in values):
                arrays[name] = _plain(np.arange(stretch.start, stretch.stop, dtype=np.int64))
        mapping = mapping_of(self.mapping)
        for column in wanted:
            if column.name == TIME:
                arrays[TIME], faults = _times(root, self.file, stretch, column, values[TIME], mapping)
                if faults is not None:
                    arrays[FAULTS] = faults
            else:
                arrays[column.name] = _array(column, values[column.name])
        if not arrays:  # none of the columns, whose rows still count
            arrays[ID] = _constant(stretch.episode.id, stretch.n_rows)
        return pa.RecordBatch.from_arrays(list(arrays.values()), names=list(arrays))


def _joined(read: Sequence[Any]) -> Iterator[Any]:
    """Neighbouring batches of short episodes as one, so that whatever comes behind has less to do for each of them."""
    for names, some in groupby(read, lambda rows: () if isinstance(rows, LostRows) else tuple(rows.schema.names)):
        batches = list(some)
        if not names or len(batches) == 1:
            yield from batches
        else:
            yield from pa.Table.from_batches(batches).unify_dictionaries().combine_chunks().to_batches()


def _lost(stretch: Stretch, fault: Fault) -> LostRows:
    return LostRows(stretch.n_rows, fault.reason, fault.expected)


def holder_of(file: File, group: str) -> str:
    """What holds the payloads of an episode: its file and group, as a text."""
    return json.dumps([str(file), group], ensure_ascii=False)


def _values(root: Any, stretch: Stretch, columns: Sequence[DataColumn], n_file_bytes: int) -> dict[str, NDArray[Any]]:
    """(row, …) of each column; of a compound data set, the members that are needed, in one pass over its chunks."""
    by_path: dict[str, list[DataColumn]] = {}
    for column in columns:
        by_path.setdefault(column.data.path, []).append(column)
    values: dict[str, NDArray[Any]] = {}
    for path, some in by_path.items():
        data = find_data(root, path, stretch.episode.group)
        if data.n_rows != stretch.episode.n_rows:
            raise ObjectError(f"{data.n_rows:,} rows in data set {data.path}", f"{stretch.episode.n_rows:,} as before")
        members = list(dict.fromkeys(column.data.member for column in some if column.data.member is not None))
        read = read_rows(data, members or None, stretch.start, stretch.stop)
        for column in some:
            values[column.name] = read if column.data.member is None else read[column.data.member]
    return values


def _times(
    root: Any, file: File, stretch: Stretch, column: DataColumn, values: NDArray[Any], mapping: Hdf5Mapping
) -> tuple[Any, Any]:
    """Times as the time axis has them, and what is wrong with some rows, see :data:`FAULTS`; None if nothing."""
    way, episode = mapping.time, stretch.episode
    if way.rate is None or episode.origin is None:
        if values.dtype.kind == "u" and values.dtype.itemsize == 8 and len(values) and values.max() >= 1 << 63:
            raise ObjectError(f"time {values.max()} in {column.data.shown}", "at most 2^63 - 1")
        times = np.ascontiguousarray(values, np.int64)
        return pa.Array.from_buffers(column.type, len(times), [None, pa.py_buffer(times)]), None
    before = None
    if stretch.start:
        data = find_data(root, column.data.path, episode.group)
        with suppress(ObjectError):  # where the row before is lost, nothing is compared with it
            before = float(read_rows(data, column.data.member, stretch.start - 1, stretch.start)[0])
    steps, wrong = Clock(episode.origin, way.rate).steps(values.astype(np.float64), before)
    if not wrong:
        return _plain(steps), None
    told = ["" if (fault := wrong.get(row)) is None else "\n".join(fault) for row in range(len(steps))]
    return _plain(steps), text_array(told).dictionary_encode()


def _array(column: DataColumn, values: NDArray[Any]) -> Any:
    """A column as Arrow has it, without a copy where the bytes are in order."""
    n_rows = len(values)
    if values.dtype.kind == "S":
        cells = values.tolist()  # without the zeros behind them; UTF-8 is checked where they are read
        lengths = np.array([len(cell) for cell in cells], np.int32)
        offsets = np.concatenate([[0], lengths.cumsum()]).astype(np.int32)
        there = pa.py_buffer(np.packbits(lengths > 0, bitorder="little"))  # an empty text is none, as in CSV
        return pa.StringArray.from_buffers(n_rows, pa.py_buffer(offsets), pa.py_buffer(b"".join(cells)), there)
    flat = np.ascontiguousarray(values, values.dtype.newbyteorder("=")).reshape(-1)
    zeros = None
    if column.zeros_missing:
        rows = ~flat.reshape(n_rows, -1).any(axis=1)
        zeros = np.repeat(rows, column.width or 1) if rows.any() else None
    array = _plain(flat, zeros)
    return array if column.width is None else pa.FixedSizeListArray.from_arrays(array, column.width)


def _plain(flat: NDArray[Any], missing: NDArray[np.bool_] | None = None) -> Any:
    """Values as Arrow has them; not by ``pa.array``, which would import pandas."""
    validity = None if missing is None else pa.py_buffer(np.packbits(~missing, bitorder="little"))
    values = np.packbits(flat, bitorder="little") if flat.dtype.kind == "b" else flat
    return pa.Array.from_buffers(arrow_type(flat.dtype, ""), len(flat), [validity, pa.py_buffer(values)])


def _constant(text: str, n_rows: int) -> Any:
    """One text in every row."""
    codes = pa.Array.from_buffers(pa.int32(), n_rows, [None, pa.py_buffer(bytes(4 * n_rows))])
    return pa.DictionaryArray.from_arrays(codes, text_array([text]))


def statics_by_id(tables: Sequence[Hdf5Table]) -> tuple[list[str], dict[str, list[Any]], list[str]]:
    """Ids of all good episodes, their static attributes by name, and what should be known of them."""
    ids: dict[str, Mapping[str, Any]] = {}
    odd: dict[str, None] = {}
    for table in tables:
        odd.update(dict.fromkeys(table.notes))
        for group in table.groups:
            for stretch in group:
                episode = stretch.episode
                if episode.fault is not None or stretch.start:
                    continue
                known = ids.setdefault(episode.id, episode.statics or {})
                if known != (episode.statics or {}):
                    odd[f"id {episode.id} has other static attributes in {table.name}; the first ones stay"] = None
    names = list(dict.fromkeys(name for statics in ids.values() for name in statics))
    return list(ids), {name: [statics.get(name) for statics in ids.values()] for name in names}, list(odd)
