"""What columns that have types mean: which can be ids, times and channels, and how long vectors are."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial

import numpy as np
import pyarrow as pa

from zstore.errors import SourceError, UsageError
from zstore.writing.sources.options import TableOptions
from zstore.writing.sources.table import ChannelSpec
from zstore.writing.sources.times.iso import UNITS
from zstore.writing.sources.times.spec import TimeSpec
from zstore.writing.sources.typed.cells import is_exact_text, is_text, kind_of, missing_of, width_of
from zstore.writing.sources.typed.moments import TimeKind, coarsest_unit, time_kind, unit_of_type
from zstore.writing.sources.typed.table import TypedTable, whole_batches
from zstore.writing.sources.workspace import Runner

_FIRST_ROWS = 4096
_SCAN_ROWS = 1 << 18
_MOST_ITEMS = 1 << 16


def check_id(tables: Sequence[TypedTable], options: TableOptions) -> None:
    """Refuse an id column whose values have no exact text.

    Raises
    ------
    SourceError
        If it is one of floats, times or lists.
    """
    for table in tables:
        if options.id is None or options.layout == "wide":
            continue
        dtype = table.types[options.id]
        inner = dtype.value_type if pa.types.is_dictionary(dtype) else dtype
        if not (is_text(inner) or pa.types.is_integer(inner)):
            raise SourceError(
                f"id column {options.id!r} of type {dtype}",
                expected="texts, or whole numbers, which are kept as exact text",
                where=table.name,
                fix="name another column with --id, or write it as text",
            )


def refuse_other_times(tables: Sequence[TypedTable], options: TableOptions) -> TimeKind:
    """What the time columns of all files are.

    Raises
    ------
    SourceError
        If they are no times, or not all of one kind.
    UsageError
        If an option says how times are written, and the type says so already.
    """
    kinds: dict[TimeKind, str] = {}
    if are_together(options):
        return _kind_together(tables, options)
    for table in tables:
        for column in options.time:
            dtype = table.types[column]
            kind = time_kind(dtype)
            if kind is None or (len(options.time) > 1 and kind == "moment"):
                raise SourceError(
                    f"time column {column!r} of type {dtype}",
                    expected="timestamps, dates, whole numbers or texts"
                    if len(options.time) == 1
                    else "whole numbers, such as years, months and days",
                    where=table.name,
                    fix="name another column with --time",
                )
            kinds.setdefault(kind, table.name)
    if len(kinds) > 1:
        (first, where), (other, there) = list(kinds.items())[:2]
        raise SourceError(
            f"times that are {_TIME_KINDS[other]}",
            expected=f"{_TIME_KINDS[first]}, as in {where}",
            where=there,
            fix="ingest files of different kinds into different stores",
        )
    (kind,) = kinds
    for flag, value in (("--time-format", options.time_format), ("--time-unit", options.time_unit)):
        if kind == "moment" and value is not None:
            raise UsageError(
                f"{flag} {value} of a column of {_TIME_KINDS[kind]}",
                expected="whole numbers or texts",
                where=tables[0].name,
                fix=f"leave out {flag}: the type of the column says what its times are",
            )
    return kind


def are_together(options: TableOptions) -> bool:
    """Whether several columns say a time together, each as text: a date and a clock, or what a format names."""
    return len(options.time) == 2 or (len(options.time) > 1 and options.time_format is not None)


def _kind_together(tables: Sequence[TypedTable], options: TableOptions) -> TimeKind:
    for table in tables:
        for column in options.time:
            dtype = table.types[column]
            if not (time_kind(dtype) in ("whole", "words") or pa.types.is_date(dtype) or pa.types.is_time(dtype)):
                raise SourceError(
                    f"time column {column!r} of type {dtype}",
                    expected="whole numbers, texts, dates or clocks, which make a time together",
                    where=table.name,
                    fix="name one column of timestamps with --time, or other columns",
                )
    return "words"


def moment_spec(tables: Sequence[TypedTable], options: TableOptions, runner: Runner | None) -> TimeSpec:
    """Timestamps and dates: on an axis of the coarsest unit that all are whole in, with an offset from UTC or without.

    Parameters
    ----------
    tables, options
        The files, and the time column.
    runner
        Reads that column of all row groups, unless the first rows need the finest unit of the types; None to take that.

    Raises
    ------
    SourceError
        If some have an offset and others have none.
    """
    column = options.time[0]
    zones: dict[bool, str] = {}
    units = []
    for table in tables:
        dtype = table.types[column]
        zones.setdefault(pa.types.is_timestamp(dtype) and dtype.tz is not None, table.name)
        units.append(unit_of_type(dtype))
    if len(zones) > 1:
        (first, where), (_, there) = list(zones.items())
        raise SourceError(
            f"times {'without' if first else 'with'} a time zone",
            expected=f"times {'with' if first else 'without'} one, as in {where}",
            where=there,
            fix="ingest files of different kinds into different stores",
        )
    finest = max(units, key=UNITS.index)
    if runner is not None and finest != "s":
        known = ["s", *(table.units[column] for table in tables if column in table.units)]
        others = [table for table in tables if column not in table.units]
        tasks = [(table, group) for table in others for group, n_rows in enumerate(table.group_rows) if n_rows]
        needed = max([*known, *(_finest_unit(task, column, _FIRST_ROWS) for task in tasks[:1])], key=UNITS.index)
        if needed != finest:
            sizes = [table.group_rows[group] for table, group in tasks]
            every = runner.map("times", partial(_finest_unit, column=column), tasks, sizes, "rows")
            finest = max([needed, *every], key=UNITS.index)
    return TimeSpec("iso", options.time, finest, next(iter(zones)))


def _finest_unit(task: tuple[TypedTable, int], column: str, most: int | None = None) -> str:
    """The coarsest unit that the moments of a row group, or its first ones, are whole in."""
    table, group = task
    finest = "s"
    for _, batch in whole_batches(table, [column], (), group, most or _SCAN_ROWS):
        finest = max(finest, coarsest_unit(batch.column(column)), key=UNITS.index)
        if most is not None:
            break
    return finest


def channels_of(
    tables: Sequence[TypedTable],
    wanted: Sequence[str],
    options: TableOptions,
    known: Collection[str] = (),
    vectors: bool = True,
) -> tuple[ChannelSpec, ...]:
    """The channels that columns become: one each, and of a column of lists one for each position in them.

    Parameters
    ----------
    tables, wanted, options
        The files, their columns to keep, and what the user says.
    known
        Channels that a store has, which say how long vectors are; else the types do, or the first list.
    vectors
        Whether lists and words are allowed; a wide table of series has numbers only.

    Raises
    ------
    SourceError
        If a column can be no channel, or is of different kinds in different files.
    """
    channels: list[ChannelSpec] = []
    for column in wanted:
        name, units = options.rename.get(column, column), options.units.get(column)
        kind = _kind(tables, column, column in options.categories)
        if not vectors and kind != "number":
            raise SourceError(
                f"column {column!r} of {'texts' if kind == 'words' else 'lists'} in a wide table of series",
                expected="a column of numbers for each series",
                where=tables[0].name,
                fix=f"--leave-out {column}",
            )
        if kind != "vector":
            channels.append(ChannelSpec(column, name, kind == "words", units))
            continue
        width = _width(tables, column, name, known)
        channels += [ChannelSpec(column, f"{name}.{item}", units=units, item=item) for item in range(width)]
    return tuple(channels)


def _kind(tables: Sequence[TypedTable], column: str, as_words: bool) -> str:
    first: tuple[str, str] | None = None
    for table in tables:
        dtype = table.types.get(column)
        if dtype is None:
            continue
        kind = kind_of(dtype)
        fits = is_exact_text(dtype) if as_words else kind is not None
        if not fits:
            raise SourceError(
                f"column {column!r} of type {dtype}" + (" as categories" if as_words else ""),
                expected="texts, whole numbers, decimals or booleans, which have exact words"
                if as_words
                else "numbers, booleans, texts, or lists of numbers",
                where=table.name,
                fix=f"leave {column} out of --categories" if as_words else f"--leave-out {column}",
            )
        kind = "words" if as_words else kind
        if kind == "unknown":
            continue
        if first is not None and first[0] != kind:
            raise SourceError(
                f"column {column!r} of type {dtype}",
                expected=f"{_KINDS[first[0]]}, as in {first[1]}",
                where=table.name,
                fix="ingest files of different kinds into different stores"
                + (f", or --categories {column}" if {first[0], kind} == {"number", "words"} else ""),
            )
        first = first or (str(kind), table.name)
    return "number" if first is None else first[0]


def _width(tables: Sequence[TypedTable], column: str, name: str, known: Collection[str]) -> int:
    """Values of each vector of a column."""
    if known:
        count = 0
        while f"{name}.{count}" in known:
            count += 1
        if count:
            return count
    widths = {width_of(table.types[column]): table.name for table in tables if column in table.types}
    fixed = {width: where for width, where in widths.items() if width is not None}
    if len(fixed) > 1:
        (first, where), (other, there) = list(fixed.items())[:2]
        raise SourceError(
            f"lists of {other} values in column {column!r}",
            expected=f"{first}, as in {where}",
            where=there,
            fix=f"ingest files of different kinds into different stores, or --leave-out {column}",
        )
    width = next(iter(fixed), None) if fixed else _first_width(tables, column)
    if not width or width > _MOST_ITEMS:
        raise SourceError(
            f"column {column!r} of lists with {width or 'no'} values" if width != 0 else f"empty lists in {column!r}",
            expected=f"lists of equal length, from 1 to {_MOST_ITEMS:,}",
            where=tables[0].name,
            fix=f"--leave-out {column}",
        )
    return width


def _first_width(tables: Sequence[TypedTable], column: str) -> int | None:
    """Values of the first list that there is."""
    for table in tables:
        if column not in table.types or not pa.types.is_nested(table.types[column]):
            continue
        for group in range(len(table.group_rows)):
            for _, batch in whole_batches(table, [column], (), group, _FIRST_ROWS):
                array = batch.column(column)
                missing = missing_of(array)
                rows = np.arange(len(array)) if missing is None else np.flatnonzero(~missing)
                if len(rows):
                    return len(array[int(rows[0])])
    return None


_KINDS = {"number": "numbers", "words": "texts", "vector": "lists of numbers"}
_TIME_KINDS = {"moment": "timestamps or dates", "whole": "whole numbers", "words": "texts"}
