"""What one version of a store says of itself: its schema, index and statistics, looked up by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.errors import NotFoundError, UsageError
from zstore.format.index import SeriesIndex, StaticAttribute
from zstore.format.layout import index_path, moments_path
from zstore.format.manifest import ObjectRecord
from zstore.format.moments import Moments
from zstore.format.nodes import index_arrays
from zstore.format.payloads.grid import grid_name
from zstore.format.schema import Field, Schema, TimeAxis
from zstore.format.soundness import check_ends, check_ids, check_index, check_missing, check_moments, check_sources
from zstore.reading.names import FIX_NAME, by_name, grouped, position_of
from zstore.reading.objects import ObjectReader
from zstore.reading.smallcolumn import SmallColumn
from zstore.storage.protocol import Storage

_COORDINATES = ("latitude", "lat", "gauge_lat"), ("longitude", "lng", "lon", "gauge_lon")


class DescribedVersion:
    """What one version of a store says of its rows, without reading any: schema, index, moments, ledger.

    Parameters
    ----------
    storage
        Where it is.
    version
        Number of the version; None for the newest.

    Raises
    ------
    StoreError
        If there is no store.
    NotFoundError
        If it has no such version, or no longer.
    """

    def __init__(self, storage: Storage, version: int | None = None) -> None:
        self.storage = storage
        self.objects = ObjectReader(storage, version)
        self.schema = Schema.from_json(self.objects.document, self.path)

    @property
    def path(self) -> str:
        """Its folder or URL."""
        return str(self.storage)

    @property
    def version(self) -> int:
        """Number of the version opened."""
        return self.schema.version

    @property
    def digest(self) -> str:
        """Digest of the version's root document: 32 hex digits, the same only where every object is the same.

        What is kept of a version elsewhere goes by it: a store that was restored from a copy and appended to has
        other rows under the same uuid and version number.
        """
        return str(self.objects.document["digest"])

    @property
    def n_rows(self) -> int:
        """Rows of all series."""
        return self.schema.n_rows

    @property
    def n_series(self) -> int:
        """Series."""
        return self.schema.n_series

    @cached_property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels."""
        return tuple(channel.name for channel in self.schema.channels)

    @cached_property
    def _columns(self) -> dict[str, int]:
        """Where each channel is in :attr:`channels`; some 100 bytes a channel."""
        return {name: column for column, name in enumerate(self.channels)}

    @cached_property
    def vectors(self) -> dict[str, tuple[str, ...]]:
        """Channels that belong together, by the name that they share: ``emg`` for ``emg.0``, ``emg.1`` and so on.

        Numbered from 0 without a hole, at least two, and none of them called like the vector itself.
        """
        return {name: own for name, own in self.named_channels.items() if len(own) > 1}

    @cached_property
    def named_channels(self) -> dict[str, tuple[str, ...]]:
        """The channels in order, under their names; those of a vector together, where its first one is, under its."""
        return grouped(self.channels)

    def channels_of(self, names: Iterable[str]) -> list[str]:
        """Names of channels, with each vector among them as its channels in order; see :attr:`vectors`."""
        return [channel for name in names for channel in self.vectors.get(name, (name,))]

    def chosen_channels(self, names: Sequence[str] | str) -> tuple[str, ...]:
        """Channels that a user names, one or several, vectors among them.

        Raises
        ------
        NotFoundError
            If the store has no such channel.
        UsageError
            If one is named twice.
        """
        chosen = tuple(self.channels_of([names] if isinstance(names, str) else names))
        for name in chosen:
            self.channel(name)
            if chosen.count(name) > 1:
                raise UsageError(f"channel {name!r} twice", expected="each once")
        return chosen

    @property
    def time(self) -> TimeAxis:
        """The time axis: ``time.rule`` is how far it is from row to row, ``time.show`` writes a time as a date."""
        return self.schema.time

    @property
    def receipt(self) -> dict[str, Any]:
        """The receipt of the ingest that made this version."""
        receipt: dict[str, Any] = self.objects.document["receipt"]
        return receipt

    @cached_property
    def index(self) -> SeriesIndex:
        """The ID index."""
        group, objects = index_path(self.version), self.objects
        names = [name for name in index_arrays(group, objects.nodes) if name != "id"]
        arrays = dict(zip(names, objects.smalls([f"{group}/{name}" for name in names]), strict=True))
        index = SeriesIndex.from_arrays(arrays, lambda: self.ids)
        check_index(index, objects.document, f"{self.path}/{group}")
        objects.check_shards(index)
        return index

    def column(self, name: str) -> SmallColumn:
        """An array of the index, by the name that the format gives it, read chunk by chunk and not checked as a whole.

        Writers use it, who keep what they do not touch; :attr:`index` is for reading rows.
        """
        return self._small_column(f"{index_path(self.version)}/{name}")

    def moments_column(self, name: str) -> SmallColumn:
        """The same of the moments."""
        return self._small_column(f"{moments_path(self.version)}/{name}")

    def _small_column(self, path: str) -> SmallColumn:
        columns: dict[str, SmallColumn] = self.__dict__.setdefault("_small_columns", {})
        return columns.setdefault(path, SmallColumn(self.objects, path))

    @property
    def static_columns(self) -> list[tuple[str, SmallColumn, tuple[str, ...] | None]]:
        """Name, array and words (None for numbers) of each static attribute, in their order. Reads nothing."""
        group, nodes = index_path(self.version), self.objects.nodes
        columns = [self.column(name) for name in index_arrays(group, nodes)]
        told = [(column.document["attributes"], column) for column in columns]
        statics = [(said, column) for said, column in told if "zstore_static" in said]
        return [
            (said["long_name"], column, tuple(said["categories"]) if "categories" in said else None)
            for said, column in sorted(statics, key=lambda each: int(each[0]["zstore_static"]))
        ]

    @property
    def contiguous(self) -> bool:
        """Whether places are rows, as the index says; see :attr:`SeriesIndex.contiguous`."""
        return "sample_dimension" in self.column("row_size").document["attributes"]

    @cached_property
    def moments(self) -> Moments:
        """Moments per series and channel, each field (series, channel)."""
        group = moments_path(self.version)
        arrays = self.objects.smalls([f"{group}/{name}" for name in Moments.empty((0,)).fields()])
        moments = Moments(*(values for values, _ in arrays))
        check_moments(moments, self.index, self.objects.document, f"{self.path}/{group}")
        return moments

    @cached_property
    def _n_missing(self) -> NDArray[np.int64]:
        """(channel,) missing values: of all moments, what every table asks for."""
        group, total = moments_path(self.version), np.zeros(len(self.channels), np.int64)
        if "moments" in self.__dict__:
            return np.sum(self.moments.n_missing, axis=0, out=total)
        for rows, (counts,) in self.objects.small_parts([f"{group}/n_missing"]):
            check_missing(counts, self._sizes(rows), f"{self.path}/{group}")
            total += counts.sum(axis=0)
        return total

    def _sizes(self, series: slice) -> NDArray[np.int64]:
        """Rows of some series: of the index if it is in memory, else read for this."""
        if "index" in self.__dict__:
            return self.index.row_size[series]
        return self.column("row_size").read(series.start, series.stop)

    @cached_property
    def extremes(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Smallest and largest value of each channel, (channel,); ``inf`` and ``-inf`` where it has none.

        Notes
        -----
        Cost: passes over some moments of each series, of which little is in memory at a time.
        """
        group, n_channels = moments_path(self.version), len(self.channels)
        least, largest = np.full(n_channels, np.inf), np.full(n_channels, -np.inf)
        paths = [f"{group}/{name}" for name in ("count", "n_missing", "low", "high")]
        for rows, (count, n_missing, low, high) in self.objects.small_parts(paths):
            sizes = self._sizes(rows)
            check_ends(count, n_missing, low, high, sizes, self.objects.document, f"{self.path}/{group}")
            seen: Any = count > 0
            seen = True if seen.all() else seen  # reductions of all values take a fraction of the time
            least = np.minimum(least, low.min(axis=0, where=seen, initial=np.inf))
            largest = np.maximum(largest, high.max(axis=0, where=seen, initial=-np.inf))
        return least, largest

    @cached_property
    def ledger(self) -> list[ObjectRecord]:
        """The sources whose rows were taken: name, bytes and digest of each."""
        sources = self.objects.sources
        check_sources(sources, self.path)
        return sources

    @cached_property
    def ids(self) -> NDArray[Any]:
        """(series,) exact ids, sorted by their UTF-8 bytes, ``numpy.dtypes.StringDType``. Read without the index."""
        group = index_path(self.version)
        ids: NDArray[Any] = self.objects.small(f"{group}/id")[0]
        check_ids(ids, f"{self.path}/{group}")
        return ids

    @property
    def numbers(self) -> list[str]:
        """Names of the channels that hold numbers, not categories."""
        return [channel.name for channel in self.schema.channels if channel.kind == "number"]

    @property
    def statics(self) -> tuple[StaticAttribute, ...]:
        """Static attributes, each (series,)."""
        return self.index.statics

    @property
    def coordinates(self) -> NDArray[np.float64] | None:
        """(series, 2) latitude and longitude, if static attributes of the usual names hold them; NaN where missing."""
        numbers = {static.name.lower(): static.values for static in self.statics if static.categories is None}
        found = [numbers[known[0]] for names in _COORDINATES if (known := [name for name in names if name in numbers])]
        return np.stack(found, axis=1).astype(np.float64) if len(found) == len(_COORDINATES) else None

    def channel(self, name: str) -> Field:
        """A channel by name.

        Raises
        ------
        NotFoundError
            If the store has no such channel.
        """
        if name in self._columns:
            return self.schema.channels[self._columns[name]]
        known = ", ".join(self.named_channels)
        raise NotFoundError(f"no channel {name!r}", expected=f"one of {known}", where=self.path, fix=FIX_NAME)

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields: what a row has beside scalar channels, such as images."""
        return tuple(field.name for field in self.schema.fields)

    @cached_property
    def volume_grids(self) -> dict[str, str]:
        """Fields that have where the voxels of another one lay in their sources, and which that is.

        See :func:`zstore.original_grid`.
        """
        chains, fields = self.objects.document["table"].get("file_chain"), set(self.fields)
        names = chains if isinstance(chains, dict) else ()
        return {grid_name(name): name for name in names if {name, grid_name(name)} <= fields}

    def field(self, name: str) -> Field:
        """A field by name.

        Raises
        ------
        NotFoundError
            If the store has no such field.
        """
        return by_name(self.schema.fields, name, "field", "none: ingest with --file", self.path)

    def static(self, name: str) -> StaticAttribute:
        """A static attribute by name.

        Raises
        ------
        NotFoundError
            If the store has no such attribute.
        """
        return by_name(self.statics, name, "static attribute", "none: ingest with --static FILE", self.path)

    def position(self, id_: str) -> int:
        """Position of an id in :attr:`ids`.

        Raises
        ------
        NotFoundError
            If the store has no such id, naming those that look alike, or else those nearest in order.

        Notes
        -----
        Cost: O(log series), some microseconds; no memory beside the index.
        """
        return position_of(self.ids, id_, self.path)

    def n_infinite_series(self, channel: str) -> int:
        """Series that have an infinite value in a channel. Cost: the statistics of each series; no row is read."""
        return len(self.infinite_series(channel))

    def infinite_series(self, channel: str) -> NDArray[np.int64]:
        """(found,) positions of the series that have an infinite value in a channel; costs what the number does."""
        column = self._columns[self.channel(channel).name]
        if not np.isinf([ends[column] for ends in self.extremes]).any():
            return np.zeros(0, np.int64)
        moments = self.moments
        ends = np.isinf(moments.low[:, column]) | np.isinf(moments.high[:, column])
        return np.flatnonzero(ends & (moments.count[:, column] > 0))

    def missing(self, channels: Sequence[str]) -> NDArray[np.bool_]:
        """(channel,) whether any value of some channels is missing."""
        found: NDArray[np.bool_] = self._n_missing > 0
        return found[[self._columns[self.channel(name).name] for name in channels]]

    @property
    def chunk_starts(self) -> NDArray[np.int64]:
        """(chunk,) the rows that a chunk of the channels begins with; see :meth:`SeriesIndex.chunk_starts`."""
        return self.index.chunk_starts(self.schema.chunk_rows)

    @property
    def n_chunks_stored(self) -> int:
        """Chunks of one channel that any row lies in."""
        return self.index.n_chunks_stored(self.schema.chunk_rows)

    def n_chunks(self, start: int, stop: int) -> int:
        """Chunks of one channel that the rows ``[start, stop)`` lie in."""
        return self.index.n_chunks(start, stop, self.schema.chunk_rows)
