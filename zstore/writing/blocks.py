"""Blocks of sources: parsed, sorted, packed and spilled; and all of them in terms of the same ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zstore.arrow import positions, union
from zstore.errors import SourceError
from zstore.format.encodings.base import Form
from zstore.storage.protocol import Storage
from zstore.writing.left_out import NOTHING, LeftOut, LeftOutRow, kept_rows, told
from zstore.writing.sort import SortedBlock, Spill, sort_order
from zstore.writing.sources.channels import Categories, ChannelValues, NumberValues
from zstore.writing.sources.digests import PieceDigest
from zstore.writing.sources.join import join
from zstore.writing.sources.protocol import Block, Source
from zstore.writing.sources.table import BadRow, Columns, TableSpec
from zstore.writing.sources.times.spec import TimeSpec

_MOST_POSITIONS = 2.0**53  # that floats tell apart


@dataclass(frozen=True)
class BlockReport:
    """What has been parsed: a block, a part of a large one, or neighbouring ones of small files.

    Parameters
    ----------
    spill
        Its sorted rows.
    ids, counts
        (id,) its ids in order, and the rows of each.
    forms
        Per channel, how its values are spilled.
    bad
        Records left out, with their places in their blocks.
    n_blank
        Lines without a byte, passed over.
    seen
        Texts of --missing that occurred.
    tallies, pieces
        As in :class:`~zstore.writing.sources.table.Columns`.
    left_out
        Good records left out, since a payload of theirs is bad.
    """

    spill: Spill
    ids: pa.Array
    counts: Any
    forms: tuple[Form, ...]
    bad: tuple[BadRow, ...]
    n_blank: int = 0
    seen: frozenset[str] = frozenset()
    tallies: tuple[int, ...] = ()
    pieces: tuple[PieceDigest, ...] = ()
    left_out: tuple[LeftOutRow, ...] = ()


def parse_blocks(
    task: tuple[int, Sequence[Block]],
    source: Source,
    spec: TableSpec,
    dtype: str,
    scratch: Storage,
    keep_bad: bool,
    left_out: LeftOut = NOTHING,
) -> tuple[BlockReport, ...]:
    """Read one block, part by part, or some small ones as one; each part is sorted, packed and spilled.

    Rows that name a payload of `left_out` are left out, as if they were not there.
    """
    number, blocks = task
    parts = chain.from_iterable(source.read(block, spec, keep_bad) for block in blocks)
    together = parts if len(blocks) == 1 else iter([join(list(parts))])
    reports, first = [], 0
    for columns in together:
        rows: tuple[LeftOutRow, ...] = ()
        n_rows = columns.n_rows
        if left_out.bad:
            columns, rows = _without(columns, spec, left_out, first)
        reports.append(replace(_spilled(columns, spec, number, dtype, scratch), left_out=rows))
        first += n_rows
    return tuple(reports)


def _without(
    columns: Columns, spec: TableSpec, left_out: LeftOut, first: int
) -> tuple[Columns, tuple[LeftOutRow, ...]]:
    """Columns without rows that are left out, and those; the first row of the columns has the number `first`."""
    rows = left_out.rows(spec.fields, list(references(columns, spec)))
    if not rows:
        return columns, ()
    kept = kept_rows(columns.n_rows, list(rows))
    return columns.at(kept), tuple(told(first + row, rows[row]) for row in sorted(rows))


def _spilled(columns: Columns, spec: TableSpec, number: int, dtype: str, scratch: Storage) -> BlockReport:
    """Sort rows by (id, time), pack each channel, and each reference of a field, and spill them."""
    order = sort_order(columns.codes, columns.times)
    everything = slice(None) if order is None else order
    n_stored = len(spec.stored)
    packed = [column.observe(everything, dtype) for column in columns.channels[:n_stored]]
    packed += [column.observe(everything, "float64") for column in references(columns, spec)]
    spill = Spill.write(scratch, str(number), [columns.times[everything], *(column.values for column in packed)])
    counts = np.bincount(columns.codes, minlength=len(columns.ids))
    lost = columns.n_lost[:n_stored] + (0,) * (len(packed) - n_stored)
    forms = tuple(form._replace(n_inexact=form.n_inexact + n) for (_, form), n in zip(packed, lost, strict=True))
    return BlockReport(
        spill, columns.ids, counts, forms, columns.bad, columns.n_blank, columns.seen, columns.tallies, columns.pieces
    )


def references(columns: Columns, spec: TableSpec) -> Iterator[ChannelValues]:
    """Per field, what holds the payload of each row, and its number in there: 0 where holders have one each."""
    values = iter(columns.channels[len(spec.stored) :])
    for field in spec.fields:
        holders = next(values)
        if isinstance(holders, Categories) and pc.any(pc.match_substring(holders.words, "\0")).as_py():
            raise SourceError(
                f"a name with a NUL in column {field.holder!r}", expected="names of files", fix="correct the table"
            )
        yield holders
        if field.position is None:
            yield NumberValues(np.zeros(columns.n_rows))
        else:
            yield _positions(field.position, next(values), holders, columns)


def _positions(column: str, values: ChannelValues, holders: ChannelValues, columns: Columns) -> NumberValues:
    """Numbers of payloads in what holds them, 0 in rows that have none.

    Raises
    ------
    SourceError
        If a row that has a payload has no whole number from 0 on.
    """
    numbers = values.values if isinstance(values, NumberValues) else np.full(columns.n_rows, np.nan)
    named = holders.codes >= 0 if isinstance(holders, Categories) else np.isfinite(numbers)
    right = (numbers >= 0) & (numbers < _MOST_POSITIONS) & (np.floor(numbers) == numbers)
    odd = np.flatnonzero(named & ~right)
    if len(odd):
        row = int(odd[0])
        word = values.words[int(values.codes[row])].as_py() if isinstance(values, Categories) else f"{numbers[row]:g}"
        what = "no number" if word == "nan" else f"{word!r}"
        raise SourceError(
            f"{what} in column {column!r}, of id {columns.ids[int(columns.codes[row])].as_py()!r}",
            expected="a whole number from 0 on in each row that has a payload: its position",
            fix="correct the column, or leave the file of such rows empty",
        )
    return NumberValues(np.where(named, numbers, 0.0))


def number_rows(task: tuple[SortedBlock, Any], time: TimeSpec) -> SortedBlock:
    """A block, whose source has no times, with times: the n-th row of a series is `n` steps behind the first time.

    Parameters
    ----------
    task
        The block, and (group,) rows of each of its series in the blocks before.
    time
        First time and rule.
    """
    block, before = task
    sizes = np.diff(block.starts)
    rank = np.arange(block.spill.n_rows) + np.repeat(before - block.starts[:-1], sizes)
    low, high = time.bounds
    n_steps = int(rank.max(initial=0))
    beyond = not low <= time.start <= high or n_steps * time.rule.shortest > high - time.start
    if beyond or int(time.rule.times(n_steps, time.start)) > high:
        raise SourceError(
            f"{n_steps:,} steps of {time.rule.text} behind time {time.start:,} of a row that is numbered",
            expected=f"times from {low:,} to {high:,}, in the units of --freq",
            fix="an earlier --start, or a smaller --freq",
        )
    return replace(block, spill=block.spill.with_times(time.rule.times(rank, time.start)))


def reduce_blocks(reports: Sequence[BlockReport]) -> tuple[Any, list[SortedBlock]]:
    """All ids in order, and each block in terms of them."""
    ids = union([report.ids for report in reports])
    blocks = []
    for report, series in zip(reports, positions([report.ids for report in reports], ids), strict=True):
        blocks.append(SortedBlock(report.spill, series, np.concatenate([[0], np.cumsum(report.counts)])))
    return np.array(ids.to_pylist(), dtype=np.dtypes.StringDType()), blocks


def rows_before(n_series: int, blocks: Sequence[SortedBlock]) -> list[tuple[SortedBlock, Any]]:
    """Each block, and (group,) rows of each of its series in the blocks before."""
    seen = np.zeros(n_series, np.int64)
    tasks = []
    for block in blocks:
        tasks.append((block, seen[block.series]))
        seen[block.series] += np.diff(block.starts)
    return tasks
