"""Blocks of sources: parsed, sorted, packed and spilled; and all of them in terms of the same ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from zstore.arrow import numbered, text_array, to_strings
from zstore.errors import SourceError
from zstore.format.encodings.base import Form
from zstore.storage.protocol import Storage
from zstore.writing.left_out import NOTHING, LeftOut, LeftOutRow, kept_rows, told
from zstore.writing.references import odd_references, references
from zstore.writing.sort import SortedBlock, Spill, sort_keys
from zstore.writing.sources.digests import PieceDigest
from zstore.writing.sources.join import join
from zstore.writing.sources.protocol import Block, Source
from zstore.writing.sources.table import BadRow, Columns, TableSpec
from zstore.writing.sources.times.spec import TimeSpec


@dataclass(frozen=True)
class BlockReport:
    """What has been parsed: a block, a part of a large one, or neighbouring ones of small files.

    Parameters
    ----------
    spill
        Its sorted rows.
    ids, starts
        (id,) its ids in order, and (id + 1,) int64 the first row of each in the spill.
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
    starts: Any
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
        rows = _rows_out(columns, spec, keep_bad, left_out)
        left = columns.at(kept_rows(columns.n_rows, list(rows))) if rows else columns
        out = tuple(LeftOutRow(first + row, *rows[row]) for row in sorted(rows))
        reports.append(replace(_spilled(left, spec, number, dtype, scratch), left_out=out))
        first += columns.n_rows
    return tuple(reports)


def _rows_out(columns: Columns, spec: TableSpec, keep_bad: bool, left_out: LeftOut) -> dict[int, tuple[str, str]]:
    """Rows that are left out because of what they name: what is wrong with it, and what would be right.

    Raises
    ------
    SourceError
        If references of a row lead nowhere, and bad rows are not kept.
    """
    odd = odd_references(columns, spec) if spec.fields else {}
    if odd and not keep_bad:
        row = min(odd)
        raise SourceError(
            f"{odd[row][0]}, of id {columns.ids[int(columns.codes[row])].as_py()!r}",
            expected=odd[row][1],
            fix="correct the column, or leave the file of such rows empty",
        )
    bad = left_out.rows(spec.fields, list(references(columns, spec))) if left_out.bad else {}
    return {**{row: told(some) for row, some in bad.items()}, **odd}


def _spilled(columns: Columns, spec: TableSpec, number: int, dtype: str, scratch: Storage) -> BlockReport:
    """Sort rows by (id, time), pack each channel, and each reference of a field, and spill them."""
    _, times, order = sort_keys(columns.codes, columns.times)
    everything = slice(None) if order is None else order
    n_stored = len(spec.stored)
    packed = [column.observe(everything, dtype) for column in columns.channels[:n_stored]]
    packed += [column.observe(everything, "float64") for column in references(columns, spec)]
    spill = Spill.write(scratch, str(number), [times, *(column.values for column in packed)])
    counts = np.bincount(columns.codes, minlength=len(columns.ids))
    lost = columns.n_lost[:n_stored] + (0,) * (len(packed) - n_stored)
    forms = tuple(form._replace(n_inexact=form.n_inexact + n) for (_, form), n in zip(packed, lost, strict=True))
    starts = np.concatenate([[0], np.cumsum(counts)])
    return BlockReport(
        spill, columns.ids, starts, forms, columns.bad, columns.n_blank, columns.seen, columns.tallies, columns.pieces
    )


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


def reduce_blocks(reports: list[BlockReport]) -> tuple[Any, list[SortedBlock]]:
    """All ids in order, and each block in terms of them; ids are taken out of the reports, and lie in memory once."""
    ids, positions = numbered([report.ids for report in reports])
    blocks = []
    for number, (report, series) in enumerate(zip(reports, positions, strict=True)):
        blocks.append(SortedBlock(report.spill, series, report.starts))
        reports[number] = replace(report, ids=text_array([]), starts=np.zeros(1, np.int64))
    return to_strings(ids), blocks


def rows_before(n_series: int, blocks: Sequence[SortedBlock]) -> list[tuple[SortedBlock, Any]]:
    """Each block, and (group,) rows of each of its series in the blocks before."""
    seen = np.zeros(n_series, np.int64)
    tasks = []
    for block in blocks:
        tasks.append((block, seen[block.series]))
        seen[block.series] += np.diff(block.starts)
    return tasks
