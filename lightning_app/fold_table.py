"""The table of a backtest: metrics by fold, their mean, and what was published; and what folds noted in files."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zstore import StoreError


def read_noted(path: Path, names: Sequence[str]) -> dict[str, Any]:
    """Read what a backtest noted in a file of JSON, under some names at least.

    Raises
    ------
    StoreError
        If it is damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or not set(names) <= set(found):
            raise ValueError(f"no {' and '.join(names)}")
    except (OSError, ValueError) as error:
        raise StoreError(
            f"a file of a backtest that cannot be read ({error})",
            expected="one that a backtest wrote",
            where=str(path),
            fix="--overwrite to begin anew, or another --trainer.default_root_dir",
        ) from error
    return found


@dataclass(frozen=True)
class FoldTable:
    """Metrics by fold.

    Parameters
    ----------
    metrics
        Their names.
    folds
        (fold, origin, windows, values) of each fold.
    published
        By name of a metric, what was published.
    notes
        Which series were not scored.
    """

    metrics: list[str]
    folds: list[tuple[str, str, str, list[float]]]
    published: dict[str, float]
    notes: list[str]

    @property
    def rows(self) -> list[tuple[str, str, str, Sequence[float | None]]]:
        """Folds, their mean and standard deviation (ddof 1), and what was published."""
        columns = list(zip(*(values for *_, values in self.folds), strict=True))
        rows: list[tuple[str, str, str, Sequence[float | None]]] = [*self.folds]
        rows.append(("mean", "", "", [statistics.fmean(column) for column in columns]))
        if len(self.folds) > 1:
            rows.append(("sd", "", "", [statistics.stdev(column) for column in columns]))
        if self.published:
            rows.append(("published", "", "", [self.published.get(name) for name in self.metrics]))
        return rows

    def to_markdown(self) -> str:
        """A page."""
        lines = [["fold", "origin", "windows", *map(str.upper, self.metrics)], ["---"] * (3 + len(self.metrics))]
        lines += [[*about, *("" if each is None else f"{each:.4f}" for each in values)] for *about, values in self.rows]
        table = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
        return "\n".join(["# Backtest", "", table, *(f"- {note}" for note in self.notes)]).rstrip() + "\n"

    def write_csv(self, path: Path) -> None:
        """The same, in full precision."""
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["fold", "origin", "windows", *self.metrics])
            writer.writerows([*about, *values] for *about, values in self.rows)
