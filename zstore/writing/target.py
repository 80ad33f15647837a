"""Where an ingest builds, what it may replace, and where it sets bad rows aside."""

from __future__ import annotations

import csv
import ctypes
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from zstore.errors import StoreError
from zstore.format.layout import ROOT
from zstore.writing.lock import locked
from zstore.writing.sources.table import BadRow
from zstore.writing.sweep import remove_others, tidy

Mode = Literal["new", "overwrite", "append"]

_MARKER = ".ingest"
_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux


@contextmanager
def building(store: Path, mode: Mode) -> Iterator[tuple[Path, Path]]:
    """A folder to build a version in, and a scratch folder in it, under the store's lock.

    What a dead writer left is removed first; what this one leaves, if it fails, afterwards.

    Raises
    ------
    StoreError
        If there is something else, or cannot be anything.
    ConflictError
        If another process writes to the store.
    """
    if mode == "append" and not (store / ROOT).exists():
        raise StoreError(f"no store to append to ({store})", fix="leave out --append to make it")
    if store.exists() and not store.is_dir():
        raise _stranger(store)
    try:
        store.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot make {store} ({error.strerror})", fix="check the path and its permissions") from error
    with locked(store):
        if any(store.iterdir()) and not (store / ROOT).exists() and not (store / _MARKER).exists():
            raise _stranger(store)
        exists = (store / ROOT).exists()
        kept = tidy(store) if exists else set()
        if exists and mode == "new":
            raise StoreError(
                f"there is a store already ({store})",
                expected="a path where nothing is",
                fix="--append to add to it, --overwrite to replace it, or name another STORE",
            )
        if exists and mode == "overwrite":
            with _replacing(store) as root:
                yield root, _scratch(root)
            return
        if not exists:
            remove_others(store, {_MARKER})  # the marker goes last: it tells that the rest is ours
        try:
            yield store, _scratch(store)
        except BaseException:
            remove_others(store, {*kept, _MARKER})
            (store / _MARKER).unlink(missing_ok=True)
            if not exists:
                store.rmdir()
            raise
        (store / _MARKER).unlink()


def _scratch(root: Path) -> Path:
    try:
        (root / _MARKER).touch()  # says that an unfinished folder is one of ours
        scratch = root / f"{_MARKER}.scratch"
        scratch.mkdir()
    except OSError as error:
        raise StoreError(f"cannot write in {root} ({error.strerror})", fix="check its permissions") from error
    return scratch


def _stranger(store: Path) -> StoreError:
    return StoreError(
        f"something that is no store is in the way ({store})",
        expected="a path where nothing is",
        fix="name another STORE; zstore removes only what it made",
    )


@contextmanager
def _replacing(store: Path) -> Iterator[Path]:
    """A folder beside the store that takes its place at the end, in one step."""
    root = store.with_name(f".{store.name}.new")
    if root.exists():  # of a writer that died
        shutil.rmtree(root)
    root.mkdir()
    try:
        yield root
        (root / _MARKER).unlink()
        _exchange(root, store)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _exchange(a: Path, b: Path) -> None:
    """Let two folders change places, atomically where the system can (Linux)."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None or rename(_HERE, os.fsencode(a), _HERE, os.fsencode(b), _EXCHANGE) != 0:
        aside = a.with_suffix(".old")
        os.rename(b, aside)
        os.rename(a, b)
        os.rename(aside, a)


def set_aside(store: Path, bad: Sequence[BadRow], version: int) -> Path:
    """Write bad rows to ``STORE.quarantine.csv``, with file, line, byte, reason and the row itself.

    Those of an append go to ``STORE.quarantine-<version>.csv``, so that none take the place of earlier ones.
    """
    path = store.with_name(f"{store.name}.quarantine{'' if version == 1 else f'-{version}'}.csv")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "line", "byte", "reason", "row"])
        writer.writerows([row.source, row.line, row.byte, row.reason, row.raw] for row in bad)
    return path
