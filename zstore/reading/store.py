"""A store, opened: ids, series, rows; nothing is decoded before it is asked for."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from zstore.reading.dataset import to_dataset
from zstore.reading.decode import decode_part, decode_rows_of, float32_suffices, require_float32
from zstore.reading.eviction import Cache
from zstore.reading.fieldrows import FieldSteps
from zstore.reading.gather import Windows
from zstore.reading.ranges import parse_bound
from zstore.reading.scaling import Scaling
from zstore.reading.selection import Selection
from zstore.reading.series import Series
from zstore.reading.version import StoredVersion
from zstore.reading.where import choose_series
from zstore.reading.windowshape import Padding
from zstore.storage.urls import open_storage
from zstore.text import shown

if TYPE_CHECKING:
    import pandas
    import xarray

_SHOWN = 20  # names of channels, and of fields


def open_store(path: str | Path, version: int | None = None, storage_options: Mapping[str, str] | None = None) -> Store:
    """Open a version of a store; it stays on that version whatever is committed later.

    Parameters
    ----------
    path
        Folder, ``s3://…``, ``gs://…`` or ``az://…`` of the store.
    version
        Version whose rows are read, see ``zstore log``; None for the newest.
    storage_options
        For object storage, beside the usual environment variables: what obstore's ``S3Config``, ``GCSConfig`` or
        ``AzureConfig`` takes, such as ``region`` or ``endpoint``; and ``in_flight`` (``64MiB``), the bytes of answers
        that a process waits for at any time, and ``hedge`` (``true``), whether a late one is asked for again.

    Raises
    ------
    StoreError
        If there is no store at `path`.
    NotFoundError
        If it has no such version, or no longer.

    Notes
    -----
    Cost: one small file; index and rows are read when first used.
    """
    return Store(open_storage(path, storage_options), version)


class Store(StoredVersion):
    """One version of a store, with everything that is made of its rows: series, decoded rows, windows, data sets.

    Parameters
    ----------
    storage
        Where it is.
    version
        Number of the version; None for the newest.
    """

    def __repr__(self) -> str:
        schema = self.schema
        names = [
            shown(name) + (f" ({len(channels)})" if len(channels) > 1 else "")
            for name, channels in self.named_channels.items()
        ]
        fields = [f"{shown(field.name)} {field.shape or '(bytes)'}" for field in schema.fields]
        parts = [f"channels {_first(names)}"] if names else []
        parts += [f"fields {_first(fields)}"] if fields else []
        return (
            f"<zstore.Store {self.path} version {schema.version}: {schema.n_rows:,} rows, "
            f"{schema.n_series:,} series, {', '.join(parts)}>"
        )

    def _repr_html_(self) -> str:
        from zstore.look.store import store_html

        return store_html(self)

    def series(self, id_: str) -> Series:
        """One series by its id.

        Parameters
        ----------
        id_
            Exact id of the series; ``0`` in a store without ids.

        Raises
        ------
        NotFoundError
            If the store has no such id.
        """
        return Series(self, self.position(id_), id_)

    def __getitem__(self, id_: str) -> Series:
        return self.series(id_)

    def __len__(self) -> int:
        return self.n_series

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids.tolist())

    def __contains__(self, id_: object) -> bool:
        if not isinstance(id_, str):
            return False
        position = bisect_left(self.ids, id_)
        return position < len(self) and bool(self.ids[position] == id_)

    def sel(
        self,
        ids: Sequence[str] | str | None = None,
        start: str | int | None = None,
        stop: str | int | None = None,
        where: Mapping[str, Any] | None = None,
        channels: Sequence[str] | str | None = None,
    ) -> Selection:
        """Some series, times and channels as a table: of Arrow, pandas, polars, xarray, or as windows.

        Parameters
        ----------
        ids
            Exact ids of series, or one; None for all. Rows come in the order of the store, whatever the order of the
            ids, and those of an id that is named twice come once.
        start, stop
            Times ``[start, stop)``, each a date, a date and time, or a step number; None for no bound.
        where
            What static attributes must be, by name. A number or word; one of a list; None for missing; or a function
            from the values of all series, (series,) float64 with NaN, or strings with None, to bool.
        channels
            Channels, in the order of the columns, or vectors: ``emg`` for ``emg.0``, ``emg.1`` and so on; None for all.

        Returns
        -------
        A selection, of which nothing is decoded yet.

        Raises
        ------
        NotFoundError
            If the store has no such id, attribute, word in an attribute, or channel.
        UsageError
            If a bound or condition cannot be read, or a channel is named twice.

        Notes
        -----
        Cost: the index. 100,000 series take some milliseconds.
        """
        low, high = parse_bound(self, start, "start"), parse_bound(self, stop, "stop")
        chosen = self.channels if channels is None else self.chosen_channels(channels)
        return Selection(self, choose_series(self, ids, where), low, high, chosen)

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """All rows as a stream of the Arrow PyCapsule interface, see :meth:`Selection.to_arrow`."""
        return self.sel().__arrow_c_stream__(requested_schema)

    def head(self, n_rows: int = 5) -> pandas.DataFrame:
        """The first rows as a data frame, see :meth:`Selection.head`."""
        return self.sel().head(n_rows)

    def decode(
        self,
        channels: Sequence[str],
        out: NDArray[Any],
        scaling: Scaling | None = None,
        observed: NDArray[np.bool_] | None = None,
        threads: int = 2,
        fill: bool = True,
    ) -> None:
        """Decode, unpack and interleave whole channels into rows.

        Parameters
        ----------
        channels
            Channels to read, in the order of the last axis of `out`.
        out
            (row, channel) float32 or float64, all rows of the store; NaN where missing, or 0: see `fill`.
        scaling
            Of each channel; None for source units.
        observed
            (row, channel) all True; set to False where a value is missing.
        threads
            Shards decoded at once.
        fill
            Whether missing values are 0 in `out`, after scaling, where `observed` is given; else they are NaN.
        """
        decode_rows_of(self, channels, out, scaling, observed, threads, fill)

    def decode_part(
        self,
        channels: Sequence[str],
        start: int,
        out: NDArray[Any],
        scaling: Scaling | None = None,
        observed: NDArray[np.bool_] | None = None,
        fill: bool = True,
    ) -> None:
        """Decode some rows of some channels, as :meth:`decode` does all rows.

        Parameters
        ----------
        channels, scaling, fill
            As there.
        start
            First row.
        out, observed
            (row, channel) the rows from `start` on. `observed` need not be filled.

        Notes
        -----
        Cost: the chunks that these rows lie in, on one thread; call it from several. See :attr:`chunk_starts`.
        """
        decode_part(self, channels, start, out, scaling, observed, fill)

    def require_float32(self, channels: Sequence[str], scaling: Scaling | None = None) -> None:
        """Refuse a scaling of some channels that float32 does not hold.

        Parameters
        ----------
        channels, scaling
            As :meth:`decode` takes them.

        Raises
        ------
        NotFiniteError
            If a finite value would become infinite; it names the channel, a series and the value.

        Notes
        -----
        Cost: the smallest and largest value of each series; no row is read.
        """
        require_float32(self, channels, scaling)

    def float32_suffices(self, channels: Sequence[str], scaling: Scaling) -> bool:
        """Whether rows in source units, float32, can be scaled later and equal those scaled in float64.

        Parameters
        ----------
        channels, scaling
            As :meth:`decode` takes them.

        Returns
        -------
        False where float32 in source units loses digits that the scaled values would have: where an offset is 1,024
        scales or more (64 in float64 channels) and values are no whole numbers or float32 as they are stored; where a
        logarithm is as large; where values or scales lie near the ends of float32. Then scale rows when they are
        decoded, as :func:`open_rows` does.

        Notes
        -----
        Scaled values differ by at most 2**-24 times the offset in scales. Cost: as :meth:`require_float32`; with one
        scaling for all series, no memory for each of them.
        """
        return float32_suffices(self, channels, scaling)

    def windows(
        self,
        lookback: int,
        horizon: int,
        *,
        delay: int = 0,
        stride: int = 1,
        target_stride: int = 1,
        pad_before: Padding = "none",
        pad_after: Padding = "none",
        channels: Sequence[str] | str | None = None,
        targets: Sequence[str] | str | None = None,
        fields: Mapping[str, int | tuple[int, int] | FieldSteps] | None = None,
        cache: Cache | str | Path | None = None,
    ) -> Windows:
        """Every window of the store, as numpy: a map-style dataset for loaders of any kind.

        Parameters
        ----------
        lookback, horizon, delay, stride, target_stride, pad_before, pad_after
            See :class:`zstore.WindowShape`.
        channels
            Input channels, or vectors; None for all.
        targets
            Target channels, or vectors; None for the input channels.
        fields
            By name of a field, how many of the last input rows of a window it has, such as ``{"image": 2}``; or that,
            and how many rows apart they are: ``{"image": (2, 5)}``; or those, and the part in the middle of each row
            that it has: ``{"image": zstore.FieldSteps(2, 5, crop=(84, 84))}``. A window is the same whenever it is
            asked for, so parts at random are for the caller to cut.
        cache
            Folder of row files, with how much it may hold if that is not the usual; None for ``$ZSTORE_CACHE``, or
            ``zstore`` under the user's cache folder.

        Returns
        -------
        A sequence of ``{"x", "y", "series", "time"}``, NaN where missing, and of each field under its name, as it is
        stored; with padding (zeros are 0 in source units) also ``x_pad`` and ``y_pad``, True where a row is padded. It
        can be pickled, for workers that are spawned: all read the same memory-mapped files (see
        :func:`zstore.open_rows` and :func:`zstore.open_field`), which are built once.
        """
        return self.sel(channels=channels or None).windows(
            lookback,
            horizon,
            delay=delay,
            stride=stride,
            target_stride=target_stride,
            pad_before=pad_before,
            pad_after=pad_after,
            targets=targets,
            fields=fields,
            cache=cache,
        )

    def plot(
        self,
        id_: str,
        channels: Sequence[str] | str | None = None,
        start: str | int | None = None,
        stop: str | int | None = None,
    ) -> Any:
        """Draw channels of a series below each other; see :meth:`Series.plot`."""
        return self.series(id_).plot(channels, start, stop)

    def to_xarray(self, words: bool = False) -> xarray.Dataset:
        """The rows of this version as a lazy CF contiguous ragged array.

        Parameters
        ----------
        words
            Whether categories are Python strings, NaN where missing. False: codes with the CF attributes
            ``flag_values`` and ``flag_meanings``, and the exact words in ``categories``, a JSON list; -1 where missing.

        Returns
        -------
        Channels over `row`, in the order of (id, time) whatever was appended, as dask arrays along stored chunks;
        the coordinates ``time`` (row) and ``id`` (series); ``row_size``, ``time_start``, ``time_stop`` and static
        attributes over `series`; fields over `row` and their own dimensions, but those of encoded images, which
        :func:`zstore.open_field` decodes. Channels keep their names. What else is called like a channel gets ``_``
        behind its name, such as a coordinate ``time_`` beside a channel ``time``. A static attribute that is called
        like anything else becomes ``NAME_static``. Names with ``/`` must be renamed before ``to_netcdf``.

        Notes
        -----
        Cost: the index. Rows are decoded when they are used, and compared with their digests then.
        """
        return to_dataset(self, words)


def _first(names: Sequence[str]) -> str:
    """Names with commas between them: the first, and how many there are besides."""
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
