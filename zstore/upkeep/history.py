"""The versions of a store: which there are, going back to one, and removing those nobody needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from zstore.errors import UsageError
from zstore.reading.root import committed_versions, root_document
from zstore.reading.store import Store
from zstore.storage.urls import open_storage
from zstore.writing.committed import dropped_before, shards_of
from zstore.writing.spliced_index import unchanged
from zstore.writing.sweep import needed_keys, remove_others
from zstore.writing.target import building
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


def log(path: str | Path, storage_options: Mapping[str, str] | None = None) -> list[LogEntry]:
    """All versions that can be opened, the newest first."""
    store, found = open_storage(path, storage_options), []
    for version in reversed(committed_versions(store)):
        document = root_document(store, version).document
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


def rollback(path: str | Path, version: int, storage_options: Mapping[str, str] | None = None) -> Store:
    """Commit a new version that holds what `version` held. Versions in between stay until they are collected.

    Parameters
    ----------
    path
        Folder or URL of the store.
    version
        Version whose rows the new one has.
    storage_options
        For object storage, see :func:`zstore.open_store`.

    Raises
    ------
    NotFoundError
        If there is no such version.
    ConflictError
        If another process writes to the store.
    """
    store = open_storage(path, storage_options)
    Store(store, version)
    with building(store, "append") as site:
        root, old = site.root, Store(site.root, version)
        schema = replace(
            old.schema,
            version=site.version,
            committed=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        shards = shards_of(old)
        notes = {key: old.objects.document[key] for key in ("receipt", "table")}
        notes = {"action": "rollback", **notes, **dropped_before(old), "next_shard": site.first_shard}
        site.scratch.clear()
        site.begun.append("manifest")
        commit_version(root, schema, rows_of(root, schema), *unchanged(old), shards, old.ledger, notes)
    return Store(store)


def gc(path: str | Path, keep: int = 1, storage_options: Mapping[str, str] | None = None) -> tuple[int, int]:
    """Remove what only older versions need, and what no version needs.

    Parameters
    ----------
    path
        Folder or URL of the store.
    keep
        Newest versions to keep.
    storage_options
        For object storage, see :func:`zstore.open_store`.

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
        raise UsageError(f"keep {keep}", expected="one or more", fix="correct --keep")
    store = open_storage(path, storage_options)
    Store(store)
    with building(store, "append") as site:
        site.scratch.clear()
        return remove_others(site.root, needed_keys(site.root, committed_versions(site.root)[-keep:]))
