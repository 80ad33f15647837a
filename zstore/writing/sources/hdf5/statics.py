"""Static attributes of episodes: from attributes of HDF5, the path of the file, and lists of episodes."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from zstore.storage.file import File
from zstore.writing.sources.hdf5.library import h5py_of
from zstore.writing.sources.hdf5.mapping import ATTRIBUTE_CHARACTERS, Hdf5Mapping
from zstore.writing.sources.hdf5.objects import AbsentError, ObjectError, attributes_of, find_data, find_group, names_of

SPLIT = "split"
_MOST_ATTRIBUTES = 1000
_MOST_CHARACTERS = 1 << 20  # of an attribute that is asked for
_MOST_SPLITS = 1000
_MOST_NAMES = 1_000_000
_NAMES_AT_ONCE = 256
_MOST_TEXT = 1 << 24  # characters of the names of a list


def statics_of(root: Any, file: File, group: str, mapping: Hdf5Mapping) -> tuple[dict[str, Any], list[str]]:
    """Static attributes of one episode by name, and what should be known of them.

    Parameters
    ----------
    root, file
        The file, open, and where it is.
    group
        Of the episode.
    mapping
        Which attributes there are.

    Raises
    ------
    ObjectError
        If one that is named is not there, or is no number or text.
    """
    statics: dict[str, Any] = {}
    notes: list[str] = []
    if mapping.attributes != ():
        wanted = mapping.attributes
        most = ATTRIBUTE_CHARACTERS if wanted is None else _MOST_CHARACTERS
        node, shown = find_group(root, group)
        for name, value in attributes_of(node, _MOST_ATTRIBUTES, most):
            if wanted is not None and name not in wanted:
                continue
            if value is not None:
                statics[name] = value
            elif wanted is None:
                notes.append(
                    f"attribute {name} is no number and no text of at most {most:,} characters, and was left out: "
                    "name it in the mapping (statics: {attributes: [" + name + "]}) to keep a longer one"
                )
        for name in wanted or ():
            if name not in statics:
                raise ObjectError(f"no attribute {name!r} of {shown} that is a number or a text", "one")
    if mapping.pattern is not None:
        match = re.search(mapping.pattern, str(file).replace("\\", "/"))
        if match is None:
            raise ObjectError(f"the path {file}", f"a match of {mapping.pattern!r}")
        statics.update({name: text for name, text in match.groupdict().items() if text is not None})
    return statics, notes


def splits_of(root: Any, path: str, n_file_bytes: int) -> dict[str, list[str]]:
    """Lists of episodes by name, such as those of ``mask`` in files of robomimic; none where there is no such group.

    Raises
    ------
    ObjectError
        If one is no list of names.
    """
    try:
        node, shown = find_group(root, path)
    except AbsentError:
        return {}
    return {name: _names(root, f"{shown}/{name}", n_file_bytes) for name in names_of(node, _MOST_SPLITS)}


def _names(root: Any, path: str, n_file_bytes: int) -> list[str]:
    h5py = h5py_of(path)
    expected = "a list of the names of episodes"
    try:
        data = h5py.Dataset(find_data(root, path, "/", n_file_bytes).handle)
    except ObjectError:
        # Texts of any length are allowed here alone, and are read a few at a time.
        node = root[path] if root.get(path, getlink=True).__class__ is h5py.HardLink else None
        if not isinstance(node, h5py.Dataset) or node.is_virtual or h5py.check_string_dtype(node.dtype) is None:
            raise
        data = node
    if data.ndim != 1 or data.dtype.kind not in "SO" or len(data) > _MOST_NAMES:
        raise ObjectError(f"{data.dtype} of shape {data.shape} in {path}", expected)
    names: list[str] = []
    n_characters = 0
    at_once = 1 if data.dtype.kind == "O" else _NAMES_AT_ONCE  # each may be as long as the file
    for start in range(0, len(data), at_once):
        for name in data[start : start + at_once]:
            text = name.decode(errors="replace") if isinstance(name, bytes) else str(name)
            n_characters += len(text)
            names.append(text)
        if n_characters > _MOST_TEXT:
            raise ObjectError(f"more than {_MOST_TEXT:,} characters in {path}", expected)
    return names


def with_splits(statics: dict[str, Any], name: str, splits: dict[str, list[str]]) -> dict[str, Any]:
    """Static attributes of an episode with those of its splits: 1 or 0 for each list, and the one that it is in."""
    members = {split: set(names) for split, names in splits.items()}
    made = {**statics, **{f"mask_{split}": int(name in some) for split, some in members.items()}}
    usual = [split for split in ("train", "valid", "val", "test") if split in members]
    disjoint = sum(len(members[split]) for split in usual) == len(set().union(*(members[split] for split in usual)))
    if usual and disjoint:
        here = [split for split in usual if name in members[split]]
        made[SPLIT] = here[0] if here else None
    return made


def as_number(value: Any) -> float | None:
    """A number that float64 holds; None where it is a text, or a whole number of too many digits."""
    if isinstance(value, (bool, int, float)) and not (isinstance(value, int) and float(value) != value):
        return float(value) if value is not None else np.nan
    return None
