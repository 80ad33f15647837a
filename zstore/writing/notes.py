"""What the reader of a receipt should know of the rows, the channels and the sources."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from zstore.format.index import StaticAttribute
from zstore.format.schema import TimeAxis
from zstore.writing.parse import Parsed
from zstore.writing.pipeline import Written
from zstore.writing.plan import Planned
from zstore.writing.shards import RowsSpec, ShardReport
from zstore.writing.sources.cells import PLAIN
from zstore.writing.sources.protocol import Source
from zstore.writing.sources.table import TableSpec
from zstore.writing.statics import StaticTable, match_statics, named_words
from zstore.writing.version import Summary

_SHOWN_IDS = 3


def matched(ids: Any, known: StaticTable) -> tuple[tuple[StaticAttribute, ...], list[str]]:
    """Static attributes in the order of `ids`, and what should be known of them."""
    statics, n_without, n_unused = match_statics(ids, known.ids, known.attributes)
    remarks = [f"{n_without} series have no static attributes"] if n_without else []
    remarks += [f"{n_unused} ids of {known.name} are not in the rows"] if n_unused else []
    return statics, [*known.notes, *remarks]


def row_notes(ids: Any, planned: Planned, parsed: Parsed, written: Written, unmatched: Sequence[str]) -> list[str]:
    """What should be known of rows that were written, in the order of the receipt.

    Parameters
    ----------
    ids
        (series,) ids of the rows.
    planned, parsed, written
        The stages that they went through.
    unmatched
        What should be known of static attributes.
    """
    rows, spec = written.rows, planned.spec
    return [
        *channel_notes(rows, parsed.n_inexact(len(rows.channels)), spec),
        *infinite_notes(rows, written.shards),
        *freq_notes(written.summary, rows.time, written.row_start, ids),
        *unmatched,
        *source_notes(planned.reading.source, parsed, spec, planned.statics.seen if planned.statics else ()),
    ]


def channel_notes(rows: RowsSpec, inexact: Sequence[int], spec: TableSpec) -> Iterator[str]:
    """What should be known of the channels."""
    columns = {channel.name: channel.column for channel in spec.channels}
    for channel, n_inexact in zip(rows.channels, inexact, strict=True):
        column = columns.get(channel.name, channel.name)
        if n_inexact and channel.dtype == "float32":
            yield (
                f"{channel.name} has {n_inexact:,} values with more digits than float32 keeps (about 7); "
                "--dtype float64 keeps them"
            )
        elif n_inexact:
            yield (
                f"{channel.name} has {n_inexact:,} values with more digits than float64 keeps (about 16); "
                f"--categories {column} keeps them as words"
            )
        if channel.kind == "category":
            yield f"{channel.name} holds text and is stored as categories; --leave-out {column} leaves it out"
            yield from named_words(channel.name, column, list(channel.categories), spec.missing)
    if rows.time.zone is not None:
        yield f"times have offsets and are stored as {rows.time.zone}"


def infinite_notes(rows: RowsSpec, shards: Sequence[ShardReport]) -> Iterator[str]:
    """Channels that have infinite values among the rows that were written."""
    for position, channel in enumerate(rows.channels):
        n_infinite = sum(shard.n_infinite[position] for shard in shards)
        if n_infinite:
            yield f"{channel.name} has {n_infinite:,} infinite values, which models cannot be trained on"


def source_notes(source: Source, parsed: Parsed, spec: TableSpec, seen: Collection[str]) -> Iterator[str]:
    """What should be known of how the sources were read; `seen` are missing texts that statics have."""
    yield from source.notes(sum(report.n_blank for report in parsed.reports), parsed.bad)
    met = frozenset(seen).union(*(report.seen for report in parsed.reports))
    numbers = {PLAIN.read(name.rpartition("=")[2]) for name in met} - {None}
    for name in sorted(spec.tracked - met):
        if "=" in name or PLAIN.read(name) not in numbers:
            yield f"--missing {name} never occurred"


def freq_notes(summary: Summary, axis: TimeAxis, row_start: Any, ids: Any) -> Iterator[str]:
    """What should be known of the steps between rows."""
    rule = summary.rule
    if rule.kind == "irregular" and np.any(np.diff(row_start) > 1):
        yield "times are irregular: no step between rows is the usual one, so runs are not split"
    elif rule.regular and summary.n_gaps:
        usual = str(rule)
        yield f"{summary.n_gaps:,} steps in {summary.n_gapped:,} series differ from {usual}; runs are split there"
        if len(summary.irregular):
            shown = ", ".join(repr(str(ids[series])) for series in summary.irregular[:_SHOWN_IDS])
            more = ", …" if len(summary.irregular) > _SHOWN_IDS else ""
            off = "multiple of" if rule.plain else "whole step of"
            if len(summary.irregular) == np.count_nonzero(np.diff(row_start) > 1):
                yield f"most steps of every series are no {off} {usual}; --freq rows is for windows over such rows"
            else:
                kept = "is irregular and kept as it is" if len(summary.irregular) == 1 else "are irregular and kept"
                yield (
                    f"{len(summary.irregular):,} series {kept}: most steps are no {off} {usual} ({shown}{more}); "
                    "ingest such series apart for windows over their rows"
                )
