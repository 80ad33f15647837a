"""Columns as other packages have them: free names, times as datetime64, categories with their words.

Names: a channel keeps its name in every view. What stands beside channels (times, ids, dimensions, ``row_size``) gets
``_`` behind its name where a channel has it already, and a static attribute gets ``_static``.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.errors import CorruptionError
from zstore.format.encodings.words import flag_attributes
from zstore.format.layout import TIME
from zstore.format.schema import Field, TimeAxis
from zstore.reading.version import StoredVersion

MISSING_CODE = -1
_DAY_S = 86_400
_ROWS = 1 << 20


def free_name(name: str, taken: Collection[str], suffix: str = "_") -> str:
    """`name`, with `suffix` behind it as often as it takes not to be one of `taken`."""
    while name in taken:
        name += suffix
    return name


def as_times(times: NDArray[np.int64], axis: TimeAxis) -> NDArray[Any]:
    """(row,) stored times as datetime64 in the axis' unit, in UTC where it has a zone; int64 for plain steps."""
    return times if axis.unit is None else times.astype(f"datetime64[{axis.unit}]")


def time_attributes(axis: TimeAxis) -> tuple[dict[str, Any], dict[str, Any]]:
    """Attributes and encoding of times in a dataset of xarray: written and read back, they are the same int64."""
    attributes = axis.attributes()
    if axis.unit is None:
        return attributes, {}
    return attributes, {"units": attributes.pop("units"), "calendar": attributes.pop("calendar"), "dtype": "int64"}


def are_dates(store: StoredVersion) -> bool:
    """Whether every time of a store is a midnight, and stands as a date where it is written.

    Notes
    -----
    Costs no row where the time step rule is one of whole days, or of less; else times are read up to the first that is
    no midnight.
    """
    axis, runs = store.schema.time, store.index.runs
    if axis.unit != "s" or axis.zone is not None or (runs.time % _DAY_S).any():
        return False
    if axis.rule.regular:
        return axis.freq is None or axis.freq % _DAY_S == 0
    starts = range(0, store.n_rows, _ROWS)
    return not any((store.times(first, min(first + _ROWS, store.n_rows)) % _DAY_S).any() for first in starts)


def written_times(times: NDArray[np.int64], axis: TimeAxis, dates: bool) -> list[str]:
    """(row,) times as they stand in CSV: ISO dates, dates and clocks (with ``Z`` where they are of UTC), or steps.

    `dates` is :func:`are_dates` of their store: in a column all times are written alike, as other readers need it.
    """
    if axis.unit is None:
        return [str(time) for time in times.tolist()]
    if dates:
        return [str(time) for time in times.astype("datetime64[s]").astype("datetime64[D]")]
    texts = times.astype(f"datetime64[{axis.unit}]").astype("U").tolist()
    return [text.replace("T", " ") + ("" if axis.zone is None else "Z") for text in texts]


def id_and_time(store: StoredVersion) -> tuple[str, str]:
    """Names of the columns of ids and of times in a table."""
    id_ = free_name(store.schema.id_name or "id", store.channels)
    return id_, free_name(TIME, {id_, *store.channels})


def checked_codes(store: StoredVersion, channel: Field, stored: NDArray[Any]) -> NDArray[Any]:
    """(row,) codes of a channel of categories from what is stored, as stored integers; -1 where missing.

    Raises
    ------
    CorruptionError
        If a code is none of a word.
    """
    codes: NDArray[Any] = np.where(channel.encoding.is_missing(stored), MISSING_CODE, stored).astype(stored.dtype)
    words = channel.categories
    if len(codes) and not MISSING_CODE <= codes.min() <= codes.max() < len(words):
        raise CorruptionError(
            f"codes {codes.min():,} to {codes.max():,} in channel {channel.name!r}",
            expected=f"codes of {len(words):,} words",
            where=store.path,
            fix="do not use this store: no release of zstore wrote it like this",
        )
    return codes


def read_codes(store: StoredVersion, channel: Field, start: int, stop: int) -> NDArray[Any]:
    """(row,) codes of a channel of categories in the rows ``[start, stop)``, see :func:`checked_codes`."""
    return checked_codes(store, channel, store.read_stored(channel.name, start, stop))


def read_column(store: StoredVersion, channel: Field, words: bool, start: int, stop: int) -> NDArray[Any]:
    """(row,) rows ``[start, stop)`` of one channel as xarray has them.

    Numbers are floats with NaN for missing. Categories are codes with -1 for missing, or, with `words`, Python strings
    with NaN for missing, which is what xarray makes of None.
    """
    if channel.kind == "number":
        return store.read(channel.name, start, stop)
    codes = read_codes(store, channel, start, stop)
    return to_words(codes, channel.categories, np.nan) if words else codes


def column_dtype(channel: Field, words: bool) -> np.dtype[Any]:
    """The dtype that :func:`read_column` returns."""
    if channel.kind == "number":
        return np.dtype(channel.dtype)
    return np.dtype(object if words else channel.encoding.dtype)


def to_words(codes: NDArray[Any], categories: tuple[str, ...], missing: float | None = None) -> NDArray[Any]:
    """Codes to Python strings, `missing` for codes below 0."""
    return np.array([*categories, missing], dtype=object)[np.where(codes < 0, len(categories), codes)]


def flags(categories: tuple[str, ...], dtype: Any) -> dict[str, Any]:
    """CF attributes of codes in memory, of the codes' own dtype.

    `categories` has the exact words as the text of a JSON list, since netCDF-3 has no lists of texts, and netCDF-4
    makes a text of a list of one.
    """
    words, kind = json.dumps(list(categories), ensure_ascii=False), np.dtype(dtype).type
    codes = np.arange(len(categories), dtype=dtype)
    about = {"flag_values": codes, "categories": words, "missing_value": kind(MISSING_CODE)}
    return {**flag_attributes(categories), **about}


def channel_attributes(channel: Field, words: bool) -> dict[str, Any]:
    """Attributes of a channel in a dataset of xarray."""
    known: dict[str, Any] = {"long_name": channel.name}
    if channel.units:
        known["units"] = channel.units
    if channel.kind == "category" and not words:
        known |= flags(channel.categories, channel.encoding.dtype)
    return known
