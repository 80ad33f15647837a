"""What a viewer looks at: one version of a store, until a person asks for a newer one; and the doctor beside it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from zstore.errors import NotFoundError, ZstoreError
from zstore.reading.root import committed_versions, root_document
from zstore.reading.store import Store, open_store
from zstore.upkeep.doctor import examine
from zstore.upkeep.findings import KINDS, Finding
from zstore.upkeep.history import log
from zstore.view.frames import LastValues
from zstore.view.numbers import Clock
from zstore.view.overview import overview, versions
from zstore.view.table import SeriesTable

logger = logging.getLogger(__name__)

MOST_FINDINGS = 5_000
"""Findings that a page is given."""


@dataclass
class Opened:
    """One version of a store, with what is kept of it; `number` counts how often one was opened, from 1."""

    store: Store
    table: SeriesTable
    values: LastValues
    number: int
    overview: dict[str, Any]


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
        self._lock, self._numbers = threading.Lock(), count(1)
        self._opened = self._open(version)
        self._doctor: _Doctor | None = None

    @property
    def opened(self) -> Opened:
        """What is looked at now."""
        return self._opened

    def _open(self, version: int | None) -> Opened:
        store, number = open_store(self.path, version, self._options), next(self._numbers)
        return Opened(store, SeriesTable(store), LastValues(), number, {**overview(store), "opening": number})

    def reopen(self, version: int | None = None) -> Opened:
        """Look at another version: the newest, or one by its number."""
        opened = self._open(version)
        with self._lock:
            if self._doctor is not None:
                self._doctor.stop()
            self._opened, self._doctor = opened, None
        return opened

    def state(self) -> dict[str, Any]:
        """The version that is looked at, and whether it is kept as it was; the newest one, None if the store is gone.

        `opening` says which opening of a version is looked at, and `is_same` whether the store was overwritten since.
        """
        opened = self._opened
        store, told = opened.store, {"version": opened.store.version, "opening": opened.number}
        try:
            root = root_document(store.storage)
            newest, is_same = root.version, root.document["uuid"] == store.schema.uuid
            is_kept = store.version in committed_versions(store.storage, newest) and self._has(store)
        except (ZstoreError, OSError):
            return {**told, "newest": None, "is_kept": False, "is_same": True}
        return {**told, "newest": newest, "is_kept": is_same and is_kept, "is_same": is_same}

    @staticmethod
    def _has(store: Store) -> bool:
        """Whether the version of that number is the one that was opened."""
        try:
            return bool(root_document(store.storage, store.version).document["digest"] == store.digest)
        except NotFoundError:
            return False

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


class _StoppedError(Exception):
    """Nobody waits for the diagnosis any more."""


class _Doctor:
    """A diagnosis in a thread of its own."""

    def __init__(self, store: Store, options: Mapping[str, str] | None) -> None:
        self._store, self._options, self._clock = store, options, Clock.of(store)
        self._done, self._total, self._is_stopped = 0, 0, False
        self._error = ""
        self._findings: list[dict[str, Any]] | None = None
        self._counts: dict[str, int] = {}
        threading.Thread(target=self._run, name="doctor", daemon=True).start()

    def _run(self) -> None:
        try:
            found = examine(self._store, self._told, self._options)
            findings = [self._placed(each) for each in found.findings[:MOST_FINDINGS]]
        except _StoppedError:
            return
        except (ZstoreError, OSError) as error:
            self._error = str(error)
            return
        except Exception as error:  # a page that waits for an answer is told, whatever it was
            logger.exception("the doctor")
            self._error = f"The doctor failed ({type(error).__name__}: {error}); the terminal has more."
            return
        self._counts = dict(found.counts)
        self._findings = findings

    def _placed(self, finding: Finding) -> dict[str, Any]:
        """A finding, with the seconds from its first to its last row where it has rows."""
        store = self._store
        first, last = finding.start, max(finding.stop - 1, finding.start)
        has_rows = finding.series and finding.stop > finding.start and last < store.index.row_start[-1]
        return {
            "kind": finding.kind,
            "series": finding.series,
            "channel": finding.channel,
            "where": finding.where(store),
            "sentence": finding.sentence,
            "span": [self._second(row) for row in (first, last)] if has_rows else None,
        }

    def _second(self, row: int) -> float:
        return self._clock.second(int(self._store.times(row, row + 1)[0]))

    def stop(self) -> None:
        """Read no more: another version is looked at."""
        self._is_stopped = True

    def _told(self, done: int, total: int) -> None:
        if self._is_stopped:
            raise _StoppedError
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
