"""The root document: what makes a version visible, the digest that it has of itself, and the mark of its writer."""

from __future__ import annotations

import errno
import os
import re
from typing import Any

from zstore.errors import CorruptionError, StoreError
from zstore.format.documents import group_document, to_bytes
from zstore.format.layout import ROOT
from zstore.format.manifest import digest
from zstore.format.parsing import most_root_bytes
from zstore.storage.protocol import Storage

_UNSIGNED = "0" * 32
_DIGEST = re.compile(rb'"digest": "([0-9a-f]{32})"')
_ATTRIBUTES = b'"attributes": {'
UNFINISHED = to_bytes(group_document({"title": "unfinished: a writer is at work, or died"}))
"""The root document, but for the mark, of a store that a writer makes in a bucket."""

_MARK = re.compile(rb'\n  "zstore_writer": "([0-9a-f]{32})",')


def read_root(storage: Storage) -> bytes:
    """The committed root document, without the mark of a writer.

    Raises
    ------
    StoreError
        If there is no committed store there, or it cannot be read.
    """
    try:
        content = storage.read(ROOT, most=most_root_bytes())
    except (FileNotFoundError, NotADirectoryError):
        content = b""
    except OSError as error:
        raise _unreadable(storage, error) from error
    if not content and not storage.remote and os.path.isfile(str(storage)):
        raise StoreError(
            f"no store ({storage})",
            expected=f"a folder with a committed {ROOT}",
            where="A file is there, such as a table that a store is made of",
            fix=f"look at it with: zstore inspect {storage}; make a store of it with: zstore ingest {storage} STORE",
        )
    if not content or is_unfinished(content):
        there = "Something is there, but nothing was ever committed" if storage.sizes() else "Nothing is there"
        raise StoreError(
            f"no store ({storage})",
            expected=f"a folder with a committed {ROOT}",
            where=there,
            fix="check the path, or make one with: zstore ingest SRC STORE --id COL --time COL",
        )
    return unmarked(content)


def is_committed(root: bytes) -> bool:
    """Whether a root document is one of a version."""
    return b'"zstore": {' in root


def is_unfinished(root: bytes) -> bool:
    """Whether a root document is nothing but the mark of a writer."""
    return unmarked(root) == UNFINISHED and root != UNFINISHED


def is_store(storage: Storage) -> bool:
    """Whether something was committed there."""
    try:
        return is_committed(storage.read(ROOT, most=most_root_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _unreadable(storage, error) from error


def _unreadable(storage: Storage, error: OSError) -> StoreError:
    if error.errno == errno.EFBIG:
        return StoreError(
            f"a root document of {error.strerror}",
            where=f"{storage}/{ROOT}",
            fix="if you know whose store it is, set ZSTORE_ROOT_BYTES to a higher limit",
        )
    return StoreError(f"cannot read {storage}/{ROOT} ({error.strerror or error})", fix="try again, or check the path")


def root_document(attributes: dict[str, Any], nodes: dict[str, dict[str, Any]]) -> bytes:
    """The root ``zarr.json`` with the metadata of every node of the version, so one object is one snapshot.

    ``attributes["zstore"]`` gets the digest of the whole document, taken with zeros in its own place.
    """
    consolidated = {"kind": "inline", "must_understand": False, "metadata": dict(sorted(nodes.items()))}
    signed = {**attributes, "zstore": {"digest": _UNSIGNED, **attributes["zstore"]}}
    content = to_bytes({**group_document(signed), "consolidated_metadata": consolidated})
    return content.replace(_UNSIGNED.encode(), digest(content).encode(), 1)


def check_root(content: bytes, named: object, where: str) -> None:
    """Compare a root document with its own digest.

    Parameters
    ----------
    content
        Its bytes.
    named
        The digest that it has once parsed, which what is cached of the store goes by.
    where
        For messages.

    Raises
    ------
    CorruptionError
        If they differ.
    """
    found = _DIGEST.search(content)
    unsigned = content[: found.start(1)] + _UNSIGNED.encode() + content[found.end(1) :] if found else content
    if found is None or not digest(unsigned) == found[1].decode() == named:
        raise CorruptionError(
            "root document differs from its digest",
            expected="the document as it was committed",
            where=where,
            fix="restore it from a copy, or from manifest/<version>/root.json of the newest version, or ingest again",
        )


def marked(document: bytes, owner: str) -> bytes:
    """A root document with the mark of a writer, 32 hex digits, which is no part of what was committed."""
    before, attributes, after = unmarked(document).partition(_ATTRIBUTES)
    return before + attributes + f'\n  "zstore_writer": "{owner}",'.encode() + after


def unmarked(document: bytes) -> bytes:
    """A root document as it was committed."""
    return _MARK.sub(b"", document, count=1)


def owner_of(document: bytes) -> str:
    """The mark in a root document; empty if there is none."""
    found = _MARK.search(document)
    return found[1].decode() if found else ""
