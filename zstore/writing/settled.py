"""Rows of sources that a store has already: settled before any payload of theirs is read.

A table of files grows, and is named again as a whole. Of its rows those are known that the store has with the same
values and the same files. Whether a file is the same is told by its path, its length and its time of change; where one
of these is another, it is read, and its digest decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.errors import SourceError
from zstore.format.encodings.base import fill_of
from zstore.format.rowarrays import DIGEST_BYTES
from zstore.reading.store import Store
from zstore.writing.duplicates import OnDuplicate, drop_rows
from zstore.writing.parse import Parsed
from zstore.writing.plan import Planned
from zstore.writing.referred import each_at
from zstore.writing.scheduler import Scheduler
from zstore.writing.shards import RowsSpec
from zstore.writing.sort import SortedBlock, codes_between, count_rows
from zstore.writing.sources.payloads import FieldSpec, Payload

Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]
Bringers = Sequence[Callable[[NDArray[Any]], NDArray[Any]]]

_ROWS = 1 << 18  # of a store that are compared together
_STATE = slice(8, 16)  # bytes of an origin that tell length and time of change; those before tell the file


@dataclass(frozen=True)
class Compared:
    """Rows of a block whose series and time a store has.

    Parameters
    ----------
    same
        (row,) rows of the spill that the store has as they are.
    changed
        (row,) those of which it has other values or payloads.
    what
        Of the first of these, the channel or field that is another one.
    n_gone
        Rows among `same` that name a file that is no longer there.
    """

    same: Int64
    changed: Int64
    what: str
    n_gone: int


@dataclass(frozen=True)
class Comparer:
    """Compares rows of blocks with those of a store.

    Parameters
    ----------
    base
        The store.
    known
        (series,) position in the store of each series of the blocks, -1 for none.
    rows
        How the columns of blocks are to lie.
    specs
        The fields, in the order of the store.
    filled
        Whether the store has rows that fill gaps, which are no rows of a source.
    """

    base: Store
    known: Int64
    rows: RowsSpec
    specs: Sequence[FieldSpec]
    filled: bool

    def __call__(self, task: tuple[SortedBlock, Bringers]) -> Compared:
        """The rows of one block; columns of its spill are brought to the encodings of the rows."""
        block, bring = task
        found = [self._compared(block, bring, *pair) for pair in self._matched(block)]
        none, what = np.zeros(0, np.int64), next((each.what for each in found if each.what), "")
        same = np.concatenate([none, *(each.same for each in found)])
        changed = np.concatenate([none, *(each.changed for each in found)])
        return Compared(same, changed, what, sum(each.n_gone for each in found))

    def _matched(self, block: SortedBlock) -> Iterator[tuple[Int64, Int64]]:
        """Rows of the spill, and the rows of the store that have their series and time; some at a time."""
        place = self.known[block.series]
        groups = np.flatnonzero(place >= 0)
        start = self.base.index.row_start
        first = 0
        while first < len(groups):
            most = int(start[place[groups[first]]]) + _ROWS
            last = max(int(np.searchsorted(start[place[groups] + 1], most, side="right")), first + 1)
            yield self._matched_between(block, int(groups[first]), int(groups[last - 1]))
            first = last

    def _matched_between(self, block: SortedBlock, first: int, last: int) -> tuple[Int64, Int64]:
        """The same of the rows of neighbouring groups of a block."""
        low, high = int(block.starts[first]), int(block.starts[last + 1])
        fresh = self.known[codes_between(block, low, high)]
        series = np.arange(int(self.known[block.series[first]]), int(self.known[block.series[last]]) + 1)
        begin, end = self.base.index.row_start[[series[0], series[-1] + 1]].tolist()
        of_store = np.repeat(series, self.base.index.row_size[series])
        codes = np.concatenate([of_store, fresh])
        times = np.concatenate([self.base.times(begin, end), block.spill.read(0, low, high)])
        order = np.lexsort((np.arange(len(codes)) >= len(of_store), times, codes))
        in_store = order < len(of_store)
        before = np.maximum.accumulate(np.where(in_store, np.arange(len(order)), -1))
        codes, times = codes[order], times[order]
        hit = ~in_store & (before >= 0) & (codes[before] == codes) & (times[before] == times)
        pairs = order[hit] - len(of_store) + low, order[before[hit]] + begin
        by_row = np.argsort(pairs[0])
        return pairs[0][by_row], pairs[1][by_row]

    def _compared(self, block: SortedBlock, bring: Bringers, fresh: Int64, stored: Int64) -> Compared:
        """What is known of rows of the spill whose series and times the store has in the rows `stored`."""
        if not len(fresh):
            return Compared(fresh, fresh, "", 0)
        columns = _Columns(block, bring, fresh)
        low, high = int(stored.min()), int(stored.max()) + 1
        first, filler = np.full(len(fresh), -1), np.ones(len(fresh), np.bool_)
        names: list[str] = []
        for old, new in zip(self.base.schema.channels, self.rows.channels, strict=True):
            bring_old = new.encoding.bringer(old.encoding.form_of(0))
            values = columns.next()
            before = bring_old(self.base.read_stored(old.name, low, high)[stored - low])
            missing = np.isnan(before) if before.dtype.kind == "f" else before == fill_of(before.dtype)
            other = ~((values == before) | ((values != values) & (before != before)))  # NaN
            first[(first < 0) & other] = len(names)
            filler &= missing
            names.append(old.name)
        n_gone = 0
        for n, spec in enumerate(self.specs):
            codes, positions = columns.next(), columns.next()
            digests = self.base.payload_digests(spec.name, low, high)[stored - low]
            filler &= ~digests.any(axis=1)
            origins = self.base.payload_origins(spec.name, low, high)[stored - low]
            asked = first < 0
            other, gone = _payloads_differ(
                spec, self.rows.references[2 * n].categories, codes, positions, digests, origins, asked
            )
            first[asked & other] = len(names)
            n_gone += int(np.count_nonzero(asked & gone))
            names.append(spec.name)
        changed = (first >= 0) & ~(filler & self.filled)
        what = names[int(first[changed][0])] if changed.any() else ""
        return Compared(fresh[first < 0], fresh[changed], what, n_gone)


class _Columns:
    """Columns of some rows of a spill, one after the other, as they are to be stored."""

    def __init__(self, block: SortedBlock, bring: Bringers, rows: Int64) -> None:
        self._block, self._bring, self._rows, self._next = block, bring, rows, 0

    def next(self) -> NDArray[Any]:
        """(row,) values of the next column."""
        low, high = int(self._rows.min()), int(self._rows.max()) + 1
        column, self._next = self._next, self._next + 1
        return self._bring[column](self._block.spill.read(column + 1, low, high)[self._rows - low])


def _payloads_differ(
    spec: FieldSpec,
    holders: Sequence[str],
    codes: NDArray[Any],
    positions: NDArray[Any],
    digests: NDArray[np.uint8],
    origins: NDArray[np.uint8],
    asked: Bool,
) -> tuple[Bool, Bool]:
    """Whether payloads are others than those that a store has.

    Parameters
    ----------
    spec, holders
        The field, and names that `codes` are numbers of.
    codes, positions
        (row,) what holds the payload of each row, negative for none, and its number in there.
    digests, origins
        (row, 16) those that the store has; zeros for none.
    asked
        (row,) which rows are looked at.

    Returns
    -------
    (row,) whether it is another one; (row,) whether its file is gone, so that it stays as the store has it.
    """
    named, known = codes >= 0, digests.any(axis=1)
    other, gone = named != known, np.zeros(len(codes), np.bool_)
    rows = np.flatnonzero(asked & named & known)
    rows = rows[np.lexsort((positions[rows], codes[rows]))]
    cuts = np.flatnonzero(np.diff(codes[rows])) + 1
    for own in np.split(rows, cuts) if len(rows) else []:
        holder = holders[int(codes[own[0]])]
        places = positions[own].astype(np.int64).tolist()
        now = np.frombuffer(b"".join(spec.reader.origins(holder, places)), np.uint8).reshape(-1, DIGEST_BYTES)
        alike = now == origins[own]
        same_file, exists = alike[:, :8].all(axis=1) & now[:, :8].any(axis=1), now[:, _STATE].any(axis=1)
        gone[own] = same_file & ~exists
        doubtful = own[~(same_file & (alike[:, _STATE].all(axis=1) | ~exists))]
        read = each_at(partial(spec.reader.read, holder), positions[doubtful].astype(np.int64).tolist())
        for row, payload in zip(doubtful.tolist(), read, strict=True):
            other[row] = not isinstance(payload, Payload) or payload.digest != digests[row].tobytes()
    return other, gone


@dataclass(frozen=True)
class Settled:
    """Blocks of sources without the rows that a store has already.

    Parameters
    ----------
    ids, blocks
        What is left: (series,) ids, and rows.
    n_known
        Rows that the store has as they are.
    n_gone
        Those of them whose files are no longer there.
    """

    ids: Any
    blocks: list[SortedBlock]
    n_known: int = 0
    n_gone: int = 0


def settle(
    comparer: Comparer,
    ids: Any,
    blocks: list[SortedBlock],
    bringers: Sequence[Bringers],
    on_duplicate: OnDuplicate,
    changed: Callable[[int, int, str], SourceError],
    runner: Scheduler,
) -> Settled:
    """Leave out rows that a store has already.

    Parameters
    ----------
    comparer
        Compares them.
    ids, blocks
        (series,) ids, and the rows.
    bringers
        Per block and column, what brings spilled values to the encodings of the rows.
    on_duplicate
        What becomes of rows that the store has with other values: an error, or which of both stays.
    changed
        The error for one of those, of its series, time, and the channel or field that is another one.
    runner
        Runs a task for each block.

    Raises
    ------
    SourceError
        From `changed`.
    """
    found: list[Compared] = runner.map("compare", comparer, list(zip(blocks, bringers, strict=True)))
    for block, each in zip(blocks, found, strict=True):
        if on_duplicate == "error" and len(each.changed):
            row = int(each.changed[0])
            series = int(codes_between(block, row, row + 1)[0])
            raise changed(series, int(block.spill.read(0, row, row + 1)[0]), each.what)
    stay = on_duplicate == "first"
    dropped = [np.sort(np.concatenate([each.same, each.changed])) if stay else each.same for each in found]
    tasks = [(block, rows) for block, rows in zip(blocks, dropped, strict=True) if len(rows)]
    thinned = iter(runner.map("drop", drop_rows, tasks))
    left = [next(thinned) if len(rows) else block for block, rows in zip(blocks, dropped, strict=True)]
    n_known, n_gone = sum(len(each.same) for each in found), sum(each.n_gone for each in found)
    return Settled(*_without_empty(ids, left), n_known, n_gone)


def _without_empty(ids: Any, blocks: list[SortedBlock]) -> tuple[Any, list[SortedBlock]]:
    """Ids that have rows, and blocks in terms of them."""
    kept = np.diff(count_rows(len(ids), blocks)) > 0
    number = np.cumsum(kept) - 1
    made = []
    for block in blocks:
        sizes = np.diff(block.starts)
        some = sizes > 0
        series = number[block.series[some]].astype(np.int32)
        made.append(replace(block, series=series, starts=np.concatenate([[0], np.cumsum(sizes[some])])))
    return ids[kept], made


def changed_row(
    planned: Planned, parsed: Parsed, base: Store, ids: Any, series: int, time: int, what: str
) -> SourceError:
    """The error of a row that the store has with another value, or another payload."""
    id_ = str(ids[series])
    where = planned.reading.source.explain(parsed.blocks, planned.spec, id_, time, 1)
    is_field = what in base.fields
    return SourceError(
        f"id {id_!r} at {base.schema.time.show(time)} has another {what} than the store"
        + (": the file has changed, or it is another one" if is_field else ""),
        expected="rows that the store has not, or has as they are",
        where=" and ".join(where),
        fix="--on-duplicate last to replace the row of the store, or first to keep it",
    )
