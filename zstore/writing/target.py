"""Where a version is built, what it may replace, and where bad rows are set aside."""

from __future__ import annotations

import csv
import ctypes
import io
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from zstore.errors import StoreError, UsageError
from zstore.format.beneath import remove_tree
from zstore.format.commit import conflict, is_committed, is_store, is_unfinished
from zstore.format.folder import Folder
from zstore.format.layout import MARKER, ROOT, SCRATCH
from zstore.format.manifest import digest
from zstore.format.storage import Storage
from zstore.reading.objects import ObjectReader, committed_versions
from zstore.writing.lock import leased, locked
from zstore.writing.sources.table import BadRow
from zstore.writing.sweep import is_finished, needed_keys, remove_others, tidy

logger = logging.getLogger(__name__)

Mode = Literal["new", "overwrite", "append"]

_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux


@dataclass(frozen=True)
class Site:
    """A place to build a version on.

    Parameters
    ----------
    root
        Where its objects go.
    scratch
        Where what is needed meanwhile goes.
    version
        Its number.
    first_shard
        The lowest shard from which on all are free.
    """

    root: Storage
    scratch: Storage
    version: int = 1
    first_shard: int = 0


@contextmanager
def building(store: Storage, mode: Mode, scratch: Storage | None = None, shared: bool = False) -> Iterator[Site]:
    """A place to build a version on, which no other writer has.

    What a dead writer left is removed first, its scratch space excepted; what this one leaves, if it fails, afterwards.

    Parameters
    ----------
    store
        Where the store is or is to be.
    mode
        Whether there must be none (``new``), it is replaced (``overwrite``), or there must be one (``append``).
    scratch
        Where to keep what is needed meanwhile; None for a folder in the store, or, for a bucket, a temporary one.
    shared
        Whether other machines write as well.

    Raises
    ------
    StoreError
        If there is something else, or cannot be anything.
    ConflictError
        If another process writes to the store.
    """
    place = None if scratch is None else scratch.at(f"zstore-{digest(str(store).encode())}")
    if isinstance(store, Folder):
        folder = Folder(store.path.absolute(), shared=True) if shared else store
        with _in_folder(folder, mode, place) as site:
            yield site
    else:
        with _in_bucket(store, mode, place, shared) as site:
            yield site


@contextmanager
def _in_folder(store: Folder, mode: Mode, scratch: Storage | None) -> Iterator[Site]:
    path = store.path
    if mode == "append" and not (path / ROOT).exists():
        raise _no_store(store)
    if path.exists() and not path.is_dir():
        raise _stranger(store)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot make {store} ({error.strerror})", fix="check the path and its permissions") from error
    with locked(path):
        exists, died = (path / ROOT).exists(), (path / MARKER).exists()
        if any(path.iterdir()) and not exists and not died:
            raise _stranger(store)
        if exists and mode == "overwrite" and not is_store(store):
            raise _stranger(store)
        if exists and mode != "overwrite" and (died or not is_finished(store)):
            tidy(store)
        if exists and mode != "append":  # appending may go on from what a dead append has left
            store.at(SCRATCH).clear()
        if exists and mode == "new":
            (path / MARKER).unlink(missing_ok=True)
            raise _is_there(store)
        if exists and mode == "overwrite":
            with _replacing(path) as root, _marked(Folder(root, store.shared), scratch) as site:
                yield site
            return
        if not exists:
            remove_others(store, {MARKER}, SCRATCH)  # the marker goes last: it tells that the rest is ours
        try:
            with _marked(store, scratch, *(_behind(store) if exists else ())) as site:
                yield site
        except BaseException:
            committed = is_store(store)  # it may have come to that before it failed
            remove_others(store, needed_keys(store, committed_versions(store)) if committed else {MARKER})
            (path / MARKER).unlink(missing_ok=True)
            if not committed:
                path.rmdir()
            raise
        if is_finished(store):
            (path / MARKER).unlink()


@contextmanager
def _marked(root: Folder, scratch: Storage | None, version: int = 1, first_shard: int = 0) -> Iterator[Site]:
    place = scratch or root.at(SCRATCH)
    try:
        root.write(MARKER, b"")  # says that an unfinished folder is one of ours
        if isinstance(place, Folder):
            place.make()
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"cannot write in {root} ({error.strerror})", fix="check its permissions") from error
    try:
        yield Site(root, place, version, first_shard)
    finally:
        place.clear()


@contextmanager
def _in_bucket(store: Storage, mode: Mode, scratch: Storage | None, shared: bool) -> Iterator[Site]:
    from zstore.format.bucket import Bucket  # needs obstore

    if not isinstance(store, Bucket):
        raise TypeError(store)
    if store.url.count("/") < 3:
        raise UsageError(f"STORE {store}", expected="s3://BUCKET/PREFIX", fix="name a prefix for the store")
    content, _ = store.root() or (b"", "")
    exists = is_committed(content)
    if mode == "append" and not exists:
        raise _no_store(store)
    if exists and mode == "new":
        raise _is_there(store)
    if not exists and not is_unfinished(content) and store.sizes():
        raise _stranger(store) if content or store.root() is None else conflict(str(store))
    with leased(store) as (held, died), _temporary(held, scratch, shared) as place:
        if exists != is_committed((store.root() or (b"", ""))[0]):
            raise conflict(str(store))
        if not exists:
            remove_others(held, {ROOT, MARKER}, SCRATCH)
        elif died or not is_finished(held):
            tidy(held)
        try:
            site = Site(held, place, *(_behind(held) if exists else ()))
            yield site
            if mode == "overwrite":
                remove_others(held, needed_keys(held, [site.version]))
        except BaseException:
            held.check_held()  # what a later writer made is not touched
            committed = is_store(held)  # it may have come to that before it failed, or lost the answer that told so
            remove_others(held, needed_keys(held, committed_versions(held)) if committed else {ROOT, MARKER})
            raise


@contextmanager
def _temporary(held: Storage, scratch: Storage | None, shared: bool) -> Iterator[Storage]:
    """Scratch space for a store in a bucket: as told, else in the bucket where many machines need it, else here."""
    if scratch is None and not shared:
        with tempfile.TemporaryDirectory(prefix="zstore-") as folder:
            yield Folder(Path(folder))
        return
    place = scratch or held.at(SCRATCH)
    if isinstance(place, Folder):
        place.make()
    try:
        yield place
    finally:
        place.clear()


def _behind(store: Storage) -> tuple[int, int]:
    """Number of the next version, and the first shard that no version has objects of or behind."""
    document = ObjectReader(store).document
    return int(document["version"]) + 1, int(document["next_shard"])


def _no_store(store: Storage) -> StoreError:
    return StoreError(f"no store to append to ({store})", fix="leave out --append to make it")


def _is_there(store: Storage) -> StoreError:
    return StoreError(
        f"there is a store already ({store})",
        expected="a path where nothing is",
        fix="--append to add to it, --overwrite to replace it, or name another STORE",
    )


def _stranger(store: Storage) -> StoreError:
    return StoreError(
        f"something that is no store is in the way ({store})",
        expected="a path where nothing is",
        fix="name another STORE; zstore removes only what it made",
    )


@contextmanager
def _replacing(store: Path) -> Iterator[Path]:
    """A folder beside the store that takes its place at the end, in one step."""
    root = store.with_name(f".{store.name}.new")
    folder = Folder(root)
    if root.is_symlink() or (root.exists() and not _is_ours(root)):
        raise _stranger(folder)
    root.mkdir(exist_ok=True)
    remove_others(folder, {MARKER}, SCRATCH)  # of a writer that died
    try:
        yield root
        Folder(store).write(MARKER, b"")  # after the exchange it says that what lies aside is ours to remove
        (root / MARKER).unlink()
        _exchange(root, store)
    finally:
        try:
            remove_others(folder, {MARKER})
            remove_tree(root)
        except OSError as error:
            logger.warning(
                "%s stays, which is needed no more (%s); the next --overwrite removes it", root, error.strerror
            )


def _is_ours(folder: Path) -> bool:
    """Whether a folder has something that a writer of a store made, or nothing at all."""
    return folder.is_dir() and ((folder / MARKER).exists() or is_store(Folder(folder)) or not any(folder.iterdir()))


def _exchange(a: Path, b: Path) -> None:
    """Let two folders change places, atomically where the system can (Linux)."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None or rename(_HERE, os.fsencode(a), _HERE, os.fsencode(b), _EXCHANGE) != 0:
        aside = a.with_suffix(".old")
        os.rename(b, aside)
        os.rename(a, b)
        os.rename(aside, a)


def set_aside(store: Storage, bad: Sequence[BadRow], version: int) -> str | None:
    """Write bad rows to ``STORE.quarantine.csv``, with file, line, byte, reason and the row itself.

    Those of an append go to ``STORE.quarantine-<version>.csv``, so that none take the place of earlier ones.

    Returns
    -------
    Where they are; None if there are none.
    """
    if not bad:
        return None
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["file", "line", "byte", "reason", "row"])
    writer.writerows([row.source, row.line, row.byte, row.reason, row.raw] for row in bad)
    place, key = store.beside(f".quarantine{'' if version == 1 else f'-{version}'}.csv")
    place.replace(key, text.getvalue().encode())
    return str(place.path / key) if isinstance(place, Folder) else f"{place}/{key}"
