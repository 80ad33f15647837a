"""What one file holds, as a mapping has it: episodes, columns, fields, and what is wrong with some."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from zstore.writing.sources.hdf5.mapping import DataPath, FieldWay
from zstore.writing.sources.hdf5.objects import DataSet, ObjectError

_GROUP_BYTES = 1 << 22  # of rows that are read together, where chunks are not larger


@dataclass(frozen=True)
class DataColumn:
    """A column, and the data set of an episode that it is.

    Parameters
    ----------
    name
        Its name.
    data
        Where its values are; no ``*`` in the path.
    type
        As Arrow has it.
    width
        Values of a row of a vector; None of a single one.
    zeros_missing
        Whether a row of zeros is missing.
    """

    name: str
    data: DataPath
    type: pa.DataType
    width: int | None = None
    zeros_missing: bool = False


@dataclass(frozen=True)
class FieldData:
    """A field, and the data set of an episode that it is; see :class:`~zstore.writing.sources.hdf5.mapping.FieldWay`.

    Parameters
    ----------
    name
        Its name.
    way
        With its own path, without ``*``, and without `lengths` where this file has arrays.
    shape
        Of a payload; of encoded images, of the row that holds one.
    dtype
        Of its values.
    """

    name: str
    way: FieldWay
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def row_bytes(self) -> int:
        """Bytes of a payload in memory."""
        return self.dtype.itemsize * math.prod(self.shape)

    @property
    def shown(self) -> str:
        """What payloads are, which all episodes have alike."""
        return "encoded images" if self.way.lengths else f"{self.dtype} of {'×'.join(map(str, self.shape))}"


@dataclass(frozen=True)
class Fault:
    """What is wrong with an episode, and what is expected."""

    reason: str
    expected: str


@dataclass(frozen=True)
class Episode:
    """An episode, or a session: the rows of a group.

    Parameters
    ----------
    group
        Its path.
    id
        Id of its rows.
    n_rows
        Rows; of a damaged one, as many as most of its data sets have, at least one.
    origin
        Seconds at step 0, where times are held to a rate.
    statics
        Static attributes.
    fault
        Why it cannot be read, if it cannot.
    """

    group: str
    id: str
    n_rows: int
    origin: float | None = None
    statics: Mapping[str, Any] | None = field(default=None, hash=False)
    fault: Fault | None = None


@dataclass(frozen=True)
class Stretch:
    """The rows ``[start, stop)`` of an episode, which are read together."""

    episode: Episode
    start: int
    stop: int

    @property
    def n_rows(self) -> int:
        """Rows."""
        return self.stop - self.start


@dataclass(frozen=True)
class Layout:
    """What a file holds.

    Parameters
    ----------
    columns
        Columns of all of its episodes, time first if there is a data set of times.
    fields
        Fields of all of its episodes.
    groups
        Stretches that are read together.
    row_bytes
        Bytes of a row of all columns in memory.
    chunk_rows
        Rows of the longest chunk, or of a small part of data without chunks.
    notes
        What should be known of it.
    """

    columns: tuple[DataColumn, ...]
    fields: tuple[FieldData, ...]
    groups: tuple[tuple[Stretch, ...], ...]
    row_bytes: int
    chunk_rows: int
    notes: tuple[str, ...] = ()

    @property
    def episodes(self) -> list[Episode]:
        """Its episodes, each once."""
        return list({s.episode.group: s.episode for group in self.groups for s in group}.values())


@dataclass(frozen=True)
class Contents:
    """The data sets of one episode, opened."""

    group: str
    columns: tuple[DataColumn, ...]
    fields: tuple[FieldData, ...]
    data: Mapping[str, DataSet]
    """By path in the mapping."""

    @property
    def n_rows(self) -> int:
        """Rows, as most of the data sets have it."""
        return Counter(data.n_rows for data in self.data.values()).most_common(1)[0][0]


def check_alike(first: Contents, other: Contents) -> None:
    """Refuse an episode with other columns than the first one."""
    group, where = other.group, first.group
    own, theirs = ({column.name: column.type for column in each.columns} for each in (first, other))
    for name in dict.fromkeys([*own, *theirs]):
        if own.get(name) != theirs.get(name):
            raise ObjectError(
                f"{name!r} in {group} " + (f"of type {theirs[name]}" if name in theirs else "is missing"),
                f"{own.get(name, 'none')} as in {where}",
            )
    kinds, before = ({field.name: field.shown for field in each.fields} for each in (other, first))
    for name in dict.fromkeys([*before, *kinds]):
        if kinds.get(name) != before.get(name):
            raise ObjectError(
                f"field {name!r} in {group} " + (f"of {kinds[name]}" if name in kinds else "is missing"),
                f"{before.get(name, 'none')} as in {where}",
            )


def grouped(episodes: list[Episode], row_bytes: int, chunk_rows: int) -> Iterator[tuple[Stretch, ...]]:
    """Episodes as stretches along chunks, small neighbours together; as the file has them, whatever memory there is."""
    rows = max(_GROUP_BYTES // row_bytes, 1)
    step = max(rows // chunk_rows, 1) * chunk_rows
    together: list[Stretch] = []
    n_together = 0
    for episode in episodes:
        size = episode.n_rows if episode.fault is not None else step  # a damaged one is one thing to tell
        for start in range(0, episode.n_rows, size):
            stretch = Stretch(episode, start, min(start + size, episode.n_rows))
            if together and n_together + stretch.n_rows > rows:
                yield tuple(together)
                together, n_together = [], 0
            together.append(stretch)
            n_together += stretch.n_rows
    if together:
        yield tuple(together)
