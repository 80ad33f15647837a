"""Arrow columns as numpy, without ``to_numpy`` and ``pa.array``: those import pandas, a quarter of a second."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def as_numpy(column: Any, dtype: str) -> NDArray[Any]:
    """A numeric Arrow column as numpy, without a copy unless values are missing; those become NaN."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):  # no chunk at all
        return np.zeros(0, dtype)
    validity, values = array.buffers()
    found = np.frombuffer(values, dtype, len(array), array.offset * np.dtype(dtype).itemsize)
    if array.null_count:
        known = np.unpackbits(np.frombuffer(validity, np.uint8), bitorder="little")
        found = found.copy()
        found[known[array.offset : array.offset + len(array)] == 0] = np.nan
    return found


def text_array(texts: Sequence[str]) -> Any:
    """An Arrow array of texts."""
    encoded = [text.encode() for text in texts]
    offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    return pa.StringArray.from_buffers(len(texts), pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded)))


def union(texts: Sequence[Any]) -> Any:
    """All texts of some arrays, each once, sorted by their UTF-8 bytes."""
    distinct = pc.unique(pa.concat_arrays(list(texts) or [text_array([])]))
    return distinct.take(pc.sort_indices(distinct))


def positions(texts: Sequence[Any], among: Any) -> Iterator[NDArray[np.int32]]:
    """(text,) int32 for each array of texts, where they stand in one that has them all."""
    lengths = list(map(len, texts))
    everywhere = as_numpy(pc.index_in(pa.concat_arrays(list(texts) or [text_array([])]), value_set=among), "int32")
    yield from np.split(everywhere, np.cumsum(lengths)[:-1]) if lengths else []
