"""Static attributes: a second CSV with one row per series, numbers and categories."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv as pacsv

from zstore.errors import SourceError, UsageError
from zstore.format.index import StaticAttribute
from zstore.format.storage import File
from zstore.writing.sources.files import read_source
from zstore.writing.sources.sniff import MISSING, open_source


def read_statics(file: File, id_column: str | None) -> tuple[NDArray[Any], tuple[StaticAttribute, ...]]:
    """Read a table of static attributes.

    Parameters
    ----------
    file
        CSV with a header, one row per series.
    id_column
        Its id column; None for its first.

    Returns
    -------
    The ids, and every other column aligned with them: a number where every value is one or missing,
    else a category.

    Raises
    ------
    SourceError, UsageError
        If the file cannot be read, has no id column, or names an id twice.
    """
    source, delimiter = open_source(file, file)
    id_column = id_column if id_column is not None else source.header[0]
    if id_column not in source.header:
        raise UsageError(
            f"no column {id_column!r} in the static attributes",
            expected=f"one of {', '.join(map(repr, source.header))}",
            where=f"{file} line 1",
            fix="name the id column as in the rows' CSV",
        )
    try:
        table = pacsv.read_csv(
            pa.BufferReader(read_source(file)),
            pacsv.ReadOptions(use_threads=False),
            pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            pacsv.ConvertOptions(column_types=dict.fromkeys(source.header, pa.string()), strings_can_be_null=False),
        )
    except pa.ArrowInvalid as error:
        raise SourceError(f"cannot parse ({error})", expected="CSV", where=str(file), fix="clean the file") from error
    ids = table[id_column].combine_chunks()
    counts = pc.value_counts(ids)
    for entry in counts:
        if entry["counts"].as_py() > 1:
            raise SourceError(
                f"id {entry['values'].as_py()!r} stands {entry['counts'].as_py()} times",
                expected="one row per id",
                where=str(file),
                fix="keep one of them",
            )
    statics = tuple(_attribute(name, table[name]) for name in source.header if name != id_column)
    return np.array(ids.to_pylist(), dtype=np.dtypes.StringDType()), statics


def match_statics(
    ids: NDArray[Any], known: NDArray[Any], statics: tuple[StaticAttribute, ...]
) -> tuple[tuple[StaticAttribute, ...], int, int]:
    """Bring static attributes into the order of the store's ids.

    Returns
    -------
    The attributes with missing values where an id has none, the number of series without attributes, and the
    number of rows of attributes without a series.
    """
    row = {str(id_): position for position, id_ in enumerate(known)}
    position = np.array([row.get(str(id_), -1) for id_ in ids], np.int64)
    found = position >= 0
    matched = []
    for static in statics:
        missing = np.nan if static.categories is None else -1
        values = np.full(len(ids), missing, static.values.dtype)
        values[found] = static.values[position[found]]
        matched.append(StaticAttribute(static.name, values, static.categories))
    return tuple(matched), int(np.count_nonzero(~found)), len(known) - int(np.count_nonzero(found))


def _attribute(name: str, column: pa.ChunkedArray) -> StaticAttribute:
    texts = column.combine_chunks()
    missing = pc.is_in(texts, value_set=pa.array(MISSING))
    try:
        numbers = pc.cast(pc.if_else(missing, pa.scalar(None, pa.string()), texts), pa.float64())
        return StaticAttribute(name, numbers.to_numpy(zero_copy_only=False))
    except pa.ArrowInvalid:
        words = sorted({text for text in texts.to_pylist() if text != ""})
        code = {word: number for number, word in enumerate(words)}
        codes = np.array([code.get(text, -1) for text in texts.to_pylist()], np.int32)
        return StaticAttribute(name, codes, tuple(words))
