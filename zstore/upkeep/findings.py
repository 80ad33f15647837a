"""What the data doctor has to say: kinds of findings, each finding, and all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from zstore.reading.store import Store

KINDS = {
    "refused": "rows that were set aside by an ingest or append",
    "duplicate": "rows that were dropped by an ingest or append, because another row had the same id and time",
    "off_grid": "times between the time steps of the others",
    "gap": "time steps without a row",
    "clock_change": "an hour missing on a Sunday in spring, as in local times with daylight saving time",
    "sampling_change": "rows farther apart, or closer together, in a part of a series",
    "short": "a series without a stretch of --window rows that follow each other",
    "infinite": "infinite values, which no scaler takes",
    "empty": "a channel or field without any value in a series",
    "constant": "a channel or field with one value only in a series",
    "copy": "a series with the numbers, or the frames or scans, of another one",
    "absent": "rows without a value of a field that most rows have",
    "odd_file": "a file of another shape than most, with voxels of another size, or that cannot be read",
    "black": "rows of a field that are 0 throughout, such as black frames",
    "uniform": "rows of a field that are one number throughout",
    "repeated": "rows of a field with the value of the row before, such as a camera that hangs",
    "saturated": "rows of a field with many values at an end of their dtype, unlike the others",
    "missing_run": "a long stretch without values",
    "flat_line": "a long stretch of one value",
    "sentinel": "a number that may stand for a missing value; --missing reads it so",
    "outlier": "values far beyond all others",
    "drift": "another level or spread at the end than at the beginning",
}
"""What is looked for."""

SEVERITIES = {
    "high": ("refused", "infinite", "copy", "odd_file", "sentinel"),
    "medium": (
        "duplicate",
        "off_grid",
        "clock_change",
        "black",
        "uniform",
        "repeated",
        "saturated",
        "missing_run",
        "flat_line",
        "outlier",
        "drift",
    ),
    "low": ("gap", "sampling_change", "short", "empty", "constant", "absent"),
}
"""Kinds by how much they matter.

High: what is stored is not what was measured, or rows are missing that a source had. Medium: a fault of the measurement
is likely. Low: often so by design.
"""

SEVERITY = {kind: severity for severity, kinds in SEVERITIES.items() for kind in kinds}
"""Of each kind."""

OF_FIELDS = ("absent", "odd_file", "black", "uniform", "repeated", "saturated")
"""What is looked for in fields alone."""

OF_VALUES = ("black", "uniform", "saturated")
"""What of that needs their values."""

_WHEN = {"sentinel": "first at", "infinite": "first at", "gap": "until", "clock_change": "one at"}
_WHEN |= dict.fromkeys(("empty", "constant", "copy"), "")
_WHEN |= dict.fromkeys(("short",), "the longest from")


@dataclass(frozen=True)
class Finding:
    """One thing that looks wrong.

    Parameters
    ----------
    kind
        One of :data:`KINDS`.
    series
        Id of the series; empty for the store as a whole.
    channel
        The channel, vector or field; empty for the rows themselves.
    detail
        What it is.
    start, stop
        Rows of the store that it is about; equal where it is about none.
    when
        Time of the first of them.
    """

    kind: str
    series: str
    channel: str
    detail: str
    start: int = 0
    stop: int = 0
    when: str = ""

    def where(self, store: Store) -> str:
        """The series and channel for a person: a store of one series without an id names the channel alone."""
        series = self.series if store.schema.id_name or store.n_series > 1 else ""
        return " ".join(part for part in (series, self.channel) if part) or "the store"

    @property
    def sentence(self) -> str:
        """What it is and when, for a person; when is left out of what is about a whole series."""
        one_row = self.stop - self.start == 1
        where = _WHEN.get(self.kind, "at" if one_row else "from")
        if self.kind == "off_grid" and one_row:
            where = "first at"
        elif self.kind == "gap" and " gaps" in self.detail:
            where = "the longest until"
        elif one_row and self.kind in OF_FIELDS and not self.detail.startswith("1 "):
            where = "first at"
        elif self.detail.endswith(" together"):
            where = "these from"
        if not self.when or not where:
            return self.detail
        what, stop, why = self.detail.partition(";")
        return f"{what}, {where} {self.when}{stop}{why}"


@dataclass(frozen=True)
class Diagnosis:
    """All findings about one version of a store, those about most rows first within each kind.

    Parameters
    ----------
    store
        What was looked at.
    findings
        What was found.
    kinds
        What was looked for, some of :data:`KINDS`.
    """

    store: Store
    findings: tuple[Finding, ...]
    kinds: tuple[str, ...] = tuple(KINDS)

    @property
    def not_found(self) -> list[str]:
        """Kinds that were looked for, and not found."""
        return [kind for kind in self.kinds if kind not in self.counts]

    @property
    def severities(self) -> dict[str, str]:
        """The severity of each kind that was found, the most severe ones first."""
        order = list(SEVERITIES)
        return {kind: SEVERITY[kind] for kind in sorted(self.counts, key=lambda kind: order.index(SEVERITY[kind]))}

    @property
    def counts(self) -> dict[str, int]:
        """Findings of each kind there is, in the order of :data:`KINDS`."""
        found = Counter(finding.kind for finding in self.findings)
        return {kind: found[kind] for kind in KINDS if found[kind]}

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "store": self.store.path,
            "version": self.store.version,
            "counts": self.counts,
            "findings": [{**asdict(finding), "severity": SEVERITY[finding.kind]} for finding in self.findings],
        }


def of_series(store: Store, kind: str, position: int, channel: str, detail: str) -> Finding:
    """What is to be said of all rows of a series, by its position."""
    start, stop = store.index.row_start[position : position + 2].tolist()
    return finding(store, kind, position, channel, start, stop, detail)


def finding(store: Store, kind: str, position: int, channel: str, start: int, stop: int, detail: str) -> Finding:
    """What is to be said of some rows of a series, with the time of the first."""
    when = store.schema.time.show(_time_of(store, start))
    return Finding(kind, str(store.ids[position]), channel, detail, start, stop, when)


def _time_of(store: Store, row: int) -> int:
    """The time of a row: arithmetic on runs, or read where no rule holds."""
    runs, rule = store.index.runs, store.time.rule
    if not rule.regular:
        return int(store.times(row, row + 1)[0])
    run = int(np.searchsorted(runs.start, row, side="right")) - 1
    return int(rule.times(row - runs.start[run], runs.time[run]))


def of_vectors(store: Store, findings: Sequence[Finding]) -> list[Finding]:
    """Findings of which those that say the same of each channel of a vector are one, about the vector."""
    vector_of = {channel: name for name, channels in store.vectors.items() for channel in channels}
    same: dict[tuple[str, Finding], list[Finding]] = {}
    for each in findings:
        if each.channel in vector_of:
            same.setdefault((vector_of[each.channel], replace(each, channel="")), []).append(each)
    said: set[tuple[str, Finding]] = {key for key, own in same.items() if len(own) == len(store.vectors[key[0]])}
    kept = [each for each in findings if (vector_of.get(each.channel, ""), replace(each, channel="")) not in said]
    return kept + [replace(each, channel=name) for name, each in said]
