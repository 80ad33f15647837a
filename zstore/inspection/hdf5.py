"""A look at an HDF5 file before it is ingested: its tree, the preset that fits, or a mapping to start from."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from zstore.errors import SourceError
from zstore.inspection.tree import tree_of
from zstore.storage.file import File
from zstore.writing.sources.files import find
from zstore.writing.sources.hdf5.layout import layout_of, read_rows
from zstore.writing.sources.hdf5.library import h5py_of, opened
from zstore.writing.sources.hdf5.mapping import ID, TIME
from zstore.writing.sources.hdf5.objects import (
    DataSet,
    ObjectError,
    address,
    attributes_of,
    judge,
    link_of,
    names_of,
    natural,
)
from zstore.writing.sources.hdf5.presets import PRESETS
from zstore.writing.sources.hdf5.read_mapping import MappingError, read_mapping
from zstore.writing.sources.kinds import stem_of

_MOST_OBJECTS = 10_000  # that are looked at
_MOST_ATTRIBUTES = 2_000
_MOST_TOLD = 10  # data sets of other lengths
_MOST_LEVELS = 12
_TIMES = re.compile(r"(?:time|timestamp|t|ts|stamp)s?", re.IGNORECASE)
_FIRST_TIMES = 10_000


@dataclass(frozen=True)
class TreeInspection:
    """What an HDF5 file holds.

    Parameters
    ----------
    path
        The file.
    tree
        Its groups, data sets and attributes, a line each, indented.
    preset
        The preset that fits, if one does.
    mapping
        That preset, or a mapping to start from; None where no data set could be a channel.
    command
        What would ingest the file; a mapping that is no preset is to be saved first.
    questions
        What only a person can say.
    """

    path: str
    tree: tuple[str, ...]
    preset: str | None
    mapping: Mapping[str, Any] | None
    command: str
    questions: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{self.path}: HDF5", *(f"  {line}" for line in self.tree)]
        if self.preset is not None:
            lines.append(f"the preset {self.preset} fits")
        elif self.mapping is not None:
            lines.append(f"a mapping to start from, to be saved as {_saved(self.path)}:")
            lines += [f"  {line}" for line in yaml.safe_dump(dict(self.mapping), sort_keys=False).splitlines()]
        lines += [f"ask: {question}" for question in self.questions]
        return "\n".join([*lines, self.command])


def inspect_hdf5(path: str | Path, *, storage_options: Mapping[str, str] | None = None) -> TreeInspection:
    """Look at an HDF5 file: what it holds, and how it could be ingested.

    Parameters
    ----------
    path
        The file, or ``s3://…``.
    storage_options
        For object storage, see :func:`zstore.ingest`.

    Raises
    ------
    SourceError
        If there is no such file, or it is damaged.
    UsageError
        If h5py is not installed.
    """
    file = find(path, "SRC", storage_options)
    with opened(file) as root:
        tree = tree_of(root, file.n_bytes)
    preset = next((name for name in PRESETS if _fits(file, PRESETS[name])), None)
    questions: list[str] = []
    mapping: Mapping[str, Any] | None = PRESETS[preset] if preset is not None else None
    if mapping is None:
        with opened(file) as root:
            mapping, questions = _mapping(root, file)
    words = ["zstore", "ingest", str(path), f"{stem_of(str(file.path))}.zarr", "--mapping", preset or _saved(str(path))]
    return TreeInspection(str(path), tuple(tree), preset, mapping, shlex.join(words), tuple(questions))


def _saved(path: str) -> str:
    return f"{Path(path).stem}.yaml"


def _fits(file: File, document: Mapping[str, Any]) -> bool:
    """Whether the first episodes of a file are as a preset has them."""
    try:
        layout = layout_of(file, read_mapping(document), most_episodes=2)
    except (ObjectError, SourceError):
        return False
    return any(episode.fault is None for episode in layout.episodes) and len(layout.columns) > 1


@dataclass(frozen=True)
class _Found:
    """A data set, or a member of one, that may be a column.

    Parameters
    ----------
    path
        Of the data set, from the root.
    member
        Of a compound one.
    data
        Its header.
    inner
        Shape of a row.
    dtype
        Of a value.
    """

    path: str
    member: str | None
    data: DataSet
    inner: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def last(self) -> str:
        """What it is called."""
        return self.member or self.path.rpartition("/")[2]


def _mapping(root: Any, file: File) -> tuple[dict[str, Any] | None, list[str]]:
    """A mapping to start from, and what to ask about it."""
    groups: dict[str, tuple[str, ...]] = {}
    found = list(_walk(root.id, "/", file.n_bytes, 0, groups, {address(root.id)}))
    episodes, first = _episodes(groups, [each.path for each in found])
    inside = [each for each in found if first == "/" or each.path.startswith(f"{first}/")]
    if not inside:
        return None, ["no data set can be a channel"]
    n_rows = Counter(each.data.n_rows for each in inside).most_common(1)[0][0]
    others = [each for each in inside if each.data.n_rows != n_rows]
    questions = [
        f"{each.path} has {each.data.n_rows:,} rows, and others {n_rows:,}: it is left out"
        for each in others[:_MOST_TOLD]
    ]
    if len(others) > _MOST_TOLD:
        questions.append(f"{len(others) - _MOST_TOLD:,} more have other numbers of rows than {n_rows:,}")
    rows = [each for each in inside if each.data.n_rows == n_rows]
    document: dict[str, Any] = {"episodes": episodes, "id": "group" if episodes.endswith("*") else "file"}
    time = next((each for each in rows if _TIMES.fullmatch(each.last) and not each.inner), None)
    document["time"], asked = _time(time, first)
    questions += asked
    kinds: dict[str, dict[str, Any]] = {"channels": {}, "vectors": {}, "fields": {}}
    for each in rows:
        if each is time:
            continue
        kind = kinds["channels" if not each.inner else "vectors" if len(each.inner) == 1 else "fields"]
        if kind is kinds["fields"] and each.member is not None:
            continue
        kind[_name(each, first, rows)] = _where(each, first)
    document |= {kind: some for kind, some in kinds.items() if some}
    if next(iter(attributes_of(root[first].id, _MOST_ATTRIBUTES, None)), None) is not None:
        document["statics"] = "attributes"
    try:
        read_mapping(document)
    except MappingError:
        return None, [*questions, "no data set can be a channel or a vector"]
    return document, questions


def _walk(
    node: Any, path: str, n_file_bytes: int, level: int, groups: dict[str, tuple[str, ...]], seen: set[tuple[int, int]]
) -> Iterator[_Found]:
    """Data sets that can be read, and, in `groups`, the names in each group; of groups that are many, the first two.

    An object that was `seen` under another name counts there alone, so hard links make no circles.
    """
    h5py = h5py_of(path)
    try:
        names = sorted(names_of(node, 1_000_000), key=natural)
    except ObjectError:
        return
    groups[path] = tuple(names)
    own: list[tuple[str, Any]] = []
    for name in names:
        where = f"{path.rstrip('/')}/{name}"
        if len(seen) >= _MOST_OBJECTS:
            break
        try:
            child = h5py.h5o.open(node, name.encode()) if link_of(node, name, where)[0] == "hard" else None
        except (ObjectError, OSError, KeyError, RuntimeError):
            continue
        if child is not None and (known := address(child)) not in seen:
            seen.add(known)
            own.append((where, child))
    n_groups = 0
    for where, child in own:
        if isinstance(child, h5py.h5d.DatasetID):
            with suppress(ObjectError, OSError, RuntimeError):  # one that cannot be read is no column
                yield from _columns(judge(child, where, n_file_bytes))
        elif isinstance(child, h5py.h5g.GroupID) and level < _MOST_LEVELS:
            n_groups += 1
            if n_groups <= 2 or len(names) <= 20:
                yield from _walk(child, where, n_file_bytes, level + 1, groups, seen)


def _columns(data: DataSet) -> Iterator[_Found]:
    for name in data.dtype.names or (None,):
        dtype = data.dtype if name is None else data.dtype[name]
        usual = dtype.base.kind in "biuf" and dtype.base.itemsize <= 8
        if dtype.names is None and (usual or (dtype.kind == "S" and len(data.shape) == 1)):
            yield _Found(data.path, name, data, (*data.shape[1:], *dtype.shape), dtype.base)


def _episodes(groups: Mapping[str, tuple[str, ...]], paths: Sequence[str]) -> tuple[str, str]:
    """The groups that seem to be episodes, and the first of them."""
    for parent, names in groups.items():
        below = [f"{parent.rstrip('/')}/{name}" for name in names]
        same = [group for group in below if group in groups]
        kinds = {tuple(path[len(group) :] for path in paths if path.startswith(f"{group}/")) for group in same} - {()}
        if len(same) > 1 and len(kinds) == 1 and len(same) == len([name for name in below if name not in paths]):
            return f"{parent.strip('/')}/*".lstrip("/"), same[0]
    tops = {path.split("/")[1] for path in paths}
    if len(tops) == 1 and f"/{next(iter(tops))}" in groups:
        top = next(iter(tops))
        return top, f"/{top}"
    return "/", "/"


def _where(each: _Found, first: str) -> Any:
    path = each.path[len(first.rstrip("/")) + 1 :]
    return path if each.member is None else {"data": path, "member": each.member}


def _name(each: _Found, first: str, rows: Sequence[_Found]) -> str:
    """A name of its own: the last part of the path, or all of it."""
    same = sum(other.last == each.last for other in rows) > 1 or each.last in (ID, TIME)
    if not same:
        return each.last
    path = each.path[len(first.rstrip("/")) + 1 :].replace("/", ".")
    return path if each.member is None else f"{path}.{each.member}"


def _time(each: _Found | None, first: str) -> tuple[Any, list[str]]:
    """Where times come from, and what to ask about it."""
    if each is None:
        return "rows", ["no data set is called time: are rows one step apart?"]
    where = _where(each, first)
    way = dict(where) if isinstance(where, dict) else {"data": where}
    if each.dtype.kind != "f":
        return {**way, "unit": "steps"}, [f"what do the times of {each.path} count: steps, s, ms, us or ns since 1970?"]
    try:
        times = np.asarray(read_rows(each.data, each.member, 0, min(each.data.n_rows, _FIRST_TIMES)), np.float64)
    except ObjectError:
        times = np.zeros(0)
    rate = _rate(times[np.isfinite(times)])
    return {**way, "rate": rate}, [f"is the rate of {each.path} {rate:g} rows a second?"]


def _rate(times: NDArray[np.float64]) -> float:
    """Rows a second, to four digits; 1 where times do not ascend.

    The median step is that of jittered times, and of times written to few digits, to some percent only. So the rate is
    that of all steps of about its length together, which leaves out gaps.
    """
    steps = np.diff(times)
    middle = float(np.median(steps)) if len(steps) else 0.0
    if middle <= 0:
        return 1.0
    common = steps[np.abs(steps - middle) < middle]
    return float(f"{len(common) / common.sum():.4g}")
