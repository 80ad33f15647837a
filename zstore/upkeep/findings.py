"""What the data doctor has to say: kinds of findings, each finding, and all of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from zstore.reading.store import Store

KINDS = {
    "refused": "rows that were set aside by an ingest or append",
    "duplicate": "rows that were dropped by an ingest or append, because another row had the same id and time",
    "off_grid": "times between the time steps of the others",
    "gap": "time steps without a row",
    "clock_change": "an hour missing on a Sunday in spring, as in local times with daylight saving time",
    "sampling_change": "rows farther apart, or closer together, in a part of a series",
    "infinite": "infinite values, which no scaler takes",
    "empty": "a channel without any value in a series",
    "constant": "a channel with one value only in a series",
    "copy": "a series with the same numbers as another one",
    "missing_run": "a long stretch without values",
    "flat_line": "a long stretch of one value",
    "sentinel": "a number that may stand for a missing value; --missing reads it so",
    "outlier": "values far beyond all others",
    "drift": "another level or spread at the end than at the beginning",
}
"""What is looked for."""

_WHEN = {"sentinel": "first at", "infinite": "first at", "gap": "until", "clock_change": "one at"}
_WHEN |= dict.fromkeys(("empty", "constant", "copy"), "")


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
        The channel; empty for the rows themselves.
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
    """

    store: Store
    findings: tuple[Finding, ...]

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
            "findings": [asdict(finding) for finding in self.findings],
        }


def of_series(store: Store, kind: str, position: int, channel: str, detail: str) -> Finding:
    """What is to be said of all rows of a series, by its position."""
    start, stop = store.index.row_start[position : position + 2].tolist()
    return finding(store, kind, position, channel, start, stop, detail)


def finding(store: Store, kind: str, position: int, channel: str, start: int, stop: int, detail: str) -> Finding:
    """What is to be said of some rows of a series, with the time of the first."""
    when = store.schema.time.show(int(store.times(start, start + 1)[0]))
    return Finding(kind, str(store.ids[position]), channel, detail, start, stop, when)
