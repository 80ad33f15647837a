"""What fixes the order of an epoch: decided once, kept in checkpoints, and obeyed or refused by whoever resumes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_app.data.columns.calendar import calendar_step
from lightning_app.data.windows.pooled import cut_pieces
from lightning_app.data.windows.spans import timed
from zstore import PanelGrid, Store, UsageError, WindowIndex, WindowShape

Int64 = NDArray[np.int64]

_BLOCK_ROWS = 1 << 20  # times that are read together


@dataclass(frozen=True)
class OrderPlan:
    """Which windows may be near each other in a shuffled epoch.

    Parameters
    ----------
    piece_rows
        Rows of a piece where windows are mixed over a pool of pieces; 0 where all windows are mixed.
    active
        Pieces of a lane that are mixed at any time; 0 where all windows are mixed.
    fields
        The fields whose chunks pieces are cut by, where channels are all in memory; none where it is those of channels.
    lanes
        Equal shares of the windows, from each of which a batch takes its share, see
        :mod:`lightning_app.data.windows.lanes`; 1 where all windows are mixed.
    """

    piece_rows: int = 0
    active: int = 0
    fields: tuple[str, ...] = ()
    lanes: int = 1

    @property
    def streamed(self) -> bool:
        """Whether windows are mixed over a pool of pieces."""
        return self.active > 0

    def to_json(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        fields = {"fields": list(self.fields)} if self.fields else {}
        lanes = {"lanes": self.lanes} if self.lanes > 1 else {}  # as checkpoints have it that know of none
        return {"piece_rows": self.piece_rows, "active": self.active, **fields, **lanes}

    @classmethod
    def from_json(cls, values: Any) -> OrderPlan:
        """What :meth:`to_json` gave.

        Raises
        ------
        UsageError
            If these are no such values.
        """
        numbers = dict(values) if isinstance(values, dict) else {}
        fields = numbers.pop("fields", [])
        sound = (
            set(numbers) | {"lanes"} == {"piece_rows", "active", "lanes"}
            and {"piece_rows", "active"} <= set(numbers)
            and all(type(number) is int and 0 <= number < 1 << 53 for number in numbers.values())
            and isinstance(fields, list)
            and all(isinstance(name, str) for name in fields)
        )
        if not sound or (values["piece_rows"] > 0) != (values["active"] > 0) or not numbers.get("lanes", 1):
            raise UsageError(
                f"checkpoint with the order {values!r}",
                expected="piece_rows and active, both 0 or both positive, and lanes, 1 or more",
                fix="another --ckpt_path",
            )
        return cls(**numbers, fields=tuple(fields))

    def pieces(self, starts: Int64, n_rows: int, span: int, part: WindowPart | None = None) -> Pieces:
        """The pieces that some rows are cut into.

        Parameters
        ----------
        starts
            Rows where a chunk begins, ascending from 0.
        n_rows
            Rows in all.
        span
            Rows of a window, which no piece is shorter than; with `part` those that it says.
        part
            Which rows of a window the pieces are for; None for all.
        """
        cuts = cut_pieces(starts, n_rows, max(self.piece_rows, span), span)
        return Pieces(self, cuts, min(self.active, len(cuts) - 1), part)


@dataclass(frozen=True)
class WindowPart:
    """Rows of each window, next to each other.

    Parameters
    ----------
    first
        The first of them, counted from the first of the window.
    n_rows
        How many.
    """

    first: int
    n_rows: int

    def of(self, index: WindowIndex) -> WindowIndex:
        """Windows that have these rows alone, with the numbers that the whole ones have."""
        shape = WindowShape(self.n_rows, 1, -1, index.shape.stride)
        return replace(index, shape=shape, first=index.first + self.first)


@dataclass(frozen=True)
class Pieces:
    """Rows cut into pieces, some of which are mixed at any time.

    Parameters
    ----------
    plan
        What they were cut by.
    cuts
        (piece + 1,) rows between which pieces lie.
    active
        Pieces of a lane that are mixed at any time: those of the plan, or all where there are fewer.
    part
        Which rows of a window they are for; None for all.
    """

    plan: OrderPlan
    cuts: Int64
    active: int
    part: WindowPart | None = None

    def windows(self, index: WindowIndex) -> WindowIndex:
        """Some windows, as far as they are read from the pieces."""
        return index if self.part is None else self.part.of(index)


@dataclass(frozen=True)
class EpochOrder:
    """Everything that says which window is at which position of an epoch.

    Parameters
    ----------
    windows
        Digest of the windows by number, see :func:`digest`.
    n_windows
        How many there are.
    batch_size
        Windows of a global batch.
    seed
        Of the order.
    plan
        Which windows are mixed.
    version
        Of the store.
    store
        Where it is, for messages; it may move.
    """

    windows: str
    n_windows: int
    batch_size: int
    seed: int
    plan: OrderPlan
    version: int
    store: str

    def to_json(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {**asdict(self), "plan": self.plan.to_json()}

    def refuse_other(self, recorded: Any, epoch: int) -> None:
        """Raise where an epoch that was begun in one order would go on in another.

        Parameters
        ----------
        recorded
            What :meth:`to_json` gave when the checkpoint was written.
        epoch
            The epoch that was begun, counted from 0.

        Raises
        ------
        UsageError
            If anything but the version and the place of the store differs.
        """
        where = self.store
        what = f"checkpoint in the middle of epoch {epoch}"
        start_anew = "a checkpoint of the end of an epoch, or fit again"
        if not isinstance(recorded, dict) or set(recorded) != set(self.to_json()):
            raise UsageError(
                f"{what}, without a record of its order", expected="one", where=where, fix=f"take {start_anew}"
            )
        now = self.to_json()
        for name, flag in (("batch_size", "--data.batch_size"), ("seed", "--data.seed")):
            if recorded[name] != now[name]:
                raise UsageError(
                    f"{what} with {flag} {now[name]}",
                    expected=f"{recorded[name]}, as the epoch began, or windows would repeat",
                    where=where,
                    fix=f"{flag} {recorded[name]}, or take {start_anew}",
                )
        if recorded["windows"] != self.windows or recorded["plan"] != now["plan"]:
            raise UsageError(
                f"{what} over other windows ({recorded['n_windows']:,} of version {recorded['version']} of its store; "
                f"now {self.n_windows:,} of version {self.version})",
                expected="the windows that the epoch began with, in their order",
                where=where,
                fix=f"--data.version {recorded['version']} if the store has grown since, the options of the run "
                f"if they have changed, or take {start_anew}",
            )


def digest(index: WindowIndex, store: Store, nodes: Int64 | None, pieces: Pieces | None) -> str:
    """A digest of which id and times each sample number stands for and, in a stream, of which rows and pieces.

    Parameters
    ----------
    index
        The windows.
    store
        Where ids and, where they are irregular, times come from.
    nodes
        (node,) series of a panel; None for windows of single series.
    pieces
        Pieces that windows are mixed over; None where all are mixed.

    Notes
    -----
    O(stretches of windows); where times are irregular, all times that windows reach are read once.
    """
    shape = index.shape
    result = hashlib.blake2b(digest_size=16)
    step = calendar_step(index.rule) or index.freq
    result.update(repr((shape.lookback, shape.horizon, shape.delay, shape.stride, step, len(index))).encode())
    named = index.series if nodes is None else nodes
    if shape.target_stride > 1 or shape.padded:
        result.update(repr((shape.target_stride, shape.pad_before, shape.pad_after)).encode())
        bounds = index.bounds
        for rows in (bounds.input_start, bounds.target_start, bounds.stop):
            result.update((rows - index.first).astype("<i8").tobytes())
    for values in (index.ends, index.time):
        result.update(values.astype("<i8").tobytes())
    for id_ in store.ids[named].tolist():
        text = str(id_).encode()
        result.update(len(text).to_bytes(8, "little") + text)
    if not index.rule.regular:
        for times in _times(index, timed(store, nodes)):
            result.update(times.astype("<i8").tobytes())
    if pieces is not None:
        result.update(index.first.astype("<i8").tobytes())
        result.update(repr(pieces.active).encode() + pieces.cuts.astype("<i8").tobytes())
        if pieces.part is not None:
            result.update(repr((pieces.part.first, pieces.part.n_rows)).encode())
    return result.hexdigest()


def _times(index: WindowIndex, rows: Store | PanelGrid) -> Iterator[Int64]:
    """The times that each stretch of windows reaches; stretches near each other are read together."""
    starts, stops = index.spans()
    low = 0
    block = np.zeros(0, np.int64)
    for first, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        if first < low or stop > low + len(block):
            n_near = int(np.searchsorted(stops, first + _BLOCK_ROWS))
            low, high = first, max(stop, int(stops[n_near - 1]) if n_near else 0)
            block = rows.times(low, high)
        yield block[first - low : stop - low]
