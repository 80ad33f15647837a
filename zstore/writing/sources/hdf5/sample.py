"""The first rows of a file as a file of its own, in the same layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zstore.storage.file import File
from zstore.writing.sources.hdf5.episodes import DataColumn, FieldData, Stretch
from zstore.writing.sources.hdf5.layout import read_rows
from zstore.writing.sources.hdf5.library import h5py_of, opened
from zstore.writing.sources.hdf5.mapping import Hdf5Mapping
from zstore.writing.sources.hdf5.objects import attributes_of, find_data, find_group
from zstore.writing.sources.hdf5.statics import splits_of

_MOST_ATTRIBUTES = 1000


def write_sample(
    file: File,
    mapping: Hdf5Mapping,
    columns: Sequence[DataColumn],
    fields: Sequence[FieldData],
    groups: Sequence[Sequence[Stretch]],
    path: Path,
    n_rows: int,
) -> int:
    """Write the first rows of a file, as its mapping reads them, to another.

    Parameters
    ----------
    file, mapping, columns, fields, groups
        As in :class:`~zstore.writing.sources.hdf5.table.Hdf5Table`.
    path, n_rows
        The other file, and rows that are wanted.

    Returns
    -------
    How many there are.
    """
    h5py, n_written = h5py_of(file), 0
    paths = {column.data.path for column in columns} | {field.way.data.path for field in fields}
    lengths = {field.way.lengths for field in fields if field.way.lengths is not None}
    with opened(file) as root, h5py.File(path, "w") as sample:
        _copy_attributes(root.id, sample)
        for episode in dict.fromkeys(stretch.episode for group in groups for stretch in group):
            if episode.fault is not None or (n_written >= n_rows and n_written):
                continue
            n_taken = min(episode.n_rows, max(n_rows - n_written, 1))
            own = sample.require_group(episode.group)
            _copy_attributes(find_group(root, episode.group)[0], own)
            for each in paths:
                data = find_data(root, each, episode.group)
                where = sample if each.startswith("/") else own
                where.create_dataset(each, data=read_rows(data, None, 0, n_taken))
            for lengths_path in lengths:
                data = find_data(root, lengths_path, episode.group)
                where = sample if lengths_path.startswith("/") else own
                if lengths_path not in where:  # (camera, row)
                    where[lengths_path] = read_rows(data, None, 0, data.n_rows)[:, :n_taken]
            n_written += n_taken
        splits = {} if mapping.splits is None else splits_of(root, mapping.splits, file.n_bytes)
        for name, episodes in splits.items():
            sample[f"{mapping.splits}/{name}"] = np.array(episodes, "S")
    return n_written


def _copy_attributes(node: Any, target: Any) -> None:
    for name, value in attributes_of(node, _MOST_ATTRIBUTES, 1 << 16):
        if value is not None:
            target.attrs[name] = value
