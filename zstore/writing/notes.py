"""What the reader of a receipt should know of the rows, the channels and the sources."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zstore.format.index import SeriesIndex, StaticAttribute
from zstore.format.schema import Field
from zstore.format.timesteps import TimeStepRule
from zstore.reading.store import Store
from zstore.writing.merge import Places
from zstore.writing.parse import Parsed
from zstore.writing.pipeline import Written
from zstore.writing.plan import Planned
from zstore.writing.shard_parts import ShardReport
from zstore.writing.shards import RowsSpec
from zstore.writing.sources.cells import PLAIN
from zstore.writing.sources.protocol import Source, SourceFile
from zstore.writing.sources.table import StaticTable, TableSpec
from zstore.writing.spliced import Spliced
from zstore.writing.spliced_index import IndexOf
from zstore.writing.statics import match_statics

Int64 = NDArray[np.int64]

_SHOWN_IDS = 3
_VALUE = re.compile(r"-[0-9]+|[+-]?[0-9]*\.[0-9]+")


def matched(ids: Any, known: StaticTable) -> tuple[tuple[StaticAttribute, ...], list[str]]:
    """Static attributes in the order of `ids`, and what should be known of them."""
    statics, n_without, n_unused = match_statics(ids, known.ids, known.attributes)
    remarks = [f"{n_without} series have no static attributes"] if n_without else []
    remarks += [f"{n_unused} ids of {known.name} are not in the rows"] if n_unused else []
    return statics, [*known.notes, *remarks]


def all_matched(ids: Any, planned: Planned) -> tuple[tuple[StaticAttribute, ...], list[str]]:
    """Those that sources have, then those of a table of their own."""
    some = [matched(ids, table) for table in (planned.own_statics, planned.statics) if table is not None]
    return tuple(each for statics, _ in some for each in statics), [note for _, notes in some for note in notes]


def row_notes(
    planned: Planned, parsed: Parsed, written: Written, steps: Iterable[str], unmatched: Sequence[str]
) -> list[str]:
    """What should be known of rows that were written, in the order of the receipt.

    Parameters
    ----------
    planned, parsed, written
        The stages that they went through.
    steps
        What should be known of the steps between rows, from `freq_notes`.
    unmatched
        What should be known of static attributes.
    """
    rows, spec = written.rows, planned.spec
    return [
        *channel_notes(rows, parsed.n_inexact(len(rows.channels)), spec, partial(_first_lost, planned, parsed)),
        *infinite_notes(rows, written.shards),
        *steps,
        *unmatched,
        *header_notes(planned.files),
        *source_notes(planned.reading.source, parsed, spec, planned.statics.seen if planned.statics else ()),
    ]


def _first_lost(planned: Planned, parsed: Parsed, column: str) -> str:
    """The first number of a column that no float64 is, and where it stands."""
    first = planned.reading.source.find_lost(parsed.blocks, planned.spec, column)
    return f", first {first}" if first else ""


def channel_notes(
    rows: RowsSpec, inexact: Sequence[int], spec: TableSpec, first_lost: Callable[[str], str]
) -> Iterator[str]:
    """What should be known of the channels; `first_lost` tells where a column has a number that no float64 is."""
    columns = {channel.name: channel.column for channel in spec.channels}
    for some, n_inexact, dtype in _alike(rows.channels, inexact):
        has = f"{some[0]} has" if len(some) == 1 else f"{some[0]} to {some[-1]} have"
        column = columns.get(some[0], some[0])
        if n_inexact and dtype == "float32":
            yield (
                f"{has} {n_inexact:,} values with more digits than float32 keeps (about 7); --dtype float64 keeps them"
            )
        elif n_inexact:
            yield (
                f"{has} {n_inexact:,} values with more digits than float64 keeps (about 16){first_lost(column)}; "
                f"--categories {column} keeps them as words"
            )
    for channel in rows.channels:
        column = columns.get(channel.name, channel.name)
        if channel.kind == "category":
            yield f"{channel.name} holds text and is stored as categories; --leave-out {column} leaves it out"
            yield from spec.missing.told(channel.name, column, channel.categories)
    if rows.time.zone is not None:
        written = "have offsets" if spec.time.local is None else f"are of the clocks of {spec.time.local}"
        yield f"times {written} and are stored as {rows.time.zone}"


def _alike(channels: Sequence[Field], inexact: Sequence[int]) -> Iterator[tuple[list[str], int, str]]:
    """Names of neighbours that differ in a number behind a dot alone, as of a vector, their inexact values, a dtype."""

    def kind(pair: tuple[Field, int]) -> tuple[str, str, bool]:
        stem, _, number = pair[0].name.rpartition(".")
        return stem if number.isdigit() else pair[0].name, pair[0].dtype, pair[1] > 0

    for (_, dtype, _), pairs in groupby(zip(channels, inexact, strict=True), kind):
        some = list(pairs)
        yield [channel.name for channel, _ in some], sum(n for _, n in some), dtype


def infinite_notes(rows: RowsSpec, shards: Sequence[ShardReport]) -> Iterator[str]:
    """Channels that have infinite values among the rows that were written."""
    for position, channel in enumerate(rows.channels):
        n_infinite = sum(shard.n_infinite[position] for shard in shards)
        if n_infinite:
            yield f"{channel.name} has {n_infinite:,} infinite values, which models cannot be trained on"


def header_notes(files: Sequence[SourceFile]) -> Iterator[str]:
    """A header that seems to be a row: half of its names or more are numbers with a point or a sign."""
    for file in files:
        values = [name for name in file.header if _VALUE.fullmatch(name.strip())]
        if 2 * len(values) >= len(file.header):
            shown = ", ".join(map(repr, values[:_SHOWN_IDS]))
            yield f"the header looks like a row ({file.head}: {shown}, …); --no-header --names reads it as one"
            return


def source_notes(source: Source, parsed: Parsed, spec: TableSpec, seen: Collection[str]) -> Iterator[str]:
    """What should be known of how the sources were read; `seen` are missing texts that statics have."""
    yield from source.notes(sum(report.n_blank for report in parsed.reports), parsed.bad)
    met = frozenset(seen).union(*(report.seen for report in parsed.reports))
    numbers = {PLAIN.read(name.rpartition("=")[2]) for name in met} - {None}
    for name in sorted(spec.tracked - met):
        if "=" in name or PLAIN.read(name) not in numbers:
            yield f"--missing {name} never occurred"


@dataclass(frozen=True)
class StepCounts:
    """How the rows of each series follow each other, by the run table.

    Parameters
    ----------
    n_steps
        (series,) steps from row to row.
    n_gaps
        (series,) those that are not one step of the rule; 0 where there is no regular rule.
    n_off
        (series,) those that are no whole number of its steps either.
    """

    n_steps: Int64
    n_gaps: Int64
    n_off: Int64

    @classmethod
    def of(cls, index: SeriesIndex, rule: TimeStepRule) -> StepCounts:
        """Count the steps of every series. Cost: O(runs)."""
        runs, n_series = index.runs, index.n_series
        follows = runs.series[1:] == runs.series[:-1]
        series, off = runs.series[1:][follows], np.zeros(np.count_nonzero(follows), np.bool_)
        if rule.regular:
            _, on_grid = rule.steps(runs.time[1:][follows], runs.time[:-1][follows])
            off = ~on_grid
        counts = [np.bincount(each, minlength=n_series).astype(np.int64, copy=False) for each in (series, series[off])]
        return cls(np.maximum(index.row_size - 1, 0), *counts)


@dataclass(frozen=True)
class Before:
    """A store before rows were added: itself, how places of its series are found, and whether any was written anew."""

    store: Store
    places: Places
    rewritten: bool

    def has_gaps_of(self, index: IndexOf, n_with_rows: int) -> bool:
        """Whether an index, with so many series that have rows, surely has no gap more."""
        sizes = Spliced.of(self.store.column("row_size")).parts()
        n_more = n_with_rows - sum(int(np.count_nonzero(some)) for some in sizes)
        return not self.rewritten and index.n_runs - len(self.store.column("run_start")) == n_more


def freq_notes(rule: TimeStepRule, index: IndexOf, before: Before | None = None) -> Iterator[str]:
    """What should be known of the steps between rows of a store.

    Parameters
    ----------
    rule
        How far it is from one row to the next.
    index
        All series, with the rows that were added.
    before
        The store before rows were added; None for none.
    """
    n_with_rows, n_several = (sum(int(np.count_nonzero(sizes > least)) for sizes in index.sizes()) for least in (0, 1))
    if n_several and 10 * n_several <= index.n_series:
        yield _repeated_ids(index.loaded)
    if rule.regular and index.n_runs == n_with_rows:
        return  # a run for each series
    if rule.kind == "irregular" and n_several:
        yield "times are irregular: no step between rows is the usual one, so runs are not split"
    if not rule.regular or (before is not None and before.has_gaps_of(index, n_with_rows)):
        return
    index = index.loaded
    steps = StepCounts.of(index, rule)
    n_new = steps.n_gaps
    if before is not None:
        n_new[before.places.old] -= StepCounts.of(before.store.index, rule).n_gaps
        n_new = np.maximum(n_new, 0)
    if not n_new.any():
        return
    usual, n_gapped = str(rule), np.count_nonzero(n_new)
    yield f"steps other than {usual}: {n_new.sum():,}, in {n_gapped:,} series; runs are split there"
    off = "multiple of" if rule.plain else "whole step of"
    irregular = 2 * steps.n_off > steps.n_steps
    named = np.flatnonzero(irregular & (n_new > 0))
    if irregular.any() and irregular[steps.n_steps > 0].all():
        yield f"most steps of every series are no {off} {usual}; --freq rows is for windows over such rows"
    elif len(named):
        shown = ", ".join(repr(str(index.ids[series])) for series in named[:_SHOWN_IDS])
        more = ", …" if len(named) > _SHOWN_IDS else ""
        kept = "is irregular and kept as it is" if len(named) == 1 else "are irregular and kept"
        yield (
            f"{len(named):,} series {kept}: most steps are no {off} {usual} ({shown}{more}); "
            "ingest such series apart for windows over their rows"
        )


def _repeated_ids(index: SeriesIndex) -> str:
    """Ids with several rows, where nine in ten have a single one: a table of studies that lists some twice."""
    several = np.flatnonzero(index.row_size > 1)
    shown = ", ".join(repr(str(index.ids[series])) for series in several[:_SHOWN_IDS])
    more = ", …" if len(several) > _SHOWN_IDS else ""
    many = f"{len(several):,} ids have" if len(several) > 1 else "1 id has"
    return (
        f"{many} several rows, the other {index.n_series - len(several):,} have one ({shown}{more}); "
        "each row is a window of its own"
    )
