"""The store that a run reads; where files of a table are named instead, a store of them in the cache, made once."""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zstore
from zstore import Store, UsageError, file_lock, open_store, read_yaml

logger = logging.getLogger(__name__)


def names_files(source: str) -> bool:
    """Whether a path, glob or URL is of files of rows, not of a store.

    What reads files is imported only where the name does not say that it is a store: a fit seldom needs it.
    """
    if source.endswith(".zarr") and "://" not in source:
        return False
    return zstore.is_source(source)


def open_or_ingest(
    store: str,
    options: Mapping[str, Any] | str | None,
    cache: Path,
    storage_options: Mapping[str, str] | None,
    version: int | None = None,
) -> Store:
    """Open a store; or the store of files of rows, ingested into the cache unless it was before.

    Parameters
    ----------
    store
        Folder or URL of a store; or the path of a file such as CSV or Parquet, or a glob of several.
    options
        Arguments of :func:`zstore.ingest` for such files, or the path of a YAML file of them.
    cache
        Folder whose `stores` holds what was ingested.
    storage_options
        Of a store, or of files, in object storage.
    version
        Version of the store to open, from 1; None for the newest.

    Raises
    ------
    UsageError
        If the options are not those of an ingest, or a version of a file is asked for.
    NotFoundError
        If the store has no such version.
    SourceError, StoreError
        As :func:`zstore.ingest` and :func:`zstore.open_store` do.

    Notes
    -----
    Files are the same if their sizes and times of change are, or else their bytes; in a bucket, if their ETags are.
    Where one has changed, came or went, all are ingested anew, in the place of what was there. Of several processes
    that start at once, one ingests.
    """
    require_openable(store, options, version)
    if not names_files(store):
        return open_store(store, version, storage_options)
    wanted = _options(options)
    source = store if "://" in store else os.path.abspath(store)
    key = hashlib.sha256(json.dumps([source, wanted], sort_keys=True).encode()).hexdigest()[:16]
    folder = cache / "stores"
    folder.mkdir(parents=True, exist_ok=True)
    target, note = folder / f"{key}.zarr", folder / f"{key}.json"
    with file_lock(folder / f"{key}.lock"):
        wanted.setdefault("storage_options", storage_options)
        files = [store, *([str(wanted["static"])] if wanted.get("static") else [])]
        before = json.loads(note.read_text()) if note.exists() and target.exists() else None
        now = zstore.source_states(files, before, wanted["storage_options"])
        if before is None or _digests(before) != _digests(now):
            changed = [name for name in now if before and before.get(name, {}).get("digest") != now[name]["digest"]]
            why = f"{', '.join(changed) or 'the list of files'} changed" if before else "not ingested yet"
            logger.info(f"{store}: {why}; ingesting it into {target}")
            note.unlink(missing_ok=True)
            zstore.ingest(store, target, overwrite=target.exists(), **wanted)
        if before != now:
            temporary = note.with_suffix(".partial")
            temporary.write_text(json.dumps(now, indent=1))
            os.replace(temporary, note)
    return open_store(target)


def require_openable(store: str, options: Mapping[str, Any] | str | None, version: int | None) -> None:
    """Raise UsageError if :func:`open_or_ingest` cannot be meant so; nothing is opened but a file of options."""
    if not names_files(store):
        if options:
            raise UsageError(
                f"--data.ingest for {store}",
                expected="files of rows, such as CSV or Parquet, since a store is ingested already",
                fix="drop it, or name the file",
            )
    elif version is not None:
        raise UsageError(
            f"--data.version {version} of {store}",
            expected="a store, since a file has no versions",
            fix="drop it, or name a store",
        )
    else:
        _options(options)


def _options(options: Mapping[str, Any] | str | None) -> dict[str, Any]:
    known = set(inspect.signature(zstore.ingest).parameters) - {"sources", "store", "overwrite", "progress"}
    found = read_yaml(options, "--data.ingest") if isinstance(options, str) else dict(options or {})
    for name in found:
        if name not in known:
            raise UsageError(
                f"--data.ingest with {name!r}", expected=f"some of {', '.join(sorted(known))}", fix="correct it"
            )
    return found


def _digests(state: Mapping[str, Any]) -> dict[str, str]:
    return {name: file["digest"] for name, file in state.items()}
