"""How the times of a source are written, by the options and the first texts of their column."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace

from zstore.errors import NoColumnError, SourceError, UsageError
from zstore.format.schema import TimeAxis
from zstore.format.timesteps import UNIT_STEPS, TimeStepRule
from zstore.writing.sources.cells import shorten
from zstore.writing.sources.options import TableOptions
from zstore.writing.sources.times.candidates import time_flags
from zstore.writing.sources.times.epochs import EXCEL, finest_unit
from zstore.writing.sources.times.formats import YEAR_AND_PART, check_columns, check_format, has_zone, read_one, unit_of
from zstore.writing.sources.times.guesses import dates_or_epochs, first_unreadable, sniff_iso
from zstore.writing.sources.times.iso import UNITS
from zstore.writing.sources.times.parts import PARTS
from zstore.writing.sources.times.spec import EPOCH_UNITS, STEPS, TimeSpec
from zstore.writing.sources.times.zones import check_zone

NAMED_LIKE_TIMES = re.compile(r"time|date|stamp|zeit|datum", re.IGNORECASE)
_MOST_WAYS = 4
_MOST_LIKELY = 3


def first_time_spec(options: TableOptions, texts: Sequence[str], where: Callable[[int], str] | None = None) -> TimeSpec:
    """How times are written, by the options and the first texts of their column.

    Parameters
    ----------
    options
        What the user says.
    texts
        First cells, as texts; of a date and a clock, with a space between them.
    where
        Says file and place of one of them, by its number, for messages; None where they cannot be wrong.

    Raises
    ------
    UsageError, SourceError
        If options do not fit, or texts are no times.
    """
    if len(options.time) > 1 and options.time_format is not None:
        form = check_format(options.time_format)
        check_columns(form, options.time)
        return TimeSpec("format", options.time, unit_of(form), zone=has_zone(form), format=form)
    if len(options.time) == 2:
        return _date_and_clock(options, texts, where)
    if len(options.time) > 1:
        if len(options.time) > len(PARTS):
            raise UsageError(
                f"--time {','.join(options.time)}",
                expected="one column, a date and a clock, or three to six: " + ", ".join(PARTS),
                fix="name the columns with --time, in this order",
            )
        return TimeSpec("parts", options.time, "s")
    column = options.time[0]
    if options.time_format is not None:
        form = check_format(options.time_format)
        return TimeSpec("format", options.time, unit_of(form), zone=has_zone(form), format=form)
    if options.time_unit == STEPS:
        return TimeSpec("steps", options.time, None)
    if options.time_unit is not None:
        if options.time_unit not in (*EPOCH_UNITS, *EXCEL):
            raise UsageError(
                f"--time-unit {options.time_unit!r}",
                expected=f"one of {', '.join((*EPOCH_UNITS, STEPS, *EXCEL))}",
                fix="as in --time-unit ms",
            )
        finest = finest_unit(texts, options.time_unit)
        if finest is not None:
            return TimeSpec("decimal", options.time, finest, format=options.time_unit)
        unit, factor = EPOCH_UNITS[options.time_unit]
        return TimeSpec("epoch", options.time, unit, factor=factor, format=options.time_unit)
    spec = sniff_iso(column, texts)
    flags = dates_or_epochs(texts) if spec is not None and spec.kind == "steps" else []
    if flags:
        raise SourceError(
            f"times such as {shorten(texts[len(texts) // 2])!r} in column {column!r}, which may be dates or epochs",
            expected="to be told how to read such numbers",
            where=f"{where(0)}, and the rows below it" if where is not None else "",
            fix=f"{' or '.join(flags)}; --time-unit {STEPS} if they do count steps",
        )
    if spec is None:
        wrong = first_unreadable(texts)
        raise SourceError(
            f"unreadable time {shorten(texts[wrong])!r} in column {column!r}",
            expected="ISO dates or dates and times, or whole numbers",
            where=where(wrong) if where is not None else "",
            fix=_ways(texts) + " or name another column with --time",
        )
    return spec


def _ways(texts: Sequence[str]) -> str:
    """What to do about times that cannot be read: the formats that read all of the first ones, side by side."""
    flags = time_flags([text for text in texts if text])
    return f"{' or '.join(flags[:_MOST_WAYS])};" if flags else "say how it is written with --time-format,"


def _ways_together(texts: Sequence[str]) -> str:
    """What to do about the cells of two columns that cannot be read: years beside months, quarters or days are told."""
    known = [text for text in texts if text.strip()]
    ways = [form for form in YEAR_AND_PART if known and all(read_one(text, form) is not None for text in known)]
    if ways:
        return " or ".join(f"--time-format '{form}'" for form in ways)
    return "say how they are written, with a space between, as in --time-format '%d.%m.%Y %H:%M' or '%Y %m'"


def _date_and_clock(options: TableOptions, texts: Sequence[str], where: Callable[[int], str] | None) -> TimeSpec:
    """How times are written whose date and clock stand in columns of their own; `texts` have a space between them."""
    spec = sniff_iso(options.time[0], texts)
    if spec is None or spec.kind != "iso":
        wrong = first_unreadable(texts)
        raise SourceError(
            f"unreadable date and clock {shorten(texts[wrong])!r} in columns {', '.join(options.time)}",
            expected="an ISO date, and hh:mm, hh:mm:ss or the like",
            where=where(wrong) if where is not None else "",
            fix=_ways_together(texts),
        )
    return replace(spec, columns=options.time, written=None)


def in_zone(spec: TimeSpec, options: TableOptions) -> TimeSpec:
    """How times are written, if they are of the clocks of a zone that the user names.

    Raises
    ------
    UsageError
        If there is no such zone, or times are none of clocks.
    """
    if options.timezone is None:
        return spec
    if spec.zone or spec.kind not in ("iso", "format", "parts"):
        raise UsageError(
            f"--timezone {options.timezone} of times that " + ("have offsets from UTC" if spec.zone else "count units"),
            expected="dates and times without an offset",
            fix="drop --timezone",
        )
    return replace(spec, local=check_zone(options.timezone))


def side_by_side(options: TableOptions, n_rows: int) -> TimeSpec:
    """The times of rows that stand side by side in the record of their series, `n_rows` at most."""
    if options.time or options.id is None:
        raise UsageError(
            "--layout series " + ("with --time" if options.time else "without --id"),
            expected="the id of each series, and --freq STEP (and --start T) for the times of its values",
            fix="drop --time" if options.time else "name the column of ids with --id",
        )
    spec = replace(numbered_rows(options), kind="columns")
    low, high = spec.bounds
    beyond = not low <= spec.start <= high or n_rows * spec.rule.shortest > high - spec.start
    if beyond or int(spec.rule.times(n_rows, spec.start)) > high:
        raise UsageError(
            f"{n_rows:,} steps of {spec.rule.text} from --start {options.start}",
            expected=f"times from {low:,} to {high:,}, in the units of --freq",
            fix="an earlier --start, or a smaller --freq",
        )
    return spec


def numbered_rows(options: TableOptions, columns: Sequence[str] = (), moments: Sequence[str] = ()) -> TimeSpec:
    """The times of rows that have none: the first one, and the step between them.

    Parameters
    ----------
    options
        What the user says.
    columns, moments
        The columns of the source, and those of them whose type says that they are times: the message names one.
    """
    if options.freq is None:
        likely = [*moments] or [column for column in columns if NAMED_LIKE_TIMES.search(column)]
        named = ", ".join(map(repr, likely[:_MOST_LIKELY]))
        raise NoColumnError(
            f"no time column, though {named} look{'s' * (len(likely) == 1)} like one" if likely else "no time column",
            expected="--time COL, or --freq STEP (and --start T) for rows that follow each other",
            fix=f"name the time column: --time {shlex.quote(likely[0])}"
            if likely
            else "name the time column with --time",
        )
    found = _axis_of_start(options.start, options.freq)
    if found is None:
        raise UsageError(
            f"--freq {options.freq} without --time or --start"
            if options.start is None
            else f"--start {options.start} with --freq {options.freq}",
            expected="a date and a step such as 5min, 5ms or MS, or two whole numbers",
            fix="choose another --start or --freq",
        )
    axis, start, rule = found
    rule = UNIT_STEPS if rule.kind == "rows" else rule.begun(start)
    if not rule.fits(start):
        raise UsageError(
            f"--start {options.start} with --freq {options.freq}",
            expected=f"a first row that {rule.text} has",
            fix="choose another --start or --freq",
        )
    return TimeSpec("rows", (), axis.unit, start=start, rule=rule)


def _axis_of_start(first: str | None, freq: str) -> tuple[TimeAxis, int, TimeStepRule] | None:
    """The axis of numbered rows, in the coarsest unit that has both the first time and the step; None if none has."""
    dated = first is not None and not first.lstrip("-").isdigit()
    for unit in UNITS if dated else (None,):
        axis = TimeAxis(unit)
        try:
            start = axis.parse(first) if first is not None else 0
            rule = axis.parse_freq(freq)
        except ValueError:
            continue
        return None if rule.kind == "rows" and dated else (axis, start, rule)
    return None
