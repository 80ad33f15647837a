"""All rows of the sources as sorted, packed spills: blocks are cut, parsed as tasks, and cut anew where that failed."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import partial
from typing import Any

from zstore.errors import SourceError
from zstore.format.schema import TimeAxis
from zstore.storage.protocol import Storage
from zstore.writing.bad_rows import BadRowLimit, Group
from zstore.writing.blocks import BlockReport, parse_blocks
from zstore.writing.left_out import NOTHING, LeftOut, LeftOutRow
from zstore.writing.plan import Planned
from zstore.writing.resume import note_reports, noted_reports
from zstore.writing.scheduler import Scheduler
from zstore.writing.site import Site
from zstore.writing.sort import DuplicateTimeError
from zstore.writing.sources.digests import PIECE_BYTES, PieceDigest
from zstore.writing.sources.join import grouped
from zstore.writing.sources.payloads import PayloadFaultError
from zstore.writing.sources.protocol import Block, RecutError, Source, SourceFile
from zstore.writing.sources.table import BadRow, TableSpec

_MIN_BLOCK, _MAX_BLOCK = 1 << 20, 1 << 24
_BLOCKS = 48  # fewer leave threads idle at the end of a phase, and take more memory
_SUNDAY, _TURNS = 6, (3, 4, 9, 10, 11)  # the months in which summer time ends, north and south
BLOCK_COPIES = 8
"""A block in memory: its bytes, Arrow's columns, float64, sorted and packed copies."""


@dataclass(frozen=True)
class ParseTask:
    """Parses a block, or some small ones as one.

    Parameters
    ----------
    source, spec
        What reads them, and what their columns mean.
    dtype
        Float type of channels.
    scratch
        Where spills go.
    keep_bad
        Whether bad rows are set aside.
    notes
        Of tasks that a run which died has done.
    left_out
        Payloads whose rows are left out.
    """

    source: Source
    spec: TableSpec
    dtype: str
    scratch: Storage
    keep_bad: bool
    notes: Mapping[str, bytes]
    left_out: LeftOut = NOTHING

    def __call__(self, task: tuple[int, Group]) -> tuple[BlockReport, ...]:
        """What the numbered task has parsed; a block of many rows makes several spills."""
        number, blocks = task
        name = f"blocks-{number}-{len(blocks)}-{blocks[0].key}-{blocks[-1].key}{self.left_out.suffix}"
        known = noted_reports(self.scratch, name, self.notes, self.source)
        if known is not None:
            return known
        reports = parse_blocks(task, self.source, self.spec, self.dtype, self.scratch, self.keep_bad, self.left_out)
        note_reports(self.scratch, name, reports)
        return reports


@dataclass(frozen=True)
class Parsed:
    """All rows of the sources.

    Parameters
    ----------
    blocks
        What the sources were cut into.
    reports
        What was parsed, in the order of the sources.
    bad
        Bad rows that were set aside, with their places in the files.
    """

    blocks: Sequence[Block]
    reports: list[BlockReport]
    bad: list[BadRow]

    @property
    def pieces(self) -> Iterator[PieceDigest]:
        """Digests of the pieces of the sources that were read."""
        return (piece for report in self.reports for piece in report.pieces)

    def n_inexact(self, n_channels: int) -> tuple[int, ...]:
        """Per channel, values that were rounded."""
        return tuple(sum(report.forms[n].n_inexact for report in self.reports) for n in range(n_channels))


def parse(planned: Planned, site: Site, runner: Scheduler, left_out: LeftOut = NOTHING) -> Parsed:
    """Parse the sources of a plan, but for rows whose payloads are bad. Raises as :func:`parse_all`."""
    reading, spec = planned.reading, planned.spec
    task = ParseTask(reading.source, spec, reading.dtype, site.scratch, reading.keep_bad, planned.notes, left_out)
    n_bytes = reading.source.n_bytes(planned.files, spec)
    size = reading.blocksize or block_bytes(runner.memory_limit, runner.sharers, n_bytes)
    return parse_all(planned.files, task, size, runner, reading.max_bad_rows if reading.keep_bad else None)


def block_bytes(memory_limit: int, workers: int, n_bytes: int) -> int:
    """Bytes of sources parsed at once, of `n_bytes` in all, so that every worker stays within its share of memory."""
    share = memory_limit // workers // BLOCK_COPIES
    wanted = max(min(share, n_bytes // _BLOCKS, _MAX_BLOCK), _MIN_BLOCK)
    return wanted // PIECE_BYTES * PIECE_BYTES  # so that it has whole pieces, which are digested as they are read


def parse_all(
    files: Sequence[SourceFile],
    task: ParseTask,
    block_bytes: int,
    runner: Scheduler,
    most_bad: float | int | None = None,
) -> Parsed:
    """Cut the sources into blocks and parse them.

    Parameters
    ----------
    files
        The sources, opened.
    task
        Parses some blocks.
    block_bytes
        Bytes of a block; small ones are parsed together, up to as many.
    runner
        Runs the tasks.
    most_bad
        Where bad rows are kept, the most of them, see :class:`BadRowLimit`; None where there are none.

    Raises
    ------
    SourceError
        On a bad row that is not set aside, or where there are too many.
    """
    source, spec = task.source, task.spec
    blocks = source.cut(files, spec, block_bytes, runner)
    while True:
        wrong: SourceError | RecutError | list[BadRow]
        try:
            parsed = _parse_blocks(blocks, task, block_bytes, runner, most_bad)
            wrong = parsed.bad
            if not wrong:
                return parsed
        except (SourceError, RecutError) as error:
            wrong = error
        better = source.recut(files, spec, block_bytes, runner, blocks, wrong)
        if better is not None:
            blocks = better
        elif isinstance(wrong, Exception):
            raise wrong
        else:
            return parsed


def _parse_blocks(
    blocks: Sequence[Block], task: ParseTask, block_bytes: int, runner: Scheduler, most_bad: float | int | None
) -> Parsed:
    n_bytes = [block.n_bytes for block in blocks]
    together = grouped(n_bytes, block_bytes, runner.workers)
    groups: list[Group] = [tuple(blocks[first:last]) for first, last in together]
    sizes = [sum(n_bytes[first:last]) for first, last in together]
    limit = None if most_bad is None else BadRowLimit(most_bad, groups, task.source, task.spec)
    made = runner.map("parse", task, list(enumerate(groups)), sizes, "bytes", None if limit is None else limit.count)
    bad: list[BadRow] = []
    if limit is not None:
        rows = [[row for report in reports for row in report.bad] for reports in made]
        tallies = [[n for report in reports for n in report.tallies] for reports in made]
        bad = task.source.placed(groups, rows, tallies)
        left_out = _left_out(groups, made, task, runner)
        if left_out:
            number = {name: n for n, name in enumerate(dict.fromkeys(block.name for block in blocks))}
            bad = sorted([*bad, *left_out], key=lambda row: (number[row.source], astuple(row.place)))
            limit.check(bad)
    all_reports = [report for reports in made for report in reports]
    return Parsed(blocks, all_reports, bad)


def _left_out(
    groups: Sequence[Group], made: Sequence[Sequence[BlockReport]], task: ParseTask, runner: Scheduler
) -> list[BadRow]:
    """Rows that were left out, with their places."""
    tasks = [
        (group, rows)
        for group, reports in zip(groups, made, strict=True)
        if (rows := [row for report in reports for row in report.left_out])
    ]
    found = runner.map("bad rows", partial(_placed, source=task.source, spec=task.spec), tasks)
    return [row for rows in found for row in rows]


def _placed(task: tuple[Group, Sequence[LeftOutRow]], source: Source, spec: TableSpec) -> list[BadRow]:
    group, rows = task
    found = source.rows_at(group, spec, [row.number for row in rows])
    return [replace(bad, reason=row.reason, expected=row.expected) for bad, row in zip(found, rows, strict=True)]


def row_error(
    error: DuplicateTimeError | PayloadFaultError, ids: Any, planned: Planned, parsed: Parsed, axis: TimeAxis
) -> SourceError:
    """What is wrong with a row, as the error that refuses it, with its places.

    Parameters
    ----------
    error
        Two rows at one time, or a payload that cannot be stored.
    ids
        (series,) ids of the rows.
    planned, parsed
        How they were read.
    axis
        Of the times.
    """
    id_ = str(ids[error.series])
    explain = partial(planned.reading.source.explain, parsed.blocks, planned.spec, id_, error.time)
    if isinstance(error, PayloadFaultError):
        what = f"{error.field} of id {id_!r} at {axis.show(error.time)}: {error.reason}"
        where = [*explain(limit=1), error.place]
        fix = "correct or replace it, or leave the row out of the table"
        return SourceError(what, expected=error.expected, where=": ".join(where), fix=fix)
    places = explain(limit=2)
    if len(places) == 1:
        places.append("in the store already")
    shown = axis.show(error.time)
    clocks = "--timezone ZONE, if clocks were set back then (it says what to do with that hour); else "
    return SourceError(
        f"duplicate time: id {id_!r} has {shown} twice",
        expected="one row per (id, time)",
        where=" and ".join(places),
        fix=(clocks if axis.zone is None and _clocks_may_go_back(shown) else "")
        + "--on-duplicate first, last or update, clean the file, or name the id column with --id if it holds several "
        "series",
    )


def _clocks_may_go_back(shown: str) -> bool:
    """Whether a time of day is one at which summer time ends somewhere: early on a Sunday in spring or autumn."""
    date, _, clock = shown.partition(" ")
    try:
        day = datetime.date.fromisoformat(date)
    except ValueError:  # a step, or a year that the calendar of Python lacks
        return False
    return day.weekday() == _SUNDAY and day.month in _TURNS and clock[:2] in ("00", "01", "02", "03")
