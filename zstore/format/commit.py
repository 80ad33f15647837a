"""Objects on disk, and the one atomic step that makes a version visible."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from zstore.errors import CorruptionError, StoreError
from zstore.format.arrays import group_document, to_bytes
from zstore.format.layout import ROOT
from zstore.format.manifest import digest

_UNSIGNED = "0" * 32
_DIGEST = re.compile(rb'"digest": "([0-9a-f]{32})"')


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
        raise cannot_write(path, len(content), error) from error


def cannot_write(path: Path, n_bytes: int, error: OSError) -> StoreError:
    """A refusal of the file system, with the file and what was to go there."""
    return StoreError(
        f"cannot write {n_bytes:,} bytes ({error.strerror})",
        where=str(path),
        fix="free some space or check the permissions, then run again; what was committed is whole",
    )


def replace_object(root: Path, key: str, content: bytes) -> None:
    """Put one object in the place of another, atomically; nothing is done where it is there already."""
    path = root / key
    if path.exists() and path.read_bytes() == content:
        return
    temporary = f"{key}.{uuid.uuid4().hex}"
    write_object(root, temporary, content)
    _fsync(root / temporary)
    os.replace(root / temporary, path)
    _fsync(path.parent)


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
    """The root ``zarr.json`` with the metadata of every node of the version, so one object is one snapshot.

    ``attributes["zstore"]`` gets the digest of the whole document, taken with zeros in its own place.
    """
    consolidated = {"kind": "inline", "must_understand": False, "metadata": dict(sorted(nodes.items()))}
    signed = {**attributes, "zstore": {"digest": _UNSIGNED, **attributes["zstore"]}}
    content = to_bytes({**group_document(signed), "consolidated_metadata": consolidated})
    return content.replace(_UNSIGNED.encode(), digest(content).encode(), 1)


def check_root(content: bytes, where: str) -> None:
    """Compare a root document with its own digest.

    Raises
    ------
    CorruptionError
        If they differ.
    """
    found = _DIGEST.search(content)
    unsigned = content[: found.start(1)] + _UNSIGNED.encode() + content[found.end(1) :] if found else content
    if found is None or digest(unsigned) != found[1].decode():
        raise CorruptionError(
            "root document differs from its digest",
            expected="the document as it was committed",
            where=where,
            fix="restore it from a copy, or from manifest/<version>/root.json of the newest version, or ingest again",
        )


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
