"""What the columns of tables with types mean, by their types and, of texts and whole numbers, by their first rows."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from zstore.errors import UsageError
from zstore.writing.sources.columns import check_channels, choose_columns, series_channel
from zstore.writing.sources.options import TableOptions
from zstore.writing.sources.table import TableSpec
from zstore.writing.sources.time_options import first_time_spec, numbered_rows
from zstore.writing.sources.times.spec import TimeSpec
from zstore.writing.sources.typed.cells import words_of
from zstore.writing.sources.typed.columns import are_together, channels_of, check_id, moment_spec, refuse_other_times
from zstore.writing.sources.typed.moments import time_kind
from zstore.writing.sources.typed.table import TypedTable, n_rows_of, whole_batches
from zstore.writing.sources.workspace import Runner

_TIME_ROWS = 1000  # that tell how texts and whole numbers are meant


def typed_spec(
    tables: Sequence[TypedTable],
    options: TableOptions,
    others: Collection[str],
    one: str,
    known: Collection[str] = (),
    runner: Runner | None = None,
) -> TableSpec:
    """What the columns mean; `known` are channels that a store has, which say how long vectors are."""
    choice = choose_columns(tables, options, others)
    check_id(tables, options)
    if not options.time:
        _check_numbered(tables[0], options, choice.wanted)
    wide = options.layout == "wide"
    if wide:
        channels_of(tables, choice.wanted, replace(options, rename={}, units={}), known, vectors=False)
    channels = (series_channel(options),) if wide else channels_of(tables, choice.wanted, options, known)
    check_channels(channels, choice.wanted)
    return TableSpec(
        id=None if wide else options.id,
        time=_time_spec(tables, options, runner, one),
        channels=channels,
        series=choice.wanted if wide else (),
        missing=choice.missing,
        largest=options.largest,
        tracked=choice.tracked,
    )


def _check_numbered(table: TypedTable, options: TableOptions, wanted: Sequence[str]) -> None:
    """Refuse rows without --time whose times are there, before their column is told to be no channel."""
    free = [column for column in table.types if column not in (*options.id_names, *options.leave_out)]
    moments = [column for column in free if time_kind(table.types[column]) == "moment"]
    for column in moments:
        if options.freq is not None and column in wanted:
            raise UsageError(
                f"--freq {options.freq} without --time, though column {column!r} is one of times",
                expected="--time COL, or a table whose rows have no times",
                where=table.name,
                fix=f"--time {shlex.quote(column)}, or --leave-out {shlex.quote(column)} if rows are to be counted",
            )
    numbered_rows(options, free, moments)


def _texts_of(array: Any) -> list[str | None]:
    """(row,) texts of a column; None where there is none."""
    words = words_of(array)
    known = [*words.words.to_pylist(), None]
    return [known[code] for code in words.codes.tolist()]


def _time_spec(tables: Sequence[TypedTable], options: TableOptions, runner: Runner | None, one: str) -> TimeSpec:
    """How times are written, by their types; texts and whole numbers by their first rows too."""
    if not options.time:
        return numbered_rows(options)
    kind = refuse_other_times(tables, options)
    if kind == "moment":
        return moment_spec(tables, options, runner)
    columns = options.time if are_together(options) else options.time[:1]
    first = next((table for table in tables if n_rows_of(table)), tables[0])
    texts: list[str] = []
    rows: list[tuple[int, int]] = []  # group and row of each text
    for group, n_rows in enumerate(first.group_rows):
        if texts or not n_rows:
            continue
        start, batch = next(whole_batches(first, columns, columns, group, _TIME_ROWS), (0, None))
        if batch is None:
            continue
        cells = zip(*(_texts_of(batch.column(column)) for column in columns), strict=True)
        known = [(row, [text for text in some if text is not None]) for row, some in enumerate(cells)]
        texts = [" ".join(some) for _, some in known if len(some) == len(columns)]
        rows = [(group, start + row) for row, some in known if len(some) == len(columns)]
    spec = first_time_spec(options, texts, lambda n: f"{first.name} {first.place(*rows[n])}")
    if spec.kind == "decimal":
        raise UsageError(
            f"--time-unit {options.time_unit} of numbers with a fraction in column {columns[0]!r}",
            expected=f"whole numbers, or timestamps, in {one}s",
            fix="write timestamps to the files",
        )
    if spec.kind == "iso" and kind == "whole":
        spec = replace(spec, kind="steps", unit=None)  # no row, or none with a time
    return spec
