"""What a look at a file has found."""

from __future__ import annotations

from dataclasses import dataclass

from zstore.inspection.column import ColumnLook
from zstore.inspection.roles import Layout

_SHOWN = 40  # columns
_WIDEST = 40  # characters of names that are written below each other


@dataclass(frozen=True)
class Inspection:
    """What the first rows of a file say.

    Parameters
    ----------
    path
        The file.
    encoding
        Of its text.
    n_lines
        Lines that were looked at.
    skip_lines, comment, header, units, n_below
        Lines above the header; what comments begin with; whether there is a header; units of columns; further lines
        below that are no rows.
    delimiter
        Between fields.
    layout
        ``long``, ``wide`` or ``series`` (a row per series).
    columns
        In the order of the file.
    ids, times
        Columns that may hold ids and times, the likeliest first.
    step
        The time step rule of the sample, if it could be ingested.
    command
        What would ingest the file.
    questions
        What only a person can say; the command is a guess as long as there are some.
    """

    path: str
    encoding: str
    n_lines: int
    skip_lines: int
    comment: str | None
    header: bool
    units: tuple[str, ...]
    n_below: int
    delimiter: str
    layout: Layout
    columns: tuple[ColumnLook, ...]
    ids: tuple[str, ...]
    times: tuple[str, ...]
    step: str
    command: str
    questions: tuple[str, ...]

    def __str__(self) -> str:
        below = ", units" * bool(self.units) + f", {self.n_below} further lines" * bool(self.n_below)
        skipped = f"{self.skip_lines} line{'s' * (self.skip_lines != 1)} to skip"
        lines = [
            f"{self.path}: {self.encoding}, {self.layout}, {len(self.columns)} columns, {self.n_lines:,} lines read",
            f"  above: {skipped}, comments {self.comment or 'none'}, "
            + ("a header" if self.header else "no header")
            + below,
            f"  delimiter {self.delimiter!r}; ids {', '.join(self.ids) or 'none'}; "
            f"times {', '.join(self.times) or 'none'}" + (f"; step {self.step}" if self.step else ""),
        ]
        width = min(max([20, *(len(column.name) for column in self.columns[:_SHOWN])]), _WIDEST)
        for column in self.columns[:_SHOWN]:
            odd = f"; odd: {', '.join(column.odd)}" if column.odd else ""
            lines.append(f"  {column.name:<{width}} {column.kind:<6} {', '.join(column.examples)}{odd}")
        if len(self.columns) > _SHOWN:
            lines.append(f"  … and {len(self.columns) - _SHOWN} more columns")
        lines += [f"ask: {question}" for question in self.questions]
        return "\n".join([*lines, self.command])
