"""The root document of one version, found and checked: nothing else of a store is read before it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from zstore.errors import CorruptionError, NotFoundError, StoreError
from zstore.format.commit import check_root, read_root
from zstore.format.layout import FORMATS, ROOT, root_copy_key
from zstore.format.nodes import check_nodes
from zstore.format.parsing import most_root_bytes, parse_json
from zstore.format.refusals import refuse
from zstore.format.schema import Schema
from zstore.format.trust import check_document
from zstore.storage.protocol import Storage


@dataclass(frozen=True)
class RootDocument:
    """What the root document of a version says, checked.

    Parameters
    ----------
    content
        Its bytes.
    document
        What zstore has written there of the version.
    nodes
        The metadata of each array, by path.
    """

    content: bytes
    document: dict[str, Any]
    nodes: dict[str, Any]

    @property
    def version(self) -> int:
        """Number of the version."""
        return int(self.document["version"])


def root_document(storage: Storage, version: int | None = None) -> RootDocument:
    """The root document of one version.

    Parameters
    ----------
    storage
        Where the store is.
    version
        Which; None for the newest.

    Raises
    ------
    StoreError
        If nothing is committed there, or the root document is not one of zstore.
    NotFoundError
        If there is no such version.
    CorruptionError
        If the root document was changed.
    """
    newest = _newest(storage)
    if version is None or version == newest.version:
        return newest
    key = root_copy_key(version)
    if not 0 < version < newest.version or storage.n_bytes(key) is None:
        known = ", ".join(map(str, committed_versions(storage, newest.version)))
        raise NotFoundError(f"no version {version}", expected=f"one of {known}", where=str(storage))
    root = _checked(_read_copy(storage, key), storage, key)
    if root.version != version:
        refuse(f"version {root.document['version']} in {key}", f"version {version}", str(storage))
    return root


def committed_versions(storage: Storage, newest: int | None = None) -> list[int]:
    """Versions that can be opened, ascending."""
    if newest is None:
        newest = root_document(storage).version
    copies = (re.fullmatch(r"manifest/([0-9]{8})/root\.json", key) for key in storage.sizes("manifest/"))
    found = (int(copy[1]) for copy in copies if copy is not None)
    return sorted({*(version for version in found if 0 < version < newest), newest})


def _newest(storage: Storage) -> RootDocument:
    """The root document of the newest version, read again if a writer commits meanwhile."""
    content = b""
    while content != (content := read_root(storage)):
        root = _checked(content, storage, ROOT)
        if storage.n_bytes(root_copy_key(root.version + 1)) is None:
            return root
    raise CorruptionError(
        f"root document of version {root.version}, though version {root.version + 1} was committed",
        expected="the newest one",
        where=f"{storage}/{ROOT}",
        fix=f"copy {root_copy_key(root.version + 1)} (or that of the newest version) over it",
    )


def _read_copy(storage: Storage, key: str) -> bytes:
    """The copy of a root document."""
    try:
        return storage.read(key, most=most_root_bytes())
    except OSError as error:
        raise StoreError(f"cannot read {key} ({error.strerror})", where=f"{storage}/{key}", fix="try again") from error


def _checked(content: bytes, storage: Storage, key: str) -> RootDocument:
    where = f"{storage}/{key}"
    root = parse_json(content, where)
    try:
        document: dict[str, Any] = root["attributes"]["zstore"]
        nodes: dict[str, Any] = root["consolidated_metadata"]["metadata"]
        known = document.get("format") in FORMATS  # other formats are refused by name
    except (KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            f"not a zstore root document ({error!r})",
            expected="a Zarr v3 group written by zstore",
            where=where,
            fix="restore the file, or ingest again",
        ) from error
    if not known:
        Schema.from_json(document, str(storage))  # refuses it
    check_root(content, document.get("digest"), where)
    check_document(document, where)
    check_nodes(document, nodes, where)
    return RootDocument(content, document, nodes)
