"""An array of a version made of that of the version before: what stays is read when it is written, part by part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.reading.smallcolumn import SmallColumn

Int64 = NDArray[np.int64]

_PART = 1 << 20
_LONG = 64  # items of a stretch, from which on it is copied by itself
_INSERT, _SHIFT, _CHANGE = range(3)  # of several edits at one item, in this order


@dataclass(frozen=True)
class Edits:
    """What becomes of the items of an array; positions are those of the array before, each list ascending.

    Parameters
    ----------
    insert, inserted
        (insert,) the item that each new one comes before, and their values, (insert, …).
    change, changed
        (change,) items that get another value, and that.
    drop, until
        (drop,) items ``[drop, until)`` that go.
    shift, by
        (shift,) items from which on all that stay grow by so much.
    """

    insert: Int64
    inserted: NDArray[Any]
    change: Int64
    changed: NDArray[Any]
    drop: Int64
    until: Int64
    shift: Int64
    by: Int64

    @classmethod
    def of(
        cls,
        insert: tuple[Int64, NDArray[Any]] | None = None,
        change: tuple[Int64, NDArray[Any]] | None = None,
        drop: tuple[Int64, Int64] | None = None,
        shift: tuple[Int64, Int64] | None = None,
    ) -> Edits:
        """Some of these; None for none."""
        none = np.zeros(0, np.int64)
        inserts, changes, drops, shifts = (pair or (none, none) for pair in (insert, change, drop, shift))
        return cls(inserts[0], inserts[1], changes[0], changes[1], drops[0], drops[1], shifts[0], shifts[1])

    def some(self) -> Edits:
        """The same without what changes nothing."""
        drop, shift = self.until > self.drop, self.by != 0
        return replace(self, drop=self.drop[drop], until=self.until[drop], shift=self.shift[shift], by=self.by[shift])


@dataclass(frozen=True)
class Spliced:
    """An array of stretches, each of which comes from an array that there is, or is new.

    Parameters
    ----------
    base
        What stays.
    starts
        (stretch,) the first item of each.
    source
        (stretch,) the item of `base` that it begins with; or, of new ones, -1 less the item of `own`.
    shift
        (stretch,) what is added to items of `base`.
    own
        New items.
    length
        Items.
    """

    base: SmallColumn
    starts: Int64
    source: Int64
    shift: Int64
    own: NDArray[Any]
    length: int

    @classmethod
    def of(cls, base: SmallColumn, edits: Edits | None = None, length: int | None = None) -> Spliced:
        """An array with some edits; of its first `length` items, None for all."""
        length = len(base) if length is None else length
        edits = (edits or Edits.of()).some()
        zero, one = np.zeros, np.ones
        n_insert, n_change, n_drop, n_shift = (
            len(part) for part in (edits.insert, edits.change, edits.drop, edits.shift)
        )
        at = np.concatenate([edits.insert, edits.shift, edits.change, edits.drop]).astype(np.int64, copy=False)
        kind = np.repeat([_INSERT, _SHIFT, _CHANGE, _CHANGE], [n_insert, n_shift, n_change, n_drop])
        n_own = (kind != _SHIFT).astype(np.int64)
        n_own[len(at) - n_drop :] = 0
        behind = at + np.concatenate([zero(n_insert + n_shift), one(n_change), edits.until - edits.drop]).astype(
            np.int64
        )
        grow = np.concatenate([zero(n_insert), edits.by, zero(n_change + n_drop)]).astype(np.int64)
        own_at = np.concatenate([np.arange(n_insert), zero(n_shift), n_insert + np.arange(n_change), zero(n_drop)])
        order = np.lexsort((kind, at))
        at, behind, n_own, own_at = at[order], behind[order], n_own[order], own_at[order].astype(np.int64)
        shift = np.append(0, np.cumsum(grow[order]))
        # Before each edit a stretch of what stays, and then its own item, if it has one; what stays comes last.
        sizes, source = zero(2 * len(at) + 1, np.int64), zero(2 * len(at) + 1, np.int64)
        begin = np.append(0, np.maximum.accumulate(behind))
        sizes[::2], source[::2] = np.append(at, length) - begin, begin
        sizes[1::2], source[1::2] = n_own, -1 - own_at
        shifts = np.repeat(shift, 2)[:-1]
        some = np.flatnonzero(sizes > 0)
        sizes, none = sizes[some], np.empty((0, *base.shape[1:]), base.dtype)
        own = np.concatenate([none, *(part for part in (edits.inserted, edits.changed) if len(part))])
        own, ends = own.astype(base.dtype, copy=False), np.cumsum(sizes)
        return cls(base, ends - sizes, source[some], shifts[some], own, int(ends[-1]) if len(ends) else 0)

    @property
    def dtype(self) -> Any:
        """Type of its items."""
        return self.base.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Items, and the shape of each."""
        return (self.length, *self.base.shape[1:])

    def __len__(self) -> int:
        return self.length

    def stays(self, start: int, stop: int) -> bool:
        """Whether the items ``[start, stop)`` are those that `base` has there."""
        first, last = np.searchsorted(self.starts, [start, stop - 1], side="right") - 1
        alike = self.source[first] == self.starts[first] and self.shift[first] == 0
        return bool(first == last and alike)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """The items ``[start, stop)``. Cost: what is read of `base` for them."""
        first = int(np.searchsorted(self.starts, start, side="right")) - 1
        last = int(np.searchsorted(self.starts, stop))
        starts = np.maximum(self.starts[first:last], start)
        sizes = np.diff(starts, append=stop)
        source, shift = self.source[first:last].copy(), self.shift[first:last]
        old = source >= 0
        source += np.where(old, 1, -1) * (starts - self.starts[first:last])
        low = int(source[old].min(initial=len(self.base)))
        block = self.base.read(low, int((source + sizes)[old].max(initial=low)))
        found = np.empty((stop - start, *self.base.shape[1:]), self.dtype)
        if len(starts) * _LONG > len(found):
            step = np.arange(len(found)) - np.repeat(starts - start, sizes)
            is_old = np.repeat(old, sizes)
            found[is_old] = block[(np.repeat(source - low, sizes) + step)[is_old]]
            found[~is_old] = self.own[(np.repeat(-1 - source, sizes) + step)[~is_old]]
            if shift.any():
                found += np.repeat(np.where(old, shift, 0), sizes)
            return found
        for begin, size, place, by in zip(
            (starts - start).tolist(), sizes.tolist(), source.tolist(), shift.tolist(), strict=True
        ):
            out = found[begin : begin + size]
            if place < 0:
                out[:] = self.own[-1 - place : -1 - place + size]
            elif by:
                np.add(block[place - low : place - low + size], by, out=out)
            else:
                out[:] = block[place - low : place - low + size]
        return found

    def parts(self) -> Iterator[NDArray[Any]]:
        """The items, a million at a time."""
        return (self.read(low, min(low + _PART, self.length)) for low in range(0, self.length, _PART))

    def whole(self) -> NDArray[Any]:
        """All items."""
        return self.read(0, self.length) if self.length else np.empty(self.shape, self.dtype)
