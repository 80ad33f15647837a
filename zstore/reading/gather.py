"""Windows of decoded rows: one vectorised read per batch. Numpy only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from zstore.reading.windows import Int64, WindowIndex
from zstore.reading.windowshape import WindowBounds


def gather(rows: NDArray[np.float32], starts: Int64, length: int) -> NDArray[np.float32]:
    """Copy windows out of decoded rows in one vectorised read.

    Parameters
    ----------
    rows
        (row, channel) float32, contiguous.
    starts
        (batch,) first row of each window; any order, repeats allowed.
    length
        Rows per window.

    Returns
    -------
    (batch, length, channel) float32, freshly allocated.

    Raises
    ------
    IndexError
        If a window would leave `rows`.
    """
    n_channels = rows.shape[1]
    n_starts = len(rows) - length + 1
    if len(starts) and (int(starts.min()) < 0 or int(starts.max()) >= n_starts):
        raise IndexError(f"windows of {length} rows leave the {len(rows)} rows")
    strides = (rows.strides[0], rows.itemsize)
    view = np.lib.stride_tricks.as_strided(rows, (max(n_starts, 0), length * n_channels), strides, writeable=False)
    return view[starts].reshape(len(starts), length, n_channels)


def gather_field(
    rows: NDArray[Any], starts: NDArray[np.int64], offsets: NDArray[np.int64], out: NDArray[Any] | None = None
) -> NDArray[Any]:
    """Copy some rows of each window out of decoded rows in one vectorised read.

    Parameters
    ----------
    rows
        (row, …); fastest where they are contiguous.
    starts
        (batch,) first row of each window.
    offsets
        (step,) rows from there.
    out
        (batch, step, …) memory to fill; None for new memory.

    Returns
    -------
    (batch, step, …) in the dtype of `rows`.

    Raises
    ------
    IndexError
        If a window would leave `rows`.
    """
    wanted = starts[:, None] + offsets
    if wanted.size and (int(wanted.min()) < 0 or int(wanted.max()) >= len(rows)):
        raise IndexError(f"windows leave the {len(rows)} rows")
    if out is None and not rows.flags.c_contiguous:  # which `take` would copy as a whole first
        parts: NDArray[Any] = rows[wanted]
        return parts
    gathered: NDArray[Any] = np.take(rows, wanted, axis=0, out=out, mode="wrap")  # checked above; unbuffered so
    return gathered


def gather_padded(
    rows: NDArray[Any], starts: Int64, offsets: Int64, low: Int64, high: Int64, zero: NDArray[np.bool_]
) -> NDArray[Any]:
    """Copy some rows of each window, of which those beyond the rows that it may read are padded.

    Parameters
    ----------
    rows, starts, offsets
        As for :func:`gather_field`, except that windows may leave the rows.
    low, high
        (batch,) rows ``[low, high)`` that each window may read: the nearest of these stands for one beyond them.
    zero
        (batch, step) rows that are zeros instead.

    Returns
    -------
    (batch, step, …) in the dtype of `rows`.
    """
    nearest = np.clip(starts[:, None] + offsets, low[:, None], high[:, None] - 1)
    gathered: NDArray[Any] = rows[nearest]
    gathered[zero] = 0
    return gathered


class WindowField(NamedTuple):
    """What windows have of a field.

    Parameters
    ----------
    rows
        (row, …) decoded.
    offsets
        (step,) which of a window, from its first row on.
    observed
        (row,) whether a row has a value; None where all have one.
    """

    rows: NDArray[Any]
    offsets: Int64
    observed: NDArray[np.bool_] | None = None


def observed_key(name: str) -> str:
    """What a window, or a batch, calls its part that says which steps of a field have a value: ``camera_observed``.

    There only where some row of the store has none.
    """
    return f"{name}_observed"


WINDOW_KEYS = frozenset({"x", "y", "x_pad", "y_pad", "series", "time"})
"""What a window has, or may have, beside its fields."""


class Windows:
    """Windows of decoded rows, by sample number.

    Parameters
    ----------
    rows
        (row, channel) float32.
    index
        Which windows there are.
    inputs, targets
        Positions of the input and target channels in the last axis of `rows`.
    times
        (row,) times, where they are irregular.
    again
        Makes the same windows in another process.
    fields
        By name, the rows of a field, and which of them a window has.
    """

    def __init__(
        self,
        rows: NDArray[np.float32],
        index: WindowIndex,
        inputs: list[int],
        targets: list[int],
        times: Int64 | None = None,
        again: Callable[[], Windows] | None = None,
        fields: Mapping[str, WindowField] | None = None,
    ) -> None:
        self._fields = dict(fields or {})
        self._rows, self.index, self._inputs, self._targets, self._times = rows, index, inputs, targets, times
        self._again = again

    def __reduce__(self) -> Any:
        return super().__reduce__() if self._again is None else (self._again, ())

    def __len__(self) -> int:
        return len(self.index)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[sample] for sample in range(len(self)))

    def __repr__(self) -> str:
        shape, n_windows = self.index.shape, len(self)
        x, y = (shape.lookback, len(self._inputs)), (shape.horizon, len(self._targets))
        fields = "".join(f", {name} {sizes}" for name, sizes in self._field_shapes.items())
        return f"<Windows: {n_windows:,} of {shape}, x {x}, y {y}{fields}>"

    def _repr_html_(self) -> str:
        from zstore.look.windows import windows_html

        return windows_html(self.index, self._field_shapes)

    @property
    def _field_shapes(self) -> dict[str, tuple[int, ...]]:
        """(step, …) of each field in a window."""
        return {name: (len(each.offsets), *each.rows.shape[1:]) for name, each in self._fields.items()}

    def __getitem__(self, sample: Any) -> Any:
        """One window: ``x`` (lookback, channel), ``y`` (horizon, target), ``series``, ``time``; fields (step, …).

        With padding also ``x_pad`` (lookback,) and ``y_pad`` (horizon,); ``NAME_observed`` as :meth:`batch` has it.
        """
        if not -len(self) <= sample < len(self):
            raise IndexError(f"sample {sample} of {len(self)}")
        batch = self.batch(np.array([sample % len(self)], np.int64))
        return {key: values[0] for key, values in batch.items()}

    def __getitems__(self, samples: Sequence[int]) -> list[dict[str, Any]]:
        """Several windows in one read, each as :meth:`__getitem__` has it; torch's DataLoader asks for batches so."""
        batch = self.batch(np.asarray(samples, np.int64))
        return [{key: values[n] for key, values in batch.items()} for n in range(len(samples))]

    def batch(self, samples: Int64) -> dict[str, NDArray[Any]]:
        """Many windows at once.

        Returns
        -------
        ``x`` (batch, lookback, channel), ``y`` (batch, horizon, target), ``series`` and ``time`` (batch,); each field
        under its name, (batch, step, …), as it is stored. With padding also ``x_pad`` (batch, lookback) and ``y_pad``
        (batch, horizon), True where a row is padded. Of a field ``camera`` of which some row of the store has no value,
        ``camera_observed`` (batch, step) is False where it has none, and zeros stand in its place.
        """
        shape, samples = self.index.shape, np.asarray(samples, np.int64)
        starts, series, time = self.index.locate(samples)
        if shape.padded:
            return self._padded(self.index.bounds_of(samples), starts, series, time)
        if self._times is not None:
            time = self._times[starts + shape.target_offset]
        x = gather(self._rows, starts, shape.lookback)
        if shape.target_stride == 1:
            y = gather(self._rows, starts + shape.target_offset, shape.horizon)
        else:
            y = gather_field(self._rows, starts + shape.target_offset, shape.target_rows)
        fields: dict[str, NDArray[Any]] = {}
        for name, (rows, offsets, observed) in self._fields.items():
            fields[name] = gather_field(rows, starts, offsets)
            if observed is not None:
                fields[observed_key(name)] = gather_field(observed, starts, offsets)
        return {"x": x[..., self._inputs], "y": y[..., self._targets], "series": series, "time": time, **fields}

    def _padded(self, bounds: WindowBounds, starts: Int64, series: Int64, time: Int64) -> dict[str, NDArray[Any]]:
        """The batch of windows that start at some rows."""
        shape, first = self.index.shape, starts + self.index.shape.target_offset
        if self._times is not None:
            time = self._times[np.clip(first, bounds.target_start, bounds.stop - 1)]
        (x_pad, y_pad), (x_zero, y_zero) = bounds.pads(shape, starts), bounds.zeros(shape, starts)
        low, high = bounds.input_start, bounds.stop
        x = gather_padded(self._rows, starts, np.arange(shape.lookback), low, high, x_zero)
        y = gather_padded(self._rows, first, shape.target_rows, bounds.target_start, high, y_zero)
        batch = {"x": x[..., self._inputs], "y": y[..., self._targets], "x_pad": x_pad, "y_pad": y_pad}
        for name, (rows, offsets, observed) in self._fields.items():
            batch[name] = gather_padded(rows, starts, offsets, low, high, x_zero[:, offsets])
            if observed is not None:
                batch[observed_key(name)] = gather_padded(observed, starts, offsets, low, high, x_zero[:, offsets])
        return {**batch, "series": series, "time": time}
