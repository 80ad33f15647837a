"""What a viewer looks at: one version of a store, until a person asks for a newer one; and the doctor beside it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zstore.errors import ZstoreError
from zstore.reading.objects import committed_versions
from zstore.reading.store import Store, open_store
from zstore.upkeep.doctor import examine
from zstore.upkeep.findings import KINDS
from zstore.upkeep.history import log
from zstore.view.numbers import seconds_of
from zstore.view.overview import overview, versions
from zstore.view.table import SeriesTable

MOST_FINDINGS = 5_000
"""Findings that a page is given."""


@dataclass
class Opened:
    """One version of a store, with what is kept of it."""

    store: Store
    table: SeriesTable
    overview: dict[str, Any] = field(default_factory=dict)


class Session:
    """A store that is looked at.

    Parameters
    ----------
    path
        Folder or URL of the store.
    version
        To look at. Default: the newest, now.
    storage_options
        For object storage, see :func:`zstore.open_store`.

    Raises
    ------
    StoreError
        If there is no store.
    """

    def __init__(self, path: str, version: int | None = None, storage_options: Mapping[str, str] | None = None) -> None:
        self.path, self._options = path, storage_options
        self._lock = threading.Lock()
        self._opened = self._open(version)
        self._doctor: _Doctor | None = None

    @property
    def opened(self) -> Opened:
        """What is looked at now."""
        return self._opened

    def _open(self, version: int | None) -> Opened:
        store = open_store(self.path, version, self._options)
        return Opened(store, SeriesTable(store), overview(store))

    def reopen(self, version: int | None = None) -> Opened:
        """Look at another version: the newest, or one by its number."""
        opened = self._open(version)
        with self._lock:
            self._opened, self._doctor = opened, None
        return opened

    def state(self) -> dict[str, Any]:
        """The version that is looked at, and the newest one, None if the store is gone."""
        store = self._opened.store
        try:
            found = committed_versions(store.storage)
        except (ZstoreError, OSError):
            found = []
        return {
            "version": store.version,
            "newest": max(found, default=None),
            "is_kept": store.version in found,
        }

    def versions(self) -> list[dict[str, Any]]:
        """What each version brought, the newest first."""
        return versions(log(self.path, self._options))

    def examine(self, begin: bool) -> dict[str, Any]:
        """How far the doctor is, and what was found; it is called if `begin`, and was not before."""
        with self._lock:
            if self._doctor is None and begin:
                self._doctor = _Doctor(self._opened.store, self._options)
            doctor = self._doctor
        return {"is_running": False, "is_done": False} if doctor is None else doctor.state()


class _Doctor:
    """A diagnosis in a thread of its own."""

    def __init__(self, store: Store, options: Mapping[str, str] | None) -> None:
        self._store, self._options = store, options
        self._done, self._total = 0, 0
        self._error = ""
        self._findings: list[dict[str, Any]] | None = None
        self._counts: dict[str, int] = {}
        threading.Thread(target=self._run, name="doctor", daemon=True).start()

    def _run(self) -> None:
        try:
            found = examine(self._store, self._told, self._options)
        except (ZstoreError, OSError, MemoryError) as error:
            self._error = str(error)
            return
        index, store = self._store.index, self._store
        findings = []
        for each in found.findings[:MOST_FINDINGS]:
            first, last = each.start, max(each.stop - 1, each.start)
            spans = each.series and each.stop > each.start and last < index.row_start[-1]
            findings.append(
                {
                    "kind": each.kind,
                    "series": each.series,
                    "channel": each.channel,
                    "where": each.where(store),
                    "sentence": each.sentence,
                    "span": [self._when(first), self._when(last)] if spans else None,
                }
            )
        self._counts = dict(found.counts)
        self._findings = findings

    def _when(self, row: int) -> float:
        """Time of a row in seconds."""
        return seconds_of(int(self._store.times(row, row + 1)[0]), self._store.time)

    def _told(self, done: int, total: int) -> None:
        self._done, self._total = done, total

    def state(self) -> dict[str, Any]:
        findings = self._findings
        return {
            "is_running": findings is None and not self._error,
            "is_done": findings is not None,
            "done": self._done,
            "total": self._total,
            "error": self._error,
            "counts": self._counts,
            "kinds": KINDS,
            "findings": findings or [],
        }
