"""Times with a fraction as whole steps of a rate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_PHASES = np.arange(-32, 32) / 64  # of a step
_SIDES = (0.02, 0.98)  # shares of times between which steps are the middle
_RATE_SHARE = 0.25  # by which the middle one of the first steps may differ from that of the rate
_MOST_STEPS = 1e15  # beyond, a float64 has no fractions to speak of


@dataclass(frozen=True)
class Clock:
    """Steps of an episode.

    Parameters
    ----------
    origin
        Seconds at step 0, about the time of its first row.
    rate
        Steps a second.
    """

    origin: float
    rate: float

    @classmethod
    def of(cls, times: NDArray[np.float64], rate: float) -> Clock:
        """The clock that the first times of an episode follow best: step 0 is at most half a step off the first one.

        Notes
        -----
        The first time has jitter as all others have. So a step is where nearly all of them, as positions within one,
        are least off: of some such positions the best, and then the middle between those that are off to either side.
        """
        exact = (times - times[0]) * rate
        exact = exact[np.isfinite(exact)]
        tried = exact[None, :] - _PHASES[:, None]
        worst = np.quantile(np.abs(tried - np.rint(tried)), _SIDES[1], axis=1)
        phase = float(_PHASES[np.argmin(worst)])
        off = exact - phase
        phase += float(np.quantile(off - np.rint(off), _SIDES).mean())
        return cls(float(times[0]) + (phase - float(np.rint(phase))) / rate, rate)

    def steps(
        self, times: NDArray[np.float64], before: float | None
    ) -> tuple[NDArray[np.int64], dict[int, tuple[str, str]]]:
        """Steps of some rows that follow each other, and what is wrong with some of them.

        Parameters
        ----------
        times
            (row,) seconds.
        before
            Time of the row before them; None where they are the first.

        Returns
        -------
        (row,) the whole step nearest to each time, 0 where it has none; and by row, what is wrong and what is expected.

        Notes
        -----
        Each time is rounded on its own, so errors do not add up, and blocks need not know of each other. Jitter below
        half a step changes nothing. Beyond it two rows share a step, and the one that is nearer stays; or time goes
        backwards, and neither of the two is believed. A step without a row is a gap.
        """
        every = times if before is None else np.concatenate([[before], times])
        exact = (every - self.origin) * self.rate
        known = np.abs(exact) < _MOST_STEPS  # neither NaN nor infinite
        steps = np.rint(np.where(known, exact, 0.0))
        off = np.abs(np.where(known, exact, 0.0) - steps)
        wrong: dict[int, tuple[str, str]] = {}
        expected = (
            f"times {1 / self.rate:.6g} s apart, as the mapping's rate of {self.rate:.10g} has it, to half a step; or"
            f" time: {{rate: {self.rate:.10g}}} in the mapping, which counts rows, for a clock that drifts"
        )
        lost = [(int(row), f"time {float(every[row])!r}") for row in np.flatnonzero(~known)]
        # Only neighbours that both have a time are compared.
        pairs = known[1:] & known[:-1]
        ahead = np.diff(steps)
        for row in np.flatnonzero(pairs & (ahead == 0)).tolist():
            further = row if off[row] > off[row + 1] and (before is None or row) else row + 1
            reason = f"time {float(every[further])!r} in the same step as the row "
            lost.append((further, reason + ("behind it" if further == row else "before it")))
        for row in np.flatnonzero(pairs & (ahead < 0)).tolist():
            lost.append((row, f"time {float(every[row])!r} above the {float(every[row + 1])!r} of the row behind it"))
            lost.append(
                (row + 1, f"time {float(every[row + 1])!r} below the {float(every[row])!r} of the row before it")
            )
        skipped = 0 if before is None else 1
        for row, reason in lost:
            if row >= skipped:
                wrong.setdefault(row - skipped, (reason, expected))
        return steps.astype(np.int64)[skipped:], wrong

    def other_rate(self, times: NDArray[np.float64]) -> float | None:
        """Rows a second, if the first times are of another rate; None where they are of this one."""
        gaps = np.diff(times[np.isfinite(times)])
        if not len(gaps):
            return None
        middle = float(np.median(gaps))
        return None if abs(middle * self.rate - 1) <= _RATE_SHARE else (1 / middle if middle > 0 else 0.0)
