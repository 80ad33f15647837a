"""An array of the index or of the moments of a version, read chunk by chunk: never the whole of it in memory."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.arrow import octets_of, padded_of
from zstore.format.arrays import dtype_of, small_chunks, strings
from zstore.format.soundness import check_ids
from zstore.reading.objects import ObjectReader

Int64 = NDArray[np.int64]
_KEPT = 2  # chunks: whoever reads in order, a chunk at a time, may need two of these for one of its own


class SmallColumn:
    """A small array.

    Parameters
    ----------
    objects
        The version.
    path
        Where the array lies, such as ``index/00000001/row_size``.
    """

    def __init__(self, objects: ObjectReader, path: str) -> None:
        self.objects, self.path, self.document = objects, path, objects.nodes[path]
        self.dtype, self.shape = dtype_of(self.document), tuple(self.document["shape"])
        self._chunk_rows = int(self.document["chunk_grid"]["configuration"]["chunk_shape"][0])
        self._recent: dict[int, NDArray[Any]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return int(self.shape[0])

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows ``[start, stop)``, which may lie in memory that is kept: not to be written to."""
        if start >= stop:
            return np.empty((0, *self.shape[1:]), self.dtype)
        first = start // self._chunk_rows
        numbers = range(first, (stop - 1) // self._chunk_rows + 1)
        parts = [self._chunk(number) for number in numbers]
        begin = first * self._chunk_rows
        some = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return some[start - begin : stop - begin]

    def take(self, rows: Int64) -> NDArray[Any]:
        """Some rows, ascending."""
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for part, mine in self._parts_of(rows):
            found[mine] = self._chunk(part)[rows[mine] - part * self._chunk_rows]
        return found

    def lower_bound(self, values: Int64) -> Int64:
        """How many items of an ascending array are less than each of some values. Cost: every chunk is decoded."""
        found = np.zeros(len(values), np.int64)
        for number, _ in enumerate(small_chunks(self.document)):
            found += np.searchsorted(self._chunk(number), values)
        return found

    def ranks(self, texts: NDArray[Any]) -> tuple[Int64, NDArray[np.bool_]]:
        """How many texts of an array sorted by their bytes come before each of some, sorted too, and which it has.

        Raises
        ------
        StoreError
            If the array is not sorted, or has a text twice.

        Notes
        -----
        Cost: every chunk is decoded, to bytes where texts are ASCII.
        """
        taken_apart = octets_of(texts)
        keys = texts if taken_apart is None else padded_of(*taken_apart)
        keys = texts if keys is None else keys
        found, known, last = np.zeros(len(texts), np.int64), np.zeros(len(texts), np.bool_), ""
        for number, part in enumerate(small_chunks(self.document)):
            values = self.objects.small_part(self.path, number, as_bytes=True)
            if values.dtype.kind != keys.dtype.kind:
                values = values.astype(np.dtypes.StringDType()) if values.dtype.kind == "S" else values
            wanted = keys if values.dtype.kind == keys.dtype.kind else texts
            for some in (values, strings([last, _text(values[0])])) if part.start else (values,):
                check_ids(some, f"{self.objects.storage}/{self.path}")
            last, at = _text(values[-1]), _places(values, wanted)
            here = np.flatnonzero(at < len(values))
            known[here[values[at[here]] == wanted[here]]] = True
            found += at
        return found, known

    def sums_before(self, rows: Int64) -> Int64:
        """The sum of all items before each of some rows, ascending. Cost: every chunk is decoded."""
        found, total = np.zeros(len(rows), np.int64), 0
        for number, part in enumerate(small_chunks(self.document)):
            values = self._chunk(number)
            mine = slice(*np.searchsorted(rows, [part.start, part.stop]).tolist())
            inside = rows[mine] - part.start
            if len(inside):
                found[mine] = total + np.append(0, np.cumsum(values[: inside[-1]]))[inside]
            total += int(values.sum())
        found[int(np.searchsorted(rows, len(self))) :] = total
        return found

    def _parts_of(self, rows: Int64) -> list[tuple[int, slice]]:
        """The chunks that some rows, ascending, lie in, and which of the rows each has."""
        number = rows // self._chunk_rows
        edges = np.flatnonzero(np.diff(number, prepend=-1))
        return (
            [
                (int(number[low]), slice(low, high))
                for low, high in zip(edges.tolist(), [*edges[1:].tolist(), len(rows)], strict=True)
            ]
            if len(rows)
            else []
        )

    def _chunk(self, number: int) -> NDArray[Any]:
        if 0 in self.shape[1:]:  # moments of no channel, of which no chunk is stored
            return np.empty((min(self._chunk_rows, len(self) - number * self._chunk_rows), *self.shape[1:]), self.dtype)
        with self._lock:
            values = self._recent.pop(number, None)
        if values is None:
            values = self.objects.small_part(self.path, number)
        with self._lock:
            self._recent[number] = values  # last
            while len(self._recent) > _KEPT:
                self._recent.pop(next(iter(self._recent)))
        return values


def _places(values: NDArray[Any], texts: NDArray[Any]) -> NDArray[np.int64]:
    """How many of some sorted texts are less than each of others.

    Numpy does not find texts of more than 15 bytes: it looks for them in the memory of another array. So each text
    becomes one of Python, unless they are bytes.
    """
    if values.dtype.kind == "T":
        values, texts = values.astype(object), texts.astype(object)
    return np.searchsorted(values, texts)


def _text(value: Any) -> str:
    """A text, or the bytes of one, as a text."""
    return value.decode() if isinstance(value, bytes) else str(value)
