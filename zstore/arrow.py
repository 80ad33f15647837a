"""Arrow columns as numpy, without ``to_numpy`` and ``pa.array``: those import pandas, a quarter of a second."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_TOGETHER = 1 << 16
"""Texts that are brought from one form to another at once: so many may be Python's meanwhile."""
_PADDING = 4  # bytes for each byte of texts that differ in length
_ASCII = 127


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


def octets_of(texts: NDArray[Any]) -> tuple[NDArray[np.uint8], NDArray[np.int64]] | None:
    """ASCII texts side by side, without a Python string for any.

    Parameters
    ----------
    texts
        (text,) ``numpy.dtypes.StringDType``.

    Returns
    -------
    (byte,) their bytes, and (text,) how many each has; None where a text is not ASCII or ends with a zero, or one is
    far longer than most.
    """
    lengths = np.strings.str_len(texts).astype(np.int64)
    width = max(int(lengths.max(initial=0)), 1)
    if len(texts) * width > _PADDING * (int(lengths.sum()) + len(texts)):
        return None
    try:
        padded = texts.astype(f"S{width}")
    except UnicodeEncodeError:
        return None
    if not np.all(padded.astype(np.dtypes.StringDType()) == texts):  # numpy counts no zero at the end of a text
        return None
    octets = padded.view(np.uint8).reshape(len(texts), width)
    if np.all(lengths == width):
        return octets.reshape(-1), lengths
    return octets[np.arange(width) < lengths[:, None]], lengths


def texts_of(octets: NDArray[np.uint8], lengths: NDArray[np.int64]) -> NDArray[Any] | None:
    """What `octets_of` takes apart, put together; None where `padded_of` is."""
    padded = padded_of(octets, lengths)
    return None if padded is None else padded.astype(np.dtypes.StringDType())


def padded_of(octets: NDArray[np.uint8], lengths: NDArray[np.int64]) -> NDArray[Any] | None:
    """Texts as bytes of one length, which sort as they do; None where one is 0 or not ASCII, or a text far too long.

    Parameters
    ----------
    octets
        (byte,) texts side by side.
    lengths
        (text,) bytes of each; they add up to all.
    """
    n_texts, width = len(lengths), max(int(lengths.max(initial=0)), 1)
    too_wide = n_texts * width > _PADDING * (len(octets) + n_texts)
    if too_wide or (len(octets) and (int(octets.max()) > _ASCII or not octets.all())):
        return None
    if np.all(lengths == width):
        padded = np.ascontiguousarray(octets).reshape(n_texts, width)
    else:
        padded = np.zeros((n_texts, width), np.uint8)
        padded[np.arange(width) < lengths[:, None]] = octets
    return padded.view(f"S{width}").reshape(n_texts)


def to_strings(texts: Any) -> NDArray[Any]:
    """(text,) ``numpy.dtypes.StringDType`` of an Arrow array of texts, some at a time."""
    found = np.empty(len(texts), np.dtypes.StringDType())
    for first in range(0, len(texts), _TOGETHER):
        some = texts.slice(first, _TOGETHER)
        octets, lengths = _buffers(some)
        fast = texts_of(octets, lengths)
        found[first : first + len(some)] = some.to_pylist() if fast is None else fast
    return found


def from_strings(texts: NDArray[Any]) -> Any:
    """An Arrow array of numpy's ``StringDType``, some at a time. Raises `pa.ArrowInvalid` beyond 2 GiB of text."""
    parts = []
    for first in range(0, len(texts), _TOGETHER):
        some = texts[first : first + _TOGETHER]
        fast = octets_of(some)
        if fast is None:
            parts.append(text_array(some.tolist()))
            continue
        octets, lengths = fast
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        parts.append(pa.StringArray.from_buffers(len(some), pa.py_buffer(offsets), pa.py_buffer(octets)))
    return pa.concat_arrays(parts or [text_array([])])


def union(texts: Sequence[Any]) -> Any:
    """All texts of some arrays, each once, sorted by their UTF-8 bytes; see :func:`numbered`."""
    shared = _shared_borders(texts)
    if shared is not None:
        return pa.concat_arrays([array.slice(n) for array, n in zip(texts, shared, strict=True)] or [text_array([])])
    distinct = pa.chunked_array(list(texts), pa.string()).unique()
    return distinct.take(pc.sort_indices(distinct))


def numbered(texts: Sequence[Any]) -> tuple[Any, list[NDArray[np.int32]]]:
    """The union of some arrays of texts, and (text,) int32 for each array, where its texts stand there.

    Notes
    -----
    Cost: a comparison for each text where all arrays are sorted, and each goes on where the one before has ended, as in
    sources that are sorted by id; else a hash table of all distinct texts.
    """
    among, shared = union(texts), _shared_borders(texts)
    if shared is None:
        everywhere = as_numpy(pc.index_in(pa.chunked_array(list(texts), pa.string()), value_set=among), "int32")
        return among, np.split(everywhere, np.cumsum(list(map(len, texts)))[:-1])
    stops = np.cumsum([len(array) - n for array, n in zip(texts, shared, strict=True)]).tolist()
    starts = [stop - len(array) for array, stop in zip(texts, stops, strict=True)]
    return among, [np.arange(*bounds, dtype=np.int32) for bounds in zip(starts, stops, strict=True)]


def _shared_borders(texts: Sequence[Any]) -> list[int] | None:
    """Of sorted arrays, each of which goes on where the one before has ended, 1 where it begins with the last of that.

    None where they are not so.
    """
    shared, last = [], None
    for array in texts:
        if not len(array):
            shared.append(0)
            continue
        first = array[0].as_buffer().to_pybytes()
        if last is not None and first < last:
            return None
        if not pc.all(pc.less(array.slice(0, len(array) - 1), array.slice(1))).as_py():
            return None
        shared.append(int(first == last))
        last = array[len(array) - 1].as_buffer().to_pybytes()
    return shared


def _buffers(texts: Any) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The bytes of an Arrow array of texts, and (text,) how many each has."""
    _, offsets, content = texts.buffers()
    bounds = np.frombuffer(offsets, np.int32, len(texts) + 1, texts.offset * 4)
    octets = np.frombuffer(content, np.uint8) if content is not None else np.zeros(0, np.uint8)
    return octets[bounds[0] : bounds[-1]], np.diff(bounds).astype(np.int64)
