"""Rows set aside: the lines they stand on, from one pass over the sources, and the most that there may be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from zstore.errors import SourceError
from zstore.writing.blocks import BlockReport
from zstore.writing.sources.csv import UncountedQuotesError, has_quotes_before, lines_before
from zstore.writing.sources.records import shorten
from zstore.writing.sources.table import BadRow, Block, TableSpec

Group = tuple[Block, ...]
"""Blocks that one task parses."""


def numbered(groups: Sequence[Group], reports: Sequence[BlockReport]) -> list[BadRow]:
    """The bad rows of all blocks, with their lines in the files.

    Notes
    -----
    A task knows lines of its block only. What it reports of the blocks before tells the rest, so no byte is read but
    those of the headers.
    """
    rows: list[BadRow] = []
    n_before: dict[str, int] = {}
    for group, report in zip(groups, reports, strict=True):
        for block, n_lines, bad in zip(group, report.n_lines, _by_block(group, report.bad), strict=True):
            name = block.source.name
            if name not in n_before:
                n_before[name] = lines_before(block.source, block.start)
            rows += [replace(row, line=row.line + n_before[name]) for row in bad]
            n_before[name] += n_lines
    return rows


def _by_block(group: Group, rows: Sequence[BadRow]) -> Iterator[Sequence[BadRow]]:
    """The bad rows of each block; they are in the order of the blocks."""
    first = 0
    for block in group:
        last = first
        while last < len(rows) and rows[last].source == block.source.name and rows[last].byte < block.stop:
            last += 1
        yield rows[first:last]
        first = last


class BadRowLimit:
    """Counts bad rows as blocks are parsed, and ends that as soon as there are too many.

    Parameters
    ----------
    most
        Most of them: a number of rows where it is an int, else a share of all rows. A bad row counts as often as it has
        lines: behind a quote that is not closed there may be many rows.
    groups
        What is parsed, one task each.
    spec
        What the columns mean.
    quotes_counted
        Whether the quotes before each block are known, so that its borders are right.

    Notes
    -----
    A share is one of all rows, and those that were not read yet may all be good. So it ends early only when that is
    certain: when there are too many even if the rest holds as many rows as fit into its bytes.
    """

    def __init__(self, most: float | int, groups: Sequence[Group], spec: TableSpec, quotes_counted: bool) -> None:
        self._most, self._groups, self._quotes_counted = most, groups, quotes_counted
        self._n_series = max(len(spec.series), 1)
        blocks = [block for group in groups for block in group]
        self._bytes_left = sum(map(_n_bytes, groups))
        # Of a good row: a digit or letter in id and time, and what stands between columns and behind the last one.
        n_columns = min((len(block.source.header) for block in blocks), default=1)
        self._row_bytes = n_columns + len(spec.time.columns) + (spec.id is not None)
        self._n_files = len({block.source.name for block in blocks})  # whose last rows may end without a line break
        self._n_rows = self._n_bad = self._n_records = 0  # of bad rows, lines and records
        self._first: tuple[int, BadRow] | None = None
        self._last: dict[str, Block] = {}  # per file, of those that have bad rows

    def count(self, number: int, report: BlockReport) -> None:
        """Take in what one task reports.

        Parameters
        ----------
        number
            Of its group.
        report
            What it has read.

        Raises
        ------
        SourceError
            If there are too many bad rows by now, whatever the other tasks report; with the first that is known.
        UncountedQuotesError
            If there may be too many, but blocks have been cut in the middle of records.
        """
        n_bad = sum(row.n_lines for row in report.bad)
        self._n_rows += report.spill.n_rows // self._n_series + n_bad
        self._n_bad += n_bad
        self._n_records += len(report.bad)
        self._bytes_left -= _n_bytes(self._groups[number])
        if report.bad and (self._first is None or number < self._first[0]):
            self._first = number, report.bad[0]
        for block, rows in zip(self._groups[number], _by_block(self._groups[number], report.bad), strict=True):
            if rows and (block.source.name not in self._last or self._last[block.source.name].start < block.start):
                self._last[block.source.name] = block
        if self._first is not None and self._n_bad > self._allowed():
            if not self._quotes_counted and any(has_quotes_before(b.source, b.start) for b in self._last.values()):
                raise UncountedQuotesError
            raise self._too_many(*self._first)

    def _allowed(self) -> float:
        if isinstance(self._most, int):
            return self._most
        n_more = (self._bytes_left + self._n_files) // self._row_bytes if self._bytes_left else 0
        return self._most * (self._n_rows + n_more)

    def _too_many(self, number: int, row: BadRow) -> SourceError:
        (block,) = (b for b in self._groups[number] if b.source.name == row.source and b.start <= row.byte < b.stop)
        line = lines_before(block.source, block.start) + row.line
        most = f"{self._most:,}" if isinstance(self._most, int) else f"{self._most:.3g} of all rows"
        what = "rows" if self._n_bad == self._n_records else "lines"
        so_far = " read so far" if self._bytes_left else ""
        return SourceError(
            f"{self._n_bad:,} of {self._n_rows:,} {what}{so_far} are bad, the first for this: {row.reason}",
            expected=f"at most {most}",
            where=f"{row.source} line {line:,}: {shorten(row.raw)!r}",
            fix="check how the files are read (header, delimiter, times), or allow more with --max-bad-rows",
        )


def _n_bytes(group: Group) -> int:
    return sum(block.stop - block.start for block in group)
