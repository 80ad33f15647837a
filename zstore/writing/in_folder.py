"""A version built in a folder: under a lock, in place, or beside a store that it is to replace."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zstore.errors import LostClusterError, LostSourceError, StoreError
from zstore.format.commit import is_store
from zstore.format.layout import MARKER, ROOT, SCRATCH
from zstore.reading.root import committed_versions
from zstore.storage.beneath import remove_tree
from zstore.storage.folder import Folder
from zstore.storage.portable import exchange
from zstore.storage.protocol import Storage
from zstore.writing.lock import locked
from zstore.writing.object_notes import noted_keys
from zstore.writing.quarantine import remove_quarantines, replaced_quarantine
from zstore.writing.site import Mode, Site, behind, no_store, store_exists, stranger
from zstore.writing.sweep import is_finished, needed_keys, remove_others, tidy

logger = logging.getLogger(__name__)


@contextmanager
def in_folder(store: Folder, mode: Mode, scratch: Storage | None, shared: bool, go_on: bool = False) -> Iterator[Site]:
    """As :func:`zstore.writing.target.building`, in a folder."""
    store = Folder(store.path.absolute(), shared=True) if shared else store
    path = store.path
    _put_back(path)
    if mode == "append" and not (path / ROOT).exists():
        raise no_store(store)
    if path.exists() and not path.is_dir():
        raise stranger(store)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot make {store} ({error.strerror})", fix="check the path and its permissions") from error
    with locked(path):
        exists, died = (path / ROOT).exists(), (path / MARKER).exists()
        if any(path.iterdir()) and not exists and not died:
            raise stranger(store)
        if exists and mode == "overwrite" and not is_store(store):
            raise stranger(store)
        kept = noted_keys(scratch or store.at(SCRATCH)) if go_on else set()
        if exists and mode != "overwrite" and (died or not is_finished(store)):
            tidy(store, kept)
        if exists and mode != "append":  # appending may go on from what a dead append has left
            store.at(SCRATCH).clear()
        if exists and mode == "new":
            (path / MARKER).unlink(missing_ok=True)
            raise store_exists(store)
        if exists and mode == "overwrite":
            real = Path(os.path.realpath(path))  # a link to a store stays one
            with (
                replaced_quarantine(path, _beside(real, "new")),
                _replacing(real, scratch, go_on) as root,
                _marked(Folder(root, store.shared), scratch) as site,
            ):
                yield site
            return
        if not exists:
            remove_others(store, {MARKER, *kept}, SCRATCH)  # the marker goes last: it tells that the rest is ours
        made: Site | None = None
        try:
            with _marked(store, scratch, *(behind(store) if exists else ())) as made:
                remove_quarantines(store, made.version)  # of runs that did not come to a commit, or of a store before
                yield made
        except (LostClusterError, LostSourceError):  # left as by a run that was killed: the next one goes on
            raise
        except BaseException:
            committed = is_store(store)  # it may have come to that before it failed
            if not committed or kept or made is None or made.begun:
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
        place.make()
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"cannot write in {root} ({error.strerror})", fix="check its permissions") from error
    try:
        yield Site(root, place, version, first_shard)
    except (LostClusterError, LostSourceError):
        raise
    except BaseException:
        place.clear()
        raise
    place.clear()


@contextmanager
def _replacing(store: Path, scratch: Storage | None, go_on: bool) -> Iterator[Path]:
    """A folder beside the store that takes its place at the end, in one step where the system can.

    The new folder is locked as well, until all is done: when it has taken the place of the store, the next writer locks
    it, and must not find this one still at work.
    """
    root, aside = _beside(store, "new"), _beside(store, "old")
    for folder in (root, aside):
        if not _is_ours(folder):
            raise stranger(Folder(folder))
    try:
        root.mkdir(exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot make {root} ({error.strerror})", fix="check the permissions around it") from error
    with locked(root):
        kept = noted_keys(scratch or Folder(root).at(SCRATCH)) if go_on else set()
        remove_others(Folder(root), {MARKER, *kept}, SCRATCH)  # of a writer that died
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
        except (LostClusterError, LostSourceError):
            raise
        except BaseException:
            _discard(root)
            raise
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
