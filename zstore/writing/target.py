"""Where a version is built, and what it may replace."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
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
from zstore.format.portable import exchange
from zstore.format.storage import Storage
from zstore.reading.objects import ObjectReader, committed_versions
from zstore.writing.lock import leased, locked
from zstore.writing.quarantine import remove_quarantines, replaced_quarantine
from zstore.writing.sweep import is_finished, needed_keys, remove_others, tidy

logger = logging.getLogger(__name__)

Mode = Literal["new", "overwrite", "append"]


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
    _put_back(path)
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
            real = Path(os.path.realpath(path))  # a link to a store stays one
            with (
                replaced_quarantine(path, _beside(real, "new")),
                _replacing(real) as root,
                _marked(Folder(root, store.shared), scratch) as site,
            ):
                yield site
            return
        if not exists:
            remove_others(store, {MARKER}, SCRATCH)  # the marker goes last: it tells that the rest is ours
        try:
            with _marked(store, scratch, *(_behind(store) if exists else ())) as site:
                remove_quarantines(store, site.version)  # of runs that did not come to a commit, or of a store before
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
            remove_quarantines(held, site.version)
            yield site
            if mode == "overwrite":
                remove_others(held, needed_keys(held, [site.version]))
                remove_quarantines(held, 1, site.version - 1)
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
    """A folder beside the store that takes its place at the end, in one step where the system can.

    The new folder is locked as well, until all is done: when it has taken the place of the store, the next writer locks
    it, and must not find this one still at work.
    """
    root, aside = _beside(store, "new"), _beside(store, "old")
    for folder in (root, aside):
        if not _is_ours(folder):
            raise _stranger(Folder(folder))
    try:
        root.mkdir(exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot make {root} ({error.strerror})", fix="check the permissions around it") from error
    with locked(root):
        remove_others(Folder(root), {MARKER}, SCRATCH)  # of a writer that died
        try:
            yield root
            (root / MARKER).unlink()
            _discard(aside)  # of a writer that died when the store was in its place again
            try:
                exchange(root, store, aside)
            except OSError as error:
                raise StoreError(
                    f"cannot replace {store} ({error.strerror})",
                    expected="a store that no process has open, where the system needs that",
                    fix="end what reads the store, check the permissions of the folder around it, and run again",
                ) from error
        finally:
            _discard(root)


def _is_ours(folder: Path) -> bool:
    """Whether there is nothing, or a folder that a writer made beside a store."""
    if folder.is_symlink() or not folder.is_dir():
        return not folder.is_symlink() and not folder.exists()
    return not any(folder.iterdir()) or (folder / MARKER).exists() or is_store(Folder(folder))


def _discard(folder: Path) -> None:
    """Remove a folder that a writer made beside a store; its mark goes last, and tells that what is left is ours."""
    if not folder.exists():
        return
    try:
        Folder(folder).write(MARKER, b"")
        for path in folder.iterdir():
            if path.name != MARKER:
                remove_tree(path)
        remove_tree(folder)
    except (OSError, StoreError) as error:
        logger.warning("%s stays, which nothing needs (%s); the next --overwrite removes it", folder, error)


def _put_back(store: Path) -> None:
    """Put a store back that a writer took away to replace it, and died; only where two folders cannot be exchanged."""
    aside = _beside(store, "old")
    if store.exists() or not (aside / ROOT).exists():
        return
    with locked(aside):  # else that writer lives
        if not store.exists():
            os.rename(aside, store)


def _beside(store: Path, suffix: str) -> Path:
    return store.with_name(f".{store.name}.{suffix}")
