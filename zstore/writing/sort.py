"""From blocks in any order to rows sorted by (series, time): orders, spill files, and who writes which rows."""

from __future__ import annotations

import errno
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from zstore.format.layout import n_shards, shard_bounds
from zstore.storage.protocol import Storage
from zstore.writing.room import check_room

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

_READERS = 16
_SELECT_ROWS = 1 << 22
_FEW, _SAMPLED = 1 << 16, 16  # of more rows than these, one of so many is looked at first


class DuplicateTimeError(Exception):
    """Two rows of one series have the same time."""

    def __init__(self, series: int, time: int) -> None:
        super().__init__(series, time)
        self.series, self.time = series, time


@dataclass(frozen=True)
class Spill:
    """The rows of one block on scratch space: sorted by (series, time), one column after the other.

    Parameters
    ----------
    scratch, key
        Raw little-endian object: times first, then every channel.
    n_rows
        Rows in it.
    dtypes
        Dtype of each column, ``int64`` for the time first.
    digest
        xxh3-128 of its bytes.
    """

    scratch: Storage
    key: str
    n_rows: int
    dtypes: tuple[str, ...]
    digest: str

    @classmethod
    def write(cls, scratch: Storage, name: str, columns: Sequence[NDArray[Any]]) -> Spill:
        """Write columns of equal length, under a key of their own each time: a task may run twice on a cluster."""
        key, hasher = f"{name}-{uuid.uuid4().hex}.spill", xxhash.xxh3_128()
        pieces = [np.ascontiguousarray(column).view(np.uint8).data for column in columns]
        for piece in pieces:
            hasher.update(piece)
        check_room(scratch, sum(map(len, pieces)), key)
        scratch.write_stream(key, pieces)
        dtypes = tuple(str(column.dtype) for column in columns)
        return cls(scratch, key, len(columns[0]), dtypes, hasher.hexdigest())

    @property
    def n_bytes(self) -> int:
        """Its length."""
        return self._offsets[-1]

    def read(self, column: int, start: int, stop: int) -> NDArray[Any]:
        """Rows ``[start, stop)`` of one column, not to be written to; raises as :meth:`read_columns`."""
        return self.read_columns(range(column, column + 1), start, stop)[0]

    def read_columns(self, columns: Iterable[int], start: int, stop: int) -> list[NDArray[Any]]:
        """Rows ``[start, stop)`` of some columns, not to be written to. A file is opened once for all of them.

        Raises
        ------
        OSError
            If the object is shorter than it was.
        """
        if start == stop:
            return [np.empty(0, self.dtypes[column]) for column in columns]
        fetch = partial(self.scratch.read, self.key) if self.scratch.remote else self.scratch.open(self.key).read
        found: list[NDArray[Any]] = []
        for column in columns:
            dtype, offset = np.dtype(self.dtypes[column]), self._offsets[column]
            n_bytes = (stop - start) * dtype.itemsize
            content = fetch(offset + start * dtype.itemsize, offset + stop * dtype.itemsize)
            if len(content) != n_bytes:
                raise OSError(errno.EIO, f"{len(content)} of {n_bytes} bytes", f"{self.scratch}/{self.key}")
            found.append(np.frombuffer(content, dtype))
        return found

    def with_times(self, times: Int64) -> Spill:
        """A spill of the same rows at other times."""
        columns = [self.read(column, 0, self.n_rows) for column in range(1, len(self.dtypes))]
        return Spill.write(self.scratch, self.key.partition("-")[0], [times.astype(np.int64), *columns])

    def times_to_search(self, start: int, stop: int) -> NDArray[Any]:
        """Times of the rows ``[start, stop)``; many of a file are memory-mapped, for searching touches few of them."""
        times: NDArray[Any] = self.scratch.array(self.key, "int64", start * 8, stop - start)
        return times

    @cached_property
    def _offsets(self) -> list[int]:
        """(column + 1,) where each column starts, and the end."""
        return list(accumulate((np.dtype(dtype).itemsize * self.n_rows for dtype in self.dtypes), initial=0))


@dataclass(frozen=True)
class SortedBlock:
    """A spill and which of its rows belong to which series.

    Parameters
    ----------
    spill
        The rows.
    series
        (group,) int32 global positions of the series in it, ascending.
    starts
        (group + 1,) int64 first row of each series in the spill.
    """

    spill: Spill
    series: Int32
    starts: Int64

    def rows_of(self, series: int) -> tuple[int, int]:
        """Row range of one series in the spill, empty if it is not there."""
        group = int(np.searchsorted(self.series, series))
        if group == len(self.series) or self.series[group] != series:
            return 0, 0
        return int(self.starts[group]), int(self.starts[group + 1])


def read_all(blocks: Sequence[SortedBlock], reads: Sequence[Callable[[], Any]]) -> Iterator[Any]:
    """The results of reads from the spills of some blocks, in order; several at once where each waits for a bucket."""
    if blocks and blocks[0].spill.scratch.remote:
        with ThreadPoolExecutor(_READERS) as pool:
            yield from pool.map(lambda read: read(), reads)
    else:
        yield from (read() for read in reads)


@dataclass(frozen=True)
class Border:
    """A place between two rows of the final order: before the rows of `series` from `time` on.

    `time` is None where the border lies before the first row of `series`.
    """

    series: int
    time: int | None


@dataclass(frozen=True)
class ShardPlan:
    """What one task gathers: row range ``[start, stop)`` of the store, and the places it lies between."""

    shard: int
    start: int
    stop: int
    first: Border
    last: Border


def count_rows(n_series: int, blocks: Sequence[SortedBlock]) -> Int64:
    """(series + 1,) first row of each series in the final order."""
    sizes = np.zeros(n_series, np.int64)
    for block in blocks:
        sizes[block.series] += np.diff(block.starts)
    return np.concatenate([[0], np.cumsum(sizes)])


def sort_keys(codes: Int32, times: Int64) -> tuple[Int32, Int64, Int64 | None]:
    """Codes and times in their stable order by (code, time), and that order; None if the rows were in it already.

    Notes
    -----
    Sources are mostly sorted by id or by time, so the cheap order by code alone (a radix sort below 2**16
    codes) is tried before the full one, if some rows far apart agree with it.
    """
    if np.all(codes[1:] >= codes[:-1]) and _ascend(codes, times):
        return codes, times, None
    step = _SAMPLED if len(codes) > _FEW else len(codes)
    some_codes, some_times = codes[::step], times[::step]
    some = _order_by_code(some_codes)
    if _ascend(some_codes[some], some_times[some]):
        order = _order_by_code(codes)
        by_code, its_times = codes.take(order), times.take(order)
        if _ascend(by_code, its_times):
            return by_code, its_times, order
    order = _order_by_both(codes, times)
    return codes.take(order), times.take(order), order


def _order_by_code(codes: Int32) -> Int64:
    """The stable order by code; of one row at least."""
    first, last = int(codes.min()), int(codes.max())
    return np.argsort((codes - first).astype(np.uint16) if last - first < 1 << 16 else codes, kind="stable")


def _order_by_both(codes: Int32, times: Int64) -> Int64:
    """The stable order by (code, time); of one row at least.

    Notes
    -----
    Where an int64 has room for both, and no two rows have the same, that is one sort of integers, which takes a fifth
    of the time of two stable sorts.
    """
    first_code, first_time = int(codes.min()), int(times.min())
    n_times = int(times.max()) - first_time + 1
    if (int(codes.max()) - first_code + 1) * n_times < 1 << 63:
        both = (codes - np.int64(first_code)) * n_times + (times - first_time)
        order: Int64 = np.argsort(both)
        both = both[order]
        if np.all(both[1:] != both[:-1]):
            return order
    return np.lexsort((times, codes))


def find_duplicate(codes: NDArray[np.integer[Any]], times: Int64) -> int | None:
    """First row of a sorted stretch whose (code, time) equals the one before it, or None."""
    same = np.flatnonzero((codes[1:] == codes[:-1]) & (times[1:] == times[:-1]))
    return int(same[0]) + 1 if len(same) else None


def find_border(row: int, row_start: Int64, blocks: Sequence[SortedBlock], unique: bool = True) -> Border:
    """The place before one row of the final order.

    Parameters
    ----------
    row
        Its number.
    row_start
        (series + 1,) first row of each series.
    blocks
        All blocks.
    unique
        Whether no series may have two rows at one time. Otherwise the border lies before the first of them.

    Raises
    ------
    DuplicateTimeError
        If the rows on both sides have the same series and time.
    """
    series = int(np.searchsorted(row_start, row, side="right")) - 1
    rank = row - int(row_start[series])
    if rank == 0:
        return Border(series, None)
    pieces = [(block, *block.rows_of(series)) for block in blocks]
    pieces = [(block, lo, hi) for block, lo, hi in pieces if hi > lo]
    if int(row_start[series + 1]) - int(row_start[series]) <= _SELECT_ROWS:
        times = np.concatenate([*read_all(blocks, [partial(block.spill.read, 0, lo, hi) for block, lo, hi in pieces])])
        time = int(np.partition(times, rank)[rank])
        before = int(np.count_nonzero(times < time))
    else:
        time, before = _select(rank, [block.spill.times_to_search(lo, hi) for block, lo, hi in pieces])
    if unique and before != rank:
        raise DuplicateTimeError(series, time)
    return Border(series, time)


def plan_shards(row_start: Any, blocks: Sequence[SortedBlock], shard_rows: int, unique: bool = True) -> list[ShardPlan]:
    """Which task writes which rows: those of a shard, of `shard_rows`; `unique` as of :func:`find_border`."""
    n_rows = int(row_start[-1])
    bounds = [shard_bounds(shard, n_rows, shard_rows) for shard in range(n_shards(n_rows, shard_rows))]
    filled = [block for block in blocks if len(block.series)]
    first, last = (np.array([block.series[n] for block in filled], np.int64) for n in (0, -1))
    borders = []
    for start, _ in bounds:
        series = int(np.searchsorted(row_start, start, side="right")) - 1
        near = [filled[n] for n in np.flatnonzero((first <= series) & (last >= series))]
        borders.append(find_border(start, row_start, near, unique))
    borders.append(Border(len(row_start) - 1, None))
    return [ShardPlan(s, start, stop, borders[s], borders[s + 1]) for s, (start, stop) in enumerate(bounds)]


def locate(block: SortedBlock, border: Border) -> tuple[int, int]:
    """Where a border falls in a block: the row of the spill, and the group it lies in or before."""
    group = int(np.searchsorted(block.series, border.series))
    row = int(block.starts[group])
    if border.time is not None and group < len(block.series) and block.series[group] == border.series:
        stop = int(block.starts[group + 1])
        row += int(np.searchsorted(block.spill.times_to_search(row, stop), border.time))
    return row, group


def codes_between(block: SortedBlock, start: int, stop: int) -> Int32:
    """(row,) series of the rows ``[start, stop)`` of a spill."""
    first = int(np.searchsorted(block.starts, start, side="right")) - 1
    last = int(np.searchsorted(block.starts, stop, side="left"))
    bounds = np.clip(block.starts[first : last + 1], start, stop)
    return np.repeat(block.series[first:last], np.diff(bounds))


def _ascend(codes: Int32, times: Int64) -> bool:
    """Whether times ascend, or stay, within each code; codes are in order."""
    falls = np.flatnonzero(times[1:] < times[:-1])
    return bool(np.all(codes[falls] != codes[falls + 1]))


def _select(rank: int, sorted_times: list[NDArray[Any]]) -> tuple[int, int]:
    """The time of rank `rank` in the union of sorted arrays, and how many are before it; touches few pages."""
    low = min(int(times[0]) for times in sorted_times)
    high = max(int(times[-1]) for times in sorted_times)
    while low < high:
        middle = (low + high) // 2
        if sum(int(np.searchsorted(times, middle, side="right")) for times in sorted_times) > rank:
            high = middle
        else:
            low = middle + 1
    return low, sum(int(np.searchsorted(times, low)) for times in sorted_times)
