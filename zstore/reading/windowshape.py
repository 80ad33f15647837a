"""The rows of one window, and the rows that a window may read. Numpy only."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from zstore.errors import UsageError

Int64 = NDArray[np.int64]
_TOGETHER = 1 << 16
Bool = NDArray[np.bool_]

Padding = Literal["none", "repeat", "zero"]
"""What stands for rows beyond those that there are: nothing, the nearest row, or zeros."""


@dataclass(frozen=True)
class WindowShape:
    """The rows of one window.

    Parameters
    ----------
    lookback
        Input rows.
    horizon
        Target rows.
    delay
        Rows between the last input and the first target. ``-1`` with ``horizon=1`` targets the last
        input row; ``-horizon`` targets the last `horizon` input rows.
    stride
        Rows between the starts of two windows of one run.
    target_stride
        Rows from one target to the next; `horizon` counts targets.
    pad_before
        What stands for input rows before the first row of a run, and for targets before it where `delay` is below -1:
        ``repeat`` the first row, or ``zero``. Then the first row of a run is the last input of a window too. ``none``:
        no window reaches there.
    pad_after
        What stands for targets behind the last row of a run: ``repeat`` the last row, or ``zero``. Then windows go on
        as long as the last input and the first target are rows of the run. ``none``: no window reaches there.
    """

    lookback: int
    horizon: int
    delay: int = 0
    stride: int = 1
    target_stride: int = 1
    pad_before: Padding = "none"
    pad_after: Padding = "none"

    def __post_init__(self) -> None:
        least = {"lookback": 1, "horizon": 1, "stride": 1, "target_stride": 1, "delay": -self.lookback}
        for name, number in least.items():
            value = getattr(self, name)
            if value < number:
                raise UsageError(f"{name} {value}", expected=f"at least {number}", fix=f"correct --data.{name}")
        for name in ("pad_before", "pad_after"):
            if getattr(self, name) not in get_args(Padding):
                raise UsageError(
                    f"{name} {getattr(self, name)!r}", expected="none, repeat or zero", fix=f"correct --data.{name}"
                )

    @cached_property
    def target_offset(self) -> int:
        """Rows from the first input to the first target."""
        return self.lookback + self.delay

    @cached_property
    def target_span(self) -> int:
        """Rows from the first to the last target, both included."""
        return (self.horizon - 1) * self.target_stride + 1

    @cached_property
    def span(self) -> int:
        """Rows from the first to the last row of a window, both included."""
        return max(self.lookback, self.target_offset + self.target_span)

    @cached_property
    def padded(self) -> bool:
        """Whether windows may reach beyond the rows of a run."""
        return self.pad_before != "none" or self.pad_after != "none"

    @cached_property
    def read_together(self) -> bool:
        """Whether inputs and targets are best read as one stretch of rows.

        Not where that would be more than twice as many rows; nor where targets before those of a split are padded,
        while inputs have these rows.
        """
        near = self.span <= 2 * (self.lookback + self.horizon)
        return near and (self.pad_before == "none" or self.delay >= -1)

    @property
    def target_rows(self) -> Int64:
        """(horizon,) rows of the targets, counted from the first one."""
        return np.arange(self.horizon) * self.target_stride

    @property
    def least_rows(self) -> int:
        """Rows that a run must have for one window; what else a window needs is padded. Memory: that of 65,536 numbers.

        Cost: where windows are padded, O(rows that are needed).
        """
        if not self.padded:
            return self.span
        for low in range(1, self.span + self.target_stride + 1, _TOGETHER):
            lengths = np.arange(low, low + _TOGETHER)
            first, last = self.starts(0 * lengths, 0 * lengths, lengths)
            if (last >= first).any():
                return int(lengths[np.argmax(last >= first)])
        return self.span + self.target_stride

    @property
    def needs(self) -> str:
        """How many rows a window needs, in words."""
        horizon = f"{self.horizon}" + (f" x {self.target_stride}" if self.target_stride > 1 else "")
        padded = ", padded," if self.padded else ""
        return (
            f"lookback {self.lookback} + delay {self.delay} + horizon {horizon}{padded} need {self.least_rows:,} rows"
        )

    def starts(self, low: Int64, start: Int64, stop: Int64) -> tuple[Int64, Int64]:
        """The rows that windows may start at, which with padding may lie before the rows that there are.

        Parameters
        ----------
        low
            (run,) first row that may be an input.
        start, stop
            (run,) rows ``[start, stop)`` that may be a target; inputs lie before `stop` too.

        Returns
        -------
        (run,) the first and the last of them; there are none where the last is less than the first.

        Notes
        -----
        The last input of a padded window is a row that there is, and so is one of its targets. Targets before `start`
        are padded where they are among the inputs (`delay` below -1) and the last input is not before `start`; and,
        between targets that are further apart than `start` and `stop`, nowhere.
        """
        if self.pad_before == "none":
            first = np.maximum(low, start - self.target_offset)
        else:
            first = np.maximum(low, start - max(0, 1 + self.delay)) - (self.lookback - 1)
            apart = (self.pad_after != "none") & (stop - start < self.target_stride)
            before = np.where(apart, 0, self.target_span - 1)
            first = np.maximum(first, start - self.target_offset - before)
        needed = self.span if self.pad_after == "none" else max(self.lookback, self.target_offset + 1)
        return first, stop - needed

    def __str__(self) -> str:
        apart = f", {self.target_stride:,} rows apart" if self.target_stride > 1 else ""
        rows = f"{self.lookback:,} + {self.horizon:,} rows{apart}"
        rows += f", delay {self.delay:,}" if self.delay else ""
        rows += f", a window each {self.stride:,} rows" if apart and self.stride > 1 else ""
        rows += f", {self.stride:,} rows apart" if not apart and self.stride > 1 else ""
        if self.pad_before == self.pad_after:
            return rows + (f", padded ({self.pad_before})" if self.padded else "")
        sides = {"before": self.pad_before, "after": self.pad_after}
        return rows + "".join(f", padded {side} ({kind})" for side, kind in sides.items() if kind != "none")


@dataclass(frozen=True)
class WindowBounds:
    """Rows that windows may read; what a window has beyond them is padded.

    Parameters
    ----------
    input_start
        (window,) first row that may be an input.
    target_start
        (window,) first row that may be a target.
    stop
        (window,) row behind the last one that may be either.
    """

    input_start: Int64
    target_start: Int64
    stop: Int64

    def at(self, positions: Int64 | Bool | slice) -> WindowBounds:
        """Those at some positions."""
        return WindowBounds(self.input_start[positions], self.target_start[positions], self.stop[positions])

    def pads(self, shape: WindowShape, starts: Int64) -> tuple[Bool, Bool]:
        """Which rows are padded of windows that start at some rows, (window,).

        Returns
        -------
        (window, lookback) of the inputs, and (window, horizon) of the targets.
        """
        inputs, targets = _rows(shape, starts)
        return inputs < self.input_start[:, None], self._before(targets) | self._behind(targets)

    def zeros(self, shape: WindowShape, starts: Int64) -> tuple[Bool, Bool]:
        """Which of these are padded with zeros; of the same shapes."""
        before, after = shape.pad_before == "zero", shape.pad_after == "zero"
        inputs, targets = _rows(shape, starts)
        zeros = self._before(targets) & before | self._behind(targets) & after
        return (inputs < self.input_start[:, None]) & before, zeros

    def _before(self, targets: Int64) -> Bool:
        return targets < self.target_start[:, None]

    def _behind(self, targets: Int64) -> Bool:
        return targets >= self.stop[:, None]


def _rows(shape: WindowShape, starts: Int64) -> tuple[Int64, Int64]:
    """The input and the target rows of windows."""
    return starts[:, None] + np.arange(shape.lookback), starts[:, None] + shape.target_offset + shape.target_rows
