"""What is what in HDF5 files: a mapping says which groups are episodes, and what their data sets mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

ID, TIME = "id", "time"
"""Columns that every file has, whatever its data sets are called."""
ROWS, STEPS = "rows", "steps"
UNITS = ("s", "ms", "us", "ns")
ATTRIBUTE_CHARACTERS = 1000
"""Characters of a text attribute up to which it is a static attribute without being named."""


@dataclass(frozen=True)
class DataPath:
    """Where values lie: a data set, or a member of a compound one.

    Parameters
    ----------
    path
        From the group of the episode, or, with a slash before it, from the root. Its last part may be ``*``.
    member
        Member of a compound type; None for the whole data set.
    optional
        Whether episodes need not have it.
    """

    path: str
    member: str | None = None
    optional: bool = False

    @property
    def shown(self) -> str:
        """As messages have it."""
        return self.path if self.member is None else f"{self.path} member {self.member}"


@dataclass(frozen=True)
class TimeWay:
    """Where times come from.

    Parameters
    ----------
    data
        Data set of times; None where rows are counted.
    rate
        Rows a second, which times with a fraction are held to.
    unit
        What whole numbers count: ``s``, ``ms``, ``us``, ``ns`` since 1970, or ``steps``.
    """

    data: DataPath | None = None
    rate: float | None = None
    unit: str = STEPS

    @property
    def moments(self) -> bool:
        """Whether times are moments since 1970, and not steps."""
        return self.unit != STEPS


@dataclass(frozen=True)
class FieldWay:
    """A field: its data set, and what is known of it.

    Parameters
    ----------
    data
        (row, …) data set; or, with `lengths`, (row, byte) encoded images with zeros behind them.
    dimensions
        Names of the dimensions beside the row; empty to number them.
    lengths
        (camera, row) data set of the bytes of each encoded image; None where values are arrays.
    when
        Attribute of the root that says whether `lengths` are in use: those of other files are arrays.
    units
        Units to record.
    """

    data: DataPath
    dimensions: tuple[str, ...] = ()
    lengths: str | None = None
    when: str | None = None
    units: str | None = None


@dataclass(frozen=True)
class Hdf5Mapping:
    """A mapping, read and checked.

    Parameters
    ----------
    episodes
        Group of the one episode of a file, ``/`` for the file itself; or with ``*`` as its last part for all groups of
        one.
    id
        What ids are: ``file``, ``group``, ``file/group``; an attribute, or the first group of a pattern.
    time
        Where times come from.
    channels, vectors
        By name, data sets of one number, or several, a row. The name ``*`` (or ``obs.*``) is that of each data set.
    fields
        The same of images and the like.
    missing_where
        Channels and vectors whose rows are missing where they are all zero.
    attributes
        Which attributes of an episode are static attributes; None for all short ones, empty for none.
    pattern
        Regular expression whose named groups, in the path of a file, are static attributes; None for none.
    splits
        Group of lists of episodes, each of which becomes a static attribute; None for none.
    """

    episodes: str = "/"
    id: Mapping[str, str] = field(default_factory=lambda: {"of": "file"})
    time: TimeWay = TimeWay()
    channels: Mapping[str, DataPath] = field(default_factory=dict)
    vectors: Mapping[str, DataPath] = field(default_factory=dict)
    fields: Mapping[str, FieldWay] = field(default_factory=dict)
    missing_where: tuple[str, ...] = ()
    attributes: tuple[str, ...] | None = ()
    pattern: str | None = None
    splits: str | None = None
