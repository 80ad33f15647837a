"""Objects on disk, and the one atomic step that makes a version visible."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from zstore.errors import StoreError
from zstore.format.arrays import group_document, to_bytes
from zstore.format.layout import ROOT


def write_object(root: Path, key: str, content: bytes) -> None:
    """Write one object; not durable before :func:`commit` has flushed it.

    Raises
    ------
    StoreError
        Naming path and bytes, when the file system refuses.
    """
    path = root / key
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise StoreError(
            f"cannot write {len(content):,} bytes ({error.strerror})",
            where=str(path),
            fix="free some space or check the permissions, then run again",
        ) from error


def read_root(root: Path) -> bytes:
    """The committed root document.

    Raises
    ------
    StoreError
        If there is no committed store at `root`.
    """
    try:
        return (root / ROOT).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        there = "there is a folder, but nothing was ever committed in it" if root.is_dir() else "nothing is there"
        raise StoreError(
            f"no store ({root})",
            expected=f"a folder with a committed {ROOT}",
            where=there,
            fix="check the path, or make one with: zstore ingest SRC STORE --id COL --time COL",
        ) from None


def root_document(attributes: dict[str, Any], nodes: dict[str, dict[str, Any]]) -> bytes:
    """The root ``zarr.json`` with the metadata of every node of the version, so one object is one snapshot."""
    consolidated = {"kind": "inline", "must_understand": False, "metadata": dict(sorted(nodes.items()))}
    return to_bytes({**group_document(attributes), "consolidated_metadata": consolidated})


def commit(root: Path, keys: Iterable[str], document: bytes) -> None:
    """Flush every object of a version to disk, then replace the root document atomically.

    Readers see the version before or this one, never anything between; after a crash the same holds.
    """
    folders = {root}
    for key in keys:
        _fsync(root / key)
        folders.update(parent for parent in (root / key).parents if root in parent.parents)
    for folder in sorted(folders):
        _fsync(folder)
    temporary = root / f".{ROOT}.{uuid.uuid4().hex}"
    write_object(root, temporary.name, document)
    _fsync(temporary)
    os.replace(temporary, root / ROOT)
    _fsync(root)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
