"""Where an ingest builds, what it may replace, and where it sets bad rows aside."""

from __future__ import annotations

import csv
import logging
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from zstore.errors import StoreError
from zstore.format.layout import ROOT
from zstore.writing.sources.table import BadRow

logger = logging.getLogger(__name__)

_MARKER = ".ingest"


@contextmanager
def building(store: Path, overwrite: bool) -> Iterator[tuple[Path, Path]]:
    """A folder to build the store in, and a scratch folder in it; both gone again if building fails."""
    exists = (store / ROOT).exists()
    if exists and not overwrite:
        raise StoreError(
            f"there is a store already ({store})",
            expected="a path where nothing is",
            fix="--overwrite to replace it, or name another STORE",
        )
    abandoned = (store / _MARKER).exists()
    if not exists and not abandoned and store.exists() and (not store.is_dir() or any(store.iterdir())):
        raise StoreError(
            f"something that is no store is in the way ({store})",
            expected="a path where nothing is",
            fix="name another STORE; zstore removes only what it made",
        )
    if not exists and abandoned:
        logger.info("removing an interrupted ingest: %s", store)
        shutil.rmtree(store)
    root = store.with_name(f".{store.name}.{uuid.uuid4().hex}") if exists else store
    try:
        root.mkdir(parents=True, exist_ok=True)
        (root / _MARKER).touch()
        scratch = root / f"{_MARKER}.scratch"
        scratch.mkdir()
    except OSError as error:
        raise StoreError(f"cannot make {root} ({error.strerror})", fix="check the path and its permissions") from error
    try:
        yield root, scratch
    except BaseException:
        shutil.rmtree(root, ignore_errors=True)
        raise
    (root / _MARKER).unlink()
    if exists:
        old = root.with_suffix(".old")
        store.rename(old)
        root.rename(store)
        shutil.rmtree(old)


def set_aside(store: Path, bad: Sequence[BadRow]) -> Path:
    """Write bad rows to ``STORE.quarantine.csv``, with file, line, byte, reason and the row itself."""
    path = store.with_name(f"{store.name}.quarantine.csv")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "line", "byte", "reason", "row"])
        writer.writerows([row.source, row.line, row.byte, row.reason, row.raw] for row in bad)
    return path
