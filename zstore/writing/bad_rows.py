"""Rows set aside: the most that there may be."""

from __future__ import annotations

from collections.abc import Sequence

from zstore.errors import SourceError
from zstore.writing.blocks import BlockReport
from zstore.writing.sources.cells import shorten
from zstore.writing.sources.protocol import Block, Source
from zstore.writing.sources.table import BadRow, TableSpec

Group = tuple[Block, ...]
"""Blocks that one task parses."""


class BadRowLimit:
    """Counts bad rows as blocks are parsed, and ends that as soon as there are too many.

    Parameters
    ----------
    most
        Most of them: a number of rows where it is an int, else a share of all rows. A bad row counts as often as it has
        lines: behind a quote that is not closed there may be many rows.
    groups
        What is parsed, one task each.
    source, spec
        What reads them, and what their columns mean.

    Notes
    -----
    A share is one of all rows, and those that were not read yet may all be good. So it ends early only when that is
    certain: when there are too many even if the rest holds as many rows as fit into its bytes.
    """

    def __init__(self, most: float | int, groups: Sequence[Group], source: Source, spec: TableSpec) -> None:
        self._most, self._groups, self._source, self._spec = most, groups, source, spec
        self._n_series = max(len(spec.series), 1)
        self._left = dict.fromkeys(range(len(groups)))
        self._n_rows = self._n_bad = self._n_records = 0  # of bad rows, with those they may have swallowed and without
        self._first: tuple[int, BadRow] | None = None
        self._last: dict[str, tuple[int, Block]] = {}  # per file, of those that have bad rows

    def count(self, number: int, reports: Sequence[BlockReport]) -> None:
        """Take in what one task reports.

        Parameters
        ----------
        number
            Of its group.
        reports
            What it has read.

        Raises
        ------
        SourceError
            If there are too many bad rows by now, whatever the other tasks report; with the first that is known.
        RecutError
            If there may be too many, but blocks have been cut in the middle of records.
        """
        bad = [row for report in reports for row in report.bad]
        n_bad = sum(row.n_lost for row in bad)
        n_left_out = sum(len(report.left_out) for report in reports)
        self._n_rows += sum(report.spill.n_rows for report in reports) // self._n_series + n_bad + n_left_out
        self._n_bad += n_bad
        self._n_records += sum(row.n_rows for row in bad)
        del self._left[number]
        if bad and (self._first is None or number < self._first[0]):
            self._first = number, bad[0]
        for name in {row.source for row in bad}:
            if name not in self._last or self._last[name][0] < number:
                self._last[name] = number, next(block for block in self._groups[number] if block.name == name)
        if self._first is not None and self._is_too_many():
            self._source.doubt([block for _, block in self._last.values()])
            raise self._too_many(*self._first)

    def check(self, bad: Sequence[BadRow]) -> None:
        """Refuse too many bad rows, once all have been counted, those included whose payloads are bad.

        Raises
        ------
        SourceError
            With the first of them.
        """
        self._n_bad = sum(row.n_lost for row in bad)
        self._n_records = sum(row.n_rows for row in bad)
        if self._is_too_many():
            fix = "check the files that columns name, and --file-root, or allow more with --max-bad-rows"
            raise self._error(bad[0], fix)

    def _is_too_many(self) -> bool:
        if isinstance(self._most, int):
            return self._n_bad > self._most
        if self._n_bad <= self._most * self._n_rows:
            return False
        left = [block for number in self._left for block in self._groups[number]]
        return self._n_bad > self._most * (self._n_rows + self._source.most_rows(left, self._spec))

    def _too_many(self, number: int, row: BadRow) -> SourceError:
        row = self._source.placed_alone(row, self._groups[number])
        fix = "check how the files are read (header, delimiter, times), or allow more with --max-bad-rows"
        return self._error(row, fix)

    def _error(self, row: BadRow, fix: str) -> SourceError:
        most = f"{self._most:,}" if isinstance(self._most, int) else f"{self._most:.3g} of all rows"
        what = "rows" if self._n_bad == self._n_records else "lines"
        so_far = " read so far" if self._left else ""
        return SourceError(
            f"{self._n_bad:,} of {self._n_rows:,} {what}{so_far} are bad, the first for this: {row.reason}",
            expected=f"at most {most}",
            where=f"{row.source} {row.place}: {shorten(row.raw)!r}",
            fix=fix,
        )
