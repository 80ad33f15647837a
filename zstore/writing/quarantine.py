"""Rows set aside: a file beside the store for each version that has any, and none that tells of other rows."""

from __future__ import annotations

import csv
import io
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, fields
from pathlib import Path

from zstore.storage.folder import Folder
from zstore.storage.protocol import Storage
from zstore.writing.sources.table import BadRow

_HEADER = re.compile(rb"file,[a-z_]+(,[a-z_]+)*,reason,row")
_LONGEST_HEADER = 100
_NAME = re.compile(r"\.quarantine(?:-([0-9]+))?\.csv")


def set_aside(root: Storage, store: Storage, bad: Sequence[BadRow], version: int) -> str | None:
    """Write bad rows to ``STORE.quarantine.csv``, with file, place, reason and the row itself.

    Those of an append go to ``STORE.quarantine-<version>.csv``, so that none take the place of earlier ones.

    Parameters
    ----------
    root
        Where the version is built: the store, or a folder that is to take its place, beside which the file lies till
        then.
    store
        The store as the user names it.
    bad
        The rows.
    version
        The version that they are missing in.

    Returns
    -------
    Where they are once the version is committed; None if there are none.
    """
    if not bad:
        return None
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    numbers = [field.name for field in fields(bad[0].place)]
    writer.writerow(["file", *numbers, "reason", "row"])
    writer.writerows([row.source, *astuple(row.place), row.reason, row.raw] for row in bad)
    place, key = root.beside(_suffix(version))
    place.replace(key, text.getvalue().encode())
    place, key = store.beside(_suffix(version))
    return place.locate(key)


def remove_quarantines(store: Storage, first: int = 1, last: int | None = None) -> None:
    """Remove the files of rows that were set aside for some versions, which are gone or were never committed.

    Parameters
    ----------
    store
        The store.
    first, last
        The versions; None for all from `first` on, or, in a bucket, which is not listed for this, for `first` alone.
    """
    suffixes = store.suffixes(".quarantine")
    if suffixes is None:
        store.remove_beside(map(_suffix, range(first, (last or first) + 1)))
        return
    store.remove_torn(_suffix(first))
    for suffix in suffixes:
        match = _NAME.fullmatch(suffix)
        version = int(match[1] or 1) if match else 0
        if first <= version and (last is None or version <= last) and _is_ours(*store.beside(suffix)):
            store.remove_beside([suffix])


@contextmanager
def replaced_quarantine(store: Path, root: Path) -> Iterator[None]:
    """Let the rows that are set aside with `root` take the place of those of `store` when that is replaced by it."""
    pending, final = (path.with_name(f"{path.name}{_suffix(1)}") for path in (root, store))
    pending.unlink(missing_ok=True)  # of a writer that died
    Folder(root).remove_torn(_suffix(1))
    try:
        yield
        remove_quarantines(Folder(store))
        if pending.exists():
            shutil.move(pending, final)
    finally:
        pending.unlink(missing_ok=True)


def _suffix(version: int) -> str:
    return f".quarantine{'' if version == 1 else f'-{version}'}.csv"


def _is_ours(place: Storage, key: str) -> bool:
    """Whether a file has the header of rows that were set aside."""
    lines = place.read(key, 0, _LONGEST_HEADER).splitlines()
    return bool(lines) and _HEADER.fullmatch(lines[0]) is not None
