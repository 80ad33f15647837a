"""The tree of an HDF5 file, as text: bounded, and without following a link out of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Any

import numpy as np

from zstore.text import shown
from zstore.writing.sources.hdf5.library import h5py_of
from zstore.writing.sources.hdf5.objects import (
    FILTERS,
    DataSet,
    ObjectError,
    address,
    attributes_of,
    judge,
    link_of,
    names_of,
    natural,
)

MOST_LINES = 200
_MOST_LEVELS = 12
_MOST_NAMES = 1_000_000
_CHILDREN = 6  # of a group that are shown; of groups that look alike, fewer
_ALIKE = 2
_MOST_ATTRIBUTES = 12
_WIDEST = 60  # characters of an attribute


def tree_of(root: Any, n_file_bytes: int) -> list[str]:
    """Groups, data sets with shape, type, chunks and filters, and attributes, a line each.

    Parameters
    ----------
    root
        The file of h5py, open.
    n_file_bytes
        Its bytes, which no data set can need more of.

    Returns
    -------
    At most some 200 lines, however many objects there are; what is left out is counted. An object of several names is
    shown at the first.
    """
    lines: list[str] = []
    for line in _group(root.id, "/", n_file_bytes, 0, {address(root.id): "/"}):
        lines.append(line)
        if len(lines) >= MOST_LINES:
            lines.append("… and more")
            break
    return lines


def _group(node: Any, path: str, n_file_bytes: int, level: int, seen: dict[tuple[int, int], str]) -> Iterator[str]:
    h5py, indent = h5py_of(path), "  " * level
    try:
        names = sorted(names_of(node, _MOST_NAMES), key=natural)
    except ObjectError as error:
        yield f"{indent}({error.reason})"
        return
    yield from (f"{indent}@{line}" for line in _attributes(node))
    inner: list[tuple[str, ...]] = []  # names in each group among them
    for name in names[:MOST_LINES]:  # before any of them is gone into, so that an object has the name that is shortest
        _known(node, name, f"{path.rstrip('/')}/{name}", seen)
    for number, name in enumerate(names):
        where = f"{path.rstrip('/')}/{name}"
        try:
            kind, target = link_of(node, name, where)
            child = h5py.h5o.open(node, name.encode()) if kind == "hard" else None
            known = where if child is None else seen.setdefault(address(child), where)
        except (ObjectError, OSError, KeyError, RuntimeError) as error:
            yield f"{indent}{shown(name)}: {shown(getattr(error, 'reason', error))}"
            continue
        if kind == "soft":
            yield f"{indent}{shown(name)} → {shown(target)}"
            continue
        if isinstance(child, h5py.h5g.GroupID):
            inner.append(tuple(name.decode(errors="replace") for name in islice(child, _CHILDREN)))
        if known != where:
            yield f"{indent}{shown(name)} = {shown(known)}"
        elif isinstance(child, h5py.h5g.GroupID):
            yield f"{indent}{shown(name)}/"
            if level < _MOST_LEVELS:
                yield from _group(child, where, n_file_bytes, level + 1, seen)
        elif isinstance(child, h5py.h5d.DatasetID):
            yield f"{indent}{shown(name)}  {_data(child, where, n_file_bytes)}"
            yield from (f"{indent}  @{line}" for line in _attributes(child))
        else:
            yield f"{indent}{shown(name)}  a type"
        n_left = len(names) - number - 1
        alike = _ALIKE <= len(inner) == number + 1 and len(set(inner)) == 1 and n_left > _ALIKE
        if alike or (number + 1 >= _CHILDREN * _ALIKE and inner and n_left > _CHILDREN):
            yield f"{indent}… and {n_left:,} more"
            return


def _known(node: Any, name: str, where: str, seen: dict[tuple[int, int], str]) -> None:
    """Note where an object is that no other name was met of; what cannot be opened is told when its turn comes."""
    with suppress(ObjectError, OSError, KeyError, RuntimeError):
        if link_of(node, name, where)[0] == "hard":
            seen.setdefault(address(h5py_of(where).h5o.open(node, name.encode())), where)


def _attributes(node: Any) -> Iterator[str]:
    try:
        for number, (name, value) in enumerate(attributes_of(node, _MOST_NAMES, _WIDEST)):
            if number >= _MOST_ATTRIBUTES:
                yield "… and more"
                return
            yield f"{shown(name)} = {'a long text or array' if value is None else shown(repr(value))}"
    except (ObjectError, OSError, RuntimeError) as error:
        yield f"({shown(getattr(error, 'reason', error))})"


def _data(node: Any, path: str, n_file_bytes: int) -> str:
    """Shape, type, chunks and filters of a data set; or why it cannot be read."""
    try:
        data = judge(node, path, n_file_bytes)
    except (ObjectError, OSError, RuntimeError) as error:
        return f"cannot be read: {shown(getattr(error, 'reason', error))}"
    creation = node.get_create_plist()
    chunks = "" if data.chunk_rows is None else f"; chunks {_shape(creation.get_chunk())}"
    filters = [FILTERS[creation.get_filter(n)[0]] for n in range(creation.get_nfilters())]
    return f"{_shape(data.shape)} {_type(data)}{chunks}" + (f"; {' '.join(filters)}" if filters else "")


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(f"{size:,}" for size in shape)


def _type(data: DataSet) -> str:
    """A type as numpy writes it; members of compounds by name."""
    dtype = data.dtype
    if dtype.names is None:
        return _plain(dtype)
    return "{" + ", ".join(f"{shown(name)} {_plain(dtype[name])}" for name in dtype.names) + "}"


def _plain(dtype: np.dtype[Any]) -> str:
    name = dtype.base.str.lstrip("<>|=")
    return name if not dtype.shape else f"{name}[{'×'.join(map(str, dtype.shape))}]"
