"""What one file holds, by a mapping: its episodes, and which data sets become which columns. Only times are read.

Whatever is wrong with an episode is a fault of it, told when its rows are asked for: others may be good.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa

from zstore.storage.file import File
from zstore.writing.sources.hdf5.clock import Clock
from zstore.writing.sources.hdf5.episodes import (
    Contents,
    DataColumn,
    Episode,
    Fault,
    FieldData,
    Layout,
    check_alike,
    grouped,
)
from zstore.writing.sources.hdf5.library import h5py_of, opened
from zstore.writing.sources.hdf5.mapping import STEPS, TIME, DataPath, FieldWay, Hdf5Mapping
from zstore.writing.sources.hdf5.objects import (
    AbsentError,
    DataSet,
    ObjectError,
    damage_in,
    find_data,
    find_group,
    find_object,
    has_rows,
    judge,
    link_of,
    names_of,
    natural,
)
from zstore.writing.sources.hdf5.statics import splits_of, statics_of, with_splits

MOST_EPISODES = 1_000_000
_MOST_COLUMNS = 10_000
_FIRST_TIMES = 1024
_CELL_BYTES = 8
_LEAST_ROWS = 64  # that are lost together
_IMAGE, _COLOURS_FIRST, _N_COLOURS = ("y", "x", "colour"), ("colour", "y", "x"), (1, 3, 4)


def layout_of(file: File, mapping: Hdf5Mapping, most_episodes: int | None = None) -> Layout:
    """What a file holds.

    Parameters
    ----------
    file, mapping
        The file, and what is what in it.
    most_episodes
        Episodes to look at; None for all.

    Raises
    ------
    SourceError
        If it is no HDF5 file, or is damaged.
    ObjectError
        If it has not what the mapping says.
    """
    notes: dict[str, None] = {}
    with opened(file) as root:
        episodes: list[Episode] = []
        chunks, first = 1, None
        splits = {} if mapping.splits is None else splits_of(root, mapping.splits, file.n_bytes)
        for group in islice(list(_groups(root, mapping)), most_episodes):
            contents: Contents | None = None
            try:
                with damage_in(group):
                    contents = _contents(root, group, mapping, file.n_bytes)
                    chunks = max(chunks, *(data.chunk_rows or 1 for data in contents.data.values()))
                    first = first or contents
                    check_alike(first, contents)
                    episode = _episode(root, file, contents, mapping, notes)
                if splits:
                    named = with_splits(dict(episode.statics or {}), group.rpartition("/")[2], splits)
                    episode = replace(episode, statics=named)
            except ObjectError as error:
                n_rows = 1 if contents is None else max(contents.n_rows, 1)
                id_ = _id(root, file, group, mapping, may_fail=True)
                episode = Episode(group, id_, n_rows, fault=Fault(error.reason, error.expected))
            episodes.append(episode)
    if first is None:
        fault = episodes[0].fault or Fault("no episode", "one")
        raise ObjectError(fault.reason, fault.expected)
    size = _CELL_BYTES * (2 + sum(column.width or 1 for column in first.columns))
    texts = sum(data.row_bytes for data in first.data.values() if data.dtype.kind == "S")
    groups = tuple(grouped(episodes, size, chunks))
    return Layout(first.columns, first.fields, groups, size + texts, max(chunks, _LEAST_ROWS), tuple(notes))


def _groups(root: Any, mapping: Hdf5Mapping) -> Iterator[str]:
    """Paths of the groups that are episodes, in the order of their numbers."""
    if not mapping.episodes.endswith("*"):
        yield find_group(root, mapping.episodes)[1]
        return
    node, shown = find_group(root, mapping.episodes[:-1] or "/")
    h5py, n_groups = h5py_of(shown), 0
    for name in sorted(names_of(node, MOST_EPISODES), key=natural):
        child, path = find_object(root, name, shown)
        if isinstance(child, h5py.h5g.GroupID):
            n_groups += 1
            yield path
    if not n_groups:
        raise ObjectError(f"no group in {shown}", "a group for each episode")


def _contents(root: Any, group: str, mapping: Hdf5Mapping, n_file_bytes: int) -> Contents:
    """The data sets of an episode; raises `ObjectError` if one is not what the mapping says."""
    data: dict[str, DataSet] = {}

    def found(way: DataPath) -> DataSet:
        if way.path not in data:
            data[way.path] = find_data(root, way.path, group, n_file_bytes)
        return data[way.path]

    columns: dict[str, DataColumn] = {}
    if mapping.time.data is not None:
        columns[TIME] = _time_column(mapping, found(mapping.time.data))
    taken = {way.path for ways in (mapping.channels, mapping.vectors) for way in ways.values() if "*" not in way.path}
    for rank, ways in ((0, mapping.channels), (1, mapping.vectors)):
        for name, way in ways.items():
            for own, path in _expanded(root, group, name, way, taken, rank + 1):
                try:
                    made = _column(own, path, found(path), rank, mapping)
                except AbsentError:
                    if not way.optional:
                        raise
                    continue
                if own in columns:
                    raise ObjectError(f"column {own!r} twice, the second of {path.shown}", "every name once")
                columns[own] = made
    fields = dict(_fields(root, group, mapping, data, n_file_bytes))
    for name in fields.keys() & columns.keys():
        raise ObjectError(f"field {name!r}, which is a column too", "every name once")
    return Contents(group, tuple(columns.values()), tuple(fields.values()), data)


def _expanded(
    root: Any, group: str, name: str, way: DataPath, taken: set[str], rank: int
) -> Iterator[tuple[str, DataPath]]:
    """A name and where it lies; of ``*``, all data sets of a group whose rank fits, for channels, vectors or fields."""
    if "*" not in way.path:
        yield name, way
        return
    parent = way.path.rpartition("/")[0] or ("/" if way.path.startswith("/") else ".")
    h5py = h5py_of(group)
    try:
        node, shown = find_object(root, group if parent == "." else parent, group)
    except AbsentError:
        if way.optional:
            return
        raise
    if not isinstance(node, h5py.h5g.GroupID):
        raise ObjectError(f"{shown}, which is no group", "a group")
    for each in names_of(node, _MOST_COLUMNS):
        path = each if parent == "." else f"{parent.rstrip('/')}/{each}"
        if path in taken:
            continue
        link_of(node, each, f"{shown}/{each}")
        child, where = find_object(root, path, group)
        if not isinstance(child, h5py.h5d.DatasetID) or not has_rows(child):
            continue
        judged = judge(child, where, None)
        inner = len(judged.shape) if way.member is None else rank
        if inner == rank or (rank > 2 and inner > 2):
            yield name.replace("*", each), DataPath(path, way.member, way.optional)


def _column(name: str, way: DataPath, data: DataSet, rank: int, mapping: Hdf5Mapping) -> DataColumn:
    dtype, inner = _member(way, data)
    if len(inner) != rank:
        shown = "×".join(map(str, inner)) or "one"
        raise ObjectError(
            f"{shown} value{'s' * bool(inner)} a row in {data.path}" + (f" member {way.member}" if way.member else ""),
            "one, or it is named among the vectors" if rank == 0 else "a row of numbers, or it is named elsewhere",
        )
    zeros = name in mapping.missing_where
    if zeros and dtype.kind == "S":
        raise ObjectError(f"texts in {data.path}, which are missing where zero", "numbers")
    if rank and dtype.kind == "S":
        raise ObjectError(f"vectors of texts in {data.path}", "numbers")
    kind = arrow_type(dtype, data.path)
    if rank:
        return DataColumn(name, way, pa.list_(kind, inner[0]), inner[0], zeros)
    return DataColumn(name, way, kind, zeros_missing=zeros)


def _member(way: DataPath, data: DataSet) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Type and shape of what a row has of a data set, or of a member of it."""
    dtype = data.dtype
    if way.member is not None:
        if dtype.names is None or way.member not in dtype.names:
            names = ", ".join(dtype.names or ()) or "none"
            raise AbsentError(f"no member {way.member!r} in {data.path}", f"one of its members: {names}")
        dtype = dtype[way.member]
    elif dtype.names is not None:
        raise ObjectError(f"members {', '.join(dtype.names)} of {data.path}", "the member to read in the mapping")
    return (dtype.base, (*data.shape[1:], *dtype.shape))


def arrow_type(dtype: np.dtype[Any], path: str) -> pa.DataType:
    """What Arrow calls a type; raises `ObjectError` where no channel can have it."""
    if dtype.kind == "b":
        return pa.bool_()
    if dtype.kind == "S":
        return pa.string()
    if dtype.kind in "iu" or (dtype.kind == "f" and dtype.itemsize <= 8):
        return pa.from_numpy_dtype(dtype.newbyteorder("="))
    raise ObjectError(f"data set {path} of type {dtype}", "numbers, booleans, or texts of fixed length")


def _time_column(mapping: Hdf5Mapping, data: DataSet) -> DataColumn:
    way = mapping.time
    dtype, inner = _member(way.data, data)  # type: ignore[arg-type]  # there is one
    if inner or dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise ObjectError(f"times in {data.path} of type {dtype}", "one number a row")
    if dtype.kind == "f" and way.rate is None:
        raise ObjectError(f"times with a fraction in {data.path}", "a rate in the mapping, as in time: {rate: 2000, …}")
    kind = pa.timestamp(way.unit) if way.unit != STEPS else pa.int64()
    return DataColumn(TIME, way.data, kind)  # type: ignore[arg-type]  # there is one


def _fields(
    root: Any, group: str, mapping: Hdf5Mapping, data: dict[str, DataSet], n_file_bytes: int
) -> Iterator[tuple[str, FieldData]]:
    for name, way in mapping.fields.items():
        encoded = way.lengths is not None and (way.when is None or _says(root, way.when))
        for own, path in _expanded(root, group, name, way.data, set(), 2 if encoded else 3):
            try:
                data[path.path] = found = find_data(root, path.path, group, n_file_bytes)
            except AbsentError:
                if path.optional:
                    continue
                raise
            if encoded and (len(found.shape) != 2 or found.dtype != np.uint8):
                raise ObjectError(
                    f"{found.dtype} of shape {found.shape} in {found.path}", "(row, byte) bytes of images"
                )
            if found.dtype.names is not None or found.dtype.kind not in "biuf":
                raise ObjectError(f"data set {found.path} of type {found.dtype}", "numbers")
            lengths = way.lengths if encoded else None
            dimensions = _dimensions(way.dimensions, found.shape[1:])
            way_here = FieldWay(path, () if encoded else dimensions, lengths, way.when, way.units)
            yield own, FieldData(own, way_here, found.shape[1:], found.dtype)


def _dimensions(named: tuple[str, ...], shape: tuple[int, ...]) -> tuple[str, ...]:
    """Names of the dimensions of a field, none if others are meant; images may have their colours first."""
    if len(named) != len(shape):
        return ()
    if named == _IMAGE and shape[0] in _N_COLOURS and min(shape[1:]) > max(_N_COLOURS):
        return _COLOURS_FIRST
    return named


def _says(root: Any, name: str) -> bool:
    """Whether the root has an attribute that is true."""
    return name in root.attrs and root.attrs.get_id(name).shape == () and bool(root.attrs[name])


def _episode(root: Any, file: File, contents: Contents, mapping: Hdf5Mapping, notes: dict[str, None]) -> Episode:
    """An episode whose data sets are known; raises `ObjectError` if they do not fit together."""
    group, n_rows = contents.group, contents.n_rows
    for data in contents.data.values():
        if data.n_rows != n_rows:
            other = next(each.path for each in contents.data.values() if each.n_rows == n_rows)
            raise ObjectError(f"{data.n_rows:,} rows in data set {data.path}", f"{n_rows:,} as in {other}")
    id_ = _id(root, file, group, mapping)
    statics, some = statics_of(root, file, group, mapping)
    notes.update(dict.fromkeys(some))
    if mapping.time.rate is None or mapping.time.data is None or not n_rows:
        return Episode(group, id_, n_rows, None, statics)
    data = contents.data[mapping.time.data.path]
    times = read_rows(data, mapping.time.data.member, 0, min(n_rows, _FIRST_TIMES)).astype(np.float64)
    if not np.isfinite(times[0]):
        raise ObjectError(f"time {times[0]!s} in the first row of {data.path}", "a number")
    clock = Clock.of(times, mapping.time.rate)
    rate = clock.other_rate(times)
    if rate is not None:
        told = f"times of {data.path} that are some {rate:.6g} a second"
        raise ObjectError(told, f"{clock.rate:.10g}, as the mapping's rate says")
    return Episode(group, id_, n_rows, clock.origin, {**statics, "time_start": float(times[0])})


def read_rows(data: DataSet, member: str | list[str] | None, start: int, stop: int) -> np.ndarray[Any, Any]:
    """The rows ``[start, stop)`` of a data set, or of one or some members of it; raises `ObjectError` on damage."""
    source = h5py_of(data.path).Dataset(data.handle)
    with damage_in(f"rows {start:,} to {stop - 1:,} of data set {data.path}"):
        return np.asarray(source[start:stop] if member is None else source.fields(member)[start:stop])


def _id(root: Any, file: File, group: str, mapping: Hdf5Mapping, may_fail: bool = False) -> str:
    """The id of an episode."""
    way = mapping.id
    stem = PurePosixPath(file.path).stem
    if way["of"] in ("file", "group", "file/group"):
        last = group.rpartition("/")[2]
        return {"file": stem, "group": last, "file/group": f"{stem}/{last}"}[way["of"]]
    if way["of"] == "pattern":
        match = re.search(way["text"], str(file).replace("\\", "/"))
        if match is not None and match[1]:
            return match[1]
        if may_fail:
            return ""
        raise ObjectError(f"no id in the path {file}", f"a match of {way['text']!r}")
    attributes = root[group].attrs
    if way["text"] in attributes and attributes.get_id(way["text"]).shape == ():
        value = attributes[way["text"]]
        value = value.decode() if isinstance(value, bytes) else value
        if isinstance(value, (str, np.integer)) and str(value):
            return str(value)
    if may_fail:
        return ""
    raise ObjectError(f"no attribute {way['text']!r} of {group} that is an id", "a text or whole number")
