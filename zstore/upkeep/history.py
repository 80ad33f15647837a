"""The versions of a store: which there are, going back to one, and removing those nobody needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from zstore.errors import UsageError
from zstore.reading.objects import ObjectReader, committed_versions
from zstore.reading.store import Store, open_store
from zstore.writing.lock import locked
from zstore.writing.sweep import needed_keys, remove_others, tidy
from zstore.writing.version import commit_version, rows_of


@dataclass(frozen=True)
class LogEntry:
    """One version, as its root document describes it.

    Parameters
    ----------
    version
        Its number.
    committed
        When, in ISO form.
    action
        What made it: ``ingest``, ``append``, ``compact`` or ``rollback``.
    n_rows, n_series
        What it holds.
    receipt
        The receipt of the ingest or append whose rows came last.
    """

    version: int
    committed: str
    action: str
    n_rows: int
    n_series: int
    receipt: Mapping[str, Any]


def log(path: str | Path) -> list[LogEntry]:
    """All versions that can be opened, the newest first."""
    found = []
    for version in reversed(committed_versions(Path(path))):
        document = ObjectReader(Path(path), version).document
        found.append(
            LogEntry(
                version,
                document["committed"],
                document["action"],
                document["n_rows"],
                document["n_series"],
                document["receipt"],
            )
        )
    return found


def rollback(path: str | Path, version: int) -> Store:
    """Commit a new version that holds what `version` held. Versions in between stay until they are collected.

    Raises
    ------
    NotFoundError
        If there is no such version.
    ConflictError
        If another process writes to the store.
    """
    root = Path(path)
    open_store(root)
    with locked(root):
        old = open_store(root, version)
        tidy(root)
        schema = replace(
            old.schema,
            version=open_store(root).version + 1,
            committed=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        shards = [record for record in old.objects.records.values() if record.key.partition("/c/")[0] in _arrays(old)]
        notes = {key: old.objects.document[key] for key in ("receipt", "table")}
        notes["next_shard"] = open_store(root).objects.document["next_shard"]
        notes = {"action": "rollback", **notes}
        commit_version(root, schema, rows_of(root, schema), old.index, old.moments, shards, old.ledger, notes)
    return open_store(root)


def gc(path: str | Path, keep: int) -> tuple[int, int]:
    """Remove what only older versions need, and what no version needs.

    Parameters
    ----------
    path
        Folder of the store.
    keep
        Versions to keep, the newest ones.

    Returns
    -------
    Objects and bytes removed. Readers that have an older version open get errors from then on, never wrong rows.

    Raises
    ------
    UsageError
        If `keep` is less than one.
    ConflictError
        If another process writes to the store.
    """
    if keep < 1:
        raise UsageError(f"keep {keep}", expected="one or more", fix="mend --keep")
    root = Path(path)
    open_store(root)
    with locked(root):
        tidy(root)
        return remove_others(root, needed_keys(root, committed_versions(root)[-keep:]))


def _arrays(store: Store) -> set[str]:
    return {"time", *(channel.variable for channel in store.schema.channels)}
