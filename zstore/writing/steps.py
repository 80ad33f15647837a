"""Series and times between two places of the final order, and the steps between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from zstore.format.index import usual_step
from zstore.format.schema import TimeAxis
from zstore.format.timesteps import TimeStepRule
from zstore.writing.calendars import CalendarTally, anchored, calendar_steps, completed, sum_tallies
from zstore.writing.sort import ShardPlan, SortedBlock, codes_between, locate, read_all, sort_keys

Int64 = NDArray[np.int64]
Int32 = NDArray[np.int32]
Slices = list[tuple[int, int, int]]

_MOST_RUNS = 1 << 12
_MOST_STEPS = 64
_STRETCH_ROWS = 1 << 17  # whose steps lie in memory, and in cache, at once


@dataclass(frozen=True)
class Steps:
    """Time steps between neighbouring rows of a series, run-length encoded.

    Parameters
    ----------
    row
        (step run,) row that ends the first step of each run of equal steps.
    step
        (step run,) the step.
    length
        (step run,) how many times in a row.
    time
        (step run,) time of `row`.
    """

    row: Int64
    step: Int64
    length: Int64
    time: Int64

    def unlike(self, rule: TimeStepRule) -> Breaks:
        """The steps that are not one of `rule`, one by one.

        Cost: O(step runs + breaks) for fixed steps without an anchor; else O(rows).
        """
        plain = rule.plain
        odd = self.step != rule.count if plain else np.ones(len(self.step), np.bool_)
        row, step, length, time = (values[odd] for values in (self.row, self.step, self.length, self.time))
        offset = np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length, length)
        step = np.repeat(step, length)
        row, time = np.repeat(row, length) + offset, np.repeat(time, length) + offset * step
        if plain:
            return Breaks(row, time)
        number, on_grid = rule.steps(time, time - step)
        odd = ~on_grid | (number != 1)
        return Breaks(row[odd], time[odd])


@dataclass(frozen=True)
class Breaks:
    """Rows before which time does not advance by one step.

    Parameters
    ----------
    row, time
        (break,) the row, and its time.
    """

    row: Int64
    time: Int64


@dataclass(frozen=True)
class StepReport:
    """The steps of a stretch of rows, in little memory whatever they are.

    Parameters
    ----------
    step, count
        (step,) the most frequent steps, and how often each occurs.
    n_steps
        Steps in all.
    runs
        All of them; None where they change too often to be kept.
    tally
        Days and times of day of the rows, where steps may be those of a calendar; else None.
    """

    step: Int64
    count: Int64
    n_steps: int
    runs: Steps | None
    tally: CalendarTally | None = None


def gather_keys(plan: ShardPlan, blocks: Sequence[SortedBlock]) -> tuple[Int32, Int64, tuple[Slices, Int64 | None]]:
    """Read and order the series and times between two places.

    Returns
    -------
    (row,) series and (row,) times in order; and where they came from: the rows ``(block, start, stop)`` of the
    spills, and the order that was applied to them, None if they were in order.
    """
    first, last = plan.first.series, plan.last.series
    near = [n for n, b in enumerate(blocks) if len(b.series) and b.series[-1] >= first and b.series[0] <= last]
    borders = [partial(locate, blocks[n], border) for n in near for border in (plan.first, plan.last)]
    rows = [row for row, _ in read_all(blocks, borders)]
    slices = [(n, start, stop) for n, start, stop in zip(near, rows[::2], rows[1::2], strict=True) if stop > start]
    reads = [partial(blocks[n].spill.read, 0, start, stop) for n, start, stop in slices]
    n_rows = sum(stop - start for _, start, stop in slices)
    codes, times, row = np.empty(n_rows, np.int32), np.empty(n_rows, np.int64), 0
    for (n, start, stop), some in zip(slices, read_all(blocks, reads), strict=True):
        codes[row : row + stop - start] = codes_between(blocks[n], start, stop)
        times[row : row + stop - start] = some
        row += stop - start
    codes, times, order = sort_keys(codes, times)
    return codes, times, (slices, order)


def encode_steps(codes: Int32 | Int64, times: Int64, first_row: int) -> Steps:
    """Run-length encode the steps between neighbouring rows of a series."""
    n_steps = max(len(times) - 1, 0)
    changes = [np.zeros(min(n_steps, 1), np.int64)]
    for first in range(1, n_steps, _STRETCH_ROWS):
        rows = slice(first - 1, first + _STRETCH_ROWS + 1)
        step = _steps_inside(codes[rows], times[rows])
        changes.append(np.flatnonzero(step[1:] != step[:-1]) + first)
    starts = np.concatenate(changes)
    length = np.diff(np.append(starts, n_steps))
    inside = codes[starts + 1] == codes[starts]
    starts, length = starts[inside], length[inside]
    return Steps(first_row + starts + 1, times[starts + 1] - times[starts], length, times[starts + 1])


def _steps_inside(codes: Int32 | Int64, times: Int64) -> Int64:
    """(row - 1,) steps to the next row, -1 where that is of another series."""
    step = times[1:] - times[:-1]
    step[codes[1:] != codes[:-1]] = -1
    return step


def report_steps(steps: Steps, times: Int64 | None = None, axis: TimeAxis | None = None) -> StepReport:
    """What to keep of the steps of a stretch of rows.

    Parameters
    ----------
    steps
        All of them.
    times, axis
        (row,) times of the stretch, and what they are, to tally days and times of day where that may be asked for.
    """
    distinct, inverse = np.unique(steps.step, return_inverse=True)
    counts = np.bincount(inverse, weights=steps.length, minlength=len(distinct)).astype(np.int64)
    kept = np.argsort(-counts, kind="stable")[:_MOST_STEPS]
    runs = steps if len(steps.step) <= _MOST_RUNS else None
    step, count, n_steps = distinct[kept], counts[kept], int(steps.length.sum())
    tally = None
    if times is not None and axis is not None and axis.unit is not None:
        open_rule = axis.rule.regular and not axis.rule.complete
        if open_rule or calendar_steps(step, count, axis.unit):
            tally = CalendarTally.of(times, axis.unit)
    return StepReport(step, count, n_steps, runs, tally)


def find_breaks(series: Int32 | Int64, times: Int64, first_row: int, rule: TimeStepRule) -> Breaks:
    """Rows of a stretch before which time does not advance by one step.

    Parameters
    ----------
    series, times
        (row,) in order.
    first_row
        Number of the first of these rows.
    rule
        Complete and regular.
    """
    if rule.plain:
        return encode_steps(series, times, first_row).unlike(rule)
    inside = series[1:] == series[:-1]
    number, on_grid = rule.advance(times)
    odd = np.flatnonzero(inside & ~(on_grid & (number == 1)))
    return Breaks(first_row + odd + 1, times[odd + 1])


@dataclass(frozen=True)
class Trial:
    """What a rule makes of a stretch of rows.

    Parameters
    ----------
    n_following
        Neighbours that follow each other.
    months
        Bits of the months of the year, from January on, in which rows of these lie; 0 where it does not matter.
    breaks
        The others.
    """

    n_following: int
    months: int
    breaks: Breaks

    @classmethod
    def of(cls, series: Int32 | Int64, times: Int64, first_row: int, rule: TimeStepRule) -> Trial:
        """Try a rule on some rows in order, of which the first has the number `first_row`."""
        breaks = find_breaks(series, times, first_row, rule)
        inside = series[1:] == series[:-1]
        months = 0
        if rule.kind == "month" and rule.period == 1 and rule.count % 3 == 0:
            inside[breaks.row - first_row - 1] = False
            number = replace(rule, count=1).steps(times[1:][inside])[0] % 12
            months = sum(1 << month for month in np.unique(number).tolist())
        return cls(int(np.count_nonzero(series[1:] == series[:-1])) - len(breaks.row), months, breaks)


def choose_rule(
    reports: Sequence[StepReport],
    unit: str | None,
    asked: TimeStepRule | None,
    measure: Callable[[TimeStepRule], Sequence[Trial]],
    calendar: bool = True,
) -> tuple[TimeStepRule, Sequence[Trial]]:
    """The rule under which most neighbours follow each other, if more than half do; a fixed step where it is as good.

    Parameters
    ----------
    reports
        All steps between rows.
    unit
        Of the time axis.
    asked
        What the user asked for: that is what it is then, once the rows have told what it leaves open.
    measure
        Tries a rule on all rows; called for a calendar rule, or one with an anchor, alone.
    calendar
        Whether rules of calendars may be found.

    Returns
    -------
    The rule, and its trials if it was measured, else nothing.

    Notes
    -----
    No row is read again unless the most frequent steps look like those of a calendar.
    """
    tally = sum_tallies(report.tally for report in reports)
    if asked is not None:
        rule = completed(asked, tally)
        if not rule.regular or rule.plain:
            return rule, ()
        trials = measure(rule)
        return anchored(rule, asked, _months(trials)), trials
    step, count, n_steps = _sum_steps(reports)
    usual = usual_step(step, count, n_steps)
    fixed = TimeStepRule("irregular", unit) if usual is None else TimeStepRule.fixed(usual, unit)
    if unit is None or not calendar:
        return fixed, ()
    candidates = [(rule, bound) for rule, bound in calendar_steps(step, count, unit) if 2 * bound > n_steps]
    if not candidates:
        return fixed, ()
    rule = completed(max(candidates, key=lambda pair: pair[1])[0], tally)
    trials = measure(rule)
    n_following = sum(trial.n_following for trial in trials)
    if 2 * n_following <= n_steps or n_following <= int(count.max()):
        return fixed, ()
    return anchored(rule, None, _months(trials)), trials


def _months(trials: Sequence[Trial]) -> int:
    months = 0
    for trial in trials:
        months |= trial.months
    return months


def _sum_steps(reports: Sequence[StepReport]) -> tuple[Int64, Int64, int]:
    """(step,) distinct steps of some reports, how often each occurs, and the number of all steps.

    A step that more than half of all have is the most frequent of one report at least. In a report of very many
    different steps, those that are not among its most frequent ones count as none.
    """
    empty = np.zeros(0, np.int64)
    step = np.concatenate([empty, *(report.step for report in reports)])
    count = np.concatenate([empty, *(report.count for report in reports)])
    distinct, inverse = np.unique(step, return_inverse=True)
    counts = np.bincount(inverse, weights=count, minlength=len(distinct)).astype(np.int64)
    return distinct, counts, sum(report.n_steps for report in reports)
